"""Search for a better recipe with Optuna (Akiba et al. 2019, arxiv.org/abs/1907.10902); the test split is not touched.

A trial is a recipe, evaluated by cross-validation over whole groups of the train and val splits. The study is a log on
disk, written line by line, so that a search can be killed at any point and goes on as if it never had been.
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from activity.config import TrainConfig, as_dict, current_streams, stored_streams
from activity.datasets.dataset import Dataset
from activity.errors import ActivityError
from activity.evaluation.metrics import compared, mean_and_error
from activity.files import digest_of
from activity.model_selection.cross_validation import divide_folds, evaluate_folds
from activity.model_selection.study import finished_trials, import_optuna, open_study
from activity.models.heads import HEADS, MERGE_MODES
from activity.progress import format_table, progress_bar
from activity.training.stages import stage_names
from activity.training.trainer import build_classifier, with_given_features

SETTINGS = ("streams", "head", "units", "layers", "merge_mode", "members", "dropout", "learning_rate", "epochs")


_TRIALS_FOR_IMPORTANCE = 10  # complete ones


_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trial:
    """One recipe that was tried.

    Attributes:
        number: from 1; trial 1 is the given recipe.
        pruned: stopped early, because it was worse than half of the others after the same folds.
        config: how it trained.
        streams: what it looked at.
        settings: those of `SETTINGS` that it chose; the others do nothing with its head.
        fold_accuracies: fold -> accuracy on its samples, of the folds it was evaluated on.
        accuracy, log_loss: over the samples of these folds; `nan` without one.
        score: what was searched for, see `score_of`.
        seconds: that it took.
    """

    number: int
    pruned: bool
    config: TrainConfig
    streams: tuple[str, ...]
    settings: dict[str, Any]
    fold_accuracies: dict[str, float]
    accuracy: float
    log_loss: float
    score: float
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Number, state, scores and settings in one level; ready for JSON or a row of a table."""
        scores = {name: getattr(self, name) for name in ("accuracy", "log_loss", "score")}
        return {
            "trial": self.number,
            "state": "pruned" if self.pruned else "complete",
            **{name: None if np.isnan(value) else value for name, value in scores.items()},
            **{f"fold {fold}": accuracy for fold, accuracy in self.fold_accuracies.items()},
            "seconds": round(self.seconds, 1),
            **self.settings,
        }


@dataclass(frozen=True)
class Search:
    """What `tune` gives.

    Attributes:
        trials: complete and pruned ones, in their order; the first is the given recipe.
        importance: setting -> its share of the spread of the scores, sum 1 (functional ANOVA, Hutter et al. 2014,
            proceedings.mlr.press/v32/hutter14.html), the largest first, of settings that all trials chose; empty with
            too few complete trials.
        folds: names of the folds.
        num_samples: that took part, those of the train and val splits.
        study_path: the log of the search.
    """

    trials: list[Trial]
    importance: dict[str, float]
    folds: list[str]
    num_samples: int
    study_path: Path

    @property
    def first(self) -> Trial:
        """The given recipe."""
        return self.trials[0]

    @property
    def ranking(self) -> list[Trial]:
        """The complete trials, the best first."""
        return sorted((trial for trial in self.trials if not trial.pruned), key=lambda trial: -trial.score)

    @property
    def best(self) -> Trial:
        """The complete trial of the highest score; never worse than the given recipe, which is one of them."""
        return self.ranking[0]

    @property
    def lead(self) -> tuple[float, float]:
        """Mean over folds of the best accuracy less that of the given recipe, and its standard error (paired)."""
        ours, given = self.best.fold_accuracies, self.first.fold_accuracies
        return mean_and_error([ours[fold] - given[fold] for fold in self.folds])

    def verdict(self) -> str:
        """What the search has shown, and what it has not."""
        if self.best is self.first:
            return "No trial was better than the given recipe (trial 1)."
        lead, error = self.lead
        what = compared(lead, error, "the given recipe (trial 1)")
        if self.best.accuracy == self.first.accuracy:
            what = "as accurate as the given recipe (trial 1), only its log-loss is lower"
        return (
            f"Trial {self.best.number} is {what} ({lead:+.3f} +- {error:.3f}, paired over {len(self.folds)} folds).\n"
            f"The best of {len(self.trials)} trials is optimistically biased: it was chosen by this score. Train it "
            "and evaluate it once on the test split, which no trial has seen."
        )

    def as_dict(self) -> dict[str, Any]:
        """All trials, the number of the best, its lead over the given recipe, and the importance; ready for JSON."""
        return {
            "best": self.best.as_dict(),
            "lead": dict(zip(("accuracy", "standard_error"), self.lead, strict=True)),
            "importance": self.importance,
            "folds": self.folds,
            "num_videos": self.num_samples,
            "study": str(self.study_path),
            "trials": [trial.as_dict() for trial in self.trials],
        }

    def as_text(self, most: int = 5) -> str:
        """The `most` best trials and the first as a table, importance and verdict, for a terminal."""
        num_pruned = sum(trial.pruned for trial in self.trials)
        shown = self.ranking[:most]
        shown += [] if self.first in shown else [self.first]
        names = [name for name in SETTINGS if any(name in trial.settings for trial in shown)]
        rows = [["trial", "accuracy", "log-loss", *names]]
        for trial in shown:
            settings = [f"{trial.settings.get(name, '-')}" for name in names]
            rows.append([str(trial.number), f"{trial.accuracy:.3f}", f"{trial.log_loss:.3f}", *settings])
        lines = [
            f"{len(self.trials)} trials, {num_pruned} of them stopped early; {len(self.folds)} folds of "
            f"{self.num_samples} train and val videos",
            "",
            *format_table(rows, align="r"),
            "",
        ]
        if self.importance:
            fractions = ", ".join(f"{name} {fraction:.2f}" for name, fraction in self.importance.items())
            lines.append(f"fraction of the variance of the scores: {fractions}")
        return "\n".join([*lines, self.verdict()])


def tune(
    dataset: Dataset,
    config: TrainConfig,
    *,
    num_trials: int = 30,
    folds: str = "3",
    study_path: Path | None = None,
    timeout_seconds: float | None = None,
    runtime: str = "auto",
) -> Search:
    """Try recipes on the train and val splits, the given one first; the samples of the test split play no part.

    What is searched: `SETTINGS`, in ranges about the usual and the given values; all else stays as given. New recipes
    come from a tree-structured Parzen estimator (Bergstra et al. 2011, papers.nips.cc/paper/4443), the first ten at
    random. A trial ends early when after a fold even the best of its running scores is below the median of the complete
    trials there (Golovin et al. 2017, doi 10.1145/3097983.3098043), once there are five. All trials have the same
    folds, so like is compared with like; successive halving would want more trials than a small search has.

    Args:
        dataset: made by `preprocess`; of its streams, all subsets are tried.
        config: where to start; its backbone is kept, and must be a frozen one.
        num_trials: in total, with those of an earlier run that the study file holds.
        folds: a number K of group folds, `groups`, or a column of the manifest; see
            `activity.datasets.splits.assign_folds`.
        study_path: the log of the search, made if absent; by default `tuning.log` in the folder of the data set.
        timeout_seconds: no trial begins later than this, but the first.
        runtime: what computes the features; see `activity.runtimes.exported`.

    Raises:
        ActivityError: Optuna is absent, the recipe trains the backbone, or the study file is that of another data set
            or recipe, in use, or not one of ours.
        DatasetError: the folds cannot be made.
    """
    import_optuna()
    _check_recipe(config)
    study_path = study_path or dataset.dataset_dir / "tuning.log"
    dataset = with_given_features(dataset.labelled(), config)
    samples = [sample for sample in dataset.samples if sample.split in ("train", "val")]
    dataset = dataclasses.replace(dataset, samples=samples)
    parts = divide_folds(dataset, folds, seed=config.seed)
    backbone = build_classifier(dataset, config).backbone
    with open_study(study_path, _about(dataset, parts, config)) as study:
        evaluate = partial(evaluate_folds, backbone=backbone, runtime=runtime)
        attempt = partial(_attempt, study, parts, config, evaluate)
        _fill(study, attempt, _given(dataset, config), num_trials, timeout_seconds, config.seed)
        trials = [_as_trial(number, frozen, config) for number, frozen in enumerate(finished_trials(study), 1)]
        return Search(trials, _importance(study, config.seed), list(parts), len(samples), study_path)


def score_of(correct: np.ndarray, losses: np.ndarray) -> float:
    """Accuracy, of equal ones the higher for a lower log-loss L: `(number correct - L / (1 + L)) / N`.

    L, the mean of the `(N,)` negative logarithms of the probabilities of the true labels, counts for less than one
    right answer more: L / (1 + L) is below 1.
    """
    loss = float(losses.mean())
    return (float(correct.sum()) - loss / (1 + loss)) / len(correct)


def _check_recipe(config: TrainConfig) -> None:
    if config.labels_per == "step":
        raise ActivityError("tune searches for labels per clip, received --labels-per step", hint="train with it")
    if config.fine_tune:
        raise ActivityError("tune searches on the features of a frozen backbone", hint="leave --fine-tune to train")
    if stage_names(config) != ["head"]:
        raise ActivityError(
            f"tune needs a frozen backbone with pretrained weights, and {config.backbone} would learn from scratch",
            hint="give its --weights, or another --backbone",
        )


# === Trials ===


def _fill(
    study: Any, attempt: Any, given: Mapping[str, Any], num_trials: int, timeout: float | None, seed: int
) -> None:
    """Make trials until the study holds so many or the time is over."""
    import optuna

    began = time.monotonic()
    num_done = len(finished_trials(study))
    with (
        tempfile.TemporaryDirectory() as work_dir,
        progress_bar(total=num_trials, initial=num_done, desc="search", unit="trial") as bar,
    ):
        while num_done < num_trials and not (num_done and timeout and time.monotonic() - began >= timeout):
            # Not `study.optimize`: each trial has a sampler with a seed of its own, so that a search that was stopped
            # continues with what it would have tried; and the first trial is made whatever the time, or else raises.
            of_trial = int(np.random.SeedSequence([seed, num_done]).generate_state(1)[0])
            study.sampler = optuna.samplers.TPESampler(seed=of_trial)
            if not num_done and not study.get_trials(states=[optuna.trial.TrialState.WAITING]):
                study.enqueue_trial(dict(given))
            trial = study.ask()
            try:
                attempt(trial, Path(work_dir))
            except ActivityError as error:  # a head too large for the memory
                if not num_done:
                    raise
                _logger.warning("trial %d is given up: %s", num_done + 1, error)
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            num_done += 1
            scores = study.best_trial.user_attrs["scores"]
            bar.set_postfix_str(f"best accuracy {scores['accuracy']:.3f}", refresh=False)
            bar.update()


def _attempt(
    study: Any, parts: Mapping[str, Dataset], given: TrainConfig, evaluate: Any, trial: Any, work_dir: Path
) -> None:
    """Evaluate one recipe fold by fold, and tell the study; it may say that this is enough."""
    import optuna

    dataset = next(iter(parts.values()))
    settings = _suggest(trial, given, dataset.spec.streams)
    trial.set_user_attr("settings", settings)
    config, streams = _recipe(given, settings)
    narrowed = {fold: part.with_streams(streams) for fold, part in parts.items()}
    label_ids = np.asarray([dataset.labels.index(sample.label) for sample in dataset.samples])
    correct, losses, accuracies, score = np.zeros(0, bool), np.zeros(0), {}, 0.0
    for step, fold in enumerate(evaluate(narrowed, config, work_dir=work_dir)):
        probabilities, truth = fold.probabilities, label_ids[fold.test]
        hits = probabilities.argmax(axis=1) == truth
        accuracies[fold.name] = float(hits.mean())
        correct = np.append(correct, hits)
        losses = np.append(losses, -np.log(np.maximum(probabilities[np.arange(len(truth)), truth], 1e-7)))
        score = score_of(correct, losses)
        scores = {"accuracy": float(correct.mean()), "log_loss": float(losses.mean()), "score": score}
        trial.set_user_attr("scores", {**scores, "fold_accuracies": accuracies})
        trial.report(score, step)
        if step + 1 < len(parts) and trial.should_prune():
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            return
    study.tell(trial, score)


def _given(dataset: Dataset, config: TrainConfig) -> dict[str, Any]:
    """The given recipe, as the study names it."""
    settings = {name: value for name, value in as_dict(config).items() if name in SETTINGS}
    return {"streams": ",".join(stored_streams(dataset.spec.streams)), **settings}


def _suggest(trial: Any, given: TrainConfig, streams: Sequence[str]) -> dict[str, Any]:
    """The settings of a trial, in readable numbers; ranges reach out to the given value."""

    def number(name: str, low: float, high: float, *, log: bool = True) -> Any:
        value = getattr(given, name)
        suggest = trial.suggest_int if isinstance(value, int) else trial.suggest_float
        chosen = suggest(name, min(low, value), max(high, value), log=log)
        return chosen if chosen == value else type(value)(float(f"{chosen:.2g}"))

    stored = stored_streams(streams)
    sets = [",".join(some) for n in range(1, len(stored) + 1) for some in itertools.combinations(stored, n)]
    head = trial.suggest_categorical("head", [name for name, head in HEADS.items() if not head.carries])
    settings = {
        "streams": trial.suggest_categorical("streams", sets),
        "head": head,
        "members": number("members", 1, 4, log=False),
        "dropout": number("dropout", 0.0, 0.8, log=False),
        "learning_rate": number("learning_rate", 1e-4, 1e-2),
        "epochs": number("epochs", max(1, given.epochs // 2), 2 * given.epochs),
    }
    if "units" in HEADS[head].reads:
        settings["units"] = number("units", 32, 256)
    if "layers" in HEADS[head].reads:
        settings["layers"] = number("layers", 2, 3, log=False)
    if "merge_mode" in HEADS[head].reads:
        settings["merge_mode"] = trial.suggest_categorical("merge_mode", list(MERGE_MODES))
    return {name: settings[name] for name in SETTINGS if name in settings}


def _recipe(given: TrainConfig, settings: Mapping[str, Any]) -> tuple[TrainConfig, tuple[str, ...]]:
    changed = {name: value for name, value in settings.items() if name != "streams"}
    if settings["head"] != given.head:  # what the given head reads, this one may not
        changed = {**{name: getattr(TrainConfig, name) for name in ("units", "layers", "merge_mode")}, **changed}
    return dataclasses.replace(given, **changed), current_streams(settings["streams"].split(","))


def _as_trial(number: int, frozen: Any, given: TrainConfig) -> Trial:
    settings = frozen.user_attrs["settings"]
    nothing = {"fold_accuracies": {}, "accuracy": np.nan, "log_loss": np.nan, "score": np.nan}
    config, streams = _recipe(given, settings)
    return Trial(
        number=number,
        pruned=frozen.state.name == "PRUNED",
        config=config,
        streams=streams,
        settings={**settings, "streams": ",".join(streams)},
        seconds=frozen.duration.total_seconds(),
        **frozen.user_attrs.get("scores", nothing),
    )


def _importance(study: Any, seed: int) -> dict[str, float]:
    import optuna

    complete = study.get_trials(states=[optuna.trial.TrialState.COMPLETE])
    if len(complete) < _TRIALS_FOR_IMPORTANCE:
        return {}
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=seed)
    return dict(optuna.importance.get_param_importances(study, evaluator=evaluator))


def _about(dataset: Dataset, parts: Mapping[str, Dataset], config: TrainConfig) -> dict[str, Any]:
    """What must stay the same for scores to compare: samples and labels, streams, folds, and where the search began."""
    spec = as_dict(dataset.spec)
    streams = ",".join(stored_streams(spec.pop("streams")))
    rows = [(sample.sample_id, sample.label, sample.group) for sample in dataset.samples]
    features = dataset.features.digest() if dataset.features else ""
    folds = [[sample.split == "test" for sample in part.samples] for part in parts.values()]
    return {
        "dataset": digest_of([spec, rows, features], size=4),
        "streams": streams,
        "folds": f"{len(parts)} ({digest_of(folds, size=4)})",
        **as_dict(config),
    }
