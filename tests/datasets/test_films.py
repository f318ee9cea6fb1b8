import math

from activity.datasets.films import films_in
from activity.datasets.samples import Sample, Segment


def sample(path, label, start=None, end=None, **more):
    return Sample(path=path, label=label, group=f"of {path}", start_seconds=start, end_seconds=end, **more)


def test_the_segments_of_a_video_are_a_film_in_order_of_time():
    a, early, late = sample("a", "z", None, 2.0), sample("b", "y", 1.0, 6.0), sample("b", "x", 5.0, 7.5)
    first, second = films_in([late, a, early])
    assert (first.rows, second.rows) == ((a,), (early, late))
    assert (first.path, first.group, first.split) == ("a", "of a", "")
    assert second.segments == (Segment(1.0, 6.0, "y", 1.0), Segment(5.0, 7.5, "x", 1.0))


def test_a_film_knows_its_split_and_may_last_to_the_end():
    (film,) = films_in([sample("a", "x", 3.0, split="test")])
    assert film.split == "test" and film.segments == (Segment(3.0, math.inf, "x", 1.0),)


def test_what_has_no_label_is_a_row_and_no_segment():
    (film,) = films_in([sample("a", "", 0.0, 1.0, captions=("a dog",)), sample("a", "x", 1.0, 2.0)])
    assert len(film.rows) == 2 and film.segments == (Segment(1.0, 2.0, "x", 1.0),)
    whole = film.whole(2.5)
    assert whole.captions == () and whole.label == ""


def test_gaps_are_what_no_row_covers_between_labelled_segments():
    rows = [("", 0, 1), ("run", 2, 4), ("walk", 3, 5), ("", 6, 7), ("run", 8, 9), ("", 9.5, 10), ("run", 9, 9.2)]
    (film,) = films_in([sample("a", *row) for row in rows])
    assert film.gaps == ((5, 6), (7, 8))
    (open_end,) = films_in([sample("a", "run", 1, 2), sample("a", "walk", 4, None)])
    assert open_end.gaps == ((2, 4),)
    (unlabelled,) = films_in([sample("a", "", 0, 1), sample("a", "", 2, 3)])
    assert unlabelled.gaps == ()


def test_a_whole_video_lasts_as_long_as_its_last_segment_or_longer():
    rows = [
        sample("a", "x", 1.0, 2.0, sample_id="a-0123_1_2", duration_seconds=1.0),
        sample("a", "y", 2.0, 5.0, sample_id="a-0123_2_5", duration_seconds=3.0),
    ]
    (film,) = films_in(rows)
    whole = film.whole(2.5)
    assert (whole.sample_id, whole.duration_seconds, whole.is_segment) == ("a-0123_at_2.5", 5.0, False)
