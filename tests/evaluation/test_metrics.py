import json
import tracemalloc

import numpy as np
import pytest
from scipy.stats import binomtest

from activity.evaluation.metrics import (
    Mean,
    Scores,
    compared,
    error_by_group,
    expected_calibration_error,
    how_drawn,
    interval_by_group,
    interval_over_films,
    jackknife_error,
    near_chance,
    reliability_bins,
    share_of_largest,
)

# True 0 0 0 1 1 2, predicted 0 0 1 1 2 2
PROBABILITIES = np.array(
    [[0.7, 0.2, 0.1], [0.5, 0.3, 0.2], [0.4, 0.5, 0.1], [0.1, 0.8, 0.1], [0.3, 0.2, 0.5], [0.2, 0.2, 0.6]]
)
SCORES = Scores(PROBABILITIES, np.array([0, 0, 0, 1, 1, 2]), ["jump", "run", "wave"])


def test_numbers_by_hand():
    assert SCORES.predicted_ids.tolist() == [0, 0, 1, 1, 2, 2]
    assert SCORES.accuracy == pytest.approx(4 / 6)
    assert SCORES.confusion.tolist() == [[2, 1, 0], [0, 1, 1], [0, 0, 1]]
    assert SCORES.per_class["jump"] == pytest.approx({"precision": 1, "recall": 2 / 3, "f1": 4 / 5, "support": 3})
    assert SCORES.per_class["run"] == pytest.approx({"precision": 1 / 2, "recall": 1 / 2, "f1": 1 / 2, "support": 2})
    assert SCORES.per_class["wave"] == pytest.approx({"precision": 1 / 2, "recall": 1, "f1": 2 / 3, "support": 1})
    assert SCORES.macro_f1 == pytest.approx((4 / 5 + 1 / 2 + 2 / 3) / 3)


def test_confidence_and_truth_of_each():
    assert SCORES.confidences == pytest.approx([0.7, 0.5, 0.5, 0.8, 0.5, 0.6])
    assert SCORES.correct.tolist() == [True, True, False, True, False, True]


def test_top_k_by_hand():
    assert SCORES.top_k_accuracy(1) == pytest.approx(4 / 6)
    assert SCORES.top_k_accuracy(2) == pytest.approx(5 / 6)  # the fifth has run last
    assert SCORES.top_k_accuracy(3) == SCORES.top_k_accuracy(9) == 1


def test_two_labels():
    scores = Scores(np.array([[0.9, 0.1], [0.4, 0.6], [0.6, 0.4]]), np.array([0, 1, 1]), ["run", "wave"])
    assert scores.accuracy == scores.top_k_accuracy(1) == pytest.approx(2 / 3)
    assert scores.top_k_accuracy(2) == 1
    assert scores.confusion.tolist() == [[1, 0], [1, 1]]


@pytest.mark.parametrize("num_labels", [2, 3, 6])
def test_top_1_is_the_accuracy_also_where_labels_tie(num_labels):
    alike = np.full((4, num_labels), 1 / num_labels)
    scores = Scores(alike, np.array([0, 0, 1, num_labels - 1]), "abcdef"[:num_labels])
    assert scores.top_k_accuracy(1) == scores.accuracy == scores.as_dict()["top_k"]["1"]


def test_labels_that_do_not_occur():
    scores = Scores(np.array([[0.9, 0.1, 0.0], [0.8, 0.2, 0.0]]), np.array([0, 0]), ["a", "b", "c"])
    assert scores.per_class["c"] == {"precision": 0, "recall": 0, "f1": 0, "support": 0}
    assert scores.confusion.shape == (3, 3)
    assert scores.macro_f1 == 1  # a alone; b and c are neither true nor predicted
    predicted = Scores(np.array([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0]]), np.array([0, 0]), ["a", "b", "c"])
    assert predicted.macro_f1 == pytest.approx(2 / 3)  # b has no videos, but was predicted: that costs a its recall
    assert predicted.absent == ["b", "c"]
    assert "macro-F1 leaves out labels without videos: b, c" in predicted.as_text()
    assert "leaves out" not in SCORES.as_text()


@pytest.mark.parametrize(("num_labels", "keys"), [(2, ["1"]), (4, ["1", "3"]), (6, ["1", "3", "5"])])
def test_as_dict_is_json(num_labels, keys):
    labels = [f"l{i}" for i in range(num_labels)]
    about = Scores(np.eye(num_labels, dtype=np.float32), np.arange(num_labels), labels).as_dict()
    assert json.loads(json.dumps(about)) == about
    assert list(about) == ["accuracy", "top_k", "macro_f1", "per_class", "labels", "confusion"]
    assert about["top_k"] == dict.fromkeys(keys, 1.0) and about["labels"] == labels


def test_as_text():
    assert SCORES.as_text().splitlines() == [
        "accuracy 0.667   macro-F1 0.656   (6 videos)",
        "",
        "label  precision  recall     f1  videos",
        "jump       1.000   0.667  0.800       3",
        "run        0.500   0.500  0.500       2",
        "wave       0.500   1.000  0.667       1",
        "",
        "confusion (rows true, columns predicted)",
        "      0  1  2",
        "jump  2  1  .  0",
        "run   .  1  1  1",
        "wave  .  .  1  2",
    ]


@pytest.mark.parametrize(("shape", "num_samples"), [((2, 3), 1), ((1, 2), 1), ((0, 3), 0)])
def test_shapes_that_do_not_fit(shape, num_samples):
    with pytest.raises(ValueError, match=rf"expected probabilities \({num_samples}, 3\) with N >= 1, received"):
        Scores(np.zeros(shape), np.zeros(num_samples, int), ["a", "b", "c"])


# Two bins: (0, 0.5] holds 0.3 (wrong) and 0.5 (right), (0.5, 1] holds 0.6 (wrong), 0.8 and 1.0 (right).
CONFIDENCES, RIGHT = np.array([0.3, 0.6, 0.5, 0.8, 1.0]), np.array([False, False, True, True, True])


def test_reliability_by_hand():
    low, high = reliability_bins(CONFIDENCES, RIGHT, num_bins=2)
    assert [(b.low, b.high, b.num_samples) for b in (low, high)] == [(0, 0.5, 2), (0.5, 1, 3)]
    assert (low.confidence, low.accuracy) == pytest.approx((0.4, 1 / 2))
    assert (high.confidence, high.accuracy) == pytest.approx((0.8, 2 / 3))
    error = expected_calibration_error(CONFIDENCES, RIGHT, num_bins=2)
    assert error == pytest.approx(2 / 5 * 0.1 + 3 / 5 * (0.8 - 2 / 3))


def test_an_upper_limit_belongs_to_its_bin_and_empty_bins_are_left_out():
    edges = np.arange(1, 11) / 10  # 0.7 * 10 is above 7 in floating point
    assert [b.high for b in reliability_bins(edges, np.ones(10))] == edges.tolist()
    assert [b.high for b in reliability_bins(np.array([0.0, 0.95]), np.ones(2))] == [0.1, 1.0]


def test_calibrated_answers_have_no_error():
    assert expected_calibration_error(np.full(10, 0.7), np.arange(10) < 7) == pytest.approx(0)
    assert expected_calibration_error(np.ones(4, np.float32), np.zeros(4)) == 1


@pytest.mark.parametrize(
    ("confidences", "correct", "message"),
    [
        ([0.5], [True, False], r"expected two \(N,\) arrays with N >= 1, received \(1,\) and \(2,\)"),
        ([], [], r"received \(0,\)"),
        ([1.5], [True], "confidences must be 0 to 1, received 1.5 to 1.5"),
        ([np.nan], [True], "must be 0 to 1"),
    ],
)
def test_confidences_that_are_none(confidences, correct, message):
    with pytest.raises(ValueError, match=message):
        reliability_bins(np.array(confidences), np.array(correct))


# === How far a score can be trusted ===


def groups_of(num_groups, size):
    return [f"g{i}" for i in range(num_groups) for _ in range(size)]


def test_where_each_video_is_a_group_the_interval_is_that_of_a_binomial():
    correct = np.arange(400) < 280
    low, high = interval_by_group(correct, groups_of(400, 1))
    assert (low, high) == pytest.approx(binomtest(280, 400).proportion_ci(method="wilson"), abs=0.01)
    assert error_by_group(correct, groups_of(400, 1)) == pytest.approx(np.sqrt(0.7 * 0.3 / 399))


def test_videos_of_a_group_that_are_alike_say_less():
    mixed, alike = np.arange(400) % 10 < 7, np.arange(400) < 280  # in groups of 10: each 0.7, or all or nothing
    groups = groups_of(40, 10)
    narrow, wide = (np.subtract(*interval_by_group(x, groups)[::-1]) for x in (mixed, alike))
    assert wide > 2.5 * narrow
    of_videos = np.subtract(*interval_by_group(mixed, groups_of(400, 1))[::-1])
    assert narrow == pytest.approx(of_videos, abs=0.01)  # though the groups do not differ at all
    assert error_by_group(alike, groups) > 3 * error_by_group(alike, groups_of(400, 1))
    same = np.tile([-1.0, 0, 0, 0, 0], 2)  # of each of two groups
    assert error_by_group(same, groups_of(2, 5)) == pytest.approx(error_by_group(same, groups_of(10, 1)))


@pytest.mark.parametrize(("num_groups", "least"), [(5, 0.88), (8, 0.9), (30, 0.9)])
def test_it_holds_the_truth_as_often_as_it_says(num_groups, least):
    """Accuracies of groups spread by 0.2 around 0.7."""
    rng, held = np.random.default_rng(1), []
    for _ in range(200):
        accuracies = rng.beta(0.7 * 4.25, 0.3 * 4.25, num_groups)
        correct = (rng.random((num_groups, 10)) < accuracies[:, None]).ravel()
        low, high = interval_by_group(correct, groups_of(num_groups, 10))
        held.append(low <= 0.7 <= high)
    assert least <= np.mean(held) <= 0.99


def test_a_bootstrap_of_all_the_same_is_not_certain_of_it():
    groups = groups_of(4, 5)
    limits = binomtest(20, 20).proportion_ci(method="exact")
    assert interval_by_group(np.ones(20), groups) == pytest.approx(tuple(limits))
    assert interval_by_group(np.zeros(20), groups) == pytest.approx((0, 1 - limits.low))
    assert interval_by_group(np.zeros(20), groups, lowest=-1) == pytest.approx((limits.low - 1, 1 - limits.low))
    assert interval_by_group(np.ones(20), groups, highest=10)[1] == pytest.approx(1 + 9 * (1 - limits.low))


def test_a_single_group_counts_by_its_videos():
    values = np.arange(20) < 15
    assert Mean.of(values, ["a"] * 20) == Mean.of(values, groups_of(20, 1))
    assert error_by_group(values, ["a"] * 20) > 0
    assert "20 videos of a single group" in how_drawn(["a"] * 20)
    assert how_drawn(groups_of(4, 5)).endswith("4 groups, rough with so few")
    assert how_drawn(groups_of(5, 4)).endswith("5 groups")


def test_the_same_videos_give_the_same_interval_in_any_order():
    rng = np.random.default_rng(0)
    values, groups = rng.random(60) < 0.8, np.asarray(groups_of(6, 10))
    mean, order = Mean.of(values, groups), rng.permutation(60)
    assert mean == Mean.of(values, groups)
    again = Mean.of(values[order], groups[order])
    assert (again.value, again.standard_error) == pytest.approx((mean.value, mean.standard_error))
    assert (again.low, again.high) == pytest.approx((mean.low, mean.high), abs=0.02)
    assert mean.limits() == f"{mean.low:.3f} to {mean.high:.3f}"


def test_thousands_of_groups_fit_into_the_memory():
    values = np.arange(30_000) % 10 < 9
    tracemalloc.start()
    low, high = interval_by_group(values, groups_of(30_000, 1))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert low == pytest.approx(0.9 - 1.96 * np.sqrt(0.09 / 30_000), abs=5e-4) and 0.9 < high < 0.91
    assert peak < 300e6


@pytest.mark.parametrize(("accuracy", "error", "near"), [(0.59, 0.05, True), (0.61, 0.05, False), (0.4, 0.0, True)])
def test_an_accuracy_near_that_of_the_most_frequent_label_is_spoken_of(accuracy, error, near):
    assert share_of_largest(np.array([0, 1, 1, 2, 1])) == 0.6
    words = near_chance(accuracy, error, 0.5)
    assert words == ("hardly better than always answering with the most frequent label (0.500)" if near else "")


@pytest.mark.parametrize(
    ("lead", "interval", "words"),
    [
        (0.1, (0.01, 0.2), "significantly better than it, by more than one standard error"),
        (-0.1, (-0.2, -0.01), "significantly worse than it, by more than one standard error"),
        (0.1, (-0.01, 0.2), "better than it by more than one standard error, but not significantly: the 95 % interval"),
        (-0.1, (-0.2, 0.0), "worse than it by more than one standard error, but not significantly: the 95 % interval"),
        (0.03, (-0.1, 0.2), "not significantly better than it: the difference is within one standard error"),
        (0.11, None, "significantly better than it, by more than one standard error"),
        (
            0.06,
            None,
            "better than it by more than one standard error, but not significantly: the 95 % interval includes",
        ),
    ],
)
def test_words_on_a_lead(lead, interval, words):
    assert compared(lead, 0.05, "it", interval).startswith(words)


def test_the_interval_over_films_is_that_of_draws_of_films():
    values = np.array([0.2, 0.4, 0.5, 0.6, 0.8, 0.3, 0.7])
    low, high = interval_over_films(lambda drawn: drawn @ values / drawn.sum(axis=1), len(values))
    assert (low, high) == pytest.approx(interval_by_group(values, list("abcdefg")), abs=0.02)
    low, high = interval_over_films(lambda drawn: np.stack([drawn[:, 0], np.full(len(drawn), np.nan)], axis=1), 3)
    assert low[0] == 0 and high[0] >= 2 and np.isnan([low[1], high[1]]).all()


def test_the_jackknife_of_a_mean_is_its_standard_error():
    values = np.array([0.2, 0.4, 0.5, 0.6, 0.8])
    error = jackknife_error(lambda taken: values[taken].mean(), list("abcde"))
    assert error == pytest.approx(values.std(ddof=1) / np.sqrt(5))
    assert jackknife_error(lambda taken: values[taken].mean(), ["a"] * 5) == pytest.approx(error)
    assert jackknife_error(lambda taken: 1.0, ["a"]) is None


def test_the_jackknife_leaves_out_whole_groups():
    values, groups = np.array([1.0, 1.0, 0.0, 0.0, 0.5, 0.5]), list("aabbcc")
    assert jackknife_error(lambda taken: values[taken].mean(), groups) == pytest.approx(0.5 / np.sqrt(3))
