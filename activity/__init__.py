"""Learn to recognise the activities in a folder of labelled videos, then label any new video.

    from activity import ClipSpec, Predictor, TrainConfig, evaluate, preprocess, train

Each of these six is imported when it is first asked for: `import activity` alone costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from activity.config import ClipSpec, TrainConfig
    from activity.evaluation import evaluate
    from activity.predictor import Predictor
    from activity.preprocessing import preprocess
    from activity.training import train

__version__ = "0.1.0"
__all__ = ["ClipSpec", "Predictor", "TrainConfig", "evaluate", "preprocess", "train"]

_MODULE_OF = {
    "ClipSpec": "config",
    "Predictor": "predictor",
    "TrainConfig": "config",
    "evaluate": "evaluation",
    "preprocess": "preprocessing",
    "train": "training",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'activity' has no attribute {name!r}")
    return getattr(import_module(f"activity.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
