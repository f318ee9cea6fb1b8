import dataclasses

import numpy as np
import pytest

from activity.config import TrainConfig
from activity.datasets.films import films_in
from activity.datasets.samples import Sample
from activity.datasets.steps import films_of, label_steps, labels_of_steps
from activity.errors import DatasetError

LABELS = ("background", "run", "walk")


def film(*rows):
    samples = [
        Sample(path="a.avi", label=label, group="g", start_seconds=start, end_seconds=end) for label, start, end in rows
    ]
    return films_in(samples)[0]


def names(labelled):
    """Of each step: a label, several, `-` for none, `?` where nothing is known."""
    found = ["+".join(LABELS[i] for i in np.flatnonzero(row)) or "-" for row in labelled.targets]
    return [name if known else "?" for name, known in zip(found, labelled.known, strict=True)]


ROWS = ("run", 1, 3), ("walk", 4, 5), ("run", 6, None)


def test_a_step_has_the_label_that_holds_at_its_middle():
    labelled = label_steps(film(("run", 0.4, 1.6), ("walk", 1.6, None)), 4, 1.0, LABELS)
    assert names(labelled) == ["run", "run", "walk", "walk"]


def test_nothing_is_learned_from_what_is_not_labelled():
    assert names(label_steps(film(*ROWS), 8, 1.0, LABELS)) == ["?", "run", "run", "?", "walk", "?", "run", "run"]


def test_what_lies_between_segments_can_be_a_label():
    labelled = label_steps(film(*ROWS), 8, 1.0, LABELS, background=True)
    assert names(labelled) == ["?", "run", "run", "background", "walk", "background", "run", "run"]


def test_a_row_without_a_label_tells_where_nothing_is_known():
    labelled = label_steps(film(*ROWS, ("", 3, 4)), 8, 1.0, LABELS, background=True)
    assert names(labelled) == ["?", "run", "run", "?", "walk", "background", "run", "run"]


def test_several_labels_hold_at_once_or_none():
    labelled = label_steps(film(("run", 1, 4), ("walk", 3, 5), ("run", 6, 7)), 8, 1.0, LABELS, multi_label=True)
    assert names(labelled) == ["?", "run", "run", "run+walk", "walk", "-", "run", "?"]


def test_of_two_labels_at_once_nothing_is_learned_where_one_is_expected(caplog):
    labelled = label_steps(film(("run", 1, 4), ("walk", 3, 5)), 5, 1.0, LABELS)
    assert names(labelled) == ["?", "run", "run", "?", "walk"]
    assert (
        "a.avi: 1.0 s from 3.0 s on have several labels at once (run, walk); nothing is learned from them without "
        "--multi-label" in caplog.text
    )


def test_a_film_is_read_as_a_whole_with_an_id_that_tells_the_rate(lamp_dataset):
    films = films_of(lamp_dataset)
    assert [film.path for film in films] == [f"film{i}.avi" for i in range(8)]
    wholes = [film.whole(5.0) for film in films]
    assert all(len(film.rows) == 6 for film in films)
    assert all(not whole.is_segment and not whole.label and whole.duration_seconds > 5 for whole in wholes)
    ids = {film.whole(rate).sample_id for film in films for rate in (5.0, 6.0)}
    assert len(ids) == 16 and not ids & {sample.sample_id for sample in lamp_dataset.samples}


def test_a_film_in_two_splits_is_an_error(lamp_dataset):
    first, *others = lamp_dataset.samples
    split = dataclasses.replace(lamp_dataset, samples=[dataclasses.replace(first, split="test"), *others])
    with pytest.raises(DatasetError, match="segments of film0.avi are in the splits test, train; expected one split"):
        films_of(split)


def test_background_is_a_label_where_it_is_wanted(lamp_dataset):
    assert labels_of_steps(lamp_dataset, TrainConfig(labels_per="step")) == ("left", "right")
    wanted = TrainConfig(labels_per="step", background=True)
    assert labels_of_steps(lamp_dataset, wanted) == ("background", "left", "right")
