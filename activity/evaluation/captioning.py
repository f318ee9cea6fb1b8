"""How good the sentences of a captioner are on samples it was not trained on, beside those of the nearest videos."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from activity.datasets.dataset import Dataset
from activity.datasets.samples import Sample
from activity.datasets.splits import audit_leaks
from activity.errors import DatasetError, check_type
from activity.evaluation.captions import CaptionScores, score_captions
from activity.evaluation.evaluator import check_spec, training_samples
from activity.evaluation.metrics import Mean, compared
from activity.models.captioner import ActivityCaptioner
from activity.models.sentences import Sentence, SentenceWriter
from activity.runtimes.features import extract_features

_BASELINE = "the caption of the nearest training video by its mean feature"
_PAIRED = {"cider_d": "CIDEr-D", "rouge_l": "ROUGE-L", "exact": "exact matches"}  # metrics that are means over videos

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CaptionEvaluation:
    """Sentences on the samples of a split, in their order, and how well they match the references.

    Attributes:
        samples: with captions.
        sentences: of the model.
        baseline_captions: of the nearest training videos; `None` where there are none.
    """

    title: ClassVar[str] = "Sentences"

    samples: list[Sample]
    sentences: list[Sentence]
    baseline_captions: list[str] | None = None

    @cached_property
    def scores(self) -> CaptionScores:
        """Of the model."""
        return score_captions([sentence.text for sentence in self.sentences], self._references)

    @cached_property
    def baseline(self) -> CaptionScores | None:
        """Of the captions of the nearest training videos."""
        return score_captions(self.baseline_captions, self._references) if self.baseline_captions else None

    @property
    def _references(self) -> list[tuple[str, ...]]:
        return [sample.captions for sample in self.samples]

    @property
    def groups(self) -> list[str]:
        """The group of each sample."""
        return [sample.group for sample in self.samples]

    @cached_property
    def leads(self) -> dict[str, Mean]:
        """Metric -> its mean less that of the baseline, paired; empty without a baseline."""
        if not self.baseline:
            return {}
        return {
            name: Mean.of(
                getattr(self.scores, f"{name}_each").astype(float) - getattr(self.baseline, f"{name}_each"),
                self.groups,
                lowest=-_LARGEST[name],
                highest=_LARGEST[name],
            )
            for name in _PAIRED
        }

    def as_dict(self) -> dict[str, Any]:
        """The scores, those of the baseline and the leads over it (`None`: there is no baseline); ready for JSON."""
        leads = {name: {"value": x.value, "standard_error": x.standard_error} for name, x in self.leads.items()}
        means = self.scores.by_group(self.groups)
        return {
            **self.scores.as_dict(),
            "num_videos": len(self.samples),
            "num_groups": len(set(self.groups)),
            "standard_errors": {name: mean.standard_error for name, mean in means.items()},
            "baseline": self.baseline and self.baseline.as_dict(),
            "lead": leads or None,
            "mean_log_probability": float(np.mean([sentence.log_probability for sentence in self.sentences])),
        }

    def as_text(self) -> str:
        """The scores for a terminal."""
        means = self.scores.by_group(self.groups)
        notes = [f"{'standard error':16} " + ", ".join(f"{k} {v.standard_error:.3f}" for k, v in means.items())]
        if self.baseline:
            listed = ", ".join(f"{name} {value:.3f}" for name, value in self.baseline.as_dict().items())
            notes.append(f"{'baseline':16} {listed} ({_BASELINE})")
            notes.append(f"{'':16} {self.verdict()}")
        return self.scores.as_text(notes)

    def verdict(self) -> str:
        """Whether the model is better than the baseline by CIDEr-D; empty without a baseline.

        Where all references are alike, CIDEr-D is 0 whatever is written (no word tells one video from another), and
        ROUGE-L decides.
        """
        if not self.leads or not self.baseline:
            return ""
        says_nothing = not (self.scores.cider_d_each.any() or self.baseline.cider_d_each.any())
        name = "rouge_l" if says_nothing else "cider_d"
        lead, measure = self.leads[name], _PAIRED[name]
        if says_nothing:
            measure += " (CIDEr-D says nothing of references that are all alike)"
        words = compared(lead.value, lead.standard_error, "the baseline", (lead.low, lead.high))
        over = f"paired over {len(self.samples)} videos"
        return f"By {measure}, the model is {words} ({lead.value:+.3f} +- {lead.standard_error:.3f}, {over})."

    def headline(self) -> list[tuple[str, str, str]]:
        """The numbers that count most: the name, value and detail of each."""
        means, of = self.scores.by_group(self.groups), self.baseline
        cards = []
        for name, shown in (("cider_d", "CIDEr-D"), ("exact", "exactly right"), ("rouge_l", "ROUGE-L")):
            beside = f"; baseline {getattr(of, name):.3f}" if of else ""
            cards.append((shown, f"{means[name].value:.3f}", f"95 %: {means[name].limits()}{beside}"))
        beside = f"baseline {of.bleu_4:.3f}" if of else ""
        return [*cards, ("BLEU-4", f"{self.scores.bleu_4:.3f}", beside)]

    def about(self, dataset: Dataset, trained: Iterable[str] = ()) -> list[str]:
        """Sentences on what was evaluated, and on whether the scores can be believed.

        Args:
            dataset: that the samples are of.
            trained: contents of the training videos, as for `activity.datasets.splits.audit_leaks`.
        """
        audit = audit_leaks(dataset.samples, scored=self.samples, trained=trained)
        splits = " + ".join(sorted({sample.split for sample in self.samples}))
        what = f"{len(self.samples)} videos of {audit.num_groups} groups of the split {splits}; {dataset.spec}."
        baseline = f"The baseline is {_BASELINE}." if self.baseline else ""
        return [text for text in (what, self.verdict(), baseline, *audit.sentences()) if text]

    def ranking(self) -> list[int]:
        """Places of the samples, the worst sentence by CIDEr-D and then by its certainty first."""
        certainty = np.asarray([sentence.certainty for sentence in self.sentences])
        return np.lexsort((certainty, self.scores.cider_d_each)).tolist()

    def rows(self) -> list[dict[str, Any]]:
        """A row for each sample: `path`, `caption`, `log_probability`, `exact`, `cider_d`, `baseline`, `references`."""
        baseline = self.baseline_captions or [""] * len(self.samples)
        each = zip(
            self.samples,
            self.sentences,
            self.scores.exact_each.tolist(),
            self.scores.cider_d_each.tolist(),
            baseline,
            strict=True,
        )
        return [
            {
                "path": sample.name,
                "caption": sentence.text,
                "log_probability": round(sentence.log_probability, 4),
                "exact": exact,
                "cider_d": round(cider_d, 4),
                "baseline": nearest,
                "references": " | ".join(sample.captions),
            }
            for sample, sentence, exact, cider_d, nearest in each
        ]


_LARGEST = {"cider_d": 10.0, "rouge_l": 1.0, "exact": 1.0}


def evaluate_captions(
    captioner: ActivityCaptioner,
    dataset: Dataset,
    *,
    split: str = "test",
    num_beams: int = 5,
    runtime: str = "auto",
) -> CaptionEvaluation:
    """Evaluate a captioner on one split of a data set, beside a baseline that copies from its training videos.

    Args:
        captioner: from training or a model file.
        dataset: made by `preprocess` with the model's spec, of a manifest with captions.
        split: `train`, `val` or `test`; samples without captions are left out.
        num_beams: of the search.
        runtime: what computes the features; see `activity.runtimes.choice`.

    Raises:
        SettingError: an argument is of another type.
        DatasetError: the split has no captions, or the data set was made with another spec.
    """
    check_type("captioner", captioner, ActivityCaptioner, "a captioner, as train_captioner and load_captioner give it")
    check_type("dataset", dataset, Dataset, "a Dataset, as preprocess and load_dataset give it")
    dataset = dataset.captioned()
    check_spec(captioner, dataset)
    dataset = dataset.with_streams(captioner.spec.streams)
    samples = dataset.split(split)
    for sentence in audit_leaks(dataset.samples, scored=samples, trained=captioner.info.record.trained).sentences():
        _logger.info("%s", sentence)
    features = extract_features(dataset, samples, captioner.backbone, keep=False, runtime=runtime)
    written = SentenceWriter(captioner, num_beams=num_beams).write_stacks(features)
    try:
        training = training_samples(captioner, dataset, samples)
        known = extract_features(dataset, training, captioner.backbone, keep=False, runtime=runtime)
        nearest = [training[i].captions[0] for i in nearest_stacks(features, known)]
    except DatasetError as error:
        _logger.warning("no baseline: %s", error)
        nearest = None
    return CaptionEvaluation(samples, [sentences[0] for sentences in written], nearest)


def nearest_stacks(stacks: Sequence[np.ndarray], known: Sequence[np.ndarray]) -> list[int]:
    """Of each feature stack `(N, S, D)`, the place of the nearest of those known, by the angle of their mean features.

    Each feature is first scaled to the mean and deviation that it has in those known.
    """
    means = np.stack([stack.mean(axis=0).ravel() for stack in (*stacks, *known)])  # (V + W, S*D)
    reference = means[len(stacks) :]
    means = (means - reference.mean(axis=0)) / (reference.std(axis=0) + 1e-6)
    means /= np.linalg.norm(means, axis=1, keepdims=True) + 1e-12
    return [int(i) for i in (means[: len(stacks)] @ means[len(stacks) :].T).argmax(axis=1)]
