import pytest

from activity.datasets.samples import Segment
from activity.files import read_csv
from activity.reports.statistics import COLUMNS, FilmSegments, save_statistics, time_budget, transitions


def film(source, seconds, *segments):
    return FilmSegments(source, [Segment(start, end, label, 1.0) for start, end, label in segments], seconds)


FILMS = [
    film("a.avi", 20.0, (0, 4, "sit"), (4, 6, "run"), (6, 7, "sit"), (7, 10, "run"), (10, 20, "unknown")),
    film("b.avi", 10.0, (0, 1, "unknown"), (1, 10, "run")),
]


def test_a_time_budget_is_that_of_boris():
    """By hand, as BORIS defines it: occurrences, total, mean, inter-event intervals, % of the length of the film."""
    rows = {(row["source"], row["label"]): row for row in time_budget(FILMS, ["run", "sit"])}
    expected = {  # bouts, total, mean, fraction, latency, gap
        ("a.avi", "run"): (2, 5.0, 2.5, 0.25, 4.0, 1.0),
        ("a.avi", "sit"): (2, 5.0, 2.5, 0.25, 0.0, 2.0),
        ("a.avi", "unknown"): (1, 10.0, 10.0, 0.5, 10.0, None),
        ("b.avi", "run"): (1, 9.0, 9.0, 0.9, 1.0, None),
        ("b.avi", "sit"): (0, 0.0, None, 0.0, None, None),
        ("b.avi", "unknown"): (1, 1.0, 1.0, 0.1, 0.0, None),
        ("all", "run"): (3, 14.0, 14 / 3, 14 / 30, 2.5, 1.0),
        ("all", "sit"): (2, 5.0, 2.5, 5 / 30, 0.0, 2.0),
        ("all", "unknown"): (2, 11.0, 5.5, 11 / 30, 5.0, None),
    }
    assert list(rows) == list(expected)
    for key, values in expected.items():
        found = [rows[key][name] for name in (*COLUMNS[2:7], "mean_gap_seconds")]
        assert found == [value if value is None else pytest.approx(value) for value in values], key


def test_the_interval_over_films_holds_the_fraction_and_is_of_the_films():
    films = [film(f"{i}.avi", 10.0, (0, i, "run")) for i in (2, 4, 5, 6, 8)]
    *_, row = time_budget(films, ["run"])
    assert row["source"] == "all" and row["fraction"] == pytest.approx(0.5)
    assert 0.2 <= row["fraction_low"] < 0.45 and 0.55 < row["fraction_high"] <= 0.8
    alike = [film(f"{i}.avi", 10.0, (0, 3, "run")) for i in range(3)]
    *_, row = time_budget(alike, ["run"])
    assert row["fraction_low"] == row["fraction_high"] == pytest.approx(0.3)


def test_one_film_has_no_interval():
    assert not any("fraction_low" in row for row in time_budget(FILMS[:1], ["run"]))


def test_transitions_are_counted_within_films():
    assert [tuple(row.values()) for row in transitions(FILMS)] == [
        ("run", "sit", 1, 0.5),
        ("run", "unknown", 1, 0.5),
        ("sit", "run", 2, 1.0),
        ("unknown", "run", 1, 1.0),
    ]


def test_both_tables_are_written(tmp_path):
    paths = save_statistics(FILMS, ["run", "sit"], tmp_path / "budget.csv")
    assert paths == [tmp_path / "budget.csv", tmp_path / "budget.transitions.csv"]
    rows = read_csv(paths[0])
    assert tuple(rows[0]) == COLUMNS and len(rows) == 9
    assert rows[4]["latency_seconds"] == rows[0]["fraction_low"] == "" and rows[6]["fraction_low"]
    assert read_csv(paths[1])[2] == {"from": "sit", "to": "run", "count": "2", "probability": "1.0"}
