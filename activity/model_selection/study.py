"""The log of a search on disk, an Optuna study: one line a step, so that a search can be killed and goes on."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from activity.errors import ActivityError

TRIALS_BEFORE_PRUNING = 5  # complete ones: with fewer, their median is chance

_NAME = _ABOUT = "activity"


def import_optuna() -> Any:
    """The module; raises `ActivityError` where it is not installed."""
    try:
        import optuna
    except ImportError as error:  # by path: a package index may hold another "activity"
        raise ActivityError("tune needs Optuna; pip install '.[tune]' in the project's folder brings it") from error
    return optuna


@contextlib.contextmanager
def open_study(path: Path, about: Mapping[str, Any]) -> Iterator[Any]:
    """The `optuna.Study` in a file, begun if the file is new; nobody else can open it meanwhile.

    A trial that was running when an earlier process ended counts as failed, see `finished_trials`.

    Args:
        path: Optuna's journal, text; of its storages the one that needs no data base.
        about: what the study is of, ready for JSON; the file must have been begun with the same.

    Raises:
        ActivityError: Optuna is absent, or the file is in use, of another study, or no study of ours.
    """
    optuna = import_optuna()
    with _alone(path), _quiet(optuna):
        _mend(path)
        yield _load(optuna, path, about)


def finished_trials(study: Any) -> list[Any]:
    """The trials that count, in their order: complete or pruned, not those that were killed."""
    return [trial for trial in study.get_trials(deepcopy=False) if trial.state.name in ("COMPLETE", "PRUNED")]


def _load(optuna: Any, path: Path, about: Mapping[str, Any]) -> Any:
    try:  # whatever is not ours must not be written to
        storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(path)))
        names = [study.study_name for study in storage.get_all_studies()]
        fresh = path.stat().st_size == 0
        if not fresh and names != [_NAME]:
            raise ValueError(f"expected a study '{_NAME}', received {names}")
        open_ = partial(optuna.create_study, direction="maximize") if fresh else optuna.load_study
        pruner = optuna.pruners.MedianPruner(n_startup_trials=TRIALS_BEFORE_PRUNING)
        study = open_(storage=storage, study_name=_NAME, pruner=pruner)
        known, trials = study.user_attrs.get(_ABOUT), study.trials
        if known is None and trials:
            raise ValueError("expected a study of ours")
    except (ValueError, KeyError, TypeError, AttributeError) as error:  # text of another kind
        raise ActivityError("not a study of ours; name another file with --study", path=path) from error
    if known is None:
        study.set_user_attr(_ABOUT, dict(about))
    else:
        _check_same(path, known, about)
    for trial in trials:
        if trial.state == optuna.trial.TrialState.RUNNING:
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    return study


def _check_same(path: Path, known: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    names = [name for name in about if known.get(name) != about[name]]
    if "dataset" in names:
        raise ActivityError(
            "the study of another data set, or of this one before it changed; name another file with --study", path=path
        )
    if names:
        changed = "; ".join(f"{name} was {known.get(name)}, now {about[name]}" for name in names)
        raise ActivityError(f"cannot go on with other settings: {changed}; name another file with --study", path=path)


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Keep others out of the file: they would take the trial that is running for one that was killed."""
    with path.open("ab") as file:
        with contextlib.suppress(ImportError):  # Windows has no such locks
            import fcntl

            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # goes with the process, however that ends
            except BlockingIOError:
                raise ActivityError("another search is writing it; wait, or name another --study", path=path) from None
            path.with_name(f"{path.name}.lock").unlink(missing_ok=True)  # Optuna's, of a process that was killed
        yield


@contextlib.contextmanager
def _quiet(optuna: Any) -> Iterator[None]:
    """Without Optuna's own lines on stderr: the bar and the result say the same."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


def _mend(path: Path) -> None:
    """Cut off what a full disk or a power cut left of the last line: Optuna could not read past it."""
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content) and content.startswith(b'{"op_code"'):
        os.truncate(path, whole)
