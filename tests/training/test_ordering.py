"""Models of the order of activities: trained on films, they generate, and tell how unusual an order is."""

import dataclasses
import json

import numpy as np
import pytest

from activity.cli.main import main
from activity.config import ClipSpec, TrainConfig
from activity.datasets.dataset import Dataset, load_dataset
from activity.datasets.preprocessing import preprocess
from activity.datasets.samples import Sample, films_of
from activity.errors import ActivityError, DatasetError, ModelFileError, SettingError
from activity.evaluation.ordering import evaluate_order
from activity.models.captioner import load_captioner
from activity.models.saving import save_model
from activity.predictor.captioner import Captioner
from activity.predictor.order import surprise, surprises
from activity.training.ordering import train_order
from activity.video.writer import write_video

CYCLE = ("serve", "return", "volley", "smash")  # each follows the one before it, but for rare mistakes


def film(rng, length):
    start, labels = int(rng.integers(4)), []
    for i in range(length):
        labels.append(CYCLE[(start + i) % 4])
    return labels


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """12 films of 6 to 10 segments in a cycle, in three splits; nothing of them was decoded."""
    rng = np.random.default_rng(0)
    samples = [
        Sample(
            path=f"film{i}.avi",
            label=label,
            group=f"film{i}",
            split="test" if i < 3 else "val" if i < 5 else "train",
            sample_id=f"film{i}_{j}",
            num_frames=5,
            duration_seconds=1.0,
            start_seconds=float(j) or None,
            end_seconds=j + 1.0,
        )
        for i in range(12)
        for j, label in enumerate(film(rng, int(rng.integers(6, 11))))
    ]
    folder = tmp_path_factory.mktemp("films")
    return Dataset(folder, folder, ClipSpec(), samples, [])


CONFIG = TrainConfig(task="order", units=24, dropout=0.1, epochs=40, learning_rate=1e-2, label_smoothing=0.0)


@pytest.fixture(scope="module")
def run(dataset, tmp_path_factory):
    return train_order(dataset, CONFIG, work_dir=tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def model(run, tmp_path_factory):
    return save_model(run.model, tmp_path_factory.mktemp("model") / "order.keras")


def test_films_are_videos_with_segments_in_order():
    def sample(path, label, start):
        return Sample(path=path, label=label, group=path, start_seconds=start, end_seconds=(start or 0) + 1)

    samples = [sample("b", "x", 2.0), sample("b", "y", None), sample("a", "x", 1.0), sample("b", "x", 3.0)]
    samples += [sample("c", "", 0.5), sample("c", "x", 2.0), sample("d", "x", 1.0), sample("d", "x", 2.0)]
    assert films_of(samples) == {"b": ["y", "x"]}


def test_it_learns_what_follows_what(run, dataset):
    evaluation = evaluate_order(run.model, dataset)
    assert evaluation.model.mean() < 0.6 < evaluation.frequency.mean()  # chance of the first one alone is left
    assert evaluation.frequency.mean() == pytest.approx(np.log(4), abs=0.1)
    values = evaluation.as_dict()
    assert json.loads(json.dumps(values)) == values and values["num_films"] == 3
    assert values["surprise"] == pytest.approx(evaluation.model.mean()) and set(values["baselines"])
    text = evaluation.as_text()
    assert (
        "by the activity before" in text
        and "3 films: the model needs " in text
        and " nats less than the better" in text
    )


def test_an_unusual_order_surprises(run):
    usual, unusual = (
        ["serve", "return", "volley", "smash"] * 2,
        ["serve", "smash", "serve", "volley", "return", "serve"],
    )
    assert surprise(run.model, usual) < 0.5 and surprise(run.model, unusual) > 2
    each = surprises(run.model, usual)
    assert each.shape == (8,) and each[0] == pytest.approx(np.log(4), abs=0.5) and (each[1:] < 0.3).all()
    assert surprise(run.model, usual) == pytest.approx(each.mean())
    with pytest.raises(ActivityError, match="expected activities whose order the model learned.*received dive"):
        surprise(run.model, ["serve", "dive"])
    with pytest.raises(ActivityError, match="received none"):
        surprise(run.model, [])


def test_probabilities_of_all_that_may_follow_sum_to_one(run):
    after = [["serve", "return", label] for label in run.model.info.words]
    assert sum(np.exp(-surprises(run.model, labels)[-1]) for labels in after) == pytest.approx(1, abs=1e-5)


def test_what_it_generates_is_plausible(model):
    captioner = Captioner(load_captioner(model, task="order"), temperature=0.5, seed=2)
    orders = [sentence.words for sentence in captioner.generate(20)]
    follows = [CYCLE[(CYCLE.index(a) + 1) % 4] == b for words in orders for a, b in zip(words, words[1:], strict=False)]
    assert np.mean(follows) > 0.9 and len(set(orders)) > 3


def test_a_file_of_it_is_no_captioner(model, caption_model):
    message = (
        "expected a model that writes sentences, and this one knows the order of activities; try: activity generate"
    )
    with pytest.raises(ModelFileError, match=message):
        load_captioner(model)
    with pytest.raises(ModelFileError, match="expected a model that knows the order of activities"):
        load_captioner(caption_model, task="order")
    assert load_captioner(model, task="order").info.labels == tuple(sorted(CYCLE))


def test_what_cannot_be_learned_is_said(dataset, ramp_dataset, tmp_path, caplog):
    with pytest.raises(DatasetError, match="no video of the train split has two or more labelled segments"):
        train_order(ramp_dataset, CONFIG, work_dir=tmp_path)
    with pytest.raises(SettingError, match="task must be order, received: classify"):
        train_order(dataset, TrainConfig(), work_dir=tmp_path)
    TrainConfig(task="order", backbone="vgg16", vocabulary=7)
    assert "--backbone does nothing with --task order" in caplog.text
    assert "--vocabulary does nothing with --task order" in caplog.text


def test_evaluation_refuses_what_it_cannot_compare(run, dataset):
    samples = [dataclasses.replace(s, label="dive") if s.label == "serve" else s for s in dataset.samples]
    with pytest.raises(DatasetError, match="shows activities that the model has not seen: dive"):
        evaluate_order(run.model, dataclasses.replace(dataset, samples=samples))
    tests = [s for s in dataset.samples if s.split == "test"]
    with pytest.raises(DatasetError, match="of the splits train and val beside it"):
        evaluate_order(run.model, dataclasses.replace(dataset, samples=tests))
    with pytest.raises(DatasetError, match="no video of the split test has"):
        others = [s for s in dataset.samples if s.split != "test"]
        evaluate_order(run.model, dataclasses.replace(dataset, samples=others))


def test_the_commands(tmp_path, capsys, ramp_model, caption_model):
    """From films with segments to a surprise, as it is typed."""
    rows, rng = ["path,label,start_seconds,end_seconds,group"], np.random.default_rng(0)
    for number in range(6):
        up = np.linspace(40, 200, 6)
        ramp = np.concatenate([up, up[::-1]] * 4)
        frames = (ramp[:, None, None, None] + rng.integers(0, 20, (len(ramp), 24, 24, 3))).astype(np.uint8)
        write_video(tmp_path / f"{number}.avi", frames, frames_per_second=10)
        parts = [("brightens" if i % 2 == 0 else "darkens", i * 0.6, (i + 1) * 0.6) for i in range(8)]
        rows += [f"{number}.avi,{label},{start:.1f},{end:.1f},p{number}" for label, start, end in parts]
    (tmp_path / "manifest.csv").write_text("\n".join(rows) + "\n")
    spec = ClipSpec(num_frames=4, height=32, width=32, streams=("rgb",))
    preprocess(tmp_path, tmp_path / "dataset", spec, num_workers=1)
    assert load_dataset(tmp_path / "dataset").labels == ["brightens", "darkens"]

    def typed(*words):
        status = main([str(word) for word in words])
        return status, *capsys.readouterr()

    order = tmp_path / "order.keras"
    recipe = ["--task", "order", "--units", 12, "--epochs", 30, "--learning-rate", 0.01]
    status, out, err = typed("train", tmp_path / "dataset", "--out", order, *recipe)
    assert status == 0 and "2 words" in out, err
    status, out, _ = typed("evaluate", order, tmp_path / "dataset", "--json")
    assert status == 0 and json.loads(out)["surprise"] < 0.7
    status, out, _ = typed("generate", order, "--num", 3, "--temperature", 0.5)
    assert len(out.splitlines()) == 3 and "brightens" in out
    status, out, _ = typed("generate", order, "--num", 1, "--json")
    assert set(json.loads(out)["labels"]) <= {"brightens", "darkens"}
    status, out, _ = typed("classify", ramp_model, tmp_path / "0.avi", "--surprise", order, "--json")
    values = json.loads(out)
    assert status == 0 and values["surprise"] > 0 and "segments" in values
    status, out, _ = typed("classify", ramp_model, tmp_path / "0.avi", "--surprise", order)
    assert out.splitlines()[-1].endswith("nats an activity")
    status, _, err = typed("classify", ramp_model, tmp_path / "0.avi", "--surprise", caption_model)
    assert status == 1 and "expected a model that knows the order of activities" in err
    status, out, _ = typed("info", order)
    assert "how probable each is next" in out and "decoder LSTM, 12 units" in out
    status, _, err = typed("generate", ramp_model)
    assert status == 1 and "expected a model that writes sentences, and this one labels activities" in err
