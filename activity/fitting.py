"""One stage of teaching: a fixed course of steps, all members at once."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from activity.batches import ClipBatches
from activity.checkpoint import Checkpoint
from activity.config import TrainConfig
from activity.errors import ActivityError
from activity.layers import uses_jit
from activity.progress import progress_bar

_WARM_UP = 0.05  # share of the steps in which the learning rate rises

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stage:
    """What one stage of training did.

    Attributes:
        name: `head`, `fine_tune` or `scratch`.
        rows: one an epoch: `epoch`, `loss`, `accuracy`, and with a val split `val_loss`, `val_accuracy`.
    """

    name: str
    rows: list[dict[str, float]]

    def as_text(self) -> str:
        """One line for a terminal."""
        last = self.rows[-1]
        scores = f"training loss {last['loss']:.3f}, accuracy {last['accuracy']:.3f}"
        if "val_loss" in last:
            scores += f"; validation loss {last['val_loss']:.3f}, accuracy {last['val_accuracy']:.3f}"
        return f"{self.name:16} {len(self.rows)} epochs; {scores}"


def fit(
    model: keras.Model,
    batches: Callable[[str], ClipBatches | None],
    config: TrainConfig,
    num_epochs: int,
    optimizer: Callable[..., keras.optimizers.Optimizer],
    learning_rate: float,
    stage_dir: Path,
) -> Stage:
    """Teach a model whose output are the opinions `(B, M, C)` of its members."""
    checkpoint = Checkpoint(stage_dir, num_epochs)
    train_batches, val_batches = batches("train"), batches("val")
    assert train_batches is not None
    num_steps = num_epochs * len(train_batches)
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, num_steps, warmup_target=learning_rate, warmup_steps=int(_WARM_UP * num_steps)
    )
    adamw = optimizer(schedule, weight_decay=config.weight_decay, clipnorm=1.0)
    adamw.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    model.compile(adamw, loss=loss_of_members, metrics=[accuracy], jit_compile=uses_jit())
    first_epoch = checkpoint.begin(model)
    if checkpoint.finished:
        _logger.info("%s: finished earlier, its weights are used", stage_dir.name)
    else:
        with _memory_in_words():
            model.fit(
                train_batches,
                validation_data=val_batches,
                initial_epoch=first_epoch,
                epochs=num_epochs,
                shuffle=False,  # ClipBatches does, reproducibly
                class_weight=_class_weight(train_batches.label_ids) if config.class_weight == "balanced" else None,
                verbose=0,
                callbacks=[_Progress(train_batches, num_epochs, stage_dir.name), checkpoint],
            )
    return Stage(stage_dir.name, checkpoint.state["rows"])


def loss_of_members(label_ids: Any, opinions: Any) -> Any:
    """Mean cross-entropy of the members, each on its own: `(B,)` ids and `(B, M, C)` probabilities to `(B,)`.

    What is taught apart makes different mistakes, and its mean is better than that of members taught as one
    (Lakshminarayanan et al. 2017, deep ensembles).
    """
    ids = ops.broadcast_to(ops.reshape(ops.cast(label_ids, "int32"), (-1, 1)), ops.shape(opinions)[:2])  # (B, M)
    return ops.mean(keras.losses.sparse_categorical_crossentropy(ids, opinions), axis=1)


def accuracy(label_ids: Any, opinions: Any) -> Any:
    """Whether the fused opinions `(B, M, C)` are right: `(B,)` 0 or 1."""
    ids = ops.cast(ops.reshape(label_ids, (-1,)), "int32")
    best = ops.argmax(ops.mean(ops.log(ops.maximum(opinions, 1e-7)), axis=1), axis=-1)
    return ops.cast(ops.equal(ids, ops.cast(best, "int32")), "float32")


class LayerwiseAdamW(keras.optimizers.AdamW):
    """AdamW with a rate for each variable (discriminative fine-tuning, Howard & Ruder 2018).

    Args:
        rates: path of a variable -> share of the learning rate; 1 for what is not named.
    """

    def __init__(self, *args: Any, rates: Mapping[str, float], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._rates_by_path, self._rates = dict(rates), list[float]()

    def build(self, variables: Any) -> None:
        """Also note the rates in the order of the variables."""
        super().build(variables)
        self._rates = [self._rates_by_path.get(variable.path, 1.0) for variable in variables]

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """A step of the one variable at its own rate."""
        super().update_step(gradient, variable, learning_rate * self._rates[self._get_variable_index(variable)])


@contextlib.contextmanager
def _memory_in_words() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if "RESOURCE_EXHAUSTED" not in str(error) and "out of memory" not in str(error).lower():
            raise
        raise ActivityError(
            "not enough memory for a step of training; use a smaller --batch-size, fewer --streams, a smaller "
            "backbone, or frames of less --size"
        ) from error


def _class_weight(label_ids: np.ndarray) -> dict[int, float]:
    from sklearn.utils.class_weight import compute_class_weight

    classes = np.unique(label_ids)
    weights = compute_class_weight("balanced", classes=classes, y=label_ids)
    return dict(zip(classes.tolist(), weights.tolist(), strict=True))


class _Progress(keras.callbacks.Callback):
    """A bar on stderr, one step an epoch, with the accuracy so far."""

    def __init__(self, batches: ClipBatches, num_epochs: int, stage: str) -> None:
        super().__init__()
        self._batches, self._num_epochs, self._stage = batches, num_epochs, stage

    def on_train_begin(self, logs: dict | None = None) -> None:
        self._bar = progress_bar(total=self._num_epochs, desc=f"training {self._stage}", unit="epoch")

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self._batches.start_epoch(epoch)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        logs = logs or {}
        scores = [f"{name} {logs[key]:.3f}" for name, key in _SHOWN.items() if key in logs]
        self._bar.set_postfix_str(", ".join(scores), refresh=False)
        self._bar.update(epoch + 1 - self._bar.n)

    def on_train_end(self, logs: dict | None = None) -> None:
        self._bar.close()


_SHOWN = {"train": "accuracy", "val": "val_accuracy"}
