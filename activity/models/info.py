"""What a model file tells about the model. It is a zip, of which this reads the `config.json` alone, without Keras."""

from __future__ import annotations

import dataclasses
import json
import sys
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from activity.config import LABELS_PER, MAX_WORDS, ClipSpec, TrainConfig, as_dict, current_settings, spec_from_dict
from activity.errors import ActivityError, ModelFileError, SettingError, printable

FORMAT_VERSION = 3  # of the model file; raised when its parts change; 1 had no streams, 2 no windows
WEIGHTS_NAME = "model.weights.h5"  # the part of the zip that holds the weights
_PARTS = {"metadata.json", "config.json", WEIGHTS_NAME}
_LARGEST_JSON = 32 << 20  # bytes; 100,000 training videos take 2 MB
_LARGEST_GROWTH, _NO_BOMB = 10, 64 << 20  # a part may be so many times as large as the file, or so many bytes
# Task -> what its models do, and a command that uses them
_TASKS = {
    "classify": ("labels activities", "classify {} SOURCE..."),
    "describe": ("writes sentences", "describe {} SOURCE..."),
    "order": ("knows the order of activities", "generate {}"),
}
_REGISTERED_NAMES = ("activity>ActivityClassifier", "activity>ActivityCaptioner")
UNKNOWN, NO_ANSWER = "unknown", "no answer"
_OLD_NAMES = {"taught": "trained", "num_torn_groups": "num_split_groups"}  # in files written until 0.1 -> name


def unknown_name(labels: Sequence[str]) -> str:
    """The answer of a model with these labels below its threshold: `unknown`, unless a class has that name."""
    name = NO_ANSWER if UNKNOWN in labels else UNKNOWN
    while name in labels:
        name = f"({name})"
    return name


@dataclass(frozen=True, kw_only=True)
class TrainingRecord:
    """How a model came about, for people and for updates; prediction never reads it. Unknown facts have the default.

    Args:
        training: the settings of its training.
        dataset: folder of the data set.
        num_videos: split -> number of videos.
        counts: label -> split -> number of videos.
        num_groups: split -> number of groups.
        num_split_groups: how many groups appear in more than one split.
        trained: digests of the videos of its train and val splits, see `activity.datasets.samples.content_of`.
        held_out: digests of the videos of its test split.
        calibration: the scores of `activity.evaluation.calibration.Calibration`.
        estimate: the accuracy to expect, see `activity.training.stacking.Estimate`.
        stack: how much the head and the base models of a stack count, by name; the sum is 1.
        history: a row for each epoch.
        command: the command line that trained it; empty if it was trained from Python.
        updates: what each update changed, in their order.
        date: of its training, in UTC.
        seconds: that the stages of training took.
        versions: of the programs that wrote the file.
        num_parameters: of backbone and head.
    """

    training: TrainConfig | None = None
    dataset: str = ""
    num_videos: Mapping[str, int] = field(default_factory=dict)
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    num_groups: Mapping[str, int] = field(default_factory=dict)
    num_split_groups: int | None = None
    trained: tuple[str, ...] = ()
    held_out: tuple[str, ...] = ()
    calibration: Mapping[str, Any] | None = None
    estimate: Mapping[str, float] | None = None
    stack: Mapping[str, float] = field(default_factory=dict)
    history: tuple[Mapping[str, Any], ...] = ()
    command: str = ""
    updates: tuple[Mapping[str, Any], ...] = ()
    date: str = ""
    seconds: float | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    num_parameters: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """All known facts by name; ready for JSON."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value not in (None, "", (), {})}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainingRecord:
        """Read what `as_dict` of this or another version gave; what this version does not know is left out."""
        facts = {_OLD_NAMES.get(name, name): value for name, value in values.items() if value is not None}
        facts = _checked({name: value for name, value in facts.items() if name in _RECORD}, _RECORD)
        facts = {name: tuple(value) if isinstance(value, list) else value for name, value in facts.items()}
        if "training" in facts:
            settings = {name: x for name, x in facts["training"].items() if name in _SETTINGS}
            facts["training"] = TrainConfig(**current_settings(_checked(settings, _SETTINGS)))
        return cls(**facts)


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """All that prediction needs to know of a model beside its weights, and how it came about.

    Args:
        spec: what a clip is.
        labels: names of the C activities; the position is the label id. Empty for a model that writes sentences.
        words: of such a model: its vocabulary, in the order of the numbers of words; see `activity.models.decoder`. Of
            a model of the order of activities, the labels.
        max_words: of both: no sentence is longer.
        clip_seconds: the longest time a clip spanned in training. A video of more than twice that is read in windows.
        window_seconds: how long these are: less than most clips of training, so that most lie within one activity.
        threshold: probability below which an answer is "unknown"; 0: there is always an answer; above 1: never.
        labels_per: `clip`: probabilities of a clip; `step`: of each of its time steps. The windows of such a model are
            clips; its `window_seconds` are what most labelled segments of training last.
        state_size: of a model of steps whose head goes on from the state of the steps before: numbers in each of the
            two states of its LSTMs; 0: it reads windows.
        multi_label: of a model of steps: several labels may hold at once; those whose probability reaches `threshold`.
        rows_per_second: of the feature files of training, at the median; `None`: of a model of videos.
        record: how the model came about.
    """

    spec: ClipSpec
    labels: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    max_words: int = 0
    clip_seconds: float
    window_seconds: float
    threshold: float = 0.0
    labels_per: str = "clip"
    state_size: int = 0
    multi_label: bool = False
    rows_per_second: float | None = None
    record: TrainingRecord = field(default_factory=TrainingRecord)

    def __post_init__(self) -> None:
        for name in ("words",) if self.words else ("labels",):
            found = getattr(self, name)
            if not all(found) or not 0 < len(set(found)) == len(found):
                raise SettingError(name, "names, each once", ", ".join(found))
        if self.words and self.labels not in ((), self.words):
            raise SettingError("labels", "none, or the words", ", ".join(self.labels))
        if not (1 <= self.max_words <= MAX_WORDS if self.words else self.max_words == 0):
            raise SettingError("max_words", f"1 to {MAX_WORDS}" if self.words else "none", self.max_words)
        for name in ("clip_seconds", "window_seconds"):
            if not 0 < getattr(self, name) < float("inf"):
                raise SettingError(name, "above 0", getattr(self, name))
        if not 0 <= self.threshold < float("inf"):
            raise SettingError("threshold", "0 or more", self.threshold)
        if self.labels_per not in LABELS_PER:
            raise SettingError("labels_per", " or ".join(LABELS_PER), self.labels_per)
        if self.labels_per == "step" and (self.words or not self.spec.frames_per_second):
            raise SettingError("labels_per", "clip: a model of steps has labels, and frames at a rate", "step")
        if self.state_size < 0 or (self.state_size and self.labels_per != "step"):
            raise SettingError("state_size", "0, or more of a model of steps", self.state_size)
        if self.multi_label and self.labels_per != "step":
            raise SettingError("multi_label", "false: only models of steps may have several labels at once", True)
        rate = self.rows_per_second
        if not (1e-6 <= (rate or 0) <= 1e6 if self.spec.num_features else rate is None):
            expected = "0.000001 to 1000000" if self.spec.num_features else "none: the model takes videos"
            raise SettingError("rows_per_second", expected, rate)

    def on_steps(self) -> str:
        """How a model of steps reads a film, for people."""
        rate, length = self.spec.frames_per_second or 0.0, self.spec.num_frames
        steps = f"a label for each step, {rate:.3g} a second"
        if self.state_size:
            return f"{steps}; goes on from the state of the steps before, so that streams need no windows"
        return f"{steps}; films and streams are read in windows of {length} steps ({length / rate:.1f} s)"

    @property
    def task(self) -> str:
        """`classify`, `describe` or `order`."""
        return ("order" if self.labels else "describe") if self.words else "classify"

    def with_record(self, **facts: Any) -> ModelInfo:
        """A copy with other facts in its record."""
        return dataclasses.replace(self, record=dataclasses.replace(self.record, **facts))

    def as_dict(self) -> dict[str, Any]:
        """Everything by name, the record only if it tells something; ready for JSON."""
        values = {name: getattr(self, name) for name in ("clip_seconds", "window_seconds", "threshold")}
        record = self.record.as_dict()
        told = {"record": record} if record else {}
        values |= {"rows_per_second": self.rows_per_second} if self.rows_per_second else {}
        if self.labels_per == "step":
            values |= {name: getattr(self, name) for name in ("labels_per", "state_size", "multi_label")}
        values |= {"words": list(self.words), "max_words": self.max_words} if self.words else {}
        return {"spec": as_dict(self.spec), "labels": list(self.labels), **values, **told}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelInfo:
        """Read what `as_dict` of this or an earlier version gave; other keys are left out.

        Raises:
            KeyError, TypeError, ActivityError: it is damaged, or of another version.
        """
        info = _checked({"record": {}, **values}, _INFO)
        return cls(
            spec=spec_from_dict(_checked(info["spec"], _SPEC)),
            labels=tuple(info["labels"]),
            words=tuple(info.get("words", ())),
            max_words=info.get("max_words", 0),
            **{name: float(info[name]) for name in ("clip_seconds", "window_seconds", "threshold")},
            labels_per=info.get("labels_per", "clip"),
            state_size=info.get("state_size", 0),
            multi_label=info.get("multi_label", False),
            rows_per_second=info.get("rows_per_second"),
            record=TrainingRecord.from_dict(info["record"]),
        )


# === What the values in a model file, which may come from a stranger, must be ===
# A shape is a type, [shape of each item], {name: shape, str: shape of all other names}, a tuple of shapes of which one
# must fit, or the value itself.

_PLAIN: dict[str, Any] = {"int": int, "float": float, "bool": bool, "str": str}
_PLAIN |= {f"{name} | None": (shape, None) for name, shape in _PLAIN.items()}
_SETTINGS = {item.name: _PLAIN[str(item.type)] for item in dataclasses.fields(TrainConfig)}
_SPEC = {item.name: _PLAIN.get(str(item.type), [str]) for item in dataclasses.fields(ClipSpec)}
_INFO: dict[str, Any] = {"spec": dict, "labels": [str], "words": [str], "max_words": int, "record": dict}
_INFO |= dict.fromkeys(("clip_seconds", "window_seconds", "threshold"), float)
_INFO |= {"rows_per_second": (float, None), "labels_per": str, "state_size": int, "multi_label": bool}
_BY_SPLIT: tuple[Any, ...] = ({}, {"train": int, "val": int, "test": int})
_COMPARED = ({"num_videos": 0}, {"num_videos": int, "split": str, "before": float, "after": float})
_RECORD: dict[str, Any] = {
    **dict.fromkeys(("dataset", "command", "date"), str),
    **dict.fromkeys(("num_split_groups", "num_parameters"), int),
    **dict.fromkeys(("trained", "held_out"), [str]),
    **dict.fromkeys(("num_videos", "num_groups"), _BY_SPLIT),
    "training": dict,
    "counts": {str: _BY_SPLIT},
    "calibration": {
        "temperature": float,
        "num_videos": int,
        "expected_calibration_error": {"before": float, "after": float},
        str: (float, bool),
    },
    "estimate": {
        **dict.fromkeys(("num_videos", "num_groups"), int),
        **dict.fromkeys(("accuracy", "standard_error", "head_accuracy", "baseline_accuracy"), float),
        str: float,
    },
    "stack": {str: float},
    "history": [{"stage": str, "epoch": int, "loss": float, "accuracy": float, str: float}],
    "updates": [{"scheme": str, "num_new": int, "num_old": int, "added": [str], "old": _COMPARED, "new": _COMPARED}],
    "seconds": float,
    "versions": {str: str},
}


def stack_as_text(fractions: Mapping[str, float]) -> str:
    """What a stack rests on, the most first, without what rounds to 0 %; see `TrainingRecord.stack`."""
    parts = sorted(fractions.items(), key=lambda part: -part[1])
    return ", ".join(f"{name} {fraction:.0%}" for name, fraction in parts if fraction >= 0.005)


def _checked(values: Mapping[str, Any], shapes: Mapping[str, Any]) -> dict[str, Any]:
    """The values by name; raises `ModelFileError` for the first that does not have its shape."""
    for name, value in values.items():
        if name in shapes and not _fits(value, shapes[name]):
            raise ModelFileError(f"{name} is not what it must be, received: {value!r:.80}")
    return dict(values)


def _fits(value: Any, shape: Any) -> bool:
    if isinstance(shape, tuple):
        return any(_fits(value, one) for one in shape)
    if isinstance(shape, list):
        return isinstance(value, list | tuple) and all(_fits(item, shape[0]) for item in value)
    if isinstance(shape, dict) and shape:
        names = shape.keys() - {str}
        return (
            isinstance(value, dict)
            and names <= value.keys()
            and all(_fits(item, shape.get(name, shape.get(str, object))) for name, item in value.items())
        )
    if shape is float:
        return type(value) in (int, float) and abs(value) <= sys.float_info.max
    return value == shape if not isinstance(shape, type) else shape is object or type(value) is shape


def read_info(path: Path, *, task: str | None = "classify") -> ModelInfo:
    """What a model file tells about the model; neither Keras nor the weights are loaded.

    Args:
        path: a `.keras` file.
        task: that the model must be for; `None`: any.

    Raises:
        ModelFileError: there is no such file, it is cut off, not ours, of another version, or for another task.
    """
    config = read_config(path)
    try:
        info = ModelInfo.from_dict(config)
    except (KeyError, TypeError, ActivityError) as error:
        reason = f"its {error} is missing" if isinstance(error, KeyError) else str(error)
        raise ModelFileError(f"damaged, or made by another version of activity: {reason}", path=path) from error
    if task not in (None, info.task):
        reason = f"expected a model that {_TASKS[str(task)][0]}, and this one {_TASKS[info.task][0]}"
        raise ModelFileError(reason, path=path, hint=f"try: activity {_TASKS[info.task][1].format(path.name)}")
    return info


def check_takes_videos(info: ModelInfo, task: str) -> None:
    """Raise `ActivityError` if a model is one of feature files, where a task needs frames."""
    if info.spec.num_features:
        raise ActivityError(f"{task} needs a model of videos; this one takes feature files, {info.spec}")


def check_model_path(path: Path) -> None:
    """Raise `ActivityError` if a model could not be written under this name; asked before hours of training."""
    if path.suffix != ".keras":
        raise ModelFileError("the name of a model file must end in .keras", path=path)
    if path.is_dir():
        raise ModelFileError("a folder has this name", path=path, hint="give the model file another")


def is_model(path: Path) -> bool:
    """Whether a file is a model of ours, of whatever version."""
    try:
        return _read(path)["registered_name"] in _REGISTERED_NAMES
    except (ModelFileError, KeyError):
        return False


def read_config(path: Path) -> dict[str, Any]:
    """The dictionary that `get_config` of the model gave when the file was written; raises as `read_info`."""
    config = _read(path)
    if config.get("registered_name") not in _REGISTERED_NAMES:
        raise ModelFileError(
            f"a Keras model, but not one of ours; expected {' or '.join(_REGISTERED_NAMES)}, received "
            f"{config.get('registered_name') or config.get('class_name')}",
            path=path,
        )
    fields = config.get("config")
    version = fields.get("format_version") if isinstance(fields, dict) else None
    if not isinstance(fields, dict) or type(version) is not int:
        raise ModelFileError("damaged, it does not say which model format it has", path=path)
    if version != FORMAT_VERSION:
        age, hint = ("an older", "train it again") if version < FORMAT_VERSION else ("a newer", "upgrade activity")
        reason = f"made by {age} activity (model format {version}, this program reads {FORMAT_VERSION})"
        raise ModelFileError(reason, path=path, hint=hint)
    return dict(fields)


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ModelFileError("no such model file", path=path)
    try:
        with zipfile.ZipFile(path) as file:
            _check_parts(file, path)
            damaged = file.testzip()
            config = json.loads(file.read("config.json"))
    except ModelFileError:
        raise
    except Exception as error:  # BadZipFile, KeyError, ValueError, zlib.error: damage shows in any way
        raise ModelFileError(f"not a model file, or cut off; expected a .keras file ({error})", path=path) from error
    if damaged:
        raise ModelFileError(f"damaged, the checksum of {damaged} inside it is wrong", path=path)
    if not isinstance(config, dict):
        raise ModelFileError(
            f"not a model file; expected an object in its config.json, received {config!r:.40}", path=path
        )
    return config


def _check_parts(file: zipfile.ZipFile, path: Path) -> None:
    """Raise `ModelFileError` unless a zip has the parts of a Keras model alone, none of which unpacks to a flood."""
    largest = max(_LARGEST_GROWTH * path.stat().st_size, _NO_BOMB)
    seen = set[str]()
    for part in file.infolist():
        if part.filename not in _PARTS - seen:
            raise ModelFileError(f"has a part that model files have not: {printable(part.filename)!r:.80}", path=path)
        most = largest if part.filename == WEIGHTS_NAME else min(largest, _LARGEST_JSON)
        if part.file_size > most:
            reason = f"its {part.filename} would unpack to {part.file_size:,} bytes; expected at most {most:,}"
            raise ModelFileError(reason, path=path)
        seen.add(part.filename)
