"""Train a model that writes sentences: encoder and decoder on cached features, then, if asked, the backbone too."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from activity.config import TrainConfig
from activity.datasets.dataset import Dataset
from activity.datasets.samples import Sample
from activity.datasets.words import tokens_of
from activity.errors import ActivityError, DatasetError, SettingError, check_type
from activity.files import lock_folder
from activity.models.backbones import choose_weights
from activity.models.backend import keras, ops
from activity.models.captioner import ActivityCaptioner, begin_with, build_encoder
from activity.models.classifier import ActivityClassifier, load_classifier
from activity.models.decoder import Decoder
from activity.models.heads import HeadOptions
from activity.models.info import ModelInfo
from activity.models.search import NUM_SPECIAL, PADDING, UNKNOWN
from activity.training.batches import CaptionBatches, ClipBatches
from activity.training.fitting import Stage, StagePlan, fit, without_times
from activity.training.preparation import (
    backbone_of,
    claim_work_dir,
    clips_of,
    compute_precision,
    merge_val,
    say_what_is_idle,
    with_given_features,
)
from activity.training.record import record_of
from activity.training.stages import clip_source, plan_stage, stage_names

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CaptioningRun:
    """What `train_captioner` gives.

    Attributes:
        model: trained.
        stages: in their order.
    """

    model: ActivityCaptioner
    stages: list[Stage]

    @property
    def history(self) -> list[dict[str, Any]]:
        """The rows of all stages, each with the name of its `stage`; without times, so the same again for a seed."""
        return [{"stage": stage.name, **row} for stage in self.stages for row in without_times(stage.rows)]

    def as_text(self) -> str:
        """A line a stage, and what it can write, for a terminal."""
        info = self.model.info
        words = f"{len(info.words)} words; sentences of up to {info.max_words}"
        return "\n".join([*(stage.as_text() for stage in self.stages), f"{'vocabulary':16} {words}"])


class Vocabulary:
    """The words that a model knows, found by `keras.layers.TextVectorization`: the most frequent ones first.

    Args:
        captions: to be learned from.
        most_words: so many at most; all others are `UNKNOWN`.

    Attributes:
        words: in the order of their numbers, from `NUM_SPECIAL` on.
    """

    def __init__(self, captions: Sequence[str], *, most_words: int) -> None:
        # split by `tokens_of`: the layer knows the capitals and the punctuation of ASCII alone
        self._layer = keras.layers.TextVectorization(most_words + _OF_LAYER, standardize=None, split="whitespace")
        self._layer.adapt([" ".join(tokens_of(caption)) for caption in captions])
        self.words = tuple(str(word) for word in self._layer.get_vocabulary()[_OF_LAYER:])

    def numbers_of(self, captions: Sequence[str]) -> list[np.ndarray]:
        """The numbers of the words of each caption, without an end."""
        texts = [" ".join(tokens_of(caption)) for caption in captions]
        rows = np.asarray(ops.convert_to_numpy(self._layer(texts)), np.int32)
        return [np.where(row >= _OF_LAYER, row - _OF_LAYER + NUM_SPECIAL, UNKNOWN)[row != 0] for row in rows]


_FEWEST_WORDS = 1.5  # in a caption, on average, of a language with spaces
_OF_LAYER = 2  # padding, unknown


def train_captioner(
    dataset: Dataset,
    config: TrainConfig,
    *,
    work_dir: Path | str,
    resume: bool = False,
    backbone: keras.Model | None = None,
    runtime: str = "auto",
    seconds_between_saves: float = 10.0,
) -> CaptioningRun:
    """Train a model that writes sentences on the train split; the test split is not touched.

    An encoder LSTM reads the features of a frozen backbone, and a decoder LSTM with attention learns to write the
    captions, each word after the true ones before it (teacher forcing; Donahue et al. 2015, Venugopalan et al. 2015,
    Yao et al. 2015) or, more and more often, after its own (scheduled sampling, Bengio et al. 2015). Targets are
    smoothed (Szegedy et al. 2016). `config.fine_tune` then trains the last layers of the backbone too; one without
    pretrained weights learns together with the rest.

    Args:
        dataset: made by `preprocess` of a manifest with captions; samples without one are left out.
        config: how to train; its task is `describe`.
        work_dir: folder for the state of the run and its log; another run's state in it is replaced.
        resume: continue where a killed run with the same configuration stopped.
        backbone: that of `config`, if it is available; it must stay frozen.
        runtime: what computes the features of a frozen backbone; see `activity.runtimes.exported`.
        seconds_between_saves: of the state of the run.

    Raises:
        SettingError: an argument is of another type or task.
        DatasetError: there are no captions in the train split, or no words in them.
        ModelFileError: the weights of the backbone, or the model to begin with, cannot be had.
        ActivityError: what would be replaced in `work_dir` is not of a training; the model to begin with does not fit.
    """
    check_type("dataset", dataset, Dataset, "a Dataset, as preprocess and load_dataset give it")
    check_type("config", config, TrainConfig, "a TrainConfig")
    if config.task != "describe":
        raise SettingError("task", "describe", config.task)
    work_dir, dataset = Path(work_dir), with_given_features(dataset.captioned(), config)
    dataset.split("train")
    begun = load_classifier(Path(config.encoder)) if config.encoder else None
    if begun:
        backbone = _backbone_of_model(begun, dataset, config)
    else:
        config = dataclasses.replace(config, weights=choose_weights(config.backbone, config.weights))
    say_what_is_idle(dataset, config)
    keras.utils.set_random_seed(config.seed)
    dataset = merge_val(dataset, config)
    vocabulary = Vocabulary(
        [caption for sample in dataset.split("train") for caption in sample.captions], most_words=config.vocabulary
    )
    if not vocabulary.words:
        raise DatasetError("its captions for training have no words, only punctuation", path=dataset.dataset_dir)
    _say_what_is_cut(dataset, vocabulary, config)
    with lock_folder(work_dir, "train"), compute_precision(config.mixed_precision):
        model = build_captioner(dataset, config, vocabulary.words, backbone)
        if begun:
            begin_with(model.encoder, begun, Path(str(config.encoder)))
        claim_work_dir(work_dir, dataset, config, resume)
        stages = [
            fit(_plan(name, model, dataset, config, vocabulary, runtime), work_dir / name, seconds_between_saves)
            for name in stage_names(config)
        ]
        if config.fine_tune:
            model.backbone.trainable = False
    if config.mixed_precision:
        trained, of_same = model, dataclasses.replace(config, weights="none")
        model = build_captioner(dataset, of_same, vocabulary.words, backbone)
        model.set_weights(trained.get_weights())  # a float32 model: nothing of the precision of training
    run, record = CaptioningRun(model, stages), record_of(dataset, config, stages)
    model.info = dataclasses.replace(model.info, record=record).with_record(history=tuple(run.history))
    return run


def _backbone_of_model(begun: ActivityClassifier, dataset: Dataset, config: TrainConfig) -> keras.Model:
    """The backbone of an activity model to begin with, which must take what the data set gives."""
    for name in ("backbone", "weights"):
        if getattr(config, name) != getattr(TrainConfig, name):
            _logger.warning("--%s does nothing with --encoder, whose backbone is taken", name)
    if begun.spec != dataset.spec:
        raise ActivityError(
            f"it takes {begun.spec}; the data set has {dataset.spec}",
            path=config.encoder,
            hint="preprocess with the same options, and choose the same --streams",
        )
    return begun.backbone


def _say_what_is_cut(dataset: Dataset, vocabulary: Vocabulary, config: TrainConfig) -> None:
    captions = [caption for sample in dataset.split("train") for caption in sample.captions]
    numbers = vocabulary.numbers_of(captions)
    if longer := sum(len(words) > config.max_words for words in numbers):
        longest = max(map(len, numbers))
        text = "%d of %d captions are longer than --max-words %d (the longest: %d words); their ends are not learned"
        _logger.warning(text, longer, len(captions), config.max_words, longest)
    if unknown := sum(int((words == UNKNOWN).sum()) for words in numbers):
        total = sum(map(len, numbers))
        text = "%d of %d words of the captions are not among the %d of --vocabulary, and will not be written"
        _logger.warning(text, unknown, total, config.vocabulary)
    if sum(map(len, numbers)) < _FEWEST_WORDS * len(captions) and sum(map(len, captions)) > 12 * len(captions):
        text = "most captions are a single word; a language that writes no spaces needs them between its words here"
        _logger.warning(text)
    if empty := sum(not len(words) for words in numbers):
        _logger.warning("%d of %d captions have no word, only punctuation", empty, len(captions))


def build_captioner(
    dataset: Dataset,
    config: TrainConfig,
    words: Sequence[str],
    backbone: keras.Model | None = None,
) -> ActivityCaptioner:
    """An untrained captioner for a data set: the backbone with its weights, all else with random ones."""
    backbone = backbone or backbone_of(dataset, config)
    encoder = build_encoder(
        HeadOptions(units=config.units, members=config.members, dropout=config.dropout),
        num_features=backbone.output_shape[-1],
        num_streams=len(dataset.spec.streams),
        num_components=config.components,
    )
    if (num_features := backbone.output_shape[-1]) < config.components != TrainConfig.components:
        _logger.warning("--components %d: a frame has %d features, all are kept", config.components, num_features)
    decoder = Decoder(len(words) + NUM_SPECIAL, config.decoder_units, config.dropout)
    info = ModelInfo(words=tuple(words), max_words=config.max_words, **clips_of(dataset))
    return ActivityCaptioner(backbone, encoder, decoder, info)


# === Stages ===


def _plan(
    name: str, model: ActivityCaptioner, dataset: Dataset, config: TrainConfig, vocabulary: Vocabulary, runtime: str
) -> StagePlan:
    """A stage of a captioner: clips with their captions."""
    source = clip_source(
        name, model.encoder, model.backbone, dataset, config, runtime=runtime, fresh=not config.encoder
    )
    sentences = {sample.sample_id: vocabulary.numbers_of(sample.captions) for sample in dataset.samples}
    longest = max(len(words) for numbers in sentences.values() for words in numbers)  # padding costs time

    def with_sentences(clips: ClipBatches, samples: Sequence[Sample]) -> CaptionBatches:
        return CaptionBatches(
            clips,
            [sentences[sample.sample_id] for sample in samples],
            max_words=min(config.max_words, longest),
            num_epochs=source.config.epochs,
            scheduled_sampling=config.scheduled_sampling,
            withheld=config.withheld,
        )

    return plan_stage(
        name,
        model.to_be_trained(source.encoder, sampled=config.scheduled_sampling > 0),
        source,
        dataset,
        targets=lambda samples: np.arange(len(samples))[:, None],
        finish=with_sentences,
        **words_are_judged(config),
    )


def words_are_judged(config: TrainConfig) -> dict[str, Any]:
    """The fields of a `StagePlan` of a model that writes: its loss and accuracy, over words."""
    loss = partial(loss_of_words, smoothing=config.label_smoothing)
    return {"loss": loss, "accuracy": accuracy_of_words}


def loss_of_words(targets: Any, logits: Any, *, smoothing: float = 0.0) -> Any:
    """Mean cross-entropy of the words of each sentence: numbers `(B, L)` and logits `(B, L, V)` to `(B,)`.

    With smoothing, that share of each target is spread evenly over all words (Szegedy et al. 2016).
    """
    logs = ops.log_softmax(ops.cast(logits, "float32"), axis=-1)
    numbers = ops.cast(targets, "int32")
    losses = -ops.take_along_axis(logs, numbers[..., None], axis=-1)[..., 0]  # (B, L)
    if smoothing:
        losses = (1 - smoothing) * losses - smoothing * ops.mean(logs, axis=-1)
    return _mean_of_words(losses, numbers)


def accuracy_of_words(targets: Any, logits: Any) -> Any:
    """Fraction of the words of each sentence that are the most probable ones after those before: `(B,)`."""
    numbers = ops.cast(targets, "int32")
    correct = ops.equal(ops.cast(ops.argmax(logits, axis=-1), "int32"), numbers)
    return _mean_of_words(ops.cast(correct, "float32"), numbers)


def _mean_of_words(values: Any, numbers: Any) -> Any:
    real = ops.cast(ops.not_equal(numbers, PADDING), "float32")  # (B, L)
    return ops.sum(values * real, axis=-1) / ops.maximum(ops.sum(real, axis=-1), 1)
