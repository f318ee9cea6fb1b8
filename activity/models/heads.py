"""Heads: name -> function that reads the features of a clip over time.

Every head takes `{"features": (batch, T, S, D), "mask": (batch, T) bool}` and gives probabilities that sum to 1:
`(batch, C)` for the clip, or `(batch, T, C)` for each of its frames. The mask goes to each layer by name: implicit
masks are lost on the way and are leaving Keras. T is free, so the same head reads whole clips and windows.

    features --standardize--> [principal components of each stream, side by side, for the heads that are `joint`]
    --members--> member predictions --geometric mean, temperature--> probabilities

Shapes in the comments: B clips, T frames, S streams, D features, P principal components, U units (the width of a head's
own output), M members, C labels.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from activity.errors import ActivityError, SettingError, did_you_mean
from activity.models.backend import keras, ops

if TYPE_CHECKING:
    import numpy as np

MERGE_MODES = ("concat", "sum", "mul", "ave")  # of the two directions of a recurrent head
NUM_CHUNKS = 4  # of the heads `lstm` and `chunks`
NUM_COMPONENTS = 64  # of each stream
FUSE, STANDARDIZE, _MEMBER_PREDICTIONS = "fuse", "standardize", "opinions"  # names of layers in model files
PROJECT = "project"
_MOST_AT_ONCE = 5e7  # bytes of features; what is computed of them takes several times as much


Tensor: TypeAlias = "keras.KerasTensor"


@dataclass(frozen=True, kw_only=True)
class HeadOptions:
    """Options of all heads; each uses those that concern it.

    Args:
        units: hidden units of recurrent layers, per direction, and filters of a convolution.
        dropout: fraction dropped of the features and of what the head read from them, in training only, 0 to below 1.
        layers: recurrent layers of `stacked`.
        merge_mode: how the two directions are merged (`bidirectional`, `attention`): one of `MERGE_MODES`.
        members: ensemble members, per stream where a head reads one stream; they differ in their first weights and in
            what is dropped.
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
        build: of each member for one stream: its standardized features `(B, T, D)`, mask `(B, T)` and options, to a
            sequence `(B, T, U)` and a state `(B, U')`.
        reads: names of the options that it uses beside `dropout` and `members`.
        build_members: of a head that reads all streams, instead of `build`: their principal components, side by side
            `(B, T, S*P)`, the mask, the options, and what is to be predicted, to the predictions of all members,
            `(B, M, C)` or `(B, M, T, C)`.
        carries: it reads forward alone: answers for each frame can go on from the state after the frames before.
    """

    build: Callable[[Tensor, Tensor, HeadOptions], tuple[Tensor, Tensor]] | None = None
    reads: tuple[str, ...] = ()
    build_members: Callable[[Tensor, Tensor, HeadOptions, Answer], Tensor] | None = None
    carries: bool = False


@dataclass(frozen=True)
class Answer:
    """What a head predicts.

    Args:
        num_labels: C.
        per_frame: `(B, T, C)`, for each frame; else `(B, C)`, for the clip.
        multi_label: each label holds or not, whatever the others do; else the probabilities sum to 1.
        before: of a head that carries, the states of its LSTMs to begin with, `(B, M*U)` each; by default zeros.
        after: where the head puts those at the end, if there are such to begin with.
    """

    num_labels: int
    per_frame: bool = False
    multi_label: bool = False
    before: tuple[Tensor, ...] = ()
    after: list[Tensor] = field(default_factory=list)

    @property
    def activation(self) -> str:
        """Of the last layer of each member."""
        return "sigmoid" if self.multi_label else "softmax"


def build_head(
    name: str,
    options: HeadOptions,
    *,
    num_features: int,
    num_labels: int,
    num_streams: int = 1,
    per_frame: bool = False,
    multi_label: bool = False,
    carries: bool = False,
) -> keras.Model:
    """A head with random weights.

    Args:
        name: a key of `HEADS`.
        options: of the head.
        num_features: D, width of the backbone's output.
        num_labels: C.
        num_streams: S. Unless a head reads all of them, each stream has members of its own, whose predictions are fused
            (late fusion): what a weak stream learned by heart does not spoil what a strong one saw.
        per_frame: give `(batch, T, C)`, a label for each frame. The values at padded frames mean nothing; train with
            the mask as sample weights.
        multi_label: see `Answer`.
        carries: the head also takes `hidden` and `cell`, and gives a dictionary of `probabilities`, `next_hidden` and
            `next_cell`, `(batch, M*U)` each; only with `per_frame`, and of heads that can.

    Raises:
        ActivityError: no such head.
    """
    if name not in HEADS:
        expected = f"expected one of {', '.join(HEADS)}"
        raise ActivityError(f"no head '{name}'; {expected}", hint=did_you_mean(name, HEADS))
    from activity.models.layers import Fuse, MemberPredictions, Project, Standardize, make_model

    entry, inputs = HEADS[name], dict[str, Tensor]()
    if carries:
        inputs = {state: keras.Input((options.members * options.units,), name=state) for state in ("hidden", "cell")}
    answer = Answer(num_labels, per_frame, multi_label, before=tuple(inputs.values()))
    features = keras.Input((None, num_streams, num_features), name="features")
    mask = keras.Input((None,), dtype="bool", name="mask")
    standard = Standardize(name=STANDARDIZE)(features)  # (B, T, S, D)
    if entry.build_members:
        components = Project(min(NUM_COMPONENTS, num_features), name=PROJECT)(standard)  # (B, T, S*P)
        predicted = entry.build_members(components, mask, options, answer)  # (B, M, [T,] C)
    else:
        member_predictions = []  # S*M x (B, [T,] C)
        for x in ops.unstack(standard, num_streams, axis=2):  # S x (B, T, D)
            for _ in range(options.members):
                assert entry.build
                sequence, state = entry.build(x, mask, options)  # (B, T, U), (B, U')
                read = keras.layers.Dropout(options.dropout)(sequence if per_frame else state)
                # float32 also under mixed precision: a float16 softmax loses small probabilities
                dense = keras.layers.Dense(num_labels, activation=answer.activation, dtype="float32")
                member_predictions.append(dense(read))
        predicted = MemberPredictions(name=_MEMBER_PREDICTIONS)(member_predictions)  # (B, S*M, [T,] C)
    fuse = Fuse(multi_label=multi_label, name=FUSE, dtype="float32")
    probabilities = fuse(predicted)  # (B, M, [T,] C) -> (B, [T,] C)
    inputs |= {"features": features, "mask": mask}
    if carries:
        outputs = dict(zip(("next_hidden", "next_cell"), answer.after, strict=True))
        return make_model(inputs, {**outputs, "probabilities": probabilities}, name=name)
    return make_model(inputs, probabilities, name=name)


def carrying(head: keras.Model) -> keras.Model:
    """A head for frames that also takes and gives the state of its LSTMs; its weights are copied, as they are now.

    It is built once for each head, as that takes a second, and lives as long as the head.

    Args:
        head: made by `build_head` with `per_frame`, of an entry that `carries`.
    """
    with _carrying_lock:
        if head not in _carrying:
            cell = next(layer.cell for layer in head.layers if isinstance(layer, keras.layers.RNN))
            num_streams, num_features = head.input["features"].shape[2:]
            _carrying[head] = build_head(
                head.name,
                HeadOptions(units=cell.units, members=cell.members),
                num_features=num_features,
                num_labels=head.output_shape[-1],
                num_streams=num_streams,
                per_frame=True,
                multi_label=head.get_layer(FUSE).multi_label,
                carries=True,
            )
        again = _carrying[head]
        again.set_weights(head.get_weights())
        return again


_carrying_lock = threading.Lock()
# by the head; an attribute of a model would be saved with it
_carrying: weakref.WeakKeyDictionary[keras.Model, keras.Model] = weakref.WeakKeyDictionary()


def member_predictions_of(head: keras.Model) -> keras.Model:
    """A head up to the predictions `(B, M, C)` of its members, before they are fused; it shares all weights."""
    return keras.Model(head.input, head.get_layer(_MEMBER_PREDICTIONS).output)


def member_predictions_of_prepared(head: keras.Model) -> keras.Model:
    """The same of features that `prepared` made: what does not learn is done once, not in each step."""
    return of_prepared(member_predictions_of(head))


def of_prepared(model: keras.Model) -> keras.Model:
    """A model of features and mask without its first layers that do not learn; it shares all weights."""
    fixed = fixed_layers(model)
    inputs = {
        "features": keras.Input(model.get_layer(fixed[-1]).output.shape[1:], name="features"),
        "mask": keras.Input((None,), dtype="bool", name="mask"),
    }

    def same_layer(layer: keras.layers.Layer) -> keras.layers.Layer:
        return keras.layers.Identity() if layer.name in fixed else layer

    return keras.models.clone_model(model, inputs, clone_function=same_layer)


def prepared(head: keras.Model, stacks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Features `(N, S, D)` each, as the last layer of a head that does not learn hands them on."""
    layers = [head.get_layer(name) for name in fixed_layers(head)]
    for stack in stacks:
        x = stack[None]  # (1, N, S, D)
        for layer in layers:
            x = layer(x)
        yield ops.convert_to_numpy(x)[0]  # (N, S, D) or (N, S*P)


def adapt(head: keras.Model, stacks: Sequence[np.ndarray]) -> None:
    """Give a head the mean, deviation and principal components of the features it will learn from, `(N, S, D)` each."""
    layers = [head.get_layer(name) for name in fixed_layers(head)]

    def before(index: int) -> Iterator[np.ndarray]:
        for frames in _in_parts(stacks):
            for layer in layers[:index]:
                frames = ops.convert_to_numpy(layer(frames[None]))[0]
            yield frames  # (n, S, D)

    for index, layer in enumerate(layers):
        layer.adapt(before(index))


def _in_parts(stacks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """The frames `(n, S, D)` of stacks, as many at once as may be in memory."""
    waiting: list[np.ndarray] = []
    size = 0
    for stack in stacks:
        waiting.append(stack)
        size += stack.nbytes
        if size >= _MOST_AT_ONCE:
            yield _joined(waiting)
            size = 0
    if waiting:
        yield _joined(waiting)


def _joined(stacks: list[np.ndarray]) -> np.ndarray:
    """One array of stacks, which are let go of."""
    import numpy as np

    joined = np.concatenate(stacks)
    stacks.clear()
    return joined


def fixed_layers(head: keras.Model) -> list[str]:
    """Names of the first layers of a head, which `adapt` sets and no training changes, in their order."""
    names = {layer.name for layer in head.layers}
    return [name for name in (STANDARDIZE, PROJECT) if name in names]


def with_members(head: keras.Model, options: HeadOptions, kept: Sequence[int]) -> keras.Model:
    """A head with some of its members, counted as in its predictions; their weights are copied.

    Args:
        head: made by `build_head` with more members.
        options: of the new head; it has as many members as are kept (for each stream).
        kept: places of the members.
    """
    from activity.models.layers import Fuse, MemberPredictions, make_model

    multi_label = head.get_layer(FUSE).multi_label
    if not HEADS[head.name].build_members:
        members = head.get_layer(_MEMBER_PREDICTIONS).input  # S*M x (B, C)
        predicted = MemberPredictions(name=_MEMBER_PREDICTIONS)([members[i] for i in kept])
        fuse = Fuse(multi_label=multi_label, name=FUSE, dtype="float32")
        return make_model(head.input, fuse(predicted), name=head.name)
    num_streams, num_features = head.input["features"].shape[2:]
    shape = {"num_streams": num_streams, "num_features": num_features, "num_labels": head.output_shape[-1]}
    per_frame = len(head.output_shape) == 3
    smaller = build_head(head.name, options, **shape, per_frame=per_frame, multi_label=multi_label)
    for source, target in zip(head.weights, smaller.weights, strict=True):
        values = ops.convert_to_numpy(source)
        target.assign(values if values.shape == tuple(target.shape) else values[list(kept)])  # members come first
    return smaller


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


def _lstm_plain(x: Tensor, mask: Tensor, options: HeadOptions) -> tuple[Tensor, Tensor]:
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
        x, state = _lstm_plain(x, mask, options)  # (B, T, U), (B, U)
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

    x, _ = _lstm_plain(x, mask, options)  # zeros on padding, as the convolution adds after a clip without any
    sequence = keras.layers.Conv1D(options.units, 3, padding="same", activation="relu")(x)  # (B, T, U)
    return sequence, MaskedMax()(sequence, mask=mask)  # (B, T, U) -> (B, U)


def _pooled(x: Tensor, mask: Tensor, options: HeadOptions) -> tuple[Tensor, Tensor]:
    """Mean and max of the features, whatever their order (feature pooling, Ng et al., 2015)."""
    return x, _mean_and_max(x, mask)


def _chunks(x: Tensor, mask: Tensor, options: HeadOptions) -> tuple[Tensor, Tensor]:
    """The means of the quarters of the clip (pyramids, Lazebnik 2006, Laptev 2008; segments, Wang et al., 2016)."""
    from activity.models.layers import ChunkMeans

    return x, ChunkMeans(NUM_CHUNKS)(x, mask=mask)  # (B, T, D) -> (B, 4*D)


# === The heads of all streams: components (B, T, P) and mask (B, T) to the predictions of all members ===


def _lstm(x: Tensor, mask: Tensor, options: HeadOptions, answer: Answer, *, both_directions: bool = True) -> Tensor:
    """LSTMs over few components, and these components beside them (skip), by chunks of the clip."""
    from activity.models.layers import ChunkMeans

    members, units, num_inputs, per_frame = options.members, options.units, x.shape[-1], answer.per_frame
    if answer.before:
        x, sequence, *after = member_sequences(x, mask, options, both_directions=False, before=answer.before)
        answer.after.extend(after)
    else:
        x, sequence = member_sequences(x, mask, options, both_directions=both_directions)  # (B, T, M*P), (B, T, R*M*U)
    parts = []
    for values, directions, width in ((sequence, 1 + both_directions, units), (x, 1, num_inputs)):
        if not per_frame:
            values = ChunkMeans(NUM_CHUNKS)(values, mask=mask)  # (B, T, R*M*W) -> (B, K*R*M*W)
        values = keras.layers.Reshape((-1, directions, members, width))(values)  # (B, K or T, R, M, W)
        values = ops.transpose(values, (0, 3, 1, 2, 4))  # (B, M, K or T, R, W)
        parts.append(keras.layers.Reshape((members, -1, directions * width))(values))  # (B, M, K or T, R*W)
    read = keras.layers.Concatenate()(parts)  # (B, M, K or T, R*U + P)
    if not per_frame:
        read = keras.layers.Reshape((members, NUM_CHUNKS * read.shape[-1]))(read)  # (B, M, K*(R*U + P))
    read = keras.layers.Dropout(options.dropout)(read)
    equation = "bmtf,mfc->bmtc" if per_frame else "bmf,mfc->bmc"
    output_shape = (members, None, answer.num_labels) if per_frame else (members, answer.num_labels)
    fan = read.shape[-1] + answer.num_labels
    initializer = keras.initializers.RandomUniform(-((6 / fan) ** 0.5), (6 / fan) ** 0.5)  # Glorot's, of each member
    return keras.layers.EinsumDense(
        equation,
        output_shape,
        bias_axes="mc",
        activation=answer.activation,
        kernel_initializer=initializer,
        dtype="float32",  # also under mixed precision: a float16 softmax loses small probabilities
        name=_MEMBER_PREDICTIONS,
    )(read)  # (B, M, [T,] C)


# === Parts of heads ===


def member_sequences(
    x: Tensor, mask: Tensor, options: HeadOptions, *, both_directions: bool = True, before: Sequence[Tensor] = ()
) -> tuple[Tensor, ...]:
    """What each member of the head `lstm` reads of `(B, T, P)` components, and its LSTMs over that.

    A component is dropped in all frames of a clip or in none (Gal & Ghahramani 2016): its other frames would tell it.

    Returns:
        `(B, T, M*P)` and `(B, T, R*M*U)`: forward of all members, then, if wanted, backward; zeros on padding. Given
        the states `before`, `(B, M*U)` each, those after the last real frame follow.
    """
    from activity.models.layers import HidePadding, MemberLSTMCell

    members, num_inputs = options.members, x.shape[-1]
    x = ops.repeat(ops.expand_dims(x, 2), members, axis=2)  # (B, T, P) -> (B, T, M, P)
    x = keras.layers.Dropout(options.dropout, noise_shape=(None, 1, members, num_inputs))(x)
    x = keras.layers.Reshape((-1, members * num_inputs))(x)  # (B, T, M, P) -> (B, T, M*P)
    lstm = keras.layers.RNN(MemberLSTMCell(options.units, members), return_sequences=True, return_state=bool(before))
    if before:
        sequence, *after = lstm(x, mask=mask, initial_state=list(before))
        return x, HidePadding()(sequence, mask=mask), *after
    lstm = keras.layers.Bidirectional(lstm) if both_directions else lstm
    return x, HidePadding()(lstm(x, mask=mask), mask=mask)


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
    "lstm": Head(None, ("units",), build_members=_lstm),
    "lstm_forward": Head(None, ("units",), build_members=partial(_lstm, both_directions=False), carries=True),
    "lstm_plain": Head(_lstm_plain, ("units",)),
    "backward": Head(_backward, ("units",)),
    "stacked": Head(_stacked, ("units", "layers")),
    "bidirectional": Head(_bidirectional, _BIDIRECTIONAL),
    "gru": Head(_gru, ("units",)),
    "attention": Head(_attention, _BIDIRECTIONAL),
    "lstm_cnn": Head(_lstm_cnn, ("units",)),
    "pooled": Head(_pooled),
    "chunks": Head(_chunks),
}
