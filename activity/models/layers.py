"""The Keras layers of this package, and how its models are made of layers.

All are registered, so that model files load with `safe_mode` on; a class renamed since keeps its registered name.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from activity.models.backend import keras, ops

PREPROCESS_MODES = ("tf", "caffe", "torch", "none")
_LOWEST = -6e4  # below every feature, and float16 still has it


def uses_jit() -> bool:
    """Whether to compile models with XLA: JAX is nothing without it; with TensorFlow on a CPU it is 10 times slower."""
    return keras.backend.backend() == "jax"


def make_model(inputs: Any, outputs: Any, *, name: str | None = None) -> keras.Model:
    """A functional model that is compiled with XLA only where `uses_jit`."""
    model = keras.Model(inputs, outputs, name=name)
    model.jit_compile = uses_jit()  # the default "auto" would choose XLA on a CPU
    return model


@keras.saving.register_keras_serializable(package="activity")
class TimeDistributed(keras.layers.TimeDistributed):
    """`keras.layers.TimeDistributed` with time folded into the batch: one call of the layer for all frames.

    The stock layer loops over time in Python, which makes a graph T times as large (Keras issues 21179 and 21208).
    The result is the same for every layer that treats the items of a batch alike. The mask is not given to the
    wrapped layer, which sees single frames; it goes to the head, explicitly.

    Call arguments:
        inputs: `(batch, time, ...)`; returns `(batch, time, ...)` of the wrapped layer's output.
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Fold, call the wrapped layer once, unfold."""
        batch, time = ops.shape(inputs)[:2]
        frames = ops.reshape(inputs, (-1, *inputs.shape[2:]))  # (B, T, ...) -> (B*T, ...)
        outputs = self.layer(frames, training=training) if self._takes_training else self.layer(frames)
        return ops.reshape(outputs, (batch, time, *outputs.shape[1:]))  # (B*T, ...) -> (B, T, ...)

    @property
    def _takes_training(self) -> bool:
        return bool(getattr(self.layer, "_call_has_training_arg", False))


@keras.saving.register_keras_serializable(package="activity")
class Preprocess(keras.layers.Layer):
    """uint8 RGB to what a backbone was trained on, inside the graph, so that no caller can forget or repeat it.

    The cast comes first: on a uint8 tensor `preprocess_input` wraps around silently (keras-applications issue 128).

    Args:
        mode: `tf` (-1 to 1), `caffe` (BGR minus the ImageNet means), `torch` (ImageNet mean and deviation), or
            `none` (0 to 255, for backbones that carry their own preprocessing).
    """

    def __init__(self, mode: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if mode not in PREPROCESS_MODES:
            raise ValueError(f"mode must be one of {', '.join(PREPROCESS_MODES)}, received: {mode}")
        self.mode = mode

    def call(self, inputs: Any) -> Any:
        """`(batch, H, W, 3)` uint8 to the same shape in the compute dtype."""
        frames = ops.cast(inputs, self.compute_dtype)
        if self.mode == "none":
            return frames
        return keras.applications.imagenet_utils.preprocess_input(frames, data_format="channels_last", mode=self.mode)

    def get_config(self) -> dict[str, Any]:
        """The mode."""
        return {**super().get_config(), "mode": self.mode}


class _EndsMask(keras.layers.Layer):
    """A layer that passes no implicit mask on to those after it.

    Keras 3.15 attaches the mask that a layer was given to its output, and warns where a later layer knows none; Keras
    3.16 no longer does. After a layer that reads backwards, that mask would even be in the wrong order.
    """

    def compute_mask(self, inputs: Any, previous_mask: Any) -> None:
        """No mask."""
        return None


@keras.saving.register_keras_serializable(package="activity")
class HidePadding(_EndsMask):
    """Zeros on padding: `(batch, T, D)` and mask `(batch, T)` -> `(batch, T, D)`.

    The output of a recurrent layer on padding depends on the device: a CPU repeats the last output, cuDNN gives zeros.
    """

    def call(self, inputs: Any, mask: Any) -> Any:
        """The real frames as they are, zeros after them."""
        return ops.where(ops.expand_dims(mask, -1), inputs, ops.zeros_like(inputs))  # (B, T, D)


@keras.saving.register_keras_serializable(package="activity")
class ReverseTime(_EndsMask):
    """The sequence from its last step to its first, padding included: `(batch, T, D)` -> `(batch, T, D)`."""

    def call(self, inputs: Any) -> Any:
        """Turn the axis of time round."""
        return ops.flip(inputs, axis=1)


@keras.saving.register_keras_serializable(package="activity")
class MemberLSTMCell(keras.layers.Layer):
    """The cells of M LSTMs that read M inputs, a step of time at once: for `keras.layers.RNN`.

    The members of an ensemble are small; as layers of their own, each would take as long as all do together here.

    Args:
        units: U, hidden units of each.
        members: M.

    Call arguments:
        inputs: `(batch, M*P)`, the inputs of one member after the other.
        states: outputs and cell states, `(batch, M*U)` each.
    """

    def __init__(self, units: int, members: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units, self.members = units, members
        self.state_size, self.output_size = [members * units] * 2, members * units

    def build(self, input_shape: Any) -> None:
        """Create the weights, of each member as `keras.layers.LSTM` does; the forget gate begins open."""
        members, units, num_inputs = self.members, self.units, input_shape[-1] // self.members
        kernel, recurrent = (num_inputs, 4 * units), (units, 4 * units)

        def of_each(first: Any) -> Any:
            return lambda shape, dtype=None: ops.stack([first(shape[1:], dtype) for _ in range(members)])

        self.kernel = self.add_weight(
            shape=(members, *kernel), initializer=of_each(keras.initializers.GlorotUniform()), name="kernel"
        )
        self.recurrent_kernel = self.add_weight(
            shape=(members, *recurrent), initializer=of_each(keras.initializers.Orthogonal()), name="recurrent_kernel"
        )

        # Made when it is needed: a file may name any number of units.
        def forget_gate_open(shape: Any, dtype: Any = None) -> Any:
            return ops.repeat(ops.convert_to_tensor([0.0, 1.0, 0.0, 0.0], dtype), units)  # input, forget, cell, output

        self.bias = self.add_weight(shape=(members, 4 * units), initializer=of_each(forget_gate_open), name="bias")

    def call(self, inputs: Any, states: Any, training: bool | None = None) -> Any:
        """One step: the outputs `(batch, M*U)` and the states after it."""
        before, cell = states
        x = ops.transpose(ops.reshape(inputs, (-1, self.members, self.kernel.shape[1])), (1, 0, 2))  # (M, B, P)
        h = ops.transpose(ops.reshape(before, (-1, self.members, self.units)), (1, 0, 2))  # (M, B, U)
        gates = ops.matmul(x, self.kernel) + ops.matmul(h, self.recurrent_kernel) + self.bias[:, None]  # (M, B, 4*U)
        gates = ops.transpose(gates, (1, 0, 2))  # (B, M, 4*U)
        i, f, c, o = ops.split(gates, 4, axis=-1)  # (B, M, U) each
        cell = ops.reshape(cell, (-1, self.members, self.units))
        cell = ops.sigmoid(f) * cell + ops.sigmoid(i) * ops.tanh(c)
        outputs, cell = (
            ops.reshape(values, (-1, self.output_size)) for values in (ops.sigmoid(o) * ops.tanh(cell), cell)
        )  # (B, M, U) -> (B, M*U)
        return outputs, [outputs, cell]

    def get_config(self) -> dict[str, Any]:
        """The sizes."""
        return {**super().get_config(), "units": self.units, "members": self.members}


@keras.saving.register_keras_serializable(package="activity")
class MaskedSoftmax(_EndsMask):
    """Scores to weights: `(batch, T)` and mask `(batch, T)` -> `(batch, T)`, sum 1 over real frames and 0 on padding.

    `keras.layers.Softmax` warns at every clip of one frame.
    """

    def call(self, inputs: Any, mask: Any) -> Any:
        """Exponentials of the real frames, divided by their sum."""
        scores = ops.where(mask, inputs, ops.cast(_LOWEST, inputs.dtype))
        weights = ops.exp(scores - ops.max(scores, axis=1, keepdims=True)) * ops.cast(mask, inputs.dtype)
        return weights / ops.maximum(ops.sum(weights, axis=1, keepdims=True), 1e-6)  # of padding only: no weights


@keras.saving.register_keras_serializable(package="activity")
class MaskedMax(_EndsMask):
    """The largest value of each feature among the real frames: `(batch, T, D)` and mask `(batch, T)` -> `(batch, D)`.

    `keras.layers.GlobalMaxPooling1D` takes no mask, so that padding can win.
    """

    def call(self, inputs: Any, mask: Any) -> Any:
        """The largest over time."""
        real = ops.expand_dims(mask, -1)  # (B, T) -> (B, T, 1)
        return ops.max(ops.where(real, inputs, ops.cast(_LOWEST, inputs.dtype)), axis=1)  # (B, T, D) -> (B, D)


@keras.saving.register_keras_serializable(package="activity", name="SegmentMeans")
class ChunkMeans(_EndsMask):
    """The mean of each of K equal chunks of the real time: `(batch, T, D)` and mask `(batch, T)` -> `(batch, K*D)`.

    Of n real frames, frame i fills the time from i to i + 1, and chunk k that from k*n/K to (k+1)*n/K. A frame on the
    border of two chunks counts in each by its overlap, so that any n from 1 on works. One chunk is the masked mean.

    Args:
        num_segments: K, the number of chunks, by its name in model files.
    """

    def __init__(self, num_segments: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if num_segments < 1:
            raise ValueError(f"num_segments must be 1 or more, received: {num_segments}")
        self.num_chunks = num_segments

    def call(self, inputs: Any, mask: Any) -> Any:
        """The means, chunk after chunk."""
        # weights in float32: float16 can neither count to 1024 frames nor divide them
        real = ops.expand_dims(ops.cast(mask, "float32"), 1)  # (B, T) -> (B, 1, T)
        length = ops.maximum(ops.sum(real, axis=2, keepdims=True), 1) / self.num_chunks  # of a chunk: (B, 1, 1)
        chunk = ops.reshape(ops.arange(self.num_chunks, dtype="float32"), (1, -1, 1))  # (1, K, 1)
        end = ops.cumsum(real, axis=2)  # of each real frame: (B, 1, T)
        overlap = ops.minimum(end, (chunk + 1) * length) - ops.maximum(end - 1, chunk * length)  # (B, K, T)
        weights = ops.maximum(overlap, 0) * real / length  # (B, K, T), each chunk sums to 1
        means = ops.matmul(ops.cast(weights, inputs.dtype), inputs)  # (B, K, T) x (B, T, D) -> (B, K, D)
        return ops.reshape(means, (-1, self.num_chunks * inputs.shape[2]))  # (B, K, D) -> (B, K*D)

    def get_config(self) -> dict[str, Any]:
        """The number of chunks."""
        return {**super().get_config(), "num_segments": self.num_chunks}


@keras.saving.register_keras_serializable(package="activity")
class CosineMeans(_EndsMask):
    """The first K coefficients of the cosine transform (DCT-II) over the real time: `(batch, T, D)` -> `(batch, K*D)`.

    Coefficient 0 is the masked mean; the others tell how a feature rises, falls and swings (Ahmed et al. 1974). They
    are means over the real frames, so clips of any length compare.

    Args:
        num_coefficients: K, 1 or more.
    """

    def __init__(self, num_coefficients: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if num_coefficients < 1:
            raise ValueError(f"num_coefficients must be 1 or more, received: {num_coefficients}")
        self.num_coefficients = num_coefficients

    def call(self, inputs: Any, mask: Any) -> Any:
        """The coefficients, one after the other."""
        real = ops.expand_dims(ops.cast(mask, "float32"), 1)  # (B, T) -> (B, 1, T)
        length = ops.maximum(ops.sum(real, axis=2, keepdims=True), 1)  # (B, 1, 1)
        order = ops.reshape(ops.arange(self.num_coefficients, dtype="float32"), (1, -1, 1))  # (1, K, 1)
        waves = ops.cos(np.pi * order * (ops.cumsum(real, axis=2) - 0.5) / length)  # (B, K, T)
        weights = waves * ops.where(order > 0, 2**0.5, 1.0) * real / length  # orthonormal, but for a factor
        means = ops.matmul(ops.cast(weights, inputs.dtype), inputs)  # (B, K, T) x (B, T, D) -> (B, K, D)
        return ops.reshape(means, (-1, self.num_coefficients * inputs.shape[2]))  # (B, K, D) -> (B, K*D)

    def get_config(self) -> dict[str, Any]:
        """The number of coefficients."""
        return {**super().get_config(), "num_coefficients": self.num_coefficients}


@keras.saving.register_keras_serializable(package="activity")
class Project(keras.layers.Layer):
    """Each stream on P directions of its features, all streams side by side: `(batch, T, S, D)` -> `(batch, T, S*P)`.

    After `adapt` the directions are the principal components of the features (Pearson 1901; Hotelling 1933), and are
    fixed: what then reads them has few weights to learn. Before, they are learned, as for a backbone yet to be trained.

    Args:
        num_components: P, at most D.
    """

    def __init__(self, num_components: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if num_components < 1:
            raise ValueError(f"num_components must be 1 or more, received: {num_components}")
        self.num_components = num_components

    def build(self, input_shape: Any) -> None:
        """Create the directions."""
        num_streams, num_features = input_shape[-2:]
        shape = (num_streams, num_features, self.num_components)
        self.kernel = self.add_weight(shape=shape, initializer="glorot_uniform", name="kernel")

    def adapt(self, parts: Iterable[np.ndarray]) -> None:
        """Set the directions to the principal components of features of mean 0, `(n, S, D)` in each part.

        They have one scale for each stream, at which the mean variance of its components is 1.
        """
        from scipy.linalg import eigh
        from threadpoolctl import threadpool_limits

        num_streams, dims, _ = self.kernel.shape
        squares, num_frames = np.zeros((num_streams, dims, dims)), 0
        for part in parts:
            num_frames += len(part)
            for stream, x in enumerate(np.moveaxis(np.asarray(part, np.float32), 1, 0)):  # (n, D) of each
                squares[stream] += x.T @ x
        kernel = np.zeros(self.kernel.shape, np.float32)
        for stream, of_stream in enumerate((squares / num_frames).astype(np.float32)):
            with threadpool_limits(limits=1, user_api="blas"):  # its threads would wait longer than they compute
                variances, directions = eigh(of_stream, subset_by_index=(dims - self.num_components, dims - 1))
            kernel[stream] = directions[:, ::-1] / np.sqrt(max(variances.mean(), 1e-12))
        self.kernel.assign(kernel)
        self.trainable = False

    def call(self, inputs: Any) -> Any:
        """The components of all streams."""
        # One product a stream: with a batch of them, (B, S, T, D) x (S, D, P), TensorFlow 2.21 (oneDNN, CPU) writes
        # where it must not if S is 1: numbers that are none from the second call on, or the end of the process.
        kernel = ops.cast(self.kernel, inputs.dtype)
        streams = ops.unstack(inputs, kernel.shape[0], axis=2)  # (B, T, S, D) -> S x (B, T, D)
        components = [ops.matmul(x, kernel[s]) for s, x in enumerate(streams)]  # x (D, P) -> S x (B, T, P)
        return ops.concatenate(components, axis=2)  # (B, T, S*P)

    def get_config(self) -> dict[str, Any]:
        """The number of components."""
        return {**super().get_config(), "num_components": self.num_components}


@keras.saving.register_keras_serializable(package="activity")
class Standardize(keras.layers.Layer):
    """Features to mean 0 and deviation 1 after a square root, `(batch, T, S, D)` to the same.

    A few features of a backbone are large and most are small; the root evens them out (power normalization, Perronnin
    et al. 2010). Until `adapt` has seen features this layer changes nothing, as for a backbone still to be trained.
    """

    _ROOT_OF = 1e-3  # keeps the slope of the root finite at 0

    def build(self, input_shape: Any) -> None:
        """Create the statistics, which are data, not learned."""
        shape = tuple(input_shape[-2:])
        self.mean = self.add_weight(shape=shape, initializer="zeros", trainable=False, name="mean")
        self.scale = self.add_weight(shape=shape, initializer="ones", trainable=False, name="scale")
        self.adapted = self.add_weight(shape=(), initializer="zeros", trainable=False, name="adapted")

    def adapt(self, parts: Iterable[np.ndarray]) -> None:
        """Set the statistics to those of features, `(n, S, D)` in each part (Chan, Golub & LeVeque 1983)."""
        counts, means, variances = [], [], []
        for part in parts:
            roots = _signed_root(np.asarray(part, np.float32), self._ROOT_OF)
            counts.append(len(roots))
            means.append(roots.mean(axis=0))
            variances.append(roots.var(axis=0))
        mean = np.average(means, axis=0, weights=counts)
        between = (np.asarray(means) - mean) ** 2
        deviation = np.sqrt(np.average(variances + between, axis=0, weights=counts)).astype(np.float32)  # (S, D)
        # a feature that is nearly always 0 must not be scaled up to weigh as much as the others
        floor = 0.1 * deviation.mean(axis=-1, keepdims=True) + 1e-6
        self.mean.assign(mean.astype(np.float32))
        self.scale.assign(1 / np.maximum(deviation, floor))
        self.adapted.assign(1.0)

    def call(self, inputs: Any) -> Any:
        """The same shape."""
        roots = ops.where(ops.cast(self.adapted, "bool"), _signed_root(inputs, self._ROOT_OF), inputs)
        return (roots - ops.cast(self.mean, inputs.dtype)) * ops.cast(self.scale, inputs.dtype)


def _signed_root(x: Any, root_of: float) -> Any:
    """sign(x) (sqrt(|x| + c) - sqrt(c)), written without a sign and without cancellation."""
    return x / ((abs(x) + root_of) ** 0.5 + root_of**0.5)


@keras.saving.register_keras_serializable(package="activity", name="Opinions")
class MemberPredictions(_EndsMask):
    """The probabilities of M members, each `(batch, ..., C)`, as one `(batch, M, ..., C)`."""

    def call(self, inputs: Any) -> Any:
        """Stack them along a new axis."""
        return ops.stack(inputs, axis=1)


@keras.saving.register_keras_serializable(package="activity")
class Fuse(_EndsMask):
    """The geometric mean of the members' probabilities, `(batch, M, ..., C)` -> `(batch, ..., C)`, at a temperature.

    In a product, a member that is not confident changes little (product of experts, Hinton 2002). A temperature above 1
    makes the result less confident, one below 1 more: see `activity.evaluation.calibration`.

    Args:
        weighted: the members have weights, which are set, not learned; else all have the same.
        multi_label: each label holds or not, whatever the others do: the odds of each are fused, not the shares.
    """

    def __init__(self, weighted: bool = False, multi_label: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.weighted, self.multi_label = weighted, multi_label

    def build(self, input_shape: Any) -> None:
        """Create the temperature, and the weights if there are any; both are set, not learned."""
        self.temperature = self.add_weight(shape=(), initializer="ones", trainable=False, name="temperature")
        if self.weighted:
            equal = keras.initializers.Constant(1 / input_shape[1])
            self.member_weights = self.add_weight(
                shape=(input_shape[1],), initializer=equal, trainable=False, name="member_weights"
            )

    def call(self, inputs: Any) -> Any:
        """Weighted mean of the logarithms, divided by the temperature, to probabilities."""
        logs = ops.log(ops.maximum(inputs, 1e-7))  # (B, M, ..., C)
        if self.multi_label:
            logs -= ops.log(ops.maximum(1 - inputs, 1e-7))
        if self.weighted:
            weights = ops.reshape(self.member_weights, (1, -1, *[1] * (len(inputs.shape) - 2)))
            fused = ops.sum(logs * weights, axis=1)  # (B, M, ..., C) -> (B, ..., C)
        else:
            fused = ops.mean(logs, axis=1)
        fused /= self.temperature
        return ops.sigmoid(fused) if self.multi_label else ops.softmax(fused, axis=-1)

    def get_config(self) -> dict[str, Any]:
        """Whether it is weighted, and for several labels at once."""
        return {**super().get_config(), "weighted": self.weighted, "multi_label": self.multi_label}
