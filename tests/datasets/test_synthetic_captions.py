import csv
from itertools import combinations, permutations

import cv2
import numpy as np
import pytest

from activity.datasets.synthetic_captions import (
    BALLOON,
    COLOURS,
    EVENTS,
    FIGURES,
    FILM_SCENES,
    PLACES,
    POSES,
    STILL_SCENES,
    Scene,
    draw_film,
    write_captioned_films,
)
from activity.errors import ActivityError
from activity.video.decoder import read_frames

WALK = Scene("girl", "red", "in the snow", ("walks to the left", "waves"))


def parts_of(scene):
    return (scene.who, scene.colour, scene.place, *scene.events)


def test_sentences():
    assert WALK.sentence == "a girl in a red coat walks to the left in the snow, then waves"
    back = Scene("dog", "black", "in the street", ("sits down", "rolls to the right"))
    assert back.sentence == "a dog in a black coat sits down in the street, then rolls to the right"
    assert Scene("man", "blue", "on the beach", (BALLOON,)).sentence == (
        "a man in a blue coat holds a balloon on the beach"
    )


def test_scenes_are_all_combinations_and_each_has_a_sentence_of_its_own():
    scenes = FILM_SCENES + STILL_SCENES
    num_actors, num_events = len(FIGURES) * len(COLOURS) * len(PLACES), len(EVENTS)
    assert len(scenes) == num_actors * (num_events * (num_events - 1) + len(POSES)) == 64 * (56 + 5)
    assert len({scene.sentence for scene in scenes}) == len(set(scenes)) == len(scenes)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (("cat", "red", "in the snow", ("stands",)), "no figure 'cat'; expected one of man, girl, dog, robot"),
        (("dog", "pink", "in the snow", ("stands",)), "no colour 'pink'; expected one of red, blue"),
        (("dog", "red", "at home", ("stands",)), "no place 'at home'; expected one of in the snow"),
        (("dog", "red", "in the snow", ("waves",)), "no pose 'waves'; expected one of stands"),
        (("dog", "red", "in the snow", ("waves", "stands")), "no event 'stands'; expected one of walks to the left"),
        (("dog", "red", "in the snow", ("waves", "waves")), "expected one pose or two different events; received"),
        (("dog", "red", "in the snow", ()), "expected one pose or two different events; received"),
    ],
)
def test_impossible_scenes(parts, message):
    with pytest.raises(ActivityError, match=message):
        Scene(*parts)


@pytest.mark.parametrize(("scenes", "num_parts"), [(FILM_SCENES, 5), (STILL_SCENES, 4)])
def test_of_what_is_held_out_all_but_the_combination_is_in_training(scenes, num_parts):
    by_split = {split: [parts_of(s) for s in scenes if s.split == split] for split in ("train", "val", "test")}
    for split, share in (("train", 5 / 7), ("val", 1 / 7), ("test", 1 / 7)):
        assert len(by_split[split]) == pytest.approx(share * len(scenes), rel=0.06)
    for places in combinations(range(num_parts), num_parts - 1):  # of five parts any four
        known = {tuple(parts[i] for i in places) for parts in by_split["train"]}
        assert {tuple(parts[i] for i in places) for parts in by_split["val"] + by_split["test"]} <= known


def test_training_has_both_orders_of_all_pairs_of_events_so_neither_says_which_is_true():
    train = [scene for scene in FILM_SCENES if scene.split == "train"]
    assert {scene.events for scene in train} == set(permutations(EVENTS, 2))
    tested = [scene for scene in FILM_SCENES if scene.split == "test"]
    turned = [Scene(s.who, s.colour, s.place, s.events[::-1]).split for s in tested]
    assert turned.count("train") > 0.6 * len(tested)  # the same figure, in the same place, in the other order


@pytest.mark.parametrize("scene", [WALK, STILL_SCENES[7]])
def test_frames_depend_on_nothing_but_the_arguments(scene):
    first = draw_film(scene, take=1, height=48, width=64)
    np.random.seed(7)
    np.testing.assert_array_equal(first, draw_film(scene, take=1, height=48, width=64))
    other = draw_film(scene, take=2, height=48, width=64)
    assert np.abs(first[0].astype(int) - other[0]).mean() > 5
    assert first.shape[1:] == (48, 64, 3) and first.dtype == np.uint8


def test_a_still_is_one_frame_and_a_film_lasts_as_long_at_any_rate():
    assert len(draw_film(STILL_SCENES[0], take=0, height=32, width=32)) == 1
    slow, fast = (len(draw_film(WALK, take=0, height=32, width=32, frames_per_second=r)) for r in (12, 24))
    assert 16 <= slow <= 24 and fast == pytest.approx(2 * slow, abs=2)


@pytest.mark.parametrize("take", range(3))
@pytest.mark.parametrize("part", ["who", "colour", "place"])
def test_scenes_that_differ_look_different(part, take):
    values = {"who": FIGURES, "colour": COLOURS, "place": PLACES}[part]
    images = []
    for value in values:
        about = {"who": "man", "colour": "red", "place": "in the snow", part: value}
        images.append(draw_film(Scene(**about, events=("stands",)), take=take, height=64, width=64)[0].astype(int))
    for one, other in combinations(images, 2):
        assert (np.abs(one - other).max(axis=-1) > 60).mean() > 0.05


def red_pixels(scene, take):
    """`(N, 96, 96)` bool, where a red coat is in each frame."""
    frames = draw_film(scene, take=take, height=96, width=96).astype(int)
    return (frames[..., 0] > 110) & (frames[..., 1:].max(axis=-1) < 0.4 * frames[..., 0])


def coat_track(scene, take):
    """The horizontal place of a red coat in each frame, from -0.5 to 0.5."""
    red = red_pixels(scene, take)  # (N, H, W)
    columns = np.arange(96) / 96 - 0.5
    return (red.sum(axis=1) * columns).sum(axis=1) / red.sum(axis=(1, 2))  # (N,)


@pytest.mark.parametrize("verb", ["walks", "rolls"])
@pytest.mark.parametrize("who", FIGURES)
def test_who_moves_goes_where_the_sentence_says_and_in_its_order(who, verb):
    there, back = f"{verb} to the left", f"{verb} to the right"
    for place, events, signs in (
        ("on the beach", (there, back), (-1, 1)),
        ("in the snow", (back, there), (1, -1)),
        ("in the street", ("waves", there), (0, -1)),
        ("on the grass", (back, "jumps"), (1, 0)),
    ):
        track = coat_track(Scene(who, "red", place, events), take=3)
        third = len(track) // 3
        for moved, sign in zip((track[third] - track[0], track[-1] - track[-third]), signs, strict=True):
            assert sign * moved > 0.1 if sign else abs(moved) < 0.08


def test_where_a_figure_faces_shows_in_single_frames():
    left, right = (
        draw_film(Scene("dog", "red", "on the grass", (f"walks to the {side}", "waves")), take=0)[4].astype(int)
        for side in ("left", "right")
    )
    assert (np.abs(left - right).max(axis=-1) > 60).mean() > 0.05


def test_a_dog_that_stands_shows_its_side():
    """So that it is told from one that sits: from the front the two look alike."""
    for take in range(40):
        rows, columns = np.nonzero(red_pixels(Scene("dog", "red", "in the snow", ("stands",)), take)[0])
        high, wide = (np.ptp(np.percentile(places, (2, 98))) for places in (rows, columns))
        assert wide > 0.95 * high


def test_written_films_and_stills_with_their_manifest(tmp_path):
    size = {"height": 32, "width": 48}
    manifest_path = write_captioned_films(tmp_path / "a", num_films=10, num_stills=6, seed=5, suffix=".avi", **size)
    assert manifest_path == tmp_path / "a" / "manifest.csv"
    with manifest_path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["path", "caption", "group", "split"]
    scene_of = {scene.sentence: scene for scene in FILM_SCENES + STILL_SCENES}
    assert len({row["caption"] for row in rows}) == len({row["group"] for row in rows}) == len(rows) == 16
    assert [row["split"] for row in rows] == [scene_of[row["caption"]].split for row in rows]
    assert {row["path"] for row in rows} == {
        path.relative_to(tmp_path / "a").as_posix() for path in (tmp_path / "a").glob("*/*")
    }
    for row in rows[:10]:
        frames = read_frames(manifest_path.parent / row["path"])
        assert 16 <= len(frames) <= 24 and frames.shape[1:] == (32, 48, 3) and frames.std() > 20
    for row in rows[10:]:
        assert row["path"].startswith("stills/") and scene_of[row["caption"]].is_still
        image = cv2.imread(str(manifest_path.parent / row["path"]))
        assert image.shape == (32, 48, 3) and image.std() > 20


def test_writing_again_gives_the_same_and_another_seed_does_not(tmp_path):
    size = {"height": 32, "width": 32, "suffix": ".avi"}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_captioned_films(tmp_path / name, num_films=2, num_stills=1, seed=seed, **size)
    contents = [
        [(tmp_path / name / path).read_bytes() for path in ("manifest.csv", "films/00001.avi", "stills/00000.png")]
        for name in "abc"
    ]
    assert contents[0] == contents[1] and all(x != y for x, y in zip(contents[0], contents[2], strict=True))


def test_stills_alone_are_as_the_red_of_a_coat_in_rgb(tmp_path):
    manifest_path = write_captioned_films(tmp_path, num_films=0, num_stills=30, height=48, width=48)
    with manifest_path.open(newline="") as file:
        (red, *_) = [row for row in csv.DictReader(file) if "a red coat" in row["caption"]]
    blue, green, red = np.moveaxis(cv2.imread(str(tmp_path / red["path"])).astype(int), -1, 0)
    assert ((red > 110) & (np.maximum(blue, green) < 0.4 * red)).mean() > 0.03


def test_more_films_than_scenes_repeat_scenes_with_other_looks(tmp_path):
    manifest_path = write_captioned_films(tmp_path, num_films=0, num_stills=len(STILL_SCENES) + 1, height=16, width=16)
    with manifest_path.open(newline="") as file:
        captions = [row["caption"] for row in csv.DictReader(file)]
    assert set(captions[:-1]) == {scene.sentence for scene in STILL_SCENES}
    first = captions.index(captions[-1])
    twins = [(tmp_path / "stills" / f"{i:05d}.png").read_bytes() for i in (first, len(STILL_SCENES))]
    assert twins[0] != twins[1]
