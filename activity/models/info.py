"""What a model file tells about the model. It is a zip, of which this reads the `config.json` alone, without Keras."""

from __future__ import annotations

import dataclasses
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from activity.config import ClipSpec, TrainConfig, as_dict, spec_from_dict
from activity.errors import ActivityError, ModelFileError

FORMAT_VERSION = 3  # of the model file; raised when its parts change; 1 had no streams, 2 no windows
_REGISTERED_NAME = "activity>ActivityClassifier"
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
        facts = {name: tuple(x) if isinstance(x, list) else x for name, x in facts.items() if name in _names(cls)}
        if "training" in facts:
            settings = {name: x for name, x in facts["training"].items() if name in _names(TrainConfig)}
            facts["training"] = TrainConfig(**settings)
        return cls(**facts)


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """All that prediction needs to know of a model beside its weights, and how it came about.

    Args:
        spec: what a clip is.
        labels: names of the C activities; the position is the label id.
        clip_seconds: the longest time a clip spanned in training. A video of more than twice that is read in windows.
        window_seconds: how long these are: less than most clips of training, so that most lie within one activity.
        threshold: probability below which an answer is "unknown"; 0: there is always an answer.
        record: how the model came about.
    """

    spec: ClipSpec
    labels: tuple[str, ...]
    clip_seconds: float
    window_seconds: float
    threshold: float = 0.0
    record: TrainingRecord = field(default_factory=TrainingRecord)

    def with_record(self, **facts: Any) -> ModelInfo:
        """A copy with other facts in its record."""
        return dataclasses.replace(self, record=dataclasses.replace(self.record, **facts))

    def as_dict(self) -> dict[str, Any]:
        """Everything by name, the record only if it tells something; ready for JSON."""
        values = {name: getattr(self, name) for name in ("clip_seconds", "window_seconds", "threshold")}
        record = self.record.as_dict()
        told = {"record": record} if record else {}
        return {"spec": as_dict(self.spec), "labels": list(self.labels), **values, **told}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelInfo:
        """Read what `as_dict` of this or an earlier version gave; other keys are left out.

        Raises:
            KeyError, TypeError, ActivityError: it is damaged, or of another version.
        """
        return cls(
            spec=spec_from_dict(values["spec"]),
            labels=tuple(values["labels"]),
            **{name: float(values[name]) for name in ("clip_seconds", "window_seconds", "threshold")},
            record=TrainingRecord.from_dict(values.get("record", {})),
        )


def read_info(path: Path) -> ModelInfo:
    """What a model file tells about the model; neither Keras nor the weights are loaded.

    Raises:
        ModelFileError: there is no such file, it is cut off, not ours, or of another version.
    """
    config = _read_config(path)
    try:
        return ModelInfo.from_dict(config)
    except (KeyError, TypeError, AttributeError, ActivityError) as error:
        raise ModelFileError(f"damaged, or made by another version of activity: {error!r}", path=path) from error


def _names(of: type[Any]) -> set[str]:
    return {item.name for item in dataclasses.fields(of)}


def check_model_path(path: Path) -> None:
    """Raise `ActivityError` if a model could not be written under this name; asked before hours of training."""
    if path.suffix != ".keras":
        raise ModelFileError("the name of a model file must end in .keras", path=path)
    if path.is_dir():
        raise ModelFileError("a folder has this name; give the model file another", path=path)


def is_model(path: Path) -> bool:
    """Whether a file is a model of ours, of whatever version."""
    try:
        with zipfile.ZipFile(path) as file:
            return json.loads(file.read("config.json"))["registered_name"] == _REGISTERED_NAME
    except Exception:  # as in `_read`
        return False


def _read_config(path: Path) -> dict[str, Any]:
    """The dictionary that `ActivityClassifier.get_config` gave when the file was written."""
    config = _read(path)
    if config.get("registered_name") != _REGISTERED_NAME:
        raise ModelFileError(
            f"a Keras model, but not one of ours; expected {_REGISTERED_NAME}, received "
            f"{config.get('registered_name') or config.get('class_name')}",
            path=path,
        )
    fields = config.get("config")
    version = fields.get("format_version") if isinstance(fields, dict) else None
    if not isinstance(version, int):
        raise ModelFileError("damaged, it does not say which model format it has", path=path)
    if version < FORMAT_VERSION:
        raise ModelFileError(
            f"made by an older activity (model format {version}, this program reads {FORMAT_VERSION}); train it again",
            path=path,
        )
    if version > FORMAT_VERSION:
        raise ModelFileError(
            f"made by a newer activity (model format {version}, this program reads {FORMAT_VERSION}); upgrade activity",
            path=path,
        )
    return config["config"]


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ModelFileError("no such model file", path=path)
    try:
        with zipfile.ZipFile(path) as file:
            damaged = file.testzip()
            config = json.loads(file.read("config.json"))
    except Exception as error:  # BadZipFile, KeyError, ValueError, zlib.error: damage shows in any way
        raise ModelFileError(f"not a model file, or cut off; expected a .keras file ({error})", path=path) from error
    if damaged:
        raise ModelFileError(f"damaged, the checksum of {damaged} inside it is wrong", path=path)
    if not isinstance(config, dict):
        raise ModelFileError(
            f"not a model file; expected an object in its config.json, received {config!r:.40}", path=path
        )
    return config
