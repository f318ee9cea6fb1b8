"""A model card: the contents of a model file, for people. Neither Keras nor the weights are loaded.

The idea is that of Mitchell et al. 2019, Model Cards for Model Reporting, https://arxiv.org/abs/1810.03993. Everything
is read from the file. It holds the scores of the validation split, not those of `activity evaluate`.
"""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from activity.config import FEATURES, TrainConfig, as_dict, recipe_arguments
from activity.errors import printable
from activity.models.backbones import BACKBONES, choose_weights
from activity.models.info import ModelInfo, TrainingRecord, read_info, stack_as_text, unknown_name
from activity.progress import format_table

_SPLITS = ("train", "val", "test")
_RESIZED = {"stretch": "stretched to it", "crop": "cropped to it", "letterbox": "fitted into it, black around"}
# Rows that may show one:
_WITH_PATHS = ("data set", "feature files", "dataset", "not the default", "command", "as a command")
_LIMIT_OF_FEATURES = (
    "It takes features, not videos: they must come from the very network that made those of its training."
)
_MOST_WORDS = 50  # shown of a vocabulary, the most frequent ones
_NOT_RECORDED = "not recorded"


Row = tuple[str, str]


@dataclass(frozen=True)
class ModelCard:
    """All that a model file tells of the model, and its size."""

    path: Path
    num_bytes: int
    info: ModelInfo

    @property
    def record(self) -> TrainingRecord:
        """How the model came about."""
        return self.info.record

    @property
    def scores(self) -> dict[str, float]:
        """Scores of the last epoch: `loss` and `accuracy` in training, `val_loss` and `val_accuracy` in validation."""
        last = (self.record.history or [{}])[-1]
        return {name: last[name] for name in ("loss", "accuracy", "val_loss", "val_accuracy") if name in last}

    @property
    def changed(self) -> dict[str, Any]:
        """The settings of the recipe that are not the defaults."""
        if self.record.training is None:
            return {}
        trained, defaults = as_dict(self.record.training), as_dict(TrainConfig())
        if self.record.training.features:
            defaults |= {"backbone": FEATURES, "weights": "none"}
        elif self.record.training.backbone in BACKBONES:
            defaults["weights"] = choose_weights(self.record.training.backbone, None)
        return {name: value for name, value in trained.items() if value != defaults[name]}

    @property
    def command(self) -> str:
        """The command that trained it first, or one that would, where it was trained from Python."""
        if self.record.command or self.record.training is None:
            return self.record.command
        streams = None if self.info.spec.num_features else self.info.spec.streams
        recipe = recipe_arguments(self.record.training, streams)
        dataset = self.record.dataset or "DATASET"
        return shlex.join(["activity", "train", dataset, "--out", self.path.name, *recipe])

    @property
    def limits(self) -> list[str]:
        """Limits that its scores do not show, a sentence each."""
        if self.info.threshold:
            other = "Something quite different may still be predicted as one of its labels with confidence."
        else:
            other = "It answers with one of its labels whatever a video shows."
        if self.info.task == "order":
            return [
                *_limits_of_data(self.record),
                "It knows the order in which its films showed activities, nothing of what they look like.",
            ]
        if self.info.words:
            other = "It writes with the words of its captions alone, and a sentence whatever a video shows."
        whole = "It labels a whole clip with one activity; it does not say where in the image."
        return [
            *_limits_of_data(self.record),
            *([_LIMIT_OF_FEATURES] if self.info.spec.num_features else []),
            *([] if self.info.words else [whole]),
            other,
            "How it does on other people, places and cameras than those of its data set was not measured.",
        ]

    def as_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON; without the digests of all videos and the log of all epochs."""
        record, split_groups = self.record.as_dict(), self.record.num_split_groups
        left_out = ("trained", "held_out", "history", "command")
        return {
            "path": str(self.path),
            "num_bytes": self.num_bytes,
            **dataclasses.replace(self.info, record=TrainingRecord()).as_dict(),
            "scores": self.scores,
            "changed": self.changed,
            "command": self.command,
            "command_recorded": bool(self.record.command),
            "limits": self.limits,
            **{name: value for name, value in record.items() if name not in left_out},
            "calibration": self.record.calibration,
            **({} if split_groups is None else {"num_torn_groups": split_groups}),  # its name until 0.1
        }

    def as_text(self) -> str:
        """The card for a terminal."""
        sections, lines = self._sections(), list[str]()
        table = iter(format_table(chain.from_iterable(sections.values())))
        for title, rows in sections.items():
            lines += ["", title, *(f"  {next(table)}" for _ in rows)]
        return "\n".join([str(self.path), *lines, "", "limits", *(f"  {limit}" for limit in self.limits)])

    def as_markdown(self, *, with_paths: bool = True) -> str:
        """The card as a page to share, in Markdown.

        Args:
            with_paths: also show folders, files and commands of the computer where the model was made.
        """
        lines = [f"# {plain_markdown(self.path.name)}", ""]
        what = f"A video classifier for {len(self.info.labels)} activities"
        if self.info.task == "order":
            what = f"A model of the order of {len(self.info.labels)} activities"
        elif self.info.words:
            what = f"A model that writes sentences on videos, of {len(self.info.words)} words"
        lines += [f"{what}, made with `activity`."]
        for title, rows in self._sections().items():
            lines += ["", f"## {title.capitalize()}", "", "| | |", "|---|---|"]
            shown = [row for row in rows if with_paths or row[0] not in _WITH_PATHS]
            lines += [f"| {plain_markdown(name)} | {plain_markdown(value)} |" for name, value in shown]
        lines += ["", "## Limits", "", *(f"- {limit}" for limit in self.limits)]
        return "\n".join(lines)

    def _sections(self) -> dict[str, list[Row]]:
        sections = {
            "model": _rows_of_model(self),
            "data": _rows_of_data(self.record),
            "scores": _rows_of_scores(self),
            "training": _rows_of_training(self),
        }
        for number, update in enumerate(self.record.updates, start=1):
            sections[f"update {number}"] = _rows_of_update(update)
        return {title: rows for title, rows in sections.items() if rows}


def model_card(path: Path) -> ModelCard:
    """Read the card of a model file.

    Raises:
        ModelFileError: there is no such file, it is cut off, not ours, or of another version.
    """
    path = Path(path)
    info = read_info(path, task=None)  # says what is wrong
    return ModelCard(path, path.stat().st_size, info)


# === Rows ===


def _rows_of_model(card: ModelCard) -> list[Row]:
    info, spec, parameters = card.info, card.info.spec, card.record.num_parameters
    items = "rows" if spec.num_features else "frames"
    if spec.frames_per_second is None:
        clip = f"{spec.num_frames} {items}, spread evenly over the video"
    else:
        clip = f"{spec.num_frames} {items}, {spec.frames_per_second:.3g} a second; several clips of a longer video"
    if info.labels_per == "step":
        clip = info.on_steps()
    windows = f"; a video more than twice as long is read in windows of {info.window_seconds:.1f} s"
    below = f'below a probability of {info.threshold:.3f} the answer is "{unknown_name(info.labels)}"'
    size = [
        ("frame", f"{spec.width} x {spec.height} pixels (width x height), {_RESIZED[spec.resize]}"),
        ("streams", ", ".join(spec.streams)),
    ]
    if spec.num_features:
        lasts = f"{info.rows_per_second:.3g} of them a second (median of training)"
        size = [("row", f"{spec.num_features} features of another network; {lasts}")]
    if info.task == "order":
        return [("labels", f"{len(info.labels)}: {', '.join(info.labels)}"), ("answer", "how probable each is next")]
    answer = below if info.threshold else "always one of the labels"
    if info.multi_label:
        answer = f"each label whose probability is {info.threshold:.3f} or more, several at once or none"
    names = ("labels", f"{len(info.labels)}: {', '.join(info.labels)}")
    if info.words:
        names = (
            "words",
            f"{len(info.words)}: {', '.join(info.words[:_MOST_WORDS])}" + ", ..." * (len(info.words) > _MOST_WORDS),
        )
        answer = f"a sentence of up to {info.max_words} words"
    return [
        names,
        ("clip", clip),
        ("longest clip", f"{info.clip_seconds:.1f} s" + (windows if spec.frames_per_second is None else "")),
        *size,
        ("answer", answer),
        ("size", f"{card.num_bytes / 1e6:.1f} MB" + (f", {parameters:,} parameters" if parameters else "")),
    ]


def _rows_of_data(record: TrainingRecord) -> list[Row]:
    rows = [
        ("data set", record.dataset),
        ("feature files", (record.training and record.training.features) or ""),
        ("videos", _by_split(record.num_videos)),
        ("groups", _by_split(record.num_groups)),
    ]
    rows += [(label, _by_split(numbers)) for label, numbers in record.counts.items()]
    return [row for row in rows if row[1]]


def _rows_of_scores(card: ModelCard) -> list[Row]:
    rows, scores = [], card.scores
    if "val_accuracy" in scores:
        rows.append(("validation", f"accuracy {scores['val_accuracy']:.3f}, loss {scores['val_loss']:.3f}"))
    if "accuracy" in scores:
        rows.append(("training", f"accuracy {scores['accuracy']:.3f}, loss {scores['loss']:.3f}"))
    if estimate := card.record.estimate:
        steps = card.info.labels_per == "step"
        counted = "steps of training films" if steps else "training videos"
        numbers = (
            f"accuracy {{accuracy:.3f}} +- {{standard_error:.3f}} on {{num_videos}} {counted} of {{num_groups}} "
            "groups, each predicted without its group; head alone {head_accuracy:.3f}, baseline {baseline_accuracy:.3f}"
        )
        if "shuffled_accuracy" in estimate:  # which earlier versions did not measure
            numbers += ", frames shuffled {shuffled_accuracy:.3f}"
        rows.append(("out of fold", numbers.format(**estimate)))
    if calibration := card.record.calibration:
        error = calibration["expected_calibration_error"]
        counted = "training videos" if card.info.labels_per == "clip" else "stretches of one label in training films"
        videos = f"{counted} out of fold" if calibration.get("out_of_fold") else "validation videos"
        rows.append(
            (
                "calibration",
                f"temperature {calibration['temperature']:.2f}, by {calibration['num_videos']} {videos}; "
                f"expected calibration error {error['before']:.3f} before, {error['after']:.3f} after calibration",
            )
        )
    return rows


def _rows_of_training(card: ModelCard) -> list[Row]:
    record, rows = card.record, []
    if record.training:
        backbone = "feature files" if record.training.features else f"backbone {record.training.backbone}"
        head = f"head {record.training.head}"
        if record.training.task == "order":
            backbone, head = "decoder LSTM", f"{record.training.units} units"
        elif record.training.task == "describe":
            head = f"encoder LSTM of {record.training.units} units, decoder LSTM of {record.training.decoder_units}"
        rows.append(("architecture", f"{backbone}, {head}"))
        if record.stack:
            rows.append(("rests on", stack_as_text(record.stack)))
        changed = ", ".join(f"{name} {value}" for name, value in card.changed.items())
        rows.append(("not the default", changed or "nothing"))
    rows.append(("date", record.date or _NOT_RECORDED))
    if record.seconds is not None:
        rows.append(("time", f"{record.seconds:.0f} s, without that of the features"))
    if versions := record.versions:
        rows.append(("versions", ", ".join(f"{name} {version}" for name, version in versions.items())))
    if card.command:
        rows.append(("command" if record.command else "as a command", card.command))
    return rows


def _rows_of_update(update: Mapping[str, Any]) -> list[Row]:
    rows = [("scheme", f"{update['scheme']}: {update['num_new']} new training videos, {update['num_old']} old ones")]
    if update["added"]:
        rows.append(("new labels", ", ".join(update["added"])))
    for name in ("old", "new"):
        if update[name]["num_videos"]:
            numbers = "{num_videos} of {split}, accuracy {before:.3f} before, {after:.3f} after".format(**update[name])
            rows.append((f"{name} videos", numbers))
    return rows + [(name, str(update[name])) for name in ("dataset", "date", "command") if name in update]


def _by_split(numbers: Mapping[str, int]) -> str:
    return ", ".join(f"{numbers[split]} {split}" for split in _SPLITS if split in numbers)


# === Limits ===


def _limits_of_data(record: TrainingRecord) -> list[str]:
    limits = []
    videos, groups, num_split = record.num_videos, record.num_groups, record.num_split_groups
    if not groups or not videos:
        limits.append("Whether clips of one person or recording are on both sides of its splits is not recorded.")
    elif num_split:
        limits.append(
            f"{num_split} groups (people, recordings) appear in more than one split: its scores are too optimistic."
        )
    elif groups == videos:
        limits.append(
            "Each video is a group of its own: where several show one person or recording, its scores are too "
            "optimistic."
        )
    else:
        validated = f"validated with {groups['val']}, " if groups["val"] else ""
        limits.append(
            "Its splits share no group (person or recording, as the data set names them): trained on "
            f"{groups['train']} groups, {validated}and {groups['test']} were held out."
        )
    if since := _updates_since(record):
        num_new = sum(update["num_new"] for update in since)
        limits.append(f"The numbers of its videos and groups are from before it was updated with {num_new} new videos.")
    if record.estimate:
        limits.append(
            "Its out-of-fold score is that of models trained on fewer of the same videos; that of the test videos is "
            "not in the file: see `activity evaluate`."
        )
        return limits
    if any(update[name]["num_videos"] for update in record.updates[-1:] for name in ("old", "new")):
        limits.append(
            "Its scores on videos it was not trained on are those of its last update: see `activity evaluate`."
        )
        return limits
    if not videos or not videos["val"]:
        limits.append("It has no score on videos it was not trained on: see `activity evaluate`.")
        return limits
    too = ", which calibrated it too" if record.calibration else ""
    limits.append(
        f"The validation score is that of {videos['val']} videos{too}; that of the test videos is not in the file: see "
        "`activity evaluate`."
    )
    return limits


def _updates_since(record: TrainingRecord) -> Sequence[Mapping[str, Any]]:
    """The updates since its data were counted: one that trains from the beginning counts them again."""
    for number, update in reversed(list(enumerate(record.updates, 1))):
        if update["scheme"] == "retrain":
            return record.updates[number:]
    return record.updates


def plain_markdown(text: str) -> str:
    """A text in Markdown, in a line or the cell of a table, where nothing of it is markup, a link or HTML."""
    return _MARKUP.sub(r"\\\g<0>", printable(text))


_MARKUP = re.compile(r"[\\`*\[\]<>|~$@]|(?<!\w)_|_(?!\w)|&(?=#?\w+;)|:(?=//)|(?<=www)\.", re.IGNORECASE)
