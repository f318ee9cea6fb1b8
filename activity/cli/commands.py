"""What each command does: one library call, and its result printed. See `activity.cli.main`.

Keras and OpenCV are imported only by the commands that need them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import shlex
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from activity.cli.options import complete_files, parser
from activity.config import ClipSpec, TrainConfig, as_dict, recipe_arguments
from activity.errors import ActivityError, VideoError
from activity.files import check_folder, csv_rows

if TYPE_CHECKING:
    from activity.datasets.dataset import Dataset
    from activity.predictor.prediction import Prediction
    from activity.predictor.predictor import Predictor
    from activity.training.trainer import TrainingRun


_Config = TypeVar("_Config", ClipSpec, TrainConfig)

_UPDATE_OPTIONS = ("scheme", "replay", "epochs", "learning_rate", "seed", "runtime")


_logger = logging.getLogger(__name__)


def _demo(arguments: argparse.Namespace) -> None:
    from activity.apps.demo import run_demo

    run_demo(arguments.out, say=print)


def _preprocess(arguments: argparse.Namespace) -> None:
    height, width = arguments.size
    spec = _settings(ClipSpec, arguments, height=height, width=width)
    from activity.datasets.preprocessing import preprocess

    dataset = preprocess(
        arguments.videos,
        arguments.out,
        spec,
        split_files=arguments.split_files,
        num_workers=arguments.workers,
        seconds_per_video=arguments.time_limit,
        seed=arguments.seed,
    )
    print(f"{dataset.as_text()}\n{'data set':16} {arguments.out}")


def _train(arguments: argparse.Namespace) -> None:
    config = _settings(TrainConfig, arguments)
    from activity.models.classifier import check_model_path
    from activity.training.trainer import train

    check_model_path(arguments.out)
    run = train(_dataset(arguments), config, work_dir=_work_dir(arguments), resume=arguments.resume)
    run.classifier.record["command"] = arguments.command_line
    print(run.as_text() + _keep(run, arguments))


def _update(arguments: argparse.Namespace) -> None:
    from activity.datasets.dataset import load_dataset
    from activity.models.classifier import check_model_path, load_classifier
    from activity.training.updating import update

    check_model_path(arguments.out)
    dataset = load_dataset(arguments.dataset)
    options = {name: getattr(arguments, name) for name in _UPDATE_OPTIONS}
    result = update(load_classifier(arguments.model), dataset, work_dir=_work_dir(arguments), **options)
    result.classifier.record["updates"][-1]["command"] = arguments.command_line
    written = _keep(result.run, arguments)
    print(json.dumps(result.as_dict()) if arguments.json else result.as_text() + written)


def _evaluate(arguments: argparse.Namespace) -> None:
    from activity.datasets.dataset import load_dataset
    from activity.evaluation.evaluator import evaluate
    from activity.models.classifier import load_classifier
    from activity.reports.report import figures_of_model, save_report

    check_folder(arguments.out)
    dataset = load_dataset(arguments.dataset)
    classifier = load_classifier(arguments.model)
    evaluation = evaluate(classifier, dataset, split=arguments.split, runtime=arguments.runtime)
    coverage, precision = evaluation.above(classifier.threshold)
    if arguments.json:
        print(json.dumps({**evaluation.as_dict(), "coverage": coverage, "precision": precision if coverage else None}))
    else:
        print(evaluation.as_text())
    if classifier.threshold and not arguments.json:
        below = f'"unknown" below {classifier.threshold:.3f}'
        print(f"\n{below}: {coverage:.0%} of the videos get an answer, {precision:.3f} of these are right")
    if arguments.out:
        about = {"model": arguments.model, **classifier.record}
        figures = figures_of_model(classifier, evaluation, dataset)
        _say_written(save_report(evaluation, dataset, arguments.out, about=about, figures=figures))


def _cross_validate(arguments: argparse.Namespace) -> None:
    config = _settings(TrainConfig, arguments)
    from activity.model_selection.cross_validation import cross_validate
    from activity.reports.report import save_report

    check_folder(arguments.out)
    dataset = _dataset(arguments)
    with tempfile.TemporaryDirectory() as work_dir:
        result = cross_validate(dataset, config, folds=arguments.folds, work_dir=Path(work_dir))
    print(json.dumps(result.as_dict()) if arguments.json else result.as_text())
    if arguments.out:
        about = {"folds": arguments.folds, **as_dict(config)}
        _say_written(save_report(result, dataset, arguments.out, about=about))


def _tune(arguments: argparse.Namespace) -> None:
    config = _settings(TrainConfig, arguments)
    from activity.datasets.dataset import load_dataset
    from activity.files import write_csv
    from activity.model_selection.tuning import tune

    check_folder(arguments.out)
    search = tune(
        _dataset(arguments),
        config,
        num_trials=arguments.trials,
        folds=arguments.folds,
        study_path=arguments.study,
        timeout_seconds=arguments.timeout,
    )
    all_streams = search.best.streams == load_dataset(arguments.dataset).spec.streams
    recipe = recipe_arguments(search.best.config, None if all_streams else search.best.streams)
    command = shlex.join(["activity", "train", str(arguments.dataset), "--out", "model.keras", *recipe])
    if arguments.json:
        print(json.dumps({**search.as_dict(), "command": command}))
    else:
        print(f"{search.as_text()}\n\n{command}")
    if arguments.out:
        from activity.reports.figures import save_figure, search_figure

        image = save_figure(search_figure(search), arguments.out / "search.png")
        rows = [trial.as_dict() for trial in search.trials]
        write_csv(arguments.out / "trials.csv", list(dict.fromkeys(name for row in rows for name in row)), rows)
        _say_written([image, arguments.out / "trials.csv"])


def _classify(arguments: argparse.Namespace) -> int:
    from activity.predictor.sources import expand_sources
    from activity.video.capture import live_source

    sources = expand_sources(arguments.sources)
    live = live_source(sources, follow=arguments.follow)
    if live and (arguments.explain or arguments.timeline or arguments.out or arguments.annotate):
        arguments.usage_error("--explain, --timeline, --out and --annotate need a whole file, not what is still coming")
    if arguments.csv and not arguments.csv.parent.is_dir():
        raise ActivityError(f"there is no folder {arguments.csv.parent}", path=arguments.csv)
    _check_result_folders(arguments, sources)
    if live:
        return _watch(arguments, live)
    from activity.predictor.prediction import Failure
    from activity.predictor.predictor import Predictor
    from activity.predictor.sources import distinct_names

    predictor = Predictor.load(arguments.model, runtime=arguments.runtime)
    explain = _explaining(arguments, predictor)
    timeline = bool(arguments.timeline or arguments.out or arguments.annotate)
    failed = False
    with csv_rows(arguments.csv) as write_row:
        results = predictor.predict_many(sources, timeline=timeline)
        for result, name in zip(results, distinct_names(sources), strict=True):
            failed |= isinstance(result, Failure)
            write_row(result.as_dict())
            if arguments.json:
                print(json.dumps(result.as_dict(top_k=arguments.top_k)), flush=True)
            elif isinstance(result, Failure):
                say_error(f"{result.source}: {result.error}")
            else:
                print(result.as_text(top_k=arguments.top_k), flush=True)
            if not isinstance(result, Failure):
                try:
                    explain(result, name)
                    _write_timeline(arguments, result, name)
                except VideoError as error:  # it could be read a moment ago; the others go on
                    failed = True
                    say_error(str(error))
    return int(failed)


def _watch(arguments: argparse.Namespace, source: str) -> int:
    from activity.predictor.live import watch
    from activity.runtimes.exported import load_inference_model

    decisions = watch(load_inference_model(arguments.model, runtime=arguments.runtime), source)
    with contextlib.closing(decisions), csv_rows(arguments.csv, "time,time_seconds,label,probability") as write_row:
        for decision in decisions:
            write_row(decision.as_dict())
            if arguments.json:
                print(json.dumps(decision.as_dict(top_k=arguments.top_k)), flush=True)
            elif decision.changed:
                print(decision.as_text(), flush=True)
    return 0


def _write_timeline(arguments: argparse.Namespace, result: Prediction, name: str) -> None:
    """Write what `--out` and `--annotate` ask for."""
    if arguments.out:
        from activity.reports.timeline import save_timeline

        _say_written(save_timeline(result, arguments.out, name, top_k=arguments.top_k))
    if arguments.annotate:
        from activity.reports.annotation import annotate

        _say_written([annotate(result.source, result, arguments.annotate / f"{name}.mp4")])


def _export(arguments: argparse.Namespace) -> None:
    from activity.predictor.sources import expand_sources
    from activity.runtimes.exporting import export_classifier

    clips = expand_sources(arguments.check)
    made = export_classifier(arguments.model, arguments.format, arguments.out, clips=clips)
    print(made.as_text())
    _say_written(made.files)


def _info(arguments: argparse.Namespace) -> None:
    from activity.reports.card import model_card

    card = model_card(arguments.model)
    if arguments.json:
        print(json.dumps(card.as_dict()))
    else:
        print(card.as_markdown() if arguments.markdown else card.as_text())


def _serve(arguments: argparse.Namespace) -> None:
    from activity.apps.web import serve

    serve(
        arguments.model,
        host=arguments.host,
        port=arguments.port,
        runtime=arguments.runtime,
        max_seconds=arguments.max_seconds,
        max_megabytes=arguments.max_megabytes,
        examples=arguments.examples,
        say=lambda line: print(line, flush=True),
    )


def _completion(arguments: argparse.Namespace) -> None:
    import shtab

    program = parser()
    complete_files(program)
    print(shtab.complete(program, shell=arguments.shell))


def _doctor(arguments: argparse.Namespace) -> int:
    from activity.apps.doctor import examine, format_checks

    checks = examine(expect_gpu=arguments.expect_gpu)
    print(format_checks(checks))
    return int(any(check.required and not check.ok for check in checks))


def _work_dir(arguments: argparse.Namespace) -> Path:
    return arguments.out.with_suffix(".training")


def _keep(run: TrainingRun, arguments: argparse.Namespace) -> str:
    """Write the model and how it was taught; returns lines that say where."""
    from activity.models.classifier import save_classifier
    from activity.reports.report import save_training_report

    save_classifier(run.classifier, arguments.out)
    lines = [f"{'model':16} {arguments.out}"]
    for path in save_training_report(run, _work_dir(arguments)):
        lines.append(f"{path.stem.replace('_', ' '):16} {path}")
    return "\n".join(["", *lines])


def _dataset(arguments: argparse.Namespace) -> Dataset:
    from activity.datasets.dataset import load_dataset

    dataset = load_dataset(arguments.dataset)
    return dataset.with_streams(arguments.streams) if arguments.streams else dataset


COMMANDS: dict[str, Callable[[argparse.Namespace], int | None]] = {
    "demo": _demo,
    "preprocess": _preprocess,
    "train": _train,
    "update": _update,
    "evaluate": _evaluate,
    "cross-validate": _cross_validate,
    "tune": _tune,
    "classify": _classify,
    "export": _export,
    "info": _info,
    "serve": _serve,
    "doctor": _doctor,
    "completion": _completion,
}


def _settings(config: type[_Config], arguments: argparse.Namespace, **values: Any) -> _Config:
    """The options as a configuration; a value that it refuses is wrong usage, and the message names the option."""
    names = config.__dataclass_fields__
    try:
        return config(**{name: values[name] if name in values else getattr(arguments, name) for name in names})
    except ActivityError as error:
        name, _, problem = str(error).partition(" ")
        flag = f"size: {name}" if name in values else name.replace("_", "-")
        arguments.usage_error(f"--{flag} {problem}")
        raise


# === Output ===


def _explaining(arguments: argparse.Namespace, predictor: Predictor) -> Callable[[Prediction, str], None]:
    """A function that draws why a prediction came about, or does nothing without `--explain`."""
    if not arguments.explain:
        return lambda prediction, name: None
    from activity.models.classifier import ActivityClassifier
    from activity.predictor.explainer import Explainer
    from activity.reports.explanation import explanation_figure
    from activity.reports.figures import save_figure

    if isinstance(predictor.model, ActivityClassifier):
        explainer = Explainer(predictor.model)
    else:
        _logger.info("%s: explained by keras, which knows gradients", arguments.model)
        explainer = Explainer.load(arguments.model)

    def explain(prediction: Prediction, name: str) -> None:
        figure = explanation_figure(explainer.explain(prediction))
        _say_written([save_figure(figure, arguments.explain / f"{name}.png")])

    return explain


def _check_result_folders(arguments: argparse.Namespace, sources: Sequence[str]) -> None:
    """Raise `ActivityError` if what `classify` writes could not be written, or would replace something."""
    from activity.predictor.sources import check_apart

    for folder in (arguments.explain, arguments.out, arguments.annotate):
        check_folder(folder)
    for folder in filter(None, (arguments.out, arguments.annotate)):
        check_apart(folder, sources)
    if arguments.out and arguments.explain and arguments.out.resolve() == arguments.explain.resolve():
        raise ActivityError("--out and --explain both write NAME.png; expected two folders", path=arguments.out)


def say_error(text: str) -> None:
    """One line on stderr."""
    print("activity:", " ".join(text.split()), file=sys.stderr)


def _say_written(paths: Sequence[Path]) -> None:
    for path in paths:
        _logger.info("wrote %s", path)
