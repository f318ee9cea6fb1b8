import dataclasses
from io import BytesIO

import keras
import numpy as np
import pytest
from matplotlib.image import imread

from activity.config import ClipSpec
from activity.errors import ActivityError
from activity.models.backbones import build_backbone
from activity.models.classifier import ActivityClassifier, load_classifier
from activity.models.heads import HEADS, HeadOptions, build_head
from activity.models.info import ModelInfo
from activity.models.layers import Preprocess
from activity.predictor.explainer import Explainer
from activity.predictor.predictor import Predictor
from activity.reports.explanation import explanation_figure
from activity.reports.style import figure_png
from activity.video.writer import write_video

SPEC = ClipSpec(num_frames=16, height=32, width=32, streams=("rgb",))
LABELS = ("calm", "flash", "other")
FLASH = slice(5, 8)  # of 16 frames, in the second quarter


def pooled_cnn():
    """Features 0 and 1 of a frame: how much of it is bright, how much dark."""
    frames = keras.Input((32, 32, 3), dtype="uint8")
    convolution = keras.layers.Conv2D(2, 4, strides=4, activation="relu")
    x = keras.layers.GlobalAveragePooling2D()(convolution(Preprocess("tf")(frames)))
    kernel = np.full((4, 4, 3, 2), 1 / 48)
    convolution.set_weights([kernel * [1, -1], np.zeros(2)])
    return keras.Model(frames, x, name="pooled_cnn")


def placed_cnn():
    """`small_cnn` whose feature 0 is how bright the upper left quarter is; the other features are 0."""
    backbone = build_backbone("small_cnn", height=32, width=32, weights="none")
    *convolutions, dense = [layer for layer in backbone.layers if layer.weights]
    for layer in convolutions:
        kernel = np.zeros(layer.kernel.shape)
        kernel[..., 0] = 1 / np.prod(kernel.shape[:3])
        layer.set_weights([kernel, np.zeros(kernel.shape[-1])])
    kernel = np.zeros((4, 4, 64, 128))
    kernel[:2, :2, 0, 0] = 1e3
    dense.set_weights([kernel.reshape(-1, 128), np.zeros(128)])
    return backbone


def classifier_of(backbone, head="chunks", num_streams=1, **options):
    num_features = backbone.output_shape[-1]
    head = build_head(
        head, HeadOptions(units=8, **options), num_features=num_features, num_labels=3, num_streams=num_streams
    )
    info = ModelInfo(spec=SPEC, labels=LABELS, clip_seconds=1.6, window_seconds=1.6)
    return ActivityClassifier(backbone, head, info)


def flash_classifier(backbone):
    """It says "flash" if feature 0 is large in the second quarter of the clip, whatever else there is."""
    classifier = classifier_of(backbone)
    num_features = backbone.output_shape[-1]
    kernel = np.zeros((4, num_features, 3))
    kernel[1, 0, 1] = 40.0
    (dense,) = [layer for layer in classifier.head.layers if isinstance(layer, keras.layers.Dense)]
    dense.set_weights([kernel.reshape(4 * num_features, 3), np.zeros(3)])
    return classifier


def squares(*places):
    """16 dark frames `(16, 1, 32, 32, 3)` with bright squares: each a slice of frames, a row and a column."""
    frames = np.full((16, 1, 32, 32, 3), 20, np.uint8)
    for time, row, column in places:
        frames[time, :, row : row + 8, column : column + 8] = 250
    return frames


def explain(classifier, images, label="flash"):
    seconds = np.arange(len(images)) / 10
    return Explainer(classifier).explain_frames(images, label=label, source="a.avi", timestamps_seconds=seconds)


class TestWhatIsKnown:
    """Models whose weights say what must come out."""

    def test_the_frames_and_the_corner_that_carry_the_label_are_found(self):
        # The same square elsewhere in time means nothing to this model
        images = squares((FLASH, 0, 0), (slice(12, 15), 24, 24))
        result = explain(flash_classifier(pooled_cnn()), images)
        assert result.probability > 0.5 and result.importance_kind == "occlusion"
        assert set(np.argsort(-result.importance)[:3]) == {5, 6, 7}
        assert result.importance[FLASH].min() > 0.2
        np.testing.assert_allclose(result.importance[8:], 0, atol=1e-5)
        heat = result.heatmaps[:, 0]  # (16, 8, 8): a place is 4x4 pixels
        assert heat.max() == 1 and heat[FLASH, :2, :2].sum() > 0.99 * heat.sum()

    def test_what_speaks_against_is_below_0_and_has_no_heat(self):
        result = explain(flash_classifier(pooled_cnn()), squares((FLASH, 0, 0)), label="calm")
        assert (result.importance[FLASH] < -0.1).all()
        assert (result.heatmaps == 0).all()

    def test_two_squares_share_the_heat_of_a_backbone_that_knows_no_places(self):
        heat = explain(flash_classifier(pooled_cnn()), squares((FLASH, 0, 0), (FLASH, 24, 24))).heatmaps
        assert heat[FLASH, 0, :2, :2].sum() == pytest.approx(heat[FLASH, 0, 6:, 6:].sum(), rel=1e-4)

    def test_a_backbone_that_knows_places_is_asked_at_each_place(self):
        # Slopes averaged over the image, as in plain Grad-CAM, would light up both squares alike
        heat = explain(flash_classifier(placed_cnn()), squares((FLASH, 0, 0), (FLASH, 24, 24))).heatmaps[:, 0]
        assert heat.shape == (16, 4, 4) and heat.max() == 1
        assert heat[FLASH, :2, :2].sum() > 0.99 * heat.sum()

    def test_a_confident_answer_still_has_reasons(self):
        classifier = flash_classifier(pooled_cnn())
        classifier.temperature = 0.1
        result = explain(classifier, squares((slice(4, 8), 0, 0), (slice(4, 8), 0, 8), (slice(4, 8), 8, 0)))
        assert result.probability == 1
        assert result.importance[4:8].min() > 1 and result.heatmaps.max() == 1

    def test_attention_lies_where_the_scores_are(self):
        classifier = classifier_of(pooled_cnn(), "attention")
        result = explain(classifier, squares((FLASH, 0, 0)))
        assert result.importance_kind == "attention"
        assert result.importance.shape == (16,) and result.importance.sum() == pytest.approx(1, abs=1e-5)

    def test_other_weights_give_other_reasons(self):
        """The sanity check of Adebayo et al. 2018: reasons that survive random weights are no reasons."""
        images = np.random.default_rng(0).integers(0, 256, (16, 1, 32, 32, 3), np.uint8)
        keras.utils.set_random_seed(0)
        backbone = build_backbone("small_cnn", height=32, width=32, weights="none")
        results = []
        for seed in (1, 2):
            keras.utils.set_random_seed(seed)
            results.append(explain(classifier_of(backbone), images))
        for name in ("heatmaps", "importance"):
            assert np.corrcoef(*(getattr(result, name).ravel() for result in results))[0, 1] < 0.6


@pytest.mark.parametrize("name", HEADS)
def test_every_head_is_explained_also_of_short_and_black_clips(name):
    explainer = Explainer(classifier_of(pooled_cnn(), name, members=2))
    for num_frames in (1, 2, 16):
        images = np.zeros((num_frames, 1, 32, 32, 3), np.uint8)
        images[:, :, 8:, 8:] = np.arange(num_frames)[:, None, None, None, None]
        seconds = np.arange(num_frames) / 10
        result = explainer.explain_frames(images, label="other", source="a", timestamps_seconds=seconds)
        assert result.importance.shape == (num_frames,) and np.isfinite(result.importance).all()
        assert result.heatmaps.shape == (num_frames, 1, 8, 8) and np.isfinite(result.heatmaps).all()
        # the heads are random: either a place speaks for the label, and the one that does most has 1, or none does
        assert result.heatmaps.min() >= 0 and result.heatmaps.max() in (0, 1)


@pytest.fixture(scope="module")
def predictor(ramp_model):
    return Predictor(load_classifier(ramp_model))


@pytest.fixture(scope="module")
def explainer(predictor):
    return Explainer(predictor.model)


@pytest.fixture(scope="module")
def result():
    return explain(flash_classifier(pooled_cnn()), squares((FLASH, 0, 0)))


class TestVideos:
    def test_what_is_explained_is_what_was_predicted(self, predictor, explainer, ramp_videos):
        for path in sorted(ramp_videos.glob("*/*.avi"))[::7]:
            prediction = predictor.predict(path)
            result = explainer.explain(prediction)
            assert (result.source, result.label) == (str(path), prediction.label)
            assert result.probability == pytest.approx(prediction.probability, abs=1e-6)
            num_frames = len(result.images)
            assert result.images.shape == (num_frames, 2, 32, 32, 3) and result.streams == ("rgb", "motion")
            assert result.timestamps_seconds.shape == result.importance.shape == (num_frames,)
            assert result.heatmaps.shape == (num_frames, 2, 4, 4)

    def test_another_label_can_be_asked_for(self, predictor, explainer, ramp_videos):
        prediction = predictor.predict(ramp_videos / "darkens" / "p0_0.avi")
        results = [explainer.explain(prediction, label=label) for label in predictor.model.labels]
        assert sum(result.probability for result in results) == pytest.approx(1, abs=1e-5)
        np.testing.assert_allclose(results[0].importance, -results[1].importance, atol=1e-3)  # there are two
        with pytest.raises(ActivityError, match="no label 'sleeps'; expected one of brightens, darkens"):
            explainer.explain(prediction, label="sleeps")

    def test_of_a_long_video_the_best_window_is_explained(self, predictor, explainer, tmp_path):
        ramp = np.linspace(50, 200, 9)
        levels = [*np.tile(ramp, 9), *np.tile(ramp[::-1], 3)]  # darkens at the end only
        frames = (np.full((24, 48, 3), level, np.uint8) for level in levels)
        write_video(tmp_path / "long.avi", frames, frames_per_second=10)
        prediction = predictor.predict(tmp_path / "long.avi")
        assert len(prediction.windows) > 3
        for label_id, label in enumerate(prediction.labels):
            window = max(prediction.windows, key=lambda window: window.probabilities[label_id])
            result = explainer.explain(prediction, label=label)
            assert result.probability == pytest.approx(window.probabilities[label_id], abs=1e-5)
            assert 0 <= result.timestamps_seconds[0] - window.start_seconds < 0.1  # the first frame from then on
            assert result.timestamps_seconds[-1] - window.end_seconds < 0.1
        assert result.label == "darkens" and result.timestamps_seconds[0] > 5
        assert result.aspect == 2  # of the video, not of the stretched frames


class TestFigure:
    def test_bars_stand_above_the_frames_of_their_time(self, result):
        figure = explanation_figure(result)
        bars, frames, heat = figure.axes
        assert [bar.get_height() for bar in bars.patches] == pytest.approx(result.importance.tolist(), abs=1e-6)
        assert [axes.get_ylabel() for axes in (frames, heat)] == ["frames", "rgb"]
        # 16 frames in 8 columns: of each pair the more important one
        best = [2 * i + int(result.importance[2 * i + 1] > result.importance[2 * i]) for i in range(8)]
        assert [text.get_text() for text in heat.get_xticklabels()] == [f"{i / 10:.2f} s" for i in best]
        figure.draw_without_rendering()
        for number, image in zip(best, frames.images, strict=True):
            np.testing.assert_array_equal(image.get_array(), result.images[number, 0])
            box, bar = image.get_window_extent(), bars.patches[number].get_window_extent()
            assert box.x0 <= (bar.x0 + bar.x1) / 2 <= box.x1
            assert box.width / box.height == pytest.approx(1, rel=0.06)

    def test_heat_colours_a_grey_image(self, result):
        heat = explanation_figure(result).axes[-1].images
        spread = [np.ptp(image.get_array().astype(int), axis=-1) for image in heat]  # 0 where an image is grey
        assert spread[2][:8, :8].min() > 50 and spread[2][16:].max() == 0  # the third column shows a flash
        assert spread[7].max() == 0

    @pytest.mark.parametrize("num_frames", [1, 5, 13, 40])
    @pytest.mark.parametrize("aspect", [0.05, 0.56, 1.78, 30.0])
    def test_any_number_and_shape_fits(self, result, num_frames, aspect):
        places = np.arange(num_frames) % 16
        some = {name: getattr(result, name)[places] for name in ("images", "importance", "heatmaps")}
        seconds = np.arange(num_frames) / 10
        figure = explanation_figure(
            dataclasses.replace(result, **some, timestamps_seconds=seconds, aspect=aspect, source="$a$/$^$.avi")
        )
        width, height = figure.get_size_inches()
        assert 9 <= width <= 16.2 and 3 < height < 12
        bars, *rows = figure.axes
        assert len(bars.patches) == num_frames and {len(axes.images) for axes in rows} <= set(range(1, 17))
        figure.draw_without_rendering()
        for text in figure.texts:
            box = text.get_window_extent()
            assert box.x0 >= 0 and box.x1 <= figure.bbox.width

    def test_it_is_a_png(self, result):
        odd = dataclasses.replace(result, label="$pay$", source="走\udcff.avi")
        pixels = imread(BytesIO(figure_png(explanation_figure(odd))))
        assert pixels.shape[1] > 1000 and pixels.std() > 0.05
