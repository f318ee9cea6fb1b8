"""Heads: name -> function that reads the features of a clip over time.

Every head takes `{"features": (batch, T, S, D), "mask": (batch, T) bool}` and gives probabilities that sum to 1:
`(batch, C)` for the clip, or `(batch, T, C)` for each of its frames. The mask goes to each layer by name: implicit
masks are lost on the way and are leaving Keras. T is free, so the same head reads whole clips and windows.

    features --standardize--> a member per stream and seed --member predictions--> geometric mean --temperature-->
    probabilities

Shapes in the comments: B clips, T frames, S streams, D features, U units (the width of a head's own output), M members,
C labels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from activity.errors import ActivityError, SettingError, did_you_mean
from activity.models.backend import keras, ops

if TYPE_CHECKING:
    import numpy as np

MERGE_MODES = ("concat", "sum", "mul", "ave")  # of the two directions of a recurrent head
NUM_CHUNKS = 4  # of the head `segments`
FUSE, _STANDARDIZE, _MEMBER_PREDICTIONS = "fuse", "standardize", "opinions"  # names of layers in model files


Tensor: TypeAlias = "keras.KerasTensor"


@dataclass(frozen=True, kw_only=True)
class HeadOptions:
    """Options of all heads; each uses those that concern it.

    Args:
        units: hidden units of recurrent layers, per direction, and filters of a convolution.
        dropout: fraction dropped of the features and of what the head read from them, in training only, 0 to below 1.
        layers: recurrent layers of `stacked`.
        merge_mode: how the two directions are merged (`bidirectional`, `attention`): one of `MERGE_MODES`.
        members: ensemble members per stream; they differ in their first weights and in what is dropped.
    """

    units: int = 128
    dropout: float = 0.0
    layers: int = 2
    merge_mode: str = "concat"
    members: int = 1

    def __post_init__(self) -> None:
        for name in ("units", "layers", "members"):
            if getattr(self, name) < 1:
                raise SettingError(name, "1 or more", getattr(self, name))
        if self.merge_mode not in MERGE_MODES:
            raise SettingError("merge_mode", f"one of {', '.join(MERGE_MODES)}", self.merge_mode)


@dataclass(frozen=True)
class Head:
    """How a head is built; nothing of it imports Keras before.

    Args:
        build: standardized features `(B, T, D)`, mask `(B, T)` and options, to a sequence `(B, T, U)` and a state
            `(B, U')`.
        reads: names of the options that it uses beside `dropout` and `members`.
    """

    build: Callable[[Tensor, Tensor, HeadOptions], tuple[Tensor, Tensor]]
    reads: tuple[str, ...] = ()


def build_head(
    name: str,
    options: HeadOptions,
    *,
    num_features: int,
    num_labels: int,
    num_streams: int = 1,
    per_frame: bool = False,
) -> keras.Model:
    """A head with random weights.

    Args:
        name: a key of `HEADS`.
        options: of the head.
        num_features: D, width of the backbone's output.
        num_labels: C.
        num_streams: S. Each stream has members of its own, whose predictions are fused (late fusion): what a weak
            stream learned by heart does not spoil what a strong one saw.
        per_frame: give `(batch, T, C)`, a label for each frame. The values at padded frames mean nothing; train with
            the mask as sample weights.

    Raises:
        ActivityError: no such head.
    """
    if name not in HEADS:
        expected = f"expected one of {', '.join(HEADS)}"
        raise ActivityError(f"no head '{name}'; {expected}", hint=did_you_mean(name, HEADS))
    from activity.models.layers import Fuse, MemberPredictions, Standardize, make_model

    features = keras.Input((None, num_streams, num_features), name="features")
    mask = keras.Input((None,), dtype="bool", name="mask")
    standard = Standardize(name=_STANDARDIZE)(features)  # (B, T, S, D)
    member_predictions = []
    for x in ops.unstack(standard, num_streams, axis=2):  # S x (B, T, D)
        for _ in range(options.members):
            sequence, state = HEADS[name].build(x, mask, options)  # (B, T, U), (B, U')
            read = keras.layers.Dropout(options.dropout)(sequence if per_frame else state)
            # float32 also under mixed precision: a float16 softmax loses small probabilities
            member_predictions.append(keras.layers.Dense(num_labels, activation="softmax", dtype="float32")(read))
    stacked = MemberPredictions(name=_MEMBER_PREDICTIONS)(member_predictions)  # S*M x (B, [T,] C) -> (B, M, [T,] C)
    probabilities = Fuse(name=FUSE, dtype="float32")(stacked)  # (B, M, [T,] C) -> (B, [T,] C)
    return make_model({"features": features, "mask": mask}, probabilities, name=name)


def member_predictions_of(head: keras.Model) -> keras.Model:
    """A head up to the predictions `(B, M, C)` of its members, before they are fused; it shares all weights."""
    return keras.Model(head.input, head.get_layer(_MEMBER_PREDICTIONS).output)


def member_predictions_of_standardized(head: keras.Model) -> keras.Model:
    """The same of features that `standardized` made: what does not learn is done once, not in each step."""

    def same_layer(layer: keras.layers.Layer) -> keras.layers.Layer:
        return keras.layers.Identity() if layer.name == _STANDARDIZE else layer

    return keras.models.clone_model(member_predictions_of(head), clone_function=same_layer)


def standardized(head: keras.Model, stacks: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Features `(N, S, D)` each, as the first layer of a head hands them on."""
    layer = head.get_layer(_STANDARDIZE)
    return [ops.convert_to_numpy(layer(stack[None]))[0] for stack in stacks]  # (1, N, S, D) -> (N, S, D)


def standardize(head: keras.Model, stacks: Sequence[np.ndarray]) -> None:
    """Give a head the mean and deviation of the features it will learn from, `(N, S, D)` each."""
    import numpy as np

    head.get_layer(_STANDARDIZE).adapt(np.concatenate(stacks))


def attention_weights(head: keras.Model, features: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """How much the head `attention` attends to each frame, the mean over its members.

    Args:
        head: made by `build_head("attention", ...)`, for whole clips.
        features: `(B, T, S, D)`.
        mask: `(B, T)` bool.

    Returns:
        `(B, T)` float32; each row sums to 1 over its real frames and is 0 on padding.

    Raises:
        ActivityError: the head has no attention.
    """
    import numpy as np

    from activity.models.layers import MaskedSoftmax, make_model

    if not has_attention(head):
        raise ActivityError(f"attention weights need a head 'attention' for whole clips, received: '{head.name}'")
    weights = [layer.output for layer in head.layers if isinstance(layer, MaskedSoftmax)]
    reader = make_model(head.input, ops.mean(ops.stack(weights), axis=0))  # S*M x (B, T) -> (B, T)
    return np.asarray(reader.predict_on_batch({"features": features, "mask": mask}), np.float32)


def has_attention(head: keras.Model) -> bool:
    """Whether `attention_weights` can read this head."""
    from activity.models.layers import MaskedSoftmax

    return any(isinstance(layer, MaskedSoftmax) for layer in head.layers)


# === The heads: standardized features (B, T, D) and mask (B, T) to a sequence (B, T, U) and a state (B, U') ===


def _lstm(x: Tensor, mask: Tensor, options: HeadOptions) -> tuple[Tensor, Tensor]:
    """Long short-term memory; its last state (Hochreiter & Schmidhuber, 1997)."""
    from activity.models.layers import HidePadding

    x = keras.layers.Dropout(options.dropout)(x)
    sequence, state, _ = keras.layers.LSTM(options.units, **_BOTH)(x, mask=mask)
    return HidePadding()(sequence, mask=mask), state  # (B, T, U), (B, U)


def _backward(x: Tensor, mask: Tensor, options: HeadOptions) -> tuple[Tensor, Tensor]:
    """An LSTM that reads from the last real frame to the first (the second half of Schuster & Paliwal, 1997)."""
    from activity.models.layers import HidePadding, ReverseTime

    x = keras.layers.Dropout(options.dropout)(x)
    sequence, state, _ = keras.layers.LSTM(options.units, go_backwards=True, **_BOTH)(x, mask=mask)
    sequence = ReverseTime()(sequence)  # Keras gives the outputs in the order of reading, that of padding first
    return HidePadding()(sequence, mask=mask), state  # (B, T, U), (B, U)


def _stacked(x: Tensor, mask: Tensor, options: HeadOptions) -> tuple[Tensor, Tensor]:
    """LSTMs on top of each other; the last state of the topmost (Graves, Mohamed & Hinton, 2013)."""
    for _ in range(options.layers):
        x, state = _lstm(x, mask, options)  # (B, T, U), (B, U)
    return x, state


def _bidirectional(x: Tensor, mask: Tensor, options: HeadOptions) -> tuple[Tensor, Tensor]:
    """Two LSTMs, one in each direction (Schuster & Paliwal, 1997), read by mean and max (Conneau et al., 2017)."""
    sequence = _both_directions(x, mask, options)
    return sequence, _mean_and_max(sequence, mask)


def _gru(x: Tensor, mask: Tensor, options: HeadOptions) -> tuple[Tensor, Tensor]:
    """Gated recurrent units; their last state (Cho et al., 2014)."""
    from activity.models.layers import HidePadding

    x = keras.layers.Dropout(options.dropout)(x)
    sequence, state = keras.layers.GRU(options.units, **_BOTH)(x, mask=mask)
    return HidePadding()(sequence, mask=mask), state  # (B, T, U), (B, U)


def _attention(x: Tensor, mask: Tensor, options: HeadOptions) -> tuple[Tensor, Tensor]:
    """Additive attention (Bahdanau et al., 2015) over the outputs of a bidirectional LSTM (Yang et al., 2016)."""
    from activity.models.layers import MaskedSoftmax

    sequence = _both_directions(x, mask, options)
    scores = keras.layers.Dense(options.units, activation="tanh")(sequence)
    scores = keras.layers.Dense(1, use_bias=False)(scores)  # (B, T, U) -> (B, T, 1)
    scores = keras.layers.Reshape((-1,))(scores)  # (B, T, 1) -> (B, T)
    weights = MaskedSoftmax(dtype="float32")(scores, mask=mask)
    return sequence, keras.layers.Dot(axes=1)([weights, sequence])  # (B, T) x (B, T, U) -> (B, U)


def _lstm_cnn(x: Tensor, mask: Tensor, options: HeadOptions) -> tuple[Tensor, Tensor]:
    """A convolution over the outputs of an LSTM, the strongest answer in time of each filter (Zhou et al., 2016)."""
    from activity.models.layers import MaskedMax

    x, _ = _lstm(x, mask, options)  # zeros on padding, as the convolution adds after a clip without any
    sequence = keras.layers.Conv1D(options.units, 3, padding="same", activation="relu")(x)  # (B, T, U)
    return sequence, MaskedMax()(sequence, mask=mask)  # (B, T, U) -> (B, U)


def _pooled(x: Tensor, mask: Tensor, options: HeadOptions) -> tuple[Tensor, Tensor]:
    """Mean and max of the features, whatever their order (feature pooling, Ng et al., 2015)."""
    return x, _mean_and_max(x, mask)


def _segments(x: Tensor, mask: Tensor, options: HeadOptions) -> tuple[Tensor, Tensor]:
    """The means of the quarters of the clip (pyramids, Lazebnik 2006, Laptev 2008; segments, Wang et al., 2016)."""
    from activity.models.layers import ChunkMeans

    return x, ChunkMeans(NUM_CHUNKS)(x, mask=mask)  # (B, T, D) -> (B, 4*D)


# === Parts of heads ===

_BOTH = {"return_sequences": True, "return_state": True}


def _both_directions(x: Tensor, mask: Tensor, options: HeadOptions) -> Tensor:
    """(B, T, D) -> (B, T, U), or (B, T, 2*U) with `concat`; zeros on padding."""
    from activity.models.layers import HidePadding

    x = keras.layers.Dropout(options.dropout)(x)
    lstm = keras.layers.LSTM(options.units, return_sequences=True)
    sequence = keras.layers.Bidirectional(lstm, merge_mode=options.merge_mode)(x, mask=mask)
    return HidePadding()(sequence, mask=mask)


def _mean_and_max(x: Tensor, mask: Tensor) -> Tensor:
    """Over the real frames: (B, T, D) -> (B, 2*D)."""
    from activity.models.layers import ChunkMeans, MaskedMax

    return keras.layers.Concatenate()([ChunkMeans(1)(x, mask=mask), MaskedMax()(x, mask=mask)])


_BIDIRECTIONAL = ("units", "merge_mode")
HEADS: dict[str, Head] = {
    "lstm": Head(_lstm, ("units",)),
    "backward": Head(_backward, ("units",)),
    "stacked": Head(_stacked, ("units", "layers")),
    "bidirectional": Head(_bidirectional, _BIDIRECTIONAL),
    "gru": Head(_gru, ("units",)),
    "attention": Head(_attention, _BIDIRECTIONAL),
    "lstm_cnn": Head(_lstm_cnn, ("units",)),
    "pooled": Head(_pooled),
    "segments": Head(_segments),
}
