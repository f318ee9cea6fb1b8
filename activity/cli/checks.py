"""Checks of arguments, made before the work: they import neither Keras nor TensorFlow, so a refusal takes a moment.

What cannot be run at all is wrong usage (exit status 2); what does not fit the files that are there is an
`ActivityError` (exit status 1).
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from activity.cli.output import state_dir
from activity.config import ClipSpec, TrainConfig
from activity.errors import ActivityError, SettingError
from activity.files import check_folder, check_output, foreign_in
from activity.models.backbones import find_weights
from activity.models.info import check_model_path, is_model
from activity.training.state import foreign_in_state

if TYPE_CHECKING:
    from activity.datasets.dataset import Dataset

_logger = logging.getLogger(__name__)

_Config = TypeVar("_Config", ClipSpec, TrainConfig)


def read_settings(config: type[_Config], arguments: argparse.Namespace, **values: Any) -> _Config:
    """The options as a configuration; a value that it refuses is wrong usage, and the message names the option.

    Args:
        config: the class of the configuration.
        arguments: of the command; their names are those of the fields.
        values: fields that are no option of their own, as `height` and `width` are parts of `--size`.
    """
    parser: argparse.ArgumentParser = arguments.parser
    names = config.__dataclass_fields__
    try:
        return config(**{name: values[name] if name in values else getattr(arguments, name) for name in names})
    except SettingError as error:
        option = f"size: {error.name}" if error.name in values else error.name.replace("_", "-")
        parser.error(f"--{option} must be {error.expected}, received: {error.received}")


def check_executor(arguments: argparse.Namespace) -> None:
    """An address without a cluster is wrong usage; the options are those of `activity.cli.options.add_executor`."""
    if arguments.address is not None and arguments.executor != "ray":
        arguments.parser.error("--address is of a Ray cluster: it goes with --executor ray")


def read_recipe(arguments: argparse.Namespace) -> TrainConfig:
    """The options of `activity.cli.options.add_recipe`.

    Raises:
        ActivityError: the weights are absent, or the runtime is not installed.
    """
    config = read_settings(TrainConfig, arguments)
    check_runtime(arguments.runtime)
    find_weights(config.backbone, config.weights)
    return config


def open_dataset(arguments: argparse.Namespace, *, task: str = "classify", labels_per: str = "clip") -> Dataset:
    """The labelled samples of a data set, seen through the streams that were asked for, or with the feature files.

    Args:
        arguments: of the command.
        task: `describe`: the samples with captions.
        labels_per: `step`: also the samples without a label, as they tell where nothing is known of a film.

    Raises:
        DatasetError: it is not a data set folder, has no labels or captions, lacks a stream, or the feature files do
            not fit it.
    """
    from activity.datasets.dataset import load_dataset

    dataset = load_dataset(arguments.dataset)
    if task == "describe":
        dataset = dataset.captioned()
    elif labels_per == "clip" or not dataset.labels:  # which is an error
        dataset = dataset.labelled()
    if getattr(arguments, "features", None):
        for name, default in (("streams", None), ("runtime", "auto")):
            if getattr(arguments, name, default) != default:
                _logger.warning("--%s does nothing with --features", name)
        return dataset.with_features(arguments.features)
    return dataset.with_streams(arguments.streams) if getattr(arguments, "streams", None) else dataset


def check_runtime(runtime: str) -> None:
    """Raise `ActivityError` if a runtime was asked for by name and is not installed."""
    if runtime != "auto":  # to choose may ask Keras for a GPU
        from activity.runtimes.choice import choose

        choose(runtime)


def check_new_model(path: Path, *, overwrite: bool, resume: bool | None = None) -> None:
    """Raise `ActivityError` if a model and the state of its training could not be written, or would replace another.

    Args:
        path: of the model file.
        overwrite: another may be replaced.
        resume: a stopped training is to be continued; `None`: the command cannot.
    """
    check_model_path(path)
    replace = overwrite or (bool(resume) and not foreign_in_state(state_dir(path)))  # there is something to resume
    check_output(path, overwrite=replace, foreign=lambda file: None if is_model(file) else file, what="a model file")
    check_output(
        state_dir(path),
        overwrite=replace,
        foreign=foreign_in_state,
        what="the state of a training",
        hint="replace it with --overwrite"
        if resume is None
        else "continue it with --resume, replace it with --overwrite",
    )


def check_report(arguments: argparse.Namespace) -> None:
    """Raise `ActivityError` if the report of `--out` could not be written, or would replace something."""
    check_folder(arguments.out)
    check_results(arguments, "a report", arguments.out)


def check_results(arguments: argparse.Namespace, what: str, *paths: Path | None) -> None:
    """Raise `ActivityError` if files or folders of `say_written` could not be written, or would replace something."""
    for path in paths:
        check_output(path, overwrite=arguments.overwrite, foreign=foreign_in, what=what)


def check_places(arguments: argparse.Namespace, places: Iterable[tuple[str, Path]]) -> None:
    """Raise `ActivityError` if results, each of a kind, could not be written, or two would have one name."""
    taken: dict[Path, str] = {}
    for what, path in places:
        check_results(arguments, what, path)
        if other := taken.get(path.resolve()):
            raise ActivityError(f"both {other} and {what} would have this name; expected two places", path=path)
        taken[path.resolve()] = what


def check_order(arguments: argparse.Namespace) -> None:
    """Refuse a data set and a model file in the wrong order."""
    if arguments.dataset.suffix == ".keras" and arguments.model.suffix != ".keras":
        command = f"activity {arguments.command} {arguments.dataset} {arguments.model}"
        arguments.parser.error(f"model and data set are swapped; expected: {command}")
