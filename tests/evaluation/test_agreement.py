import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from activity.errors import DatasetError
from activity.evaluation.agreement import cohens_kappa, compare_films, confusion_of, sample_labels

INF = float("inf")


def by_moment(spans, seconds, step=1.0):
    return [label for num, label in sample_labels(spans, seconds, step) for _ in range(num)]


def test_moments_are_the_middles_of_steps():
    spans = [(0.0, 0.3, "run"), (0.36, 0.5, "sit"), (0.8, INF, "run")]
    expected = ["run"] * 3 + ["background"] + ["sit"] + ["background"] * 3 + ["run"] * 2
    assert by_moment(spans, 1.0, 0.1) == expected


def test_labels_of_one_time_are_compared_together():
    spans = [(2.0, 5.0, "sit"), (0.0, 3.0, "eat"), (2.0, 3.0, "sit"), (4.0, 5.0, "background")]
    assert by_moment(spans, 6.0) == ["eat", "eat", "eat + sit", "sit", "sit", "background"]


def test_what_lies_outside_the_film_does_not_count():
    assert by_moment([(1.0, 9.0, "run"), (20.0, INF, "sit")], 3.0) == ["background", "run", "run"]
    assert by_moment([(0.0, 1.0, "run")], 0.4) == []


def test_a_film_that_would_fill_the_memory_is_an_error():
    with pytest.raises(DatasetError, match="expected a longer --step"):
        sample_labels([(0.0, 1e12, "run")], 1e12, 0.1)


@pytest.mark.parametrize("seed", range(5))
def test_kappa_is_that_of_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    a = rng.integers(0, 4, 500)
    b = np.where(rng.random(500) < 0.3 * seed / 4 + 0.2, rng.integers(0, 4, 500), a)
    names = ["jump", "run", "sit", "background"]
    runs = [[(1, names[i]) for i in ids] for ids in (a, b)]
    confusion = confusion_of(*runs, names)
    assert confusion.sum() == 500 and confusion[0, 1] == ((a == 0) & (b == 1)).sum()
    assert cohens_kappa(confusion) == pytest.approx(cohen_kappa_score(a, b), abs=1e-9)


A = [(0.0, 4.0, "run"), (4.0, 8.0, "sit")]
B = [(0.0, 3.0, "run"), (3.0, 7.0, "sit")]


def test_the_scores_of_two_annotations_by_hand():
    found = compare_films({"a.avi": (A, B, 10.0)})
    assert found.labels == ("run", "sit", "background")
    assert found.confusion == pytest.approx(np.array([[3, 1, 0], [0, 3, 1], [0, 0, 2]]))
    assert found.agreement == pytest.approx(0.8)
    chance = (4 * 3 + 4 * 4 + 2 * 3) / 100
    assert found.kappa == pytest.approx((0.8 - chance) / (1 - chance))
    values = found.as_dict()
    assert values["per_label"]["run"] == {
        "agreement": pytest.approx(6 / 7),
        "seconds_a": 4.0,
        "seconds_b": 3.0,
        "seconds_both": 3.0,
    }
    assert values["kappa_interval"] is None
    text = found.as_text()
    assert "kappa 0.697" in text and "interval" not in text and "1.0 s  run (A), sit (B)" in text


def test_the_interval_is_over_films():
    films = {"a": (A, A, 10.0), "b": (A, B, 10.0), "c": (A, [(0.0, 4.0, "sit")], 10.0), "d": (B, A, 10.0)}
    found = compare_films(films)
    low, high = found.interval()
    assert low < found.kappa < high <= 1 and high - low > 0.2
    assert "by bootstrap over 4 films, rough with so few" in found.as_text() and compare_films(films).interval() == (
        low,
        high,
    )
    assert compare_films({"a": (A, A, 10.0), "b": (B, B, 10.0)}).interval() == pytest.approx((1.0, 1.0))


def test_one_label_alone_has_no_kappa():
    found = compare_films({name: ([(0.0, INF, "run")],) * 2 + (5.0,) for name in "ab"})
    assert found.kappa is None and found.interval() is None and found.agreement == 1
    assert "kappa undefined" in found.as_text() and found.as_dict()["kappa"] is None


def test_a_film_where_kappa_is_undefined_does_not_undo_the_interval():
    run = [(0.0, INF, "run")]
    low, high = compare_films({"a": (run, run, 5.0), "b": (A, B, 10.0), "c": (A, A, 10.0)}).interval()
    assert 0 < low <= high <= 1


def test_films_shorter_than_a_step_are_left_out():
    assert compare_films({"a": (A, B, 10.0), "b": ([], A, 0.01)}).films == ("a",)
    with pytest.raises(DatasetError, match="no film is as long as a step"):
        compare_films({"b": ([], A, 0.01)})
