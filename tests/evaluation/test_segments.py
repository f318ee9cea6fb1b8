"""Each measure against numbers worked by hand, or against its source, written down in the most literal form."""

import dataclasses

import numpy as np
import pytest

from activity.datasets.samples import Segment
from activity.evaluation.segments import (
    average_precision,
    count_matches,
    count_seconds,
    edit_score,
    f1_of,
    frame_accuracy,
    labelled_part,
    mean_average_precision,
    segment_f1,
)


def segments(*rows):
    return [Segment(*row, *([1.0] if len(row) == 3 else [])) for row in rows]


def drawn_film(rng, *, labels="abc", seconds=20):
    """Random segments from 0 to `seconds`, of random probabilities."""
    cuts = [0, *np.sort(rng.choice(np.arange(1, seconds), rng.integers(2, 7), replace=False)), seconds]
    names = rng.choice(list(labels), len(cuts) - 1)
    return [Segment(float(a), float(b), str(x), rng.random()) for a, b, x in zip(cuts, cuts[1:], names, strict=False)]


TRUTH = segments((0, 4, "run"), (4, 8, "walk"), (8, 10, "run"))


@pytest.mark.parametrize(
    ("found", "accuracy", "f1"),
    [
        (TRUTH, 1.0, 1.0),
        (segments((0, 10, "run")), 0.6, 0.0),  # 4 of 10 seconds are not half
        (segments((0, 5, "run"), (5, 8, "walk"), (8, 10, "run")), 0.9, 1.0),
        (segments((0, 3, "run"), (3, 3.5, "walk"), (3.5, 4, "run"), (4, 8, "walk"), (8, 10, "run")), 0.95, 6 / 8),
        (segments((0, 2, "run"), (2, 4, "run"), (4, 8, "walk"), (8, 10, "run")), 1.0, 6 / 7),  # one in two pieces
        (segments((0, 10, "unknown")), 0.0, 0.0),
        ([], 0.0, 0.0),
    ],
)
def test_segments_are_compared_by_time_and_as_wholes(found, accuracy, f1):
    assert frame_accuracy(TRUTH, found) == pytest.approx(accuracy)
    assert segment_f1(TRUTH, found, overlap=0.5) == pytest.approx(f1)


# === By time ===


def test_f1_by_time_by_hand():
    seconds = count_seconds(TRUTH, segments((0, 5, "run"), (5, 9, "walk"), (9, 10, "jump")), ["jump", "run", "walk"])
    assert (seconds.total, seconds.correct) == (10, 7)
    assert seconds.true.tolist() == [0, 6, 4] and seconds.found.tolist() == [1, 5, 4]
    assert seconds.both.tolist() == [0, 4, 3]
    assert seconds.macro_f1 == pytest.approx((2 * 4 / 11 + 2 * 3 / 8) / 2)  # jump is never true


def test_time_by_the_exact_boundaries_is_that_of_a_fine_grid():
    rng = np.random.default_rng(0)
    for _ in range(20):
        truth, found = drawn_film(rng), drawn_film(rng, labels="abcd")
        moments = np.arange(0.05, 20, 0.1)

        def at(film, seconds):
            return next(x.label for x in film if x.start_seconds <= seconds < x.end_seconds)

        a, b = (np.array([at(film, seconds) for seconds in moments]) for film in (truth, found))
        assert frame_accuracy(truth, found) == pytest.approx((a == b).mean())
        f1 = [2 * ((a == x) & (b == x)).sum() / ((a == x).sum() + (b == x).sum()) for x in np.unique(a)]
        assert count_seconds(truth, found, sorted(set(a))).macro_f1 == pytest.approx(np.mean(f1))


def test_films_are_pooled_by_their_seconds():
    long, short = (count_seconds(TRUTH, TRUTH, ["run", "walk"]), count_seconds(TRUTH[:1], [], ["run", "walk"]))
    both = long + short
    assert both.accuracy == pytest.approx(10 / 14)
    assert both.macro_f1 == pytest.approx((2 * 6 / 16 + 1) / 2)


def test_several_labels_at_once_count_by_how_many_are_both():
    truth = segments((0, 10, "sit"), (4, 8, "eat"))
    found = segments((0, 6, "sit"), (4, 10, "eat"))
    seconds = count_seconds(truth, found, ["eat", "sit"])
    # sit and sit; both and both; both and eat; sit and eat
    assert seconds.correct == pytest.approx(4 * 1 + 2 * 1 + 2 * 0.5 + 2 * 0) and seconds.total == 10
    assert seconds.macro_f1 == pytest.approx((2 * 4 / (4 + 6) + 2 * 6 / (10 + 6)) / 2)


def test_time_without_a_label_counts_nowhere():
    truth = segments((2, 4, "run"), (6, 8, "walk"))
    seconds = count_seconds(truth, segments((0, 5, "run"), (5, 10, "walk")), ["run", "walk"])
    assert (seconds.total, seconds.accuracy, seconds.macro_f1) == (4, 1, 1)


# === What is labelled ===


def test_all_of_a_labelled_film_is_left():
    found = segments((0, 5, "run", 0.5), (5, 10, "walk", 0.8))
    assert labelled_part(TRUTH, found) == (TRUTH, found)


def test_time_without_a_label_is_cut_out():
    truth = segments((2, 4, "run"), (6, 9, "walk"))
    found = segments((0, 3, "run", 0.5), (3, 7, "walk", 0.6), (7, 12, "run", 0.7), (12, 15, "walk", 0.8))
    left, right = labelled_part(truth, found)
    assert left == segments((0, 2, "run"), (2, 5, "walk"))
    assert right == segments((0, 1, "run", 0.5), (1, 3, "walk", 0.6), (3, 5, "run", 0.7))
    assert labelled_part([], found) == ([], [])


def test_what_touches_without_that_time_is_one_segment():
    truth = segments((0, 2, "run"), (3, 5, "run"), (5, 6, "run"), (6, 8, "walk"))
    found = segments((0, 2.5, "run", 0.4), (2.5, 2.9, "walk", 0.9), (2.9, 6, "run", 1.0), (6, 8, "walk", 0.6))
    left, right = labelled_part(truth, found)
    assert left == segments((0, 5, "run"), (5, 7, "walk"))
    assert right == segments((0, 5, "run", pytest.approx((2 * 0.4 + 3 * 1.0) / 5)), (5, 7, "walk", 0.6))
    assert segment_f1(left, right) == edit_score(left, right) == 1


def test_where_no_label_is_known_to_hold_time_counts():
    truth = segments((2, 4, "run"), (3, 5, "walk"), (7, 9, "run"))
    found = segments((0, 4, "run"), (3, 6, "walk"), (7, 9, "run"), (12, 13, "walk"))
    left, right = labelled_part(truth, found, empty=[(5, 7)])
    assert left == segments((0, 2, "run"), (1, 3, "walk"), (5, 7, "run"))
    assert right == segments((0, 2, "run"), (1, 4, "walk"), (5, 7, "run"))
    seconds = count_seconds(truth, found, ["run", "walk"], empty=[(5, 7)])
    assert seconds.total == 7 and seconds.accuracy == pytest.approx(6 / 7)  # from 5 to 6 s nothing holds
    assert segment_f1(left, right, overlap=0.5) == 1
    part = count_seconds(truth, found, ["run", "walk"], empty=[(5, 5.5)])  # of the rest of that time nothing is known
    assert part.total == 5.5 and part.accuracy == pytest.approx(5 / 5.5)


def test_segments_of_several_labels_at_once_stay_apart():
    truth = segments((0, 4, "eat"), (2, 6, "sit"), (8, 9, "eat"))
    left, right = labelled_part(truth, truth)
    assert left == right == segments((0, 4, "eat"), (2, 6, "sit"), (6, 7, "eat"))


# === As wholes ===


def f_score_of_lea(recognized, ground_truth, overlap):
    """`f_score` of the authors' `metrics.py`, on segments in place of a label for each frame."""
    tp = fp = 0
    hits = np.zeros(len(ground_truth))
    starts = np.array([y.start_seconds for y in ground_truth])
    ends = np.array([y.end_seconds for y in ground_truth])
    for p in recognized:
        intersection = np.minimum(p.end_seconds, ends) - np.maximum(p.start_seconds, starts)
        union = np.maximum(p.end_seconds, ends) - np.minimum(p.start_seconds, starts)
        iou = (1.0 * intersection / union) * np.array([p.label == y.label for y in ground_truth])
        idx = iou.argmax()
        if iou[idx] >= overlap and not hits[idx]:
            tp += 1
            hits[idx] = 1
        else:
            fp += 1
    fn = len(ground_truth) - int(hits.sum())
    return tp, fp, fn


@pytest.mark.parametrize("overlap", [0.1, 0.25, 0.5, 0.75])
def test_matches_are_those_of_the_authors(overlap):
    rng, sums = np.random.default_rng(0), np.zeros(3, int)
    for _ in range(100):
        truth, found = drawn_film(rng), drawn_film(rng)
        expected = f_score_of_lea(found, truth, overlap)
        assert count_matches(truth, found, overlap=overlap) == expected
        assert count_matches(truth[::-1], found[::-1], overlap=overlap) == expected
        sums += expected
    assert (sums > 20).all()


def test_a_true_segment_is_found_once_and_gives_no_other_away():
    truth = segments((0, 10, "run"), (10, 11, "walk"), (11, 14, "run"))
    found = segments((0, 6, "run"), (6, 12, "run"))  # the second overlaps the first more than the third
    assert count_matches(truth, found, overlap=0.05) == (1, 1, 2)
    assert count_matches([], found, overlap=0.5) == (0, 2, 0)
    assert f1_of(1, 1, 2) == pytest.approx(2 / 5) and f1_of(0, 0, 0) == 0


def test_half_is_half_whatever_the_noise_of_floats():
    assert segment_f1(segments((0.1, 0.4, "a")), segments((0.1, 0.7, "a")), overlap=0.5) == 1


# === In their order ===


def levenstein_of_lea(p, y):
    m_row, n_col = len(p), len(y)
    d = np.zeros([m_row + 1, n_col + 1], float)
    for i in range(m_row + 1):
        d[i, 0] = i
    for i in range(n_col + 1):
        d[0, i] = i
    for j in range(1, n_col + 1):
        for i in range(1, m_row + 1):
            if y[j - 1] == p[i - 1]:
                d[i, j] = d[i - 1, j - 1]
            else:
                d[i, j] = min(d[i - 1, j] + 1, d[i, j - 1] + 1, d[i - 1, j - 1] + 1)
    return (1 - d[-1, -1] / max(m_row, n_col)) * 100


def test_the_edit_score_is_that_of_the_authors():
    rng, scores = np.random.default_rng(0), []
    for _ in range(100):
        truth, found = drawn_film(rng), drawn_film(rng)
        expected = levenstein_of_lea([x.label for x in found], [x.label for x in truth]) / 100
        scores.append(edit_score(truth, found[::-1]))
        assert scores[-1] == pytest.approx(expected)
    assert min(scores) < 0.2 and max(scores) > 0.7


@pytest.mark.parametrize(
    ("found", "score"),
    [
        (TRUTH, 1),
        (segments((0, 9, "run"), (9, 9.5, "walk"), (9.5, 10, "run")), 1),  # how long each lasts does not count
        (segments((0, 1, "run")), 1 / 3),
        (segments((0, 1, "run"), (1, 2, "jump"), (2, 3, "walk"), (3, 4, "run")), 3 / 4),
        (segments((0, 1, "walk"), (1, 2, "run"), (2, 3, "walk")), 1 / 3),
        ([], 0),
    ],
)
def test_the_edit_score_by_hand(found, score):
    assert edit_score(TRUTH, found) == pytest.approx(score)
    assert edit_score([], []) == 1


# === As ranked detections ===


def activitynet_ap(ground_truth, prediction, threshold):
    """`compute_average_precision_detection` of ActivityNet for one class: rows of video, start, end(, score)."""
    npos = float(len(ground_truth))
    lock_gt = np.ones(len(ground_truth)) * -1
    prediction = [prediction[i] for i in np.argsort([-row[3] for row in prediction], kind="stable")]
    tp, fp = np.zeros(len(prediction)), np.zeros(len(prediction))
    for idx, (video, start, end, _) in enumerate(prediction):
        this_gt = [i for i, row in enumerate(ground_truth) if row[0] == video]
        if not this_gt:
            fp[idx] = 1
            continue
        tiou = []
        for i in this_gt:
            inter = max(0.0, min(end, ground_truth[i][2]) - max(start, ground_truth[i][1]))
            tiou.append(inter / ((end - start) + (ground_truth[i][2] - ground_truth[i][1]) - inter))
        for jdx in np.argsort(tiou)[::-1]:
            if tiou[jdx] < threshold:
                fp[idx] = 1
                break
            if lock_gt[this_gt[jdx]] >= 0:
                continue
            tp[idx] = 1
            lock_gt[this_gt[jdx]] = idx
            break
        if fp[idx] == 0 and tp[idx] == 0:
            fp[idx] = 1
    rec = np.cumsum(tp) / npos
    prec = np.cumsum(tp) / (np.cumsum(tp) + np.cumsum(fp))
    mprec = np.hstack([[0], prec, [0]])
    mrec = np.hstack([[0], rec, [1]])
    for i in range(len(mprec) - 1)[::-1]:
        mprec[i] = max(mprec[i], mprec[i + 1])
    idx = np.where(mrec[1::] != mrec[0:-1])[0] + 1
    return np.sum((mrec[idx] - mrec[idx - 1]) * mprec[idx])


@pytest.mark.parametrize("overlap", [0.2, 0.5, 0.75])
def test_average_precision_is_that_of_activitynet(overlap):
    rng, precisions = np.random.default_rng(0), []
    for _ in range(40):
        films = []
        for _ in range(4):
            truth = drawn_film(rng)
            shifts = rng.normal(0, 0.5, (len(truth), 2))
            found = [
                dataclasses.replace(x, start_seconds=x.start_seconds + a, end_seconds=x.end_seconds + abs(b))
                for x, (a, b) in zip(truth, shifts, strict=True)
            ]
            found += [x for x in drawn_film(rng, labels="abcd") if rng.random() < 0.5]  # several at once
            films.append((truth, found))
        labels = sorted({x.label for truth, _ in films for x in truth})
        for label in labels:
            rows = [
                [(i, x.start_seconds, x.end_seconds, x.probability) for i, f in enumerate(films) for x in f[part]
                 if x.label == label]
                for part in (0, 1)
            ]  # fmt: skip
            precisions.append(average_precision(films, label, overlap=overlap))
            assert precisions[-1] == pytest.approx(activitynet_ap(*rows, overlap))
        assert mean_average_precision(films, overlap=overlap) == pytest.approx(np.mean(precisions[-len(labels) :]))
    assert min(precisions) < 0.5 < max(precisions)


def test_average_precision_by_hand():
    first = segments((0, 4, "a"), (6, 10, "a")), segments((0, 4, "a", 0.9), (4, 6, "a", 0.8), (6, 10, "a", 0.7))
    second = segments((0, 4, "b")), segments((0, 4, "a", 0.6))
    # correct, wrong, correct, wrong: precisions 1, 1/2, 2/3, 1/2 at recalls 1/2, 1/2, 1, 1
    assert average_precision([first, second], "a", overlap=0.5) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert average_precision([first, second], "b", overlap=0.5) == 0
    assert mean_average_precision([first, second], overlap=0.5) == pytest.approx((0.5 + 1 / 3) / 2)


def test_a_true_segment_is_detected_once_and_the_next_best_is_taken():
    truth = segments((0, 10, "a"), (10, 14, "a"))
    found = segments((0, 10, "a", 0.9), (0, 14, "a", 0.8))  # the second overlaps both, 10/14 and 4/14
    assert average_precision([(truth, found)], "a", overlap=0.25) == pytest.approx(1)
    assert average_precision([(truth, found)], "a", overlap=0.5) == pytest.approx(0.5)
