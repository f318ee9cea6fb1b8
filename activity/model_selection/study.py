"""The log of a search on disk, an Optuna study: one line a step, so that a search can be killed and goes on."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from activity.config import changes
from activity.errors import ActivityError

TRIALS_BEFORE_PRUNING = 5  # complete ones: with fewer, their median is chance
_NAME = _ABOUT = "activity"
_OTHER_FILE = "name another file with --study"


def import_optuna() -> Any:
    """The module; raises `ActivityError` where it is not installed."""
    try:
        import optuna
    except ImportError as error:  # by path: a package index may hold another "activity"
        hint = "pip install '.[tune]' in the project's folder brings it"
        raise ActivityError("tune needs Optuna", hint=hint) from error
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
    with _alone(path) as lock, _quiet(optuna):
        _cut_incomplete_line(path)
        yield _load(optuna, path, about, lock)


def finished_trials(study: Any) -> list[Any]:
    """The trials that count, in their order: complete or pruned, not those that were killed."""
    return [trial for trial in study.get_trials(deepcopy=False) if trial.state.name in ("COMPLETE", "PRUNED")]


def _load(optuna: Any, path: Path, about: Mapping[str, Any], lock: FileLock) -> Any:
    try:  # whatever is not ours must not be written to
        # one lock for all: Optuna's own would keep a search waiting for 30 s after one that was killed
        journal = optuna.storages.journal.JournalFileBackend(str(path), lock_obj=lock)
        storage = optuna.storages.JournalStorage(journal)
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
        raise ActivityError("not a study of ours", path=path, hint=_OTHER_FILE) from error
    if known is None:
        study.set_user_attr(_ABOUT, dict(about))
    elif known.get("dataset") != about.get("dataset"):
        reason = "the study of another data set, or of this one before it changed"
        raise ActivityError(reason, path=path, hint=_OTHER_FILE)
    elif changed := changes(known, about):
        raise ActivityError(f"cannot continue with other settings: {changed}", path=path, hint=_OTHER_FILE)
    for trial in trials:
        if trial.state == optuna.trial.TrialState.RUNNING:
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    return study


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[FileLock]:
    """Keep others out of the file: they would take the trial that is running for one that was killed."""
    path.open("ab").close()  # an error names this file, not that of the lock
    lock = FileLock(path.with_name(f".{path.name}.lock"), timeout=0)
    try:
        lock.acquire()  # ends with the process, however that ends
    except Timeout:
        raise ActivityError("another search is writing it", path=path, hint=f"wait, or {_OTHER_FILE}") from None
    try:
        yield lock
    finally:
        with contextlib.suppress(OSError):  # Windows removes it later
            Path(lock.lock_file).unlink()
        lock.release()


@contextlib.contextmanager
def _quiet(optuna: Any) -> Iterator[None]:
    """Without Optuna's own lines on stderr: the bar and the result say the same."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


def _cut_incomplete_line(path: Path) -> None:
    """Cut off what a full disk or a power cut left of the last line.

    Optuna (5.0) skips such a line, but writes the next one right behind it, and then cannot read past both.
    """
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content) and content.startswith(b'{"op_code"'):
        os.truncate(path, whole)
