import itertools

import numpy as np
import pytest

from activity.datasets.samples import Segment
from activity.models.sentences import Sentence
from activity.predictor.captioner import CaptionedSegment
from activity.predictor.timeline import Timeline
from activity.reports.annotation import Overlay, Subtitles
from activity.reports.style import font_file, ink_on, label_colour, text_width

LABELS = tuple(f"label {i}" for i in range(24))
SIZES = [(144, 180), (200, 426), (568, 320), (2160, 3840), (720, 64), (16, 16), (2, 2), (143, 181)]


def timeline_of(*labels, seconds=10.0, names=("run", "walk", "wave")):
    """Equally long segments of some labels; the probability of each is 0.8 while it lasts."""
    edges = np.linspace(0, seconds, len(labels) + 1)
    ids = [names.index(label) if label in names else 0 for label in labels]
    probabilities = np.where(np.eye(len(names))[ids] > 0, 0.8, 0.1)
    segments = (Segment(a, b, label, 0.8) for (a, b), label in zip(itertools.pairwise(edges), labels, strict=True))
    return Timeline(edges, probabilities, tuple(segments))


def overlay_of(timeline, height, width, names=("run", "walk", "wave")):
    return Overlay(names, timeline, height=height, width=width)


def drawn(overlay, height, width, seconds, grey=128):
    frame = np.full((height, width, 3), grey, np.uint8)
    overlay.draw(frame, seconds)
    return frame


def rgb(colour):
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])


def lightness_lab(colours):
    """CIELAB of sRGB colours, `(N, 3)`."""
    import cv2

    return cv2.cvtColor(np.asarray(colours, np.float32)[None] / 255, cv2.COLOR_RGB2LAB)[0]


def test_24_labels_have_colours_that_differ_from_each_other_and_from_unknown():
    colours = [rgb(label_colour(label, LABELS)) for label in (*LABELS, "unknown")]
    lab = lightness_lab(colours)
    distances = [np.linalg.norm(a - b) for a, b in itertools.combinations(lab, 2)]
    assert min(distances) > 20  # about 2.3 is just noticed
    assert label_colour("unknown", LABELS) == "#808080"


def test_a_label_keeps_its_colour_by_its_id():
    assert label_colour("b", ("a", "b")) == label_colour("y", ("x", "y", "z"))
    many = tuple(map(str, range(50)))
    assert label_colour("24", many) == label_colour("0", many)


@pytest.mark.parametrize("size", SIZES)
def test_only_panel_and_strip_are_drawn(size):
    height, width = size
    changed = np.any(drawn(overlay_of(timeline_of("run", "walk"), *size), *size, 2.0) != 128, axis=2)
    strip_height = min(max(1, height // 6), max(14, round(1.5 * 0.036 * min(size))) + 1)
    above = changed[: height - strip_height]
    assert changed[height - 1].all()
    if min(size) < 64:
        assert not above.any()
    else:
        rows, columns = np.nonzero(above)
        assert rows.size and columns.max() < 0.7 * width and rows.max() < 0.5 * height
        assert above.mean() < 0.25


def test_the_cursor_moves_over_the_strip():
    overlay = overlay_of(timeline_of("run", "walk"), 200, 400)
    for seconds in (0.0, 2.5, 5.0, 9.99, 10.0, 12.0):
        strip = drawn(overlay, 200, 400, seconds)[-2]
        white = np.flatnonzero((strip == 255).all(axis=1))
        assert abs(white.mean() - min(seconds, 10) / 10 * 400) <= 4


def test_the_strip_has_the_colours_of_the_segments():
    strip = drawn(overlay_of(timeline_of("run", "unknown", "walk"), 200, 400), 200, 400, 0.0)[-1].astype(int)
    for column, label in ((60, "run"), (150, "unknown"), (350, "walk")):
        expected = 0.85 * rgb(label_colour(label, ("run", "walk", "wave"))) + 0.15 * 128
        np.testing.assert_allclose(strip[column], expected, atol=2)


def test_bars_are_as_long_as_the_probabilities():
    frame = drawn(overlay_of(timeline_of("walk"), 720, 1280), 720, 1280, 1.0, grey=0).astype(int)
    lengths = {}
    for name in ("run", "walk"):
        colour = rgb(label_colour(name, ("run", "walk", "wave")))
        near = np.abs(frame[:300, 30:] - colour).max(axis=2) <= 2  # right of the edge in the segment's colour
        lengths[name] = near.sum(axis=1).max()
    assert lengths["walk"] / lengths["run"] == pytest.approx(8, rel=0.1)


def test_the_panel_names_the_segment_and_the_moment():
    """Another headline, or other probabilities, are other pixels; the same are the same."""
    size = (200, 400)
    overlay = overlay_of(timeline_of("run", "walk", "run"), *size)
    first, second, third = (drawn(overlay, *size, seconds)[:80] for seconds in (1, 5, 9))
    assert np.array_equal(first, third) and not np.array_equal(first, second)


def test_several_labels_at_once_are_drawn_in_lanes_and_none_leaves_the_panel_empty():
    segments = (Segment(2, 6, "run", 0.9), Segment(4, 8, "wave", 0.9))
    timeline = Timeline(np.arange(11.0), np.full((10, 3), 0.5), segments)
    overlay = overlay_of(timeline, 360, 640)
    before, both, after = (drawn(overlay, 360, 640, seconds) for seconds in (1.0, 5.0, 9.9))
    columns = both[-4:, [260, 480]], both[-24:-20, [260, 480]]  # the lower lane, and the upper one
    assert not np.array_equal(columns[0][:, 0], columns[1][:, 0])
    assert not np.array_equal(before[:100, :300], both[:100, :300])
    np.testing.assert_array_equal(before[:100, :300], after[:100, :300])
    nothing = Timeline(np.arange(11.0), np.full((10, 3), 0.1), ())
    assert drawn(overlay_of(nothing, 360, 640), 360, 640, 5.0).shape == (360, 640, 3)


def test_a_name_is_shown_as_pillow_draws_it():
    from PIL import Image, ImageDraw, ImageFont

    frame = drawn(overlay_of(timeline_of("run"), 720, 1280), 720, 1280, 0.0, grey=0)
    font = ImageFont.truetype(font_file("run"), round(0.055 * 720))
    image = Image.new("L", tuple(font.getbbox("run", anchor="lt")[2:]))
    ImageDraw.Draw(image).text((0, 0), "run", 255, font, "lt")
    import cv2

    found = cv2.matchTemplate(frame[..., 0], np.asarray(image), cv2.TM_CCOEFF_NORMED)
    assert found.max() > 0.95
    row, column = np.unravel_index(found.argmax(), found.shape)
    assert row < 60 and column < 60


@pytest.mark.parametrize("label", ["été", "бег", "τρέξιμο"])
def test_names_beyond_ascii_are_drawn_by_the_bundled_font(label):
    assert font_file(label).endswith("DejaVuSans.ttf") and "mpl-data" in font_file(label)


def test_another_font_is_looked_for_only_if_the_bundled_one_lacks_a_character():
    assert font_file("\U000e0001").endswith("DejaVuSans.ttf")  # no font has this: boxes then


@pytest.mark.parametrize("label", ["w" * 200, "$x^2$ 100%", "x\ny", ""])
def test_any_name_can_be_drawn(label):
    names = (label, "b")
    frame = drawn(overlay_of(timeline_of(label, "b", names=names), 144, 180, names), 144, 180, 1.0)
    changed = np.any(frame != 128, axis=2)[:100]
    assert np.nonzero(changed)[1].max() < 0.7 * 180  # what is too long is cut


def test_ink_is_read_on_every_colour():
    def luminance(colour):
        x = colour / 255
        return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4) @ (0.2126, 0.7152, 0.0722)

    for label in LABELS:
        colour = label_colour(label, LABELS)
        ink = {"black": 0.0, "white": 1.0}[ink_on(colour)]
        light, dark = max(ink, luminance(rgb(colour))), min(ink, luminance(rgb(colour)))
        assert (light + 0.05) / (dark + 0.05) > 4.5  # WCAG 2, level AA


def test_text_width_grows_with_text_and_size():
    assert 0 < text_width("run", 10) < text_width("running", 10) < text_width("running", 20)


# === Subtitles ===


def subtitles_of(height, width, *texts):
    """Drawings of sentences that last a second each."""
    sentences = (Sentence(tuple(text.split()), -1.0, np.zeros((len(text.split()), 1))) for text in texts)
    segments = [CaptionedSegment(float(i), i + 1.0, sentence) for i, sentence in enumerate(sentences)]
    return Subtitles(segments, height=height, width=width)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("text", ["a dog runs", "word " * 60, "x" * 300, ""])
def test_sentences_are_drawn_at_the_bottom_of_any_frame(size, text):
    height, width = size
    frame = drawn(subtitles_of(height, width, text), height, width, 0.5)
    changed = (frame != 128).any(axis=(1, 2))
    if height > 100 and text:
        assert not changed[: height // 20].any() and changed[-1]
        assert frame.max() > 200  # white letters


def test_each_part_has_its_own_sentence():
    overlay = subtitles_of(200, 300, "a dog runs", "a man sleeps")
    frames = [drawn(overlay, 200, 300, seconds) for seconds in (-1.0, 0.0, 0.99, 1.0, 7.0)]
    assert all(np.array_equal(frames[0], frame) for frame in frames[1:3])
    assert np.array_equal(frames[3], frames[4]) and not np.array_equal(frames[2], frames[3])
