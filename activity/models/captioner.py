"""The model that writes sentences: backbone, encoder and decoder, in one `.keras` file with its vocabulary.

    frames --backbone--> features --encoder--> memory, a step a frame --decoder--> words

After Donahue et al. 2015 (LRCN) and Venugopalan et al. 2015 (S2VT). An image is a clip of one frame, as for Vinyals et
al. 2015.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from activity.errors import ActivityError
from activity.models.backend import keras, ops
from activity.models.classifier import ActivityClassifier, extracted, predict, versions
from activity.models.decoder import Decoder, SentenceSearch
from activity.models.heads import (
    NUM_COMPONENTS,
    PROJECT,
    STANDARDIZE,
    HeadOptions,
    fixed_layers,
    member_sequences,
    of_prepared,
)
from activity.models.info import FORMAT_VERSION, ModelInfo
from activity.models.layers import HidePadding, Project, Standardize, make_model, uses_jit
from activity.models.saving import load_model
from activity.models.sentences import InferenceCaptioner, Search
from activity.models.stack import stacked_head


@keras.saving.register_keras_serializable(package="activity")
class ActivityCaptioner(InferenceCaptioner, keras.Model):
    """Clips and sentences to logits `(batch, L, V)` of their next words; `activity.models.sentences` writes new ones.

    The inputs are `{"frames": (batch, T, S, H, W, 3) uint8, "mask": (batch, T) bool, "words": (batch, L) int32}`.

    Args:
        backbone: one image `(H, W, 3)` uint8 RGB to features `(D,)`; all streams share it.
        encoder: features `(batch, T, S, D)` and mask to the memory `(batch, T, M)`; from `build_encoder`.
        decoder: of `len(info.words) + NUM_SPECIAL` words.
        info: spec, words and all else that the model file tells.
    """

    def __init__(
        self, backbone: keras.Model, encoder: keras.Model, decoder: Decoder, info: ModelInfo, **kwargs: Any
    ) -> None:
        spec = info.spec
        # === Layers ===
        shape = (spec.num_frames, len(spec.streams), *spec.item_shape)
        frames = keras.Input(shape, dtype=spec.item_dtype, name="frames")
        mask = keras.Input((spec.num_frames,), dtype="bool", name="mask")
        words = keras.Input((None,), dtype="int32", name="words")
        # === Functional model ===
        memory = encoder({"features": extracted(backbone, frames), "mask": mask})  # (B, T, S, H, W, 3) -> (B, T, M)
        logits = decoder(words, memory, mask)  # (B, L) -> (B, L, V)
        super().__init__(inputs={"frames": frames, "mask": mask, "words": words}, outputs=logits, **kwargs)
        # === Config ===
        self.backbone = backbone
        self.encoder = encoder
        self.decoder = decoder
        self.info = info
        self.jit_compile = uses_jit()

    def get_config(self) -> dict[str, Any]:
        """Everything `from_config` needs, as plain values."""
        info = self.info.with_record(num_parameters=self.count_params(), versions=versions())
        parts = {name: getattr(self, name) for name in _PARTS}
        serialized = {name: keras.saving.serialize_keras_object(part) for name, part in parts.items()}
        return {"name": self.name, "format_version": FORMAT_VERSION, **serialized, **info.as_dict()}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> ActivityCaptioner:
        """The captioner that `get_config` describes, with fresh weights."""
        backbone, encoder, decoder = (
            keras.saving.deserialize_keras_object(config[name], custom_objects=custom_objects, safe_mode=True)
            for name in _PARTS
        )
        return cls(backbone, encoder, decoder, ModelInfo.from_dict(config), name=config["name"])

    def extract_features(self, images: np.ndarray) -> np.ndarray:
        """Features `(N, D)` float32 of images `(N, H, W, 3)` uint8 RGB."""
        return predict(self.backbone, images)

    @property
    def feature_shape(self) -> tuple[int, ...]:
        """`(S, D)` of a frame."""
        return tuple(self.encoder.input["features"].shape[2:])

    def build_search(self, *, num_beams: int, sampled: bool) -> Search:
        """A graph of its own, whose loop over words runs in the backend."""
        features = keras.Input((None, *self.feature_shape), name="features")
        mask = keras.Input((None,), dtype="bool", name="mask")
        drawn = {}
        if sampled:
            drawn["noise"] = keras.Input((self.info.max_words + 1, self.decoder.num_words), name="noise")
            drawn |= {name: keras.Input((1,), name=name) for name in ("temperature", "top_p")}
        search = SentenceSearch(self.decoder, num_beams=num_beams, max_words=self.info.max_words, sampled=sampled)
        memory = self.encoder({"features": features, "mask": mask})
        model = make_model({"features": features, "mask": mask, **drawn}, search(memory, mask, **drawn))
        return lambda inputs: tuple(np.asarray(x) for x in model.predict_on_batch(inputs))

    def to_be_trained(self, backbone: keras.Model | None = None, *, sampled: bool = False) -> keras.Model:
        """The model in training: clips and sentences `{..., "words": (B, L)}` to logits of the next words `(B, L, V)`.

        With scheduled sampling (Bengio et al. 2015) there is a further input `own`, `(B, L)` bool: there, the word that
        the model would have written is read in place of the given one. These are found in a first pass over the given
        words (Mihaylova & Martins 2019), so that no loop over words is needed.

        Args:
            backbone: or its upper part, whose inputs the clips are; `None`: clips are features that were `prepared`.
            sampled: with scheduled sampling.
        """
        time, words = self.spec.num_frames, keras.Input((None,), dtype="int32", name="words")
        mask = keras.Input((time,), dtype="bool", name="mask")
        inputs = {"mask": mask, "words": words}
        if backbone is None:
            encoder = of_prepared(self.encoder)
            inputs["features"] = keras.Input((time, *encoder.input["features"].shape[2:]), name="features")
            features = inputs["features"]
        else:
            encoder = self.encoder
            shape = (time, len(self.spec.streams), *backbone.input_shape[1:])
            inputs["frames"] = keras.Input(shape, dtype=backbone.input.dtype, name="frames")
            features = extracted(backbone, inputs["frames"])
        memory = encoder({"features": features, "mask": mask})  # (B, T, M)
        logits = self.decoder(words, memory, mask)  # (B, L, V)
        if sampled:
            inputs["own"] = own = keras.Input((None,), dtype="bool", name="own")
            written = ops.stop_gradient(ops.argmax(logits, axis=-1))  # (B, L): after each word, the next
            before = ops.concatenate([words[:, :1], ops.cast(written[:, :-1], "int32")], axis=1)
            logits = self.decoder(ops.where(own, before, words), memory, mask)
        return keras.Model(inputs, logits)


_PARTS = ("backbone", "encoder", "decoder")


def build_encoder(
    options: HeadOptions, *, num_features: int, num_streams: int, num_components: int = NUM_COMPONENTS
) -> keras.Model:
    """Features `(B, T, S, D)` and mask `(B, T)` to the memory `(B, T, M)`, zeros on padding; with random weights.

    It is the head `lstm` up to its sequences: principal components of each stream, and LSTMs over them in both
    directions; the components stand beside the states (skip). So it can begin with what an activity model has learned.

    Args:
        options: of the head; `units`, `members` and `dropout` count.
        num_features: D.
        num_streams: S.
        num_components: P of each stream, or D if that is less.
    """
    features = keras.Input((None, num_streams, num_features), name="features")
    mask = keras.Input((None,), dtype="bool", name="mask")
    standard = Standardize(name=STANDARDIZE)(features)  # (B, T, S, D)
    components = Project(min(num_components, num_features), name=PROJECT)(standard)  # (B, T, S*P)
    _, sequence = member_sequences(components, mask, options)  # (B, T, 2*M*U)
    skipped = keras.layers.Dropout(options.dropout, noise_shape=(None, 1, components.shape[-1]))(components)
    memory = HidePadding()(keras.layers.Concatenate()([sequence, skipped]), mask=mask)  # (B, T, 2*M*U + S*P)
    return make_model({"features": features, "mask": mask}, memory, name="encoder")


def begin_with(encoder: keras.Model, classifier: ActivityClassifier, path: Path) -> None:
    """Give an encoder what the head of an activity model has learned (warm start).

    Args:
        encoder: of the same sizes.
        classifier: the activity model.
        path: of its file, for the message.

    Raises:
        ActivityError: its head is another than `lstm`, or of other sizes.
    """
    head = stacked_head(classifier.head)
    if head.name != "lstm":
        raise ActivityError(f"expected a model with the head lstm to begin with, received {head.name}", path=path)
    sources, targets = ([*(m.get_layer(n) for n in fixed_layers(m)), _lstms_of(m)] for m in (head, encoder))
    for source, target in zip(sources, targets, strict=True):
        shapes = [[tuple(w.shape) for w in layer.weights] for layer in (source, target)]
        if shapes[0] != shapes[1]:
            raise ActivityError(
                f"its {source.name} has other sizes: {shapes[0]}, expected {shapes[1]}",
                path=path,
                hint="give --units, --members and --components of its training",
            )
        target.set_weights(source.get_weights())
        target.trainable = source.trainable


def _lstms_of(model: keras.Model) -> keras.layers.Layer:
    return next(layer for layer in model.layers if isinstance(layer, keras.layers.Bidirectional))


def load_captioner(path: Path, *, task: str = "describe") -> ActivityCaptioner:
    """Read a model file of `train --task describe`, or `order`; raises as `activity.models.saving.load_model`."""
    return load_model(path, ActivityCaptioner, task=task)
