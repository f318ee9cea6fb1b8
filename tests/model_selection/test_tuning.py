import dataclasses
import gc
import json
import shlex

import numpy as np
import pytest

from activity.cli.main import parser
from activity.config import TrainConfig, recipe_arguments
from activity.datasets.samples import content_of
from activity.errors import ActivityError, DatasetError
from activity.model_selection import tuning
from activity.model_selection.cross_validation import FoldResult
from activity.model_selection.study import TRIALS_BEFORE_PRUNING
from activity.model_selection.tuning import SETTINGS, Search, Trial, score_of, tune
from activity.models.heads import HEADS, HeadOptions, build_head
from activity.training.batches import ClipBatches


@pytest.fixture(scope="module")
def config(frozen_config):
    return dataclasses.replace(frozen_config, units=8, epochs=2, batch_size=32)


@pytest.fixture
def predict_features(monkeypatch):
    """Trials without training: a function of (config, streams) gives the share of right answers of each fold."""
    calls = []

    def install(fraction):
        def evaluate_folds(parts, config, *, work_dir, backbone, runtime):
            for name, part in parts.items():
                calls.append((config, part.spec.streams, name))
                test = np.array([sample.split == "test" for sample in part.samples])
                truth = np.array([part.labels.index(sample.label) for sample in part.samples])[test]
                correct = np.arange(len(truth)) < round(fraction(config, part.spec.streams) * len(truth))
                yield FoldResult(name, test, np.eye(2)[np.where(correct, truth, 1 - truth)] * 0.8 + 0.1, [])

        monkeypatch.setattr(tuning, "evaluate_folds", evaluate_folds)
        return calls

    return install


# === With training ===


@pytest.fixture
def quick(monkeypatch, ramp_dataset, config):
    """A data set and a recipe that are tried in seconds: with heads without recurrent layers only."""
    monkeypatch.setattr(tuning, "HEADS", {name: HEADS[name] for name in ("pooled", "chunks")})
    return ramp_dataset, dataclasses.replace(config, head="chunks")


def num_alive(kind):
    gc.collect()
    return sum(isinstance(thing, kind) for thing in gc.get_objects())


def test_the_first_trial_is_the_given_recipe_and_the_best_is_no_worse(quick, tmp_path):
    before = num_alive(ClipBatches)
    search = tune(*quick, num_trials=3, study_path=tmp_path / "tuning.log")
    assert num_alive(ClipBatches) <= before + 2  # of nine folds: TensorFlow holds on to what it did last
    first = search.trials[0]
    assert search.first is first and first.number == 1 and not first.pruned
    assert (first.config, first.streams) == (quick[1], quick[0].spec.streams)
    assert search.best.score == max(trial.score for trial in search.trials)
    assert len(search.trials) == 3 and len({str(trial.settings) for trial in search.trials}) == 3

    # For people and for programs.
    text, report = search.as_text(), search.as_dict()
    assert "3 trials, 0 of them stopped early; 3 folds of" in text and search.verdict() in text
    assert json.loads(json.dumps(report)) == report
    assert [row["trial"] for row in report["trials"]] == [1, 2, 3]
    assert report["best"]["trial"] == search.best.number
    assert set(report["trials"][0]) >= {"accuracy", "log_loss", "fold 0", "fold 2", "head", "members", "learning_rate"}
    assert "units" not in report["trials"][0]  # nothing that the head chunks reads
    assert search.importance == {}  # of three trials nothing can be said


def test_a_trial_is_a_cross_validation_without_the_test_split_and_repeatable(quick, tmp_path):
    from activity.model_selection.cross_validation import cross_validate

    dataset, config = quick
    search = tune(dataset, config, num_trials=1, study_path=tmp_path / "tuning.log")
    rows = [sample for sample in dataset.samples if sample.split != "test"]
    part = dataclasses.replace(dataset, samples=rows)
    result = cross_validate(part, config, folds="3", work_dir=tmp_path)
    assert search.num_samples == len(rows) < len(dataset.samples)
    assert search.first.fold_accuracies == pytest.approx(result.fold_accuracies)
    assert search.first.accuracy == pytest.approx(result.scores.accuracy)
    truth = result.scores.probabilities[np.arange(len(rows)), result.scores.label_ids]
    assert search.first.log_loss == pytest.approx(-np.log(truth).mean(), rel=1e-3)


# === Without training ===


def test_no_sample_of_the_test_split_is_taught_or_judged(ramp_dataset, config, tmp_path, monkeypatch):
    seen = []

    def evaluate_folds(parts, config, *, work_dir, backbone, runtime):
        for name, part in parts.items():
            seen.extend(content_of(sample) for sample in part.samples)
            test = np.array([sample.split == "test" for sample in part.samples])
            groups = {
                held_out: {s.group for s in part.samples if (s.split == "test") == held_out} for held_out in (0, 1)
            }
            assert not groups[0] & groups[1]
            yield FoldResult(name, test, np.full((test.sum(), 2), 0.5), [])

    monkeypatch.setattr(tuning, "evaluate_folds", evaluate_folds)
    tune(ramp_dataset, config, num_trials=2, study_path=tmp_path / "tuning.log")
    of = {
        split: {content_of(s) for s in ramp_dataset.samples if s.split == split} for split in ("train", "val", "test")
    }
    assert of["test"] and set(seen) == of["train"] | of["val"]


def test_goes_on_to_the_total_and_repeats_nothing(ramp_dataset, config, tmp_path, predict_features):
    calls = predict_features(lambda config, streams: 0.5 + 0.1 * (config.head == "gru") + 0.3 * (config.dropout < 0.3))
    whole = tune(ramp_dataset, config, num_trials=14, study_path=tmp_path / "whole.log")
    assert len({str(trial.settings) for trial in whole.trials}) == 14
    before = len(calls)
    for num_trials in (3, 3, 14):
        parts = tune(ramp_dataset, config, num_trials=num_trials, study_path=tmp_path / "parts.log")
        assert len(parts.trials) == num_trials
    assert [trial.settings for trial in parts.trials] == [trial.settings for trial in whole.trials]
    assert len(calls) == 2 * before  # each trial once
    assert tune(ramp_dataset, config, num_trials=5, study_path=tmp_path / "parts.log").trials[13].number == 14
    assert len(calls) == 2 * before


@pytest.mark.parametrize("when", [0, 1, 4])
def test_a_search_that_is_killed_in_a_trial_goes_on_as_if_it_was_not(
    ramp_dataset, config, tmp_path, predict_features, when
):
    calls = predict_features(lambda config, streams: 0.5 + config.dropout / 4)
    whole = tune(ramp_dataset, config, num_trials=4, study_path=tmp_path / "whole.log")
    calls.clear()

    def stop(config, streams):
        if len(calls) > when:
            raise KeyboardInterrupt
        return 0.5 + config.dropout / 4

    predict_features(stop)
    with pytest.raises(KeyboardInterrupt):
        tune(ramp_dataset, config, num_trials=4, study_path=tmp_path / "killed.log")
    with (tmp_path / "killed.log").open("a") as file:
        file.write('{"op_code":5,"wor')  # what a power cut leaves
    (tmp_path / "killed.log.lock").symlink_to("killed.log")  # and a lock of Optuna's own, as versions before used it
    predict_features(lambda config, streams: 0.5 + config.dropout / 4)
    resumed = tune(ramp_dataset, config, num_trials=4, study_path=tmp_path / "killed.log")
    assert [trial.settings for trial in resumed.trials] == [trial.settings for trial in whole.trials]
    assert [trial.score for trial in resumed.trials] == [trial.score for trial in whole.trials]


def test_bad_trials_are_stopped_after_a_fold(ramp_dataset, config, tmp_path, predict_features):
    calls = predict_features(lambda config, streams: 1.0 if len(calls) <= 3 * TRIALS_BEFORE_PRUNING else 0.0)
    search = tune(ramp_dataset, config, num_trials=8, study_path=tmp_path / "tuning.log")
    assert [trial.pruned for trial in search.trials] == [False] * TRIALS_BEFORE_PRUNING + [True] * 3
    assert [len(trial.fold_accuracies) for trial in search.trials] == [3] * TRIALS_BEFORE_PRUNING + [1] * 3
    assert search.best is search.first  # of equal ones the first
    assert "No trial was better than the given recipe" in search.verdict()
    assert "8 trials, 3 of them stopped early" in search.as_text()


def test_what_matters_is_said_once_there_are_ten_complete_trials(ramp_dataset, config, tmp_path, predict_features):
    predict_features(lambda config, streams: 0.5 + 0.5 * (config.dropout < 0.4))
    search = tune(ramp_dataset, config, num_trials=30, study_path=tmp_path / "tuning.log")
    assert next(iter(search.importance)) == "dropout" and search.importance["dropout"] > 0.5
    assert sum(search.importance.values()) == pytest.approx(1)
    assert "fraction of the variance of the scores: dropout 0." in search.as_text()


def test_a_head_too_large_for_the_memory_ends_the_trial_only(ramp_dataset, config, tmp_path, predict_features, caplog):
    def fraction(config, streams):
        if config.units != 8:
            raise ActivityError("not enough memory")
        return 0.5

    predict_features(fraction)
    search = tune(ramp_dataset, config, num_trials=6, study_path=tmp_path / "tuning.log")
    given_up = [trial for trial in search.trials if trial.config.units != 8]
    assert given_up and all(trial.pruned and np.isnan(trial.accuracy) for trial in given_up)
    assert f"trial {given_up[0].number} is given up: not enough memory" in caplog.text
    report = json.loads(json.dumps(search.as_dict(), allow_nan=False))  # NaN is no JSON
    accuracies = {row["trial"]: row["accuracy"] for row in report["trials"]}
    assert [accuracies[trial.number] for trial in given_up] == [None] * len(given_up) and accuracies[1] == 0.5


def test_after_the_time_no_trial_begins_but_the_first(ramp_dataset, config, tmp_path, predict_features):
    predict_features(lambda config, streams: 0.5)
    for total in (1, 1):
        search = tune(ramp_dataset, config, timeout_seconds=1e-9, study_path=tmp_path / "tuning.log")
        assert len(search.trials) == total


def test_a_file_of_something_else_is_refused_and_left_as_it_is(ramp_dataset, config, tmp_path, predict_features):
    predict_features(lambda config, streams: 0.5)
    path = tmp_path / "tuning.log"
    tune(ramp_dataset, config, num_trials=1, study_path=path)
    before = path.read_bytes()
    fewer = dataclasses.replace(ramp_dataset, samples=[s for s in ramp_dataset.samples if s.group != "person0"])
    for other in (fewer, dataclasses.replace(ramp_dataset, spec=dataclasses.replace(ramp_dataset.spec, num_frames=5))):
        with pytest.raises(ActivityError, match="tuning.log: the study of another data set, or of this one before"):
            tune(other, config, study_path=path)
    with pytest.raises(ActivityError, match="other settings: learning_rate was 0.01, now 0.1; name another file"):
        tune(ramp_dataset, dataclasses.replace(config, learning_rate=0.1), study_path=path)
    with pytest.raises(ActivityError, match="streams was rgb,motion, now rgb; name another"):
        tune(ramp_dataset.with_streams(["rgb"]), config, study_path=path)
    with pytest.raises(ActivityError, match="folds was 3 .*, now 2 "):
        tune(ramp_dataset, config, folds="2", study_path=path)
    assert path.read_bytes() == before


def test_a_study_of_before_that_names_a_runtime_continues_with_any(ramp_dataset, config, tmp_path, predict_features):
    predict_features(lambda config, streams: 0.5)
    path = tmp_path / "tuning.log"
    tune(ramp_dataset, config, num_trials=1, study_path=path)
    path.write_text(path.read_text().replace('"seed":', '"runtime":"keras","seed":'))
    assert '"runtime":"keras"' in path.read_text()
    assert len(tune(ramp_dataset, config, num_trials=2, study_path=path, runtime="openvino").trials) == 2
    assert sorted(file.name for file in tmp_path.iterdir()) == ["tuning.log"]


@pytest.mark.parametrize("content", [b"hello\nworld\n", b'{"a": 1}\n', b"[]\n", b"\x89PNG\r\n\xff", b'"x"\n', b"note"])
def test_a_file_that_is_no_study_is_refused_and_left_as_it_is(ramp_dataset, config, tmp_path, content):
    path = tmp_path / "tuning.log"
    path.write_bytes(content)
    with pytest.raises(ActivityError, match="tuning.log: not a study of ours"):
        tune(ramp_dataset, config, study_path=path)
    assert path.read_bytes() == content


def test_two_searches_do_not_share_a_file(ramp_dataset, config, tmp_path, predict_features):
    path = tmp_path / "tuning.log"

    def nested(config, streams):
        with pytest.raises(ActivityError, match="another search is writing it"):
            tune(ramp_dataset, config, study_path=path)
        return 0.5

    predict_features(nested)
    assert len(tune(ramp_dataset, config, num_trials=1, study_path=path).trials) == 1


def test_a_backbone_that_would_learn_is_refused(ramp_dataset, config, tmp_path):
    path = tmp_path / "tuning.log"
    with pytest.raises(ActivityError, match="frozen backbone; leave --fine-tune to train"):
        tune(ramp_dataset, dataclasses.replace(config, fine_tune=3), study_path=path)
    with pytest.raises(ActivityError, match="pretrained weights, and small_cnn would learn from scratch"):
        tune(ramp_dataset, dataclasses.replace(config, weights=None), study_path=path)
    with pytest.raises(ActivityError, match="no head 'dance'"):
        tune(ramp_dataset, dataclasses.replace(config, head="dance"), study_path=path)
    with pytest.raises(DatasetError, match="expected 2 to . folds"):
        tune(ramp_dataset, config, folds="99", study_path=path)
    assert not path.exists()


def test_without_optuna_says_how_to_get_it(ramp_dataset, config, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    with pytest.raises(ActivityError, match=r"tune needs Optuna; pip install '\.\[tune\]'"):
        tune(ramp_dataset, config, study_path=tmp_path / "tuning.log")


# === Parts ===


def test_one_right_answer_counts_for_more_than_any_log_loss():
    correct = np.array([True, True, False])
    sure, unsure = np.array([0.1, 0.1, 1.0]), np.array([0.6, 0.6, 1.0])
    assert score_of(correct, sure) > score_of(correct, unsure)
    assert score_of(correct, np.full(3, 16.0)) > score_of(np.array([True, False, False]), np.zeros(3))
    assert score_of(np.ones(3, bool), np.zeros(3)) == 1
    assert score_of(correct, np.array([0.0, 1.0, 2.0])) == pytest.approx((2 - 1 / 2) / 3)


@pytest.mark.parametrize("name", HEADS)
def test_a_setting_is_searched_where_the_head_reads_it(name):
    usual = {"units": 8, "layers": 2, "merge_mode": "concat"}

    def weights(**options):
        head = build_head(name, HeadOptions(dropout=0.1, **{**usual, **options}), num_features=4, num_labels=2)
        return [weight.shape for weight in head.weights]

    before = weights()
    for option, value in {"units": 16, "layers": 3, "merge_mode": "sum"}.items():
        assert (weights(**{option: value}) != before) == (option in HEADS[name].reads), option


def test_settings_are_readable_and_stay_near_the_given(ramp_dataset, config, tmp_path, predict_features):
    predict_features(lambda config, streams: 0.5)
    given = dataclasses.replace(config, units=300, dropout=0.123456, learning_rate=0.0123456)
    search = tune(ramp_dataset, given, num_trials=40, study_path=tmp_path / "tuning.log")
    assert search.first.config == given
    rest = [trial.settings for trial in search.trials[1:]]
    assert all(len(f"{row['learning_rate']:.6f}".strip("0.")) <= 2 for row in rest)
    assert all(32 <= row["units"] <= 300 and "units" in HEADS[row["head"]].reads for row in rest if "units" in row)
    assert all(1 <= row["epochs"] <= 4 and 1 <= row["members"] <= 4 for row in rest)
    assert len({row["head"] for row in rest}) > 4
    assert {row["streams"] for row in rest} == {"rgb", "motion", "rgb,motion"}
    assert all(tuple(row) == tuple(name for name in SETTINGS if name in row) for row in rest)


def searched(first, best, num_samples=30):
    """A search of two trials with these accuracies of the folds."""

    def trial(number, folds):
        accuracy = round(float(np.mean(folds)), 6)
        named = dict(zip("xyz", folds, strict=True))
        score = accuracy + number * 1e-3
        return Trial(number, False, TrainConfig(), ("rgb",), {"head": "gru"}, named, accuracy, 0.5, score, 1.0)

    return Search([trial(1, first), trial(2, best)], {}, list("xyz"), num_samples, "tuning.log")


@pytest.mark.parametrize(
    ("first", "best", "verdict"),
    [
        ((0.5, 0.6, 0.7), (0.7, 0.8, 0.9), "Trial 2 is significantly better than the given recipe (trial 1), by more"),
        (
            (0.5, 0.6, 0.7),
            (0.9, 0.5, 0.7),
            "Trial 2 is not significantly better than the given recipe (trial 1): the difference is within",
        ),
        (
            (0.5, 0.6, 0.7),
            (0.7, 0.5, 0.6),
            "Trial 2 is as accurate as the given recipe (trial 1), only its log-loss",
        ),
        ((0.5, 0.6, 0.7), (0.4, 0.5, 0.6), "No trial was better than the given recipe (trial 1)."),
    ],
)
def test_a_lead_counts_only_beyond_its_error(first, best, verdict):
    search = searched(first, best)
    assert search.verdict().startswith(verdict)
    assert ("is optimistically biased" in search.verdict()) == (search.best.number == 2)


def test_lead_by_hand():
    search = searched((0.5, 0.5, 0.5), (0.6, 0.7, 0.8))
    assert search.lead == pytest.approx((0.2, 0.1 / np.sqrt(3)))
    assert "(+0.200 +- 0.058, paired over 3 folds)" in search.verdict()


@pytest.mark.parametrize(
    ("changes", "streams", "words"),
    [
        ({}, None, ""),
        ({}, ("rgb", "motion"), "--streams rgb,motion"),
        ({"head": "gru", "learning_rate": 2.5e-05}, None, "--head gru --learning-rate 2.5e-05"),
        ({"flip": True, "mixed_precision": True, "precision": 0.9}, None, "--flip --precision 0.9 --mixed-precision"),
        ({"weights": "my weights.h5"}, ("motion_crop",), "--streams motion_crop --weights 'my weights.h5'"),
        (
            {"dropout": 0.0, "members": 4, "merge_mode": "ave", "layers": 3, "class_weight": "balanced"},
            None,
            "--layers 3 --merge-mode ave --members 4 --dropout 0.0 --class-weight balanced",
        ),
        (
            {"backbone": "resnet50", "weights": "imagenet", "fine_tune": 4, "fine_tune_epochs": 3, "seed": 7},
            None,
            "--backbone resnet50 --weights imagenet --fine-tune 4 --fine-tune-epochs 3 --seed 7",
        ),
    ],
)
def test_the_command_line_of_a_recipe_reads_back_as_the_recipe(changes, streams, words):
    config = TrainConfig(**changes)
    arguments = recipe_arguments(config, streams)
    assert shlex.join(arguments) == words
    parsed = parser().parse_args(["train", "dataset", "--out", "model.keras", *arguments])
    names = [field.name for field in dataclasses.fields(TrainConfig)]
    assert TrainConfig(**{name: getattr(parsed, name) for name in names}) == config
    assert parsed.streams == streams
