"""The two configurations: the expected input of a model (`ClipSpec`) and how it is trained (`TrainConfig`)."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from activity.errors import SettingError

_logger = logging.getLogger(__name__)

_RESIZED = {"stretch": "stretched", "crop": "cropped", "letterbox": "letterboxed"}
RESIZE_MODES = tuple(_RESIZED)
CLASS_WEIGHTS = ("none", "balanced")
TASKS = ("classify", "describe", "order")
LABELS_PER = ("clip", "step")
# settings of the head and of its estimate, which a model that writes sentences has not
_OF_STEPS = ("labels_per", "background", "multi_label")  # settings of labels with times
_OF_LABELS = ("head", "layers", "merge_mode", "stack", "mixup", "class_weight", "precision", *_OF_STEPS)
# settings of a model that writes, sentences or orders of activities
_OF_WRITING = ("max_words", "label_smoothing", "scheduled_sampling")
_OF_DESCRIBING = ("components", "decoder_units", "vocabulary", "withheld", "encoder")
OF_SENTENCES = (*_OF_WRITING, *_OF_DESCRIBING)
_OF_CLIPS = ("features", "backbone", "weights", "members", "fine_tune", "fine_tune_epochs", "flip")
_IDLE = {  # of each task
    "classify": OF_SENTENCES,
    "describe": _OF_LABELS,
    "order": (*_OF_LABELS, *_OF_CLIPS, *_OF_DESCRIBING),
}
STREAMS = ("rgb", "motion", "motion_crop")  # what they are: activity.video.streams
MAX_WORDS = 200  # of a sentence
FEATURES = "features"  # the one stream, and the backbone, of models of feature files: activity.datasets.feature_files
_OF_BACKBONE = ("backbone", "weights", "fine_tune", "fine_tune_epochs", "flip")  # settings that feature files replace
_OLD_HEADS = {"segments": "chunks", "lstm": "lstm_plain"}  # old name -> name
_OLD_STREAMS = {"closeup": "motion_crop"}  # old name -> name


@dataclass(frozen=True, kw_only=True)
class ClipSpec:
    """How a video becomes the frames of a model. It travels in the data set and in the model file.

    Args:
        num_frames: frames in a clip (T). A shorter video is padded on the right and masked.
        height, width: size of a frame in pixels.
        frames_per_second: `None` spreads the frames of a clip evenly over the whole video; a number takes frames at
            that rate, and a video longer than `num_frames / frames_per_second` seconds then gives several clips.
        resize: `stretch` ignores the aspect ratio, `crop` scales the short side and cuts the centre, `letterbox`
            scales the long side and fills with black.
        streams: images made for each frame (S of them), some of `rgb`, `motion`, `motion_crop`; see
            `activity.video.streams`. Of feature files, `features` alone.
        num_features: of feature files: numbers in a row (D), which takes the place of a frame. `None`: frames.
    """

    num_frames: int = 16
    height: int = 224
    width: int = 224
    frames_per_second: float | None = None
    resize: str = "stretch"
    streams: tuple[str, ...] = STREAMS
    num_features: int | None = None

    def __post_init__(self) -> None:
        streams = current_streams(self.streams)
        for old, new in zip(self.streams, streams, strict=True):
            if old != new:
                _logger.info("the stream %s is now called %s", old, new)
        object.__setattr__(self, "streams", streams)
        _check("num_frames", self.num_frames, 1 <= self.num_frames <= 1024, "1 to 1024")
        _check("height", self.height, 16 <= self.height <= 1024, "16 to 1024 pixels")
        _check("width", self.width, 16 <= self.width <= 1024, "16 to 1024 pixels")
        rate = self.frames_per_second
        _check("frames_per_second", rate, rate is None or 0 < rate <= 1000, "none (evenly), or above 0 and up to 1000")
        _check("resize", self.resize, self.resize in RESIZE_MODES, f"one of {', '.join(RESIZE_MODES)}")
        if self.num_features is not None:
            _check("num_features", self.num_features, self.num_features >= 1, "1 or more")
            _check("streams", ",".join(self.streams), self.streams == (FEATURES,), f"{FEATURES}, of feature files")
            return
        in_order = bool(self.streams) and self.streams == tuple(name for name in STREAMS if name in self.streams)
        _check("streams", ",".join(self.streams), in_order, f"some of {','.join(STREAMS)}, in this order")

    @property
    def item_shape(self) -> tuple[int, ...]:
        """Shape of one item of a stream, which a backbone takes: a frame `(H, W, 3)`, or a row of features `(D,)`."""
        return (self.num_features,) if self.num_features else (self.height, self.width, 3)

    @property
    def item_dtype(self) -> str:
        """Type of its numbers: `uint8` of a frame, `float32` of a row of features."""
        return "float32" if self.num_features else "uint8"

    def __str__(self) -> str:
        rate = self.frames_per_second
        if self.num_features:
            rows = "evenly spaced rows" if rate is None else f"rows at {rate:g} rows/s"
            return f"{self.num_frames} {rows} of {self.num_features} features"
        frames = "evenly spaced frames" if rate is None else f"frames at {rate:g} frames/s"
        return (
            f"{self.num_frames} {frames}, {self.height}x{self.width} px ({_RESIZED[self.resize]}), "
            f"{','.join(self.streams)}"
        )


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How a model is trained. It is stored in the model file; prediction never reads it.

    The command line has an option for each field, with this text as its help.

    Args:
        task: `classify` learns labels, `describe` sentences, `order` which activities follow each other in films.
        labels_per: `clip` learns one label for each video or segment, `step` one for each time step of whole films.
        background: with labels per step, what lies between the labelled segments of a film is a label of its own,
            `background`; by default nothing is learned from it.
        multi_label: with labels per step, several labels may hold at once, and none between the labelled segments.
        features: folder of feature files of another network, one for each video, in place of a backbone.
        backbone: image model that turns frames into features, a key of `activity.models.backbones.BACKBONES`.
        weights: `imagenet`, `none` (random), or the path of a file for the backbone; by default ImageNet if it exists.
        head: sequence model that classifies the features, a key of `activity.models.heads.HEADS`.
        units: hidden units of a recurrent head, of the encoder of a model of sentences, or of a model of orders.
        layers: number of LSTM layers (head `stacked` only).
        merge_mode: how the two directions of a bidirectional head are merged.
        members: ensemble members, whose predictions are fused; as many for each stream with a head that reads one.
        stack: fuse the head with linear models of its features, weighted by predictions for groups they did not see.
        val_split: keep the validation split out of training; from 10 videos on, it calibrates the model.
        dropout: fraction of features and of head outputs dropped in training, 0 to below 1.
        mixup: mix clips two by two while the head is trained, by shares from a Beta(mixup, mixup) distribution; 0: not.
        fine_tune: number of last backbone layers with weights that are trained after the head; 0 keeps all frozen.
        fine_tune_epochs: passes over the training clips in that stage.
        epochs: passes over the training clips.
        batch_size: clips in a step.
        learning_rate: peak learning rate of the head; fine-tuning takes a tenth of it.
        weight_decay: decoupled weight decay (AdamW).
        class_weight: `balanced` weights a class by the inverse of its number of clips.
        flip: mirror whole clips at random where the backbone is trained (not for left/right activities).
        precision: fraction of correct answers below which the model says "unknown"; by default it always answers.
        seed: random seed for weights, shuffling and dropout.
        mixed_precision: compute in float16 on a GPU.
        components: principal components of each stream that a model of sentences reads; on few videos more do harm.
        decoder_units: hidden units of the LSTM that writes sentences.
        vocabulary: number of words it knows: the most frequent ones.
        max_words: longest sentence, or order of activities.
        label_smoothing: share of each word's target that is spread over all words, 0 to below 1.
        scheduled_sampling: fraction of words that it reads as written by itself, at the end of training, 0 to 1.
        withheld: fraction of clips that are not shown in training, so that it also learns the language alone.
        encoder: model file of activities, whose backbone and head it begins with.
    """

    task: str = "classify"
    labels_per: str = "clip"
    background: bool = False
    multi_label: bool = False
    features: str | None = None
    backbone: str = "mobilenet_v2"
    weights: str | None = None
    head: str = "lstm"
    units: int = 64
    layers: int = 2
    merge_mode: str = "concat"
    members: int = 3
    stack: bool = True
    val_split: bool = False
    dropout: float = 0.5
    mixup: float = 0.4
    fine_tune: int = 0
    fine_tune_epochs: int = 10
    epochs: int = 50
    batch_size: int = 16
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    class_weight: str = "none"
    flip: bool = False
    precision: float | None = None
    seed: int = 0
    mixed_precision: bool = False
    components: int = 64
    decoder_units: int = 256
    vocabulary: int = 10_000
    max_words: int = 20
    label_smoothing: float = 0.1
    scheduled_sampling: float = 0.25
    withheld: float = 0.1
    encoder: str | None = None

    def __post_init__(self) -> None:
        counts = (
            "units",
            "layers",
            "members",
            "epochs",
            "fine_tune_epochs",
            "batch_size",
            "components",
            "decoder_units",
        )
        for name in counts:
            _check(name, getattr(self, name), getattr(self, name) >= 1, "1 or more")
        _check("task", self.task, self.task in TASKS, f"one of {', '.join(TASKS)}")
        _check("labels_per", self.labels_per, self.labels_per in LABELS_PER, " or ".join(LABELS_PER))
        _check("vocabulary", self.vocabulary, 2 <= self.vocabulary <= 1_000_000, "2 to 1000000")
        _check("max_words", self.max_words, 1 <= self.max_words <= MAX_WORDS, f"1 to {MAX_WORDS}")
        _check("label_smoothing", self.label_smoothing, 0 <= self.label_smoothing < 1, "0 to below 1")
        _check("scheduled_sampling", self.scheduled_sampling, 0 <= self.scheduled_sampling <= 1, "0 to 1")
        _check("withheld", self.withheld, 0 <= self.withheld < 1, "0 to below 1")
        _check("dropout", self.dropout, 0 <= self.dropout < 1, "0 to below 1")
        _check("mixup", self.mixup, 0 <= self.mixup <= 100, "0 to 100")
        _check("precision", self.precision, self.precision is None or 0 < self.precision < 1, "above 0 and below 1")
        _check("seed", self.seed, 0 <= self.seed < 2**32, "0 to 4294967295")
        _check("fine_tune", self.fine_tune, self.fine_tune >= 0, "0 or more layers")
        _check("learning_rate", self.learning_rate, 0 < self.learning_rate < 10, "above 0")
        _check("weight_decay", self.weight_decay, 0 <= self.weight_decay < 1, "0 to below 1")
        _check("class_weight", self.class_weight, self.class_weight in CLASS_WEIGHTS, "none or balanced")
        if self.features is None:
            _check("backbone", self.backbone, self.backbone != FEATURES, "an image model where no `features` are named")
        else:
            self._leave_out_backbone()
        if self.background and self.multi_label:
            _logger.warning("--background does nothing with --multi-label: there, no label holds between segments")
            object.__setattr__(self, "background", False)
        for name in _IDLE[self.task]:
            if getattr(self, name) != getattr(TrainConfig, name):
                _logger.warning("%s does nothing with --task %s", recipe_flag(name), self.task)
                object.__setattr__(self, name, getattr(TrainConfig, name))

    def _leave_out_backbone(self) -> None:
        """Set what a backbone would be to what it is with given features, and name what was asked for in vain."""
        _check("features", self.features, str(self.features) != "", "a folder of feature files")
        object.__setattr__(self, "features", str(self.features))
        fixed = {**{name: getattr(TrainConfig, name) for name in _OF_BACKBONE}, "backbone": FEATURES, "weights": "none"}
        for name, value in fixed.items():
            if getattr(self, name) not in (value, getattr(TrainConfig, name)):
                _logger.warning("--%s does nothing with --features", name.replace("_", "-"))
            object.__setattr__(self, name, value)


def recipe_arguments(config: TrainConfig, streams: Sequence[str] | None = None) -> list[str]:
    """Options of the command line that train with this configuration; those that have their default are left out.

    Args:
        config: how to train.
        streams: to name; `None` means all of the data set.
    """
    words = ["--streams", ",".join(streams)] if streams else []
    for field in dataclasses.fields(config):
        value, flag = getattr(config, field.name), recipe_flag(field.name)
        if value != field.default and not (config.features and field.name in _OF_BACKBONE):
            words += [flag] if field.type == "bool" else [flag, str(value)]
    return words


def recipe_flag(name: str) -> str:
    """The option of the command line for a field of `TrainConfig`; of one that is on by default, that turns it off."""
    return f"--{'no-' if getattr(TrainConfig, name) is True else ''}{name.replace('_', '-')}"


def current_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of `TrainConfig` by name as they are today, of those that an earlier version may have noted."""
    if "head" not in settings or "mixup" in settings:
        return dict(settings)
    settings = {"mixup": 0.0, **settings}
    if "stack" in settings:
        return settings
    head = settings["head"]  # noted before heads were renamed
    return {"stack": False, "val_split": True, **settings, "head": _OLD_HEADS.get(head, head)}


def current_streams(names: Iterable[str]) -> tuple[str, ...]:
    """The names of streams as they are today, of names that an earlier version may have written."""
    return tuple(_OLD_STREAMS.get(name, name) for name in names)


def stored_streams(names: Iterable[str]) -> tuple[str, ...]:
    """The names of streams that digests and logs have held from the first version on: so old ones stay valid."""
    first = {new: old for old, new in _OLD_STREAMS.items()}
    return tuple(first.get(name, name) for name in names)


def spec_from_dict(values: Mapping[str, Any]) -> ClipSpec:
    """The spec that `as_dict` of this or an earlier version gave.

    Raises:
        TypeError: a field has no such name.
        ActivityError: a field is out of range.
    """
    return ClipSpec(**{**values, "streams": current_streams(values.get("streams", STREAMS))})


def as_dict(config: ClipSpec | TrainConfig) -> dict[str, Any]:
    """The fields by name, ready for JSON; `num_features` only where there are some, so that old digests stay valid."""
    values = dataclasses.asdict(config)
    return {name: value for name, value in values.items() if name != "num_features" or value is not None}


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Which settings have other values than before, in words; empty if none has."""
    return "; ".join(f"{name} was {before.get(name)}, now {x}" for name, x in now.items() if before.get(name) != x)


def _check(name: str, value: object, good: bool, expected: str) -> None:
    if not good:
        raise SettingError(name, expected, value)
