"""How unusual the order of activities in a film is, by a model of `train --task order`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from activity.errors import ActivityError
from activity.models.captioner import ActivityCaptioner
from activity.models.classifier import predict
from activity.models.search import END, NUM_SPECIAL


def surprises(order: ActivityCaptioner, labels: Sequence[str]) -> np.ndarray:
    """Negative log-probability, in nats, of each activity after those before it: `(N,)`, 0 or more.

    The end is not scored: a film may be cut off anywhere.

    Args:
        order: a model of the order of activities.
        labels: N activities in their order, 1 or more, each of which the model knows.

    Raises:
        ActivityError: there are none, or the model does not know one.
    """
    known = {label: number for number, label in enumerate(order.info.words, NUM_SPECIAL)}
    unknown = sorted(set(labels) - set(known))
    if unknown or not labels:
        received = ", ".join(unknown) or "none"
        raise ActivityError(
            f"expected activities whose order the model learned, {', '.join(known)}; received {received}"
        )
    numbers = np.asarray([known[label] for label in labels])
    inputs = {
        "frames": np.zeros((1, 1, 1, 1), np.float32),
        "mask": np.zeros((1, 1), bool),
        "words": np.asarray([[END, *numbers[:-1]]], np.int32),
    }
    logits = predict(order, inputs)[0, :, NUM_SPECIAL:].astype(float)  # (N, C): it does not end here
    logs = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
    return -logs[np.arange(len(numbers)), numbers - NUM_SPECIAL]


def surprise(order: ActivityCaptioner, labels: Sequence[str]) -> float:
    """Mean of `surprises`: the negative log-probability an activity in nats; its exponential is the perplexity."""
    return float(surprises(order, labels).mean())
