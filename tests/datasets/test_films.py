import math

from activity.datasets.films import Film, films_in
from activity.datasets.samples import Sample, Segment


def sample(path, label, start=None, end=None, **more):
    return Sample(path=path, label=label, group=f"of {path}", start_seconds=start, end_seconds=end, **more)


def test_the_segments_of_a_video_are_a_film_in_order_of_time():
    samples = [sample("b", "x", 5.0, 7.5), sample("a", "z", None, 2.0), sample("b", "y", 1.0, 6.0)]
    assert films_in(samples) == [
        Film("a", "of a", "", (Segment(0.0, 2.0, "z", 1.0),)),
        Film("b", "of b", "", (Segment(1.0, 6.0, "y", 1.0), Segment(5.0, 7.5, "x", 1.0))),
    ]


def test_a_film_knows_its_split_and_may_last_to_the_end():
    (film,) = films_in([sample("a", "x", 3.0, split="test")])
    assert film.split == "test" and film.segments == (Segment(3.0, math.inf, "x", 1.0),)


def test_whole_videos_are_films_beside_others_only():
    whole = [sample("a", "x"), sample("b", "y")]
    assert films_in(whole) == [] == films_in([])
    films = films_in([*whole, sample("c", "x", 1.0, 2.0)])
    assert [film.path for film in films] == ["a", "b", "c"]
    assert films[0].segments == (Segment(0.0, math.inf, "x", 1.0),)


def test_what_has_no_label_is_left_out():
    described = sample("a", "", 0.0, 1.0, captions=("a dog",))
    assert films_in([described, sample("a", "x")]) == []  # only what has no label has times
    (film,) = films_in([described, sample("a", "x", 1.0, 2.0)])
    assert film.segments == (Segment(1.0, 2.0, "x", 1.0),)
