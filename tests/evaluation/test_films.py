import dataclasses
import json
import math
import shutil

import numpy as np
import pytest

from activity.datasets.films import Film, films_in
from activity.datasets.samples import Sample, Segment
from activity.evaluation.evaluator import evaluate
from activity.evaluation.films import (
    EvaluatedFilm,
    FilmEvaluation,
    evaluate_films,
    films_to_evaluate,
    join_films,
)
from activity.model_selection.cross_validation import cross_validate
from activity.predictor.prediction import Failure
from activity.predictor.predictor import Predictor

LABELS = ("run", "walk")


def segments(*rows):
    return tuple(Segment(*row, *([1.0] if len(row) == 3 else [])) for row in rows)


def film(path, truth, timeline, *, group="", seconds=10.0, fold=""):
    return EvaluatedFilm(path, group or path, segments(*truth), segments(*timeline), "unknown", seconds, fold)


A = film("a", [(0, 4, "run"), (4, 10, "walk")], [(0, 5, "run", 0.9), (5, 10, "walk", 0.8)])
B = film("b", [(0, 2, "walk")], [(0, 1, "walk", 0.6), (1, 3, "unknown", 0.4), (3, 10, "run", 0.9)])


# === Numbers by hand ===


def test_the_scores_of_a_film_by_hand():
    scores = A.scores
    assert scores.frame_accuracy == pytest.approx(0.9)
    assert scores.frame_macro_f1 == pytest.approx((2 * 4 / 9 + 2 * 5 / 11) / 2)
    assert scores.segment_f1 == {"10": 1, "25": 1, "50": 1} and scores.edit_score == 1
    assert scores.mean_average_precision == {"0.5": 1, "0.75": 1}
    late = film("c", [(0, 4, "run"), (4, 10, "walk")], [(0, 7, "run", 0.9), (7, 10, "walk", 0.8)])
    # 4/7 and 3/6
    assert late.scores.segment_f1 == {"10": 1, "25": 1, "50": 1}
    assert late.scores.mean_average_precision == {"0.5": 1, "0.75": 0}


def test_unknown_is_a_miss_and_time_without_a_label_counts_nowhere():
    assert B.segments == (list(segments((0, 2, "walk"))), list(segments((0, 1, "walk", 0.6))))
    assert B.scores.frame_accuracy == 0.5 and B.scores.frame_macro_f1 == pytest.approx(2 / 3)
    assert B.scores.segment_f1 == {"10": 1, "25": 1, "50": 1} and B.scores.edit_score == 1
    assert B.scores.mean_average_precision == {"0.5": 1, "0.75": 0}


def test_films_are_pooled():
    both = FilmEvaluation((A, B), LABELS)
    assert both.scores.frame_accuracy == pytest.approx(10 / 12)
    assert both.scores.frame_macro_f1 == pytest.approx((2 * 4 / 9 + 2 * 6 / 14) / 2)
    assert both.scores.segment_f1["50"] == 1
    third = film("c", [(0, 10, "run")], [(0, 10, "walk", 0.7)])
    three = FilmEvaluation((A, B, third), LABELS)
    assert three.scores.segment_f1["50"] == pytest.approx(2 * 3 / (4 + 4))  # not the mean over films, which is 2/3
    assert three.scores.edit_score == pytest.approx(2 / 3)  # which this is
    # of run: one of two is found; of walk: 0.8 correct, 0.7 wrong, 0.6 correct
    assert three.scores.mean_average_precision["0.5"] == pytest.approx((1 / 2 + (1 / 2 + 1 / 2 * 2 / 3)) / 2)


def test_background_counts_by_time_and_as_no_segment():
    truth = [(0, 2, "run"), (2, 4, "background"), (4, 6, "walk"), (6, 7, "background"), (7, 8, "run")]
    found = [(0, 2, "run"), (2, 3, "background"), (3, 6, "walk"), (6, 8, "run")]  # and 1 s of it is missed, twice
    both = FilmEvaluation((film("a", truth, found),), ("background", *LABELS))
    assert both.films[0].segments == (
        list(segments((0, 2, "run"), (4, 6, "walk"), (7, 8, "run"))),
        list(segments((0, 2, "run"), (3, 6, "walk"), (6, 8, "run"))),
    )
    assert both.scores.frame_accuracy == pytest.approx(6 / 8)
    assert both.frame_f1 == pytest.approx({"background": 2 * 1 / (3 + 1), "run": 2 * 3 / (3 + 4), "walk": 2 * 2 / 5})
    assert both.scores.frame_macro_f1 == pytest.approx(np.mean(list(both.frame_f1.values())))
    assert both.scores.segment_f1["50"] == both.scores.edit_score == 1  # 2/2, 2/3 and 1/2
    assert both.scores.mean_average_precision["0.5"] == 1
    assert "between the segments of a film is background" in both.sentences()[0]
    nothing = FilmEvaluation((film("b", [(0, 2, "background")], [(0, 2, "run")]),), ("background", *LABELS))
    assert nothing.scores.segment_f1["50"] == nothing.scores.mean_average_precision["0.5"] == 0
    assert nothing.scores.frame_accuracy == 0


def test_standard_errors_are_over_films_and_those_of_a_group_count_as_one():
    films = [film(f"{i}", [(0, 10, "run")], [(0, i, "run"), (i, 10, "walk")]) for i in (4, 6, 9)]
    errors = FilmEvaluation(tuple(films), LABELS).standard_errors
    assert errors["frame_accuracy"] == pytest.approx(np.std([0.4, 0.6, 0.9], ddof=1) / np.sqrt(3))
    assert errors["frame_macro_f1"] > 0
    of_two = [dataclasses.replace(x, group=group) for x, group in zip(films, "aab", strict=True)]
    assert FilmEvaluation(tuple(of_two), LABELS).standard_errors["frame_accuracy"] == pytest.approx(0.4 / 2)
    assert set(FilmEvaluation((A,), LABELS).standard_errors.values()) == {None}


def test_what_a_program_and_a_person_are_told():
    whole = FilmEvaluation((A, dataclasses.replace(B, fold="x")), LABELS, (Failure("c", "gone"),))
    told = whole.as_dict()
    assert json.loads(json.dumps(told)) == told
    assert list(told) == [
        *("frame_accuracy", "frame_macro_f1", "segment_f1", "edit_score", "mean_average_precision"),
        *("frame_f1", "film_standard_errors", "films", "films_left_out"),
    ]
    assert told["frame_f1"] == pytest.approx({"run": 2 * 4 / 9, "walk": 2 * 6 / 14})
    assert list(told["segment_f1"]) == ["10", "25", "50"] and list(told["mean_average_precision"]) == ["0.5", "0.75"]
    first, second = told["films"]
    assert (first["path"], first["labelled_seconds"], first["segment_f1"]["50"]) == ("a", 10, 1) and "fold" not in first
    assert (second["fold"], second["labelled_seconds"], second["duration_seconds"]) == ("x", 2, 10)
    assert told["films_left_out"] == [{"path": "c", "error": "gone"}]
    notes = whole.notes()
    assert notes["films"].startswith("frame accuracy 0.833 +- 0.2")
    assert notes["films"].endswith("(2 films, 12.0 s of them labelled); 1 film left out")
    assert notes["segments"] == "F1 1.000 at 10 %, 1.000 at 25 %, 1.000 at 50 % overlap; edit score 1.000"
    assert notes["detection"].startswith("mean average precision 1.000 at 0.5, ")
    assert [name for name, _, _ in whole.headline()] == ["frame accuracy", "segment F1"]
    assert "1 film left out, which could not be read." in whole.sentences()[0]
    assert whole.ranking() == [1, 0] and list(whole.rows()[0])[:3] == ["path", "duration_seconds", "labelled_seconds"]
    assert "+-" not in FilmEvaluation((A,), LABELS).notes()["films"]


def test_folds_are_joined_in_order_of_the_paths():
    none_read = FilmEvaluation((), LABELS, (Failure("y", "gone"),))
    parts = [FilmEvaluation((B,), LABELS, (Failure("z", "gone"),)), none_read, FilmEvaluation((A,), LABELS)]
    joined = join_films(parts)
    assert joined.films == (A, B) and [failure.source for failure in joined.left_out] == ["y", "z"]
    assert join_films([none_read]) is None is join_films([])


# === Of videos ===


@pytest.fixture(scope="module")
def film_run(film_dataset, frozen_config, tmp_path_factory):
    from activity.training.trainer import train

    config = dataclasses.replace(frozen_config, val_split=False, epochs=60)
    return train(film_dataset, config, work_dir=tmp_path_factory.mktemp("film_run"))


def test_whole_films_are_labelled_as_classify_labels_them(film_run, film_dataset):
    evaluation = evaluate(film_run.classifier, film_dataset, runtime="keras")
    films = films_in(film_dataset.split("test"))
    assert [one.path for one in evaluation.films.films] == [f"film_{i}.avi" for i in range(4)]
    predictor = Predictor(film_run.classifier)
    for one, expected in zip(evaluation.films.films, films, strict=True):
        prediction = predictor.predict(film_dataset.videos_dir / one.path, timeline=True)
        assert one.timeline == prediction.timeline.segments and one.duration_seconds == prediction.duration_seconds
        assert one.truth == expected.segments and one.group == expected.group
    assert evaluation.films.scores.frame_accuracy > 0.75 and evaluation.films.scores.segment_f1["50"] > 0.5
    told = evaluation.as_dict()
    assert told["frame_accuracy"] == evaluation.films.scores.frame_accuracy and len(told["films"]) == 4
    text = evaluation.as_text()
    assert (
        f"films            frame accuracy {told['frame_accuracy']:.3f} +- " in text and "\nsegments         F1 " in text
    )
    assert ("frame accuracy" in [name for name, _, _ in evaluation.headline()]) and any(
        line.startswith("Whole films: 4 films, ") for line in evaluation.sentences(film_dataset)
    )


def test_what_has_no_films_is_told_as_before(ramp_run, ramp_dataset, film_run, film_dataset):
    evaluation = evaluate(ramp_run.classifier, ramp_dataset)
    assert evaluation.films is None and not {"films", "frame_accuracy"} & set(evaluation.as_dict())
    assert "films" not in evaluation.as_text() and "frame" not in evaluation.as_text()
    for options in ({"films": False}, {"shuffle_seed": 0}):
        assert evaluate(film_run.classifier, film_dataset, **options).films is None


def test_films_that_cannot_be_read_are_left_out_and_named(film_run, film_dataset, film_videos, tmp_path, caplog):
    videos = shutil.copytree(film_videos, tmp_path / "videos")
    (videos / "film_0.avi").unlink()
    (videos / "film_1.avi").write_text("text")
    (videos / "film_2.avi").unlink()
    (videos / "film_2.avi").mkdir()
    dataset = dataclasses.replace(film_dataset, videos_dir=videos)
    evaluation = evaluate(film_run.classifier, dataset)
    assert [one.path for one in evaluation.films.films] == ["film_3.avi"]
    assert [failure.source for failure in evaluation.films.left_out] == ["film_0.avi", "film_1.avi", "film_2.avi"]
    lines = [record.message for record in caplog.records if "not evaluated as a film: " in record.message]
    assert [line.partition(": ")[0] for line in lines] == [str(videos / f"film_{i}.avi") for i in range(3)]
    assert "cannot be opened: No such file" in lines[0] and "a folder of images; expected a video file" in lines[2]
    assert "3 films left out" in evaluation.as_text() and len(evaluation.as_dict()["films_left_out"]) == 3
    (videos / "film_3.avi").unlink()
    without = evaluate(film_run.classifier, dataset)
    assert without.films is None and without.scores.accuracy == evaluation.scores.accuracy
    assert f"{videos / 'film_3.avi'}: not evaluated as a film: " in caplog.text


def test_labels_end_with_their_film(film_run, film_dataset, caplog):
    (one, *_) = films_in(film_dataset.split("test"))

    def with_last(*rows):
        return Film((*one.rows[:-1], *(dataclasses.replace(one.rows[-1], **row) for row in rows)))

    (expected,) = evaluate_films(film_run.classifier, film_dataset, [one], runtime="keras").films
    open_end = with_last({"end_seconds": None})
    (found,) = evaluate_films(film_run.classifier, film_dataset, [open_end], runtime="keras").films
    assert not caplog.records and found == expected
    after = {"start_seconds": 100.0, "end_seconds": 101.0}
    longer = with_last({"end_seconds": one.rows[-1].end_seconds + 1.5}, after)
    (found,) = evaluate_films(film_run.classifier, film_dataset, [longer], runtime="keras").films
    assert found == expected and "what comes later does not count" in caplog.text
    beyond = Film((dataclasses.replace(one.rows[0], **after),))
    assert evaluate_films(film_run.classifier, film_dataset, [beyond]).films == ()
    assert "all of its labels begin later" in caplog.text


def test_whole_videos_are_films_beside_others_only(film_dataset):
    def sample(path, label, *times):
        start, end = times or (None, None)
        return Sample(path=path, label=label, group=path, split="test", start_seconds=start, end_seconds=end)

    def found(*samples):
        return films_to_evaluate(dataclasses.replace(film_dataset, samples=list(samples)), "test")

    whole = sample("a", "run"), sample("b", "walk")
    assert found(*whole) == [] == found()
    films = found(*whole, sample("c", "run", 1.0, 2.0))
    assert [film.path for film in films] == ["a", "b", "c"]
    assert films[0].segments == (Segment(0.0, math.inf, "run", 1.0),)
    assert found(sample("c", "", 0.0, 1.0), whole[0]) == []  # only what has no label has times
    assert [film.path for film in found(sample("d", "", 0.0, 1.0), sample("c", "run", 1.0, 2.0))] == ["c"]


def test_the_runtime_computes_films_too(film_run, film_dataset):
    pytest.importorskip("openvino")
    by_keras, by_openvino = (
        evaluate(film_run.classifier, film_dataset, runtime=runtime, baseline=False).films
        for runtime in ("keras", "openvino")
    )
    for a, b in zip(by_keras.films, by_openvino.films, strict=True):
        assert [x.label for x in a.timeline] == [x.label for x in b.timeline]
        np.testing.assert_allclose([x.probability for x in a.timeline], [x.probability for x in b.timeline], atol=1e-4)


def test_in_a_cross_validation_each_film_is_labelled_by_a_model_that_never_saw_it(
    film_dataset, frozen_config, tmp_path
):
    config = dataclasses.replace(frozen_config, val_split=False, epochs=30)
    result = cross_validate(film_dataset, config, folds="groups", work_dir=tmp_path)
    assert [one.path for one in result.films.films] == [f"film_{i}.avi" for i in range(8)]
    assert [one.fold for one in result.films.films] == [one.group for one in result.films.films]
    told = result.as_dict()
    assert told["films"][7]["fold"] == "person3" and told["film_standard_errors"]["frame_accuracy"] > 0
    assert told["frame_accuracy"] > 0.6 and "\nfilms            frame accuracy 0." in result.as_text()
    plain = cross_validate(film_dataset, config, folds="2", work_dir=tmp_path / "2", films=False)
    assert plain.films is None and "frame_accuracy" not in plain.as_dict()


def test_films_of_feature_files_are_spoken_of_once(film_dataset, feature_config, tmp_path, caplog):
    for sample in film_dataset.samples:
        levels = film_dataset.frames(sample).mean(axis=(1, 2, 3)) / 255
        np.save(tmp_path / f"{sample.sample_id}.npy", np.stack([levels**power for power in range(5)], axis=1))
    config = dataclasses.replace(feature_config, features=str(tmp_path), val_split=False, epochs=2)
    result = cross_validate(film_dataset, config, folds="2", work_dir=tmp_path / "work")
    line = "8 films are not evaluated: a model of feature files does not read videos"
    assert result.films is None and caplog.text.count(line) == 1
    assert films_to_evaluate(film_dataset.with_features(tmp_path), "test") == []


def test_names_that_are_not_utf8_are_spelled_out():
    odd = film("a\udcff", [(0, 1, "run\udcff")], [(0, 1, "run\udcff")], group="g\udcff", fold="f\udcff")
    whole = FilmEvaluation((odd,), ("run\udcff",), (Failure("b\udcff", "gone"),)).printable()
    (one,) = whole.films
    assert (one.path, one.group, one.fold, one.truth[0].label) == ("a\\xff", "g\\xff", "f\\xff", "run\\xff")
    assert whole.labels == ("run\\xff",) and whole.left_out[0].source == "b\\xff" and one.scores.frame_accuracy == 1
