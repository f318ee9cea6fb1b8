"""One stage of training: a fixed course of steps, all members at once."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from activity.errors import ActivityError, ModelFileError
from activity.models.backend import keras, ops
from activity.models.layers import uses_jit
from activity.models.saving import check_finite
from activity.progress import progress_bar
from activity.training.batches import CaptionBatches, ClipBatches
from activity.training.checkpoint import Checkpoint
from activity.video.prefetch import Prefetch

TIMES = ("seconds", "waiting_seconds")  # of each row: all else is the same for the same seed
_WARM_UP = 0.05  # share of the steps in which the learning rate rises


_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stage:
    """What one stage of training did.

    Attributes:
        name: `head`, `fine_tune` or `scratch`.
        rows: one an epoch: `epoch`, `loss`, `accuracy`, with a val split `val_loss`, `val_accuracy`, and how long the
            epoch took in `seconds`, of which `waiting_seconds` the network stood still for its next batch.
    """

    name: str
    rows: list[dict[str, float]]

    @property
    def seconds(self) -> float:
        """How long all epochs took."""
        return sum(row["seconds"] for row in self.rows)

    @property
    def waiting_fraction(self) -> float:
        """Share of that time in which the network waited for data, 0 to 1."""
        return sum(row["waiting_seconds"] for row in self.rows) / max(self.seconds, 1e-9)

    def as_text(self) -> str:
        """One line for a terminal."""
        last = self.rows[-1]
        scores = f"training loss {last['loss']:.3f}, accuracy {last['accuracy']:.3f}"
        if "val_loss" in last:
            scores += f"; validation loss {last['val_loss']:.3f}, accuracy {last['val_accuracy']:.3f}"
        time_text = f"{self.seconds:.1f} s, {self.waiting_fraction:.0%} of it waiting for data"
        return f"{self.name:16} {len(self.rows)} epochs; {scores}; {time_text}"


AnyBatches: TypeAlias = ClipBatches | CaptionBatches


def without_times(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of a stage without how long they took: the same again for a seed."""
    return [{name: value for name, value in row.items() if name not in TIMES} for row in rows]


Optimizer: TypeAlias = Callable[..., keras.optimizers.Optimizer]  # a class, or a function that makes one


def loss_of_members(targets: Any, member_predictions: Any) -> Any:
    """Mean cross-entropy of the members, each on its own: shares `(B, C)` and `(B, M, C)` probabilities to `(B,)`.

    Members trained apart make different mistakes, and their mean is better than that of members trained as one
    (Lakshminarayanan et al. 2017, deep ensembles).
    """
    return ops.mean(_losses(targets, member_predictions), axis=1)


def _loss_beside_folds(targets: Any, member_predictions: Any, *, of_fold: np.ndarray) -> Any:
    """The same where members are trained without a fold: shares and folds `(B, C+1)`, `(B, M, C)` to `(B,)`."""
    losses = _losses(targets[:, :-1], member_predictions)  # (B, M)
    folds = ops.cast(ops.round(targets[:, -1:]), "int32")  # (B, 1): a mixture of two of one fold may be rounded off
    trained = ops.not_equal(folds, ops.convert_to_tensor(of_fold.astype(np.int32)[None]))  # (B, M)
    return ops.mean(losses * ops.cast(trained, losses.dtype), axis=1)


def _losses(targets: Any, member_predictions: Any) -> Any:
    """Cross-entropy of each member: `(B, C)`, `(B, M, C)` -> `(B, M)`."""
    targets = ops.broadcast_to(ops.expand_dims(targets, 1), ops.shape(member_predictions))
    return keras.losses.categorical_crossentropy(ops.cast(targets, member_predictions.dtype), member_predictions)


def accuracy_of_members(targets: Any, member_predictions: Any) -> Any:
    """Whether the fused member predictions `(B, M, C)` have the label of the largest share: `(B,)` 0 or 1."""
    ids = ops.argmax(targets[:, : member_predictions.shape[-1]], axis=-1)  # (B,)
    best = ops.argmax(ops.mean(ops.log(ops.maximum(member_predictions, 1e-7)), axis=1), axis=-1)
    return ops.cast(ops.equal(ids, best), "float32")


@dataclass(frozen=True, kw_only=True)
class StagePlan:
    """All that a stage of training is made of.

    Args:
        name: `head`, `fine_tune` or `scratch`.
        model: its output is the predictions `(B, M, C)` of the members.
        train_batches: what it learns from, batches of clips or of sentences of them.
        val_batches: what it is evaluated on after each epoch; `None` without a val split.
        num_epochs: passes over the training clips.
        optimizer: AdamW, or made like it.
        learning_rate: at its peak.
        weight_decay: decoupled.
        is_balanced: classes weigh by the inverse of their number of clips.
        of_fold: `(M,)` the fold of clips that each member is trained without, below 0 for none; the last column of the
            targets of the batches is then the fold. By default all members are trained on all clips.
        loss, accuracy: of targets and the output of the model to `(B,)`; by default those of members.
    """

    name: str
    model: keras.Model
    train_batches: AnyBatches
    val_batches: AnyBatches | None
    num_epochs: int
    optimizer: Optimizer
    learning_rate: float
    weight_decay: float
    is_balanced: bool = False
    of_fold: np.ndarray | None = None
    loss: Callable[[Any, Any], Any] = loss_of_members
    accuracy: Callable[[Any, Any], Any] = accuracy_of_members


def fit(plan: StagePlan, stage_dir: Path, seconds_between_saves: float = 10.0) -> Stage:
    """Carry out a stage, or what is left of it, with its state and log in a folder of its own."""
    model, num_epochs = plan.model, plan.num_epochs
    checkpoint = Checkpoint(stage_dir, num_epochs, seconds_between_saves=seconds_between_saves)
    num_steps = num_epochs * len(plan.train_batches)
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, num_steps, warmup_target=plan.learning_rate, warmup_steps=int(_WARM_UP * num_steps)
    )
    adamw = plan.optimizer(schedule, weight_decay=plan.weight_decay, clipnorm=1.0)
    adamw.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    # a metric, not a function: one that makes its variables in the first step has TensorFlow trace the step twice
    metric = keras.metrics.MeanMetricWrapper(plan.accuracy, name="accuracy")
    loss = plan.loss if plan.of_fold is None else partial(_loss_beside_folds, of_fold=plan.of_fold)
    model.compile(adamw, loss=loss, metrics=[metric], jit_compile=uses_jit())
    first_epoch = checkpoint.begin(model)
    if checkpoint.finished:
        _logger.info("%s: finished earlier, its weights are used", plan.name)
        return Stage(plan.name, checkpoint.rows)
    with _memory_in_words(), progress_bar(total=num_epochs, desc=f"training {plan.name}", unit="epoch") as bar:
        bar.update(first_epoch)
        for row in _train_epochs(plan, range(first_epoch, num_epochs)):
            for name, value in row.items():
                if not np.isfinite(value):
                    raise _diverged(plan, f"in epoch {row['epoch']} its {name} became {value}")
            checkpoint.end_epoch(model, row)
            scores = [f"{name} {row[key]:.3f}" for name, key in _SHOWN.items() if key in row]
            bar.set_postfix_str(", ".join(scores), refresh=False)
            bar.update()
    try:
        check_finite(model)
    except ModelFileError as error:
        raise _diverged(plan, error.reason) from error
    return Stage(plan.name, checkpoint.rows)


def _diverged(plan: StagePlan, reason: str) -> ActivityError:
    hint = f"take a --learning-rate below {plan.learning_rate:g}, and no --mixed-precision"
    return ActivityError(f"training {plan.name} stopped: {reason}", hint=hint)


def _train_epochs(plan: StagePlan, epochs: range) -> Iterator[dict[str, float]]:
    """The row of each epoch.

    Not `Model.fit`: it sets up its feed again each epoch and copies each batch twice, which takes longer than the step
    of a head, and it cannot tell how long it waits.
    """
    model, train_batches, val_batches = plan.model, plan.train_batches, plan.val_batches
    num_labels = model.output_shape[-1]
    of_classes = None
    if plan.is_balanced:
        assert isinstance(train_batches, ClipBatches)
        of_classes = class_weights(train_batches.targets[:, :num_labels])
    with Prefetch(batch for epoch in epochs for batch in train_batches.epoch(epoch)) as batches:
        for epoch in epochs:
            start, waited = time.perf_counter(), batches.waiting_seconds
            model.reset_metrics()
            for inputs, targets in islice(batches, len(train_batches)):
                weights = None if of_classes is None else targets[:, :num_labels] @ of_classes
                logs = model.train_on_batch(inputs, targets, sample_weight=weights, return_dict=True)
            row = {"epoch": epoch, "loss": float(logs["loss"]), "accuracy": float(logs["accuracy"])}
            waited = batches.waiting_seconds - waited
            if val_batches:
                scores, waited_for_val = _validate(plan, val_batches)
                row, waited = {**row, **scores}, waited + waited_for_val
            yield {**row, "seconds": time.perf_counter() - start, "waiting_seconds": waited}


def _validate(plan: StagePlan, val_batches: AnyBatches) -> tuple[dict[str, float], float]:
    """Loss and accuracy on other clips, and seconds of waiting for them."""
    with Prefetch(val_batches.epoch(0)) as batches:
        predicted = [(plan.model.predict_on_batch(inputs), targets) for inputs, targets in batches]
    # what fills up the last batch is not evaluated
    outputs, targets = (np.concatenate(parts)[: val_batches.num_windows] for parts in zip(*predicted, strict=True))
    losses, correct = plan.loss(targets, outputs), plan.accuracy(targets, outputs)
    scores = {"val_loss": float(ops.mean(losses)), "val_accuracy": float(ops.mean(correct))}
    return scores, batches.waiting_seconds


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
        hint = "use a smaller --batch-size, fewer --streams, a smaller backbone, or frames of less --size"
        raise ActivityError("not enough memory for a step of training", hint=hint) from error


def class_weights(targets: np.ndarray) -> np.ndarray:
    """`(C,)` of shares of labels `(V, C)`: the inverse of their sums, 1 on average over the samples."""
    sums = targets.sum(axis=0)
    return np.divide(len(targets), sums * (sums > 0).sum(), out=np.ones_like(sums), where=sums > 0)


_SHOWN = {"train": "accuracy", "val": "val_accuracy"}
