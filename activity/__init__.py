"""Learn to recognise the activities in a folder of labelled videos, then label any new video.

    from activity import Captioner, ClipSpec, Predictor, TrainConfig, evaluate, preprocess, train

Each of these seven is imported when it is first asked for: `import activity` alone costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from activity._version import __version__ as __version__

if TYPE_CHECKING:
    from activity.config import ClipSpec, TrainConfig
    from activity.datasets.preprocessing import preprocess
    from activity.evaluation.evaluator import evaluate
    from activity.predictor.captioner import Captioner
    from activity.predictor.predictor import Predictor
    from activity.training.trainer import train

__all__ = ["Captioner", "ClipSpec", "Predictor", "TrainConfig", "evaluate", "preprocess", "train"]

_MODULE_OF = {
    "Captioner": "predictor.captioner",
    "ClipSpec": "config",
    "Predictor": "predictor.predictor",
    "TrainConfig": "config",
    "evaluate": "evaluation.evaluator",
    "preprocess": "datasets.preprocessing",
    "train": "training.trainer",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'activity' has no attribute {name!r}")
    return getattr(import_module(f"activity.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
