"""How well generated captions match those that people wrote: BLEU, ROUGE-L and CIDEr-D.

All are those of the MS COCO caption evaluation (Chen et al. 2015, arxiv.org/abs/1504.00325), for the same tokens to the
last digits (github.com/tylin/coco-caption, pycocoevalcap 1.2). Its tokens come from a program in Java, ours from
`tokens_of`: published numbers were computed with slightly different tokens.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from activity.datasets.words import tokens_of
from activity.evaluation.metrics import Mean
from activity.progress import format_table

_MAX_N = 4  # n-grams of 1 to 4 tokens
_TINY, _SMALL = 1e-15, 1e-9  # of BLEU, as in pycocoevalcap: nothing is divided by 0, and no product becomes 0
_BETA = 1.2  # of ROUGE-L: recall counts more than precision
_SIGMA = 6.0  # of CIDEr-D: by how many tokens a caption may be longer or shorter
_SCALE = 10.0  # of CIDEr-D, and so its largest value

_NAMES = {
    **{f"bleu_{n}": f"BLEU-{n}" for n in range(1, _MAX_N + 1)},
    **{"rouge_l": "ROUGE-L", "cider_d": "CIDEr-D", "exact": "exact"},
}


@dataclass(frozen=True)
class CaptionScores:
    """How well the captions of V videos match their references; `score_captions` computes it.

    Attributes:
        bleu_1, bleu_2, bleu_3, bleu_4: BLEU of the whole corpus with n-grams up to that length, 0 to 1. It is no mean
            over videos, so a single video has none.
        rouge_l_each: `(V,)` ROUGE-L of each video, 0 to 1.
        cider_d_each: `(V,)` CIDEr-D of each video, 0 to 10; all 0 if there is a single video.
        exact_each: `(V,)` bool, the caption has the same tokens as one of its references.
    """

    bleu_1: float
    bleu_2: float
    bleu_3: float
    bleu_4: float
    rouge_l_each: np.ndarray
    cider_d_each: np.ndarray
    exact_each: np.ndarray

    @property
    def rouge_l(self) -> float:
        """Mean ROUGE-L over videos, 0 to 1."""
        return float(np.mean(self.rouge_l_each))

    @property
    def cider_d(self) -> float:
        """Mean CIDEr-D over videos, 0 to 10."""
        return float(np.mean(self.cider_d_each))

    @property
    def exact(self) -> float:
        """Fraction of captions that have the same tokens as one of their references."""
        return float(np.mean(self.exact_each))

    def by_group(self, groups: Sequence[str]) -> dict[str, Mean]:
        """Means of `rouge_l`, `cider_d` and `exact` with standard errors and intervals, see `Mean`.

        The document frequencies of CIDEr-D are taken as given: its error is that of other videos in the same corpus.

        Args:
            groups: of the V videos; those of a group count as one draw.

        Raises:
            ValueError: there is not one group for each video.
        """
        if len(groups) != len(self.exact_each):
            raise ValueError(f"expected a group for each of {len(self.exact_each)} videos, received {len(groups)}")
        return {
            "rouge_l": Mean.of(self.rouge_l_each, groups),
            "cider_d": Mean.of(self.cider_d_each, groups, highest=_SCALE),
            "exact": Mean.of(self.exact_each, groups),
        }

    def as_dict(self) -> dict[str, float]:
        """`bleu_1` to `bleu_4`, `rouge_l`, `cider_d`, `exact`; ready for JSON."""
        return {key: float(getattr(self, key)) for key in _NAMES}

    def as_text(self, notes: Sequence[str] = ()) -> str:
        """The scores and notes on them for a terminal."""
        num_videos = len(self.exact_each)
        scores = [f"{score:.3f}" for score in self.as_dict().values()]
        alone = ["CIDEr-D of a single video is always 0: it weights words by how few videos have them"]
        return "\n".join(
            [
                *format_table([(*_NAMES.values(), "videos"), (*scores, num_videos)], align="r"),
                *(alone if num_videos == 1 else []),
                *notes,
            ]
        )


def score_captions(captions: Sequence[str], references: Sequence[Sequence[str]]) -> CaptionScores:
    """Scores of one caption for each video against the references of that video.

    - BLEU-1 to 4 (Papineni et al. 2002, aclanthology.org/P02-1040), of the corpus, with the closest reference length.
      As in pycocoevalcap, 1e-15 is added to the matches and 1e-9 to the n-grams: where no caption has four tokens,
      BLEU-4 has a factor of (1e-15 / 1e-9) ** (1 / 4), about 0.03, even if all captions are right.
    - ROUGE-L (Lin 2004, aclanthology.org/W04-1013), beta 1.2, precision and recall each of the best reference.
    - CIDEr-D (Vedantam et al. 2015, arxiv.org/abs/1411.5726), sigma 6, times 10. Document frequencies are those of
      `references`, so scores of different corpora do not compare. With a single video it is 0 by its formula: each
      n-gram is in all of the documents, and log(1) is 0.

    A caption without tokens is legal and scores 0, as do all captions against a reference without tokens. (There alone
    pycocoevalcap differs: its ROUGE-L is 1 where both have none.)

    Args:
        captions: V generated captions, V >= 1.
        references: of each of the V videos, one or more.

    Raises:
        ValueError: there are no captions, the lengths differ, a video has no references, or its references are one
            string in place of a sequence of strings.
    """
    if not len(captions) or len(captions) != len(references):
        raise ValueError(
            "expected as many captions as videos with references, 1 or more, "
            f"received {len(captions)} captions and references of {len(references)} videos"
        )
    for i, texts in enumerate(references):
        if isinstance(texts, str):
            raise ValueError(f"expected a sequence of references for video {i}, received one string: {texts!r}")
        if not len(texts):
            raise ValueError(f"expected at least one reference for video {i} (counted from 0), received none")
    found = [tokens_of(caption) for caption in captions]
    wanted = [[tokens_of(text) for text in texts] for texts in references]

    num_correct, similarity = [], np.zeros(len(found))
    for n in range(1, _MAX_N + 1):
        found_counts = [_ngrams(tokens, n) for tokens in found]
        wanted_counts = [[_ngrams(tokens, n) for tokens in texts] for texts in wanted]
        num_correct.append(sum(map(_num_clipped, found_counts, wanted_counts)))
        similarity += _cider_d(found, wanted, found_counts, wanted_counts)  # (V,)
    bleu_1, bleu_2, bleu_3, bleu_4 = _bleu(found, wanted, num_correct)
    return CaptionScores(
        bleu_1=bleu_1,
        bleu_2=bleu_2,
        bleu_3=bleu_3,
        bleu_4=bleu_4,
        rouge_l_each=np.array(list(map(_rouge_l, found, wanted))),
        cider_d_each=_SCALE * similarity / _MAX_N,
        exact_each=np.array([bool(tokens) and tokens in texts for tokens, texts in zip(found, wanted, strict=True)]),
    )


# === Metrics ===


def _ngrams(tokens: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(zip(*(tokens[i:] for i in range(n)), strict=False))


def _num_clipped(found: Counter, wanted: Sequence[Counter]) -> int:
    """Number of n-grams of a caption that are in a reference; each at most as often as in the one with most of it."""
    return sum(min(count, max(counts[ngram] for counts in wanted)) for ngram, count in found.items())


def _bleu(found: list[list[str]], wanted: list[list[list[str]]], num_correct: Sequence[int]) -> list[float]:
    """BLEU-1 to 4 of the corpus; `num_correct` are the clipped matches of n-grams of 1 to 4 tokens."""
    lengths = [len(tokens) for tokens in found]
    closest = [
        min((abs(len(tokens) - length), len(tokens)) for tokens in texts)[1]  # of two as close, the shorter
        for length, texts in zip(lengths, wanted, strict=True)
    ]
    ratio = (sum(lengths) + _TINY) / (sum(closest) + _SMALL)
    brevity_penalty = math.exp(min(0.0, 1 - 1 / ratio))
    scores, product = [], 1.0
    for n, correct in enumerate(num_correct, start=1):
        num_ngrams = sum(max(0, length - n + 1) for length in lengths)
        product *= (correct + _TINY) / (num_ngrams + _SMALL)
        scores.append(product ** (1 / n) * brevity_penalty)
    return scores


def _rouge_l(tokens: list[str], references: list[list[str]]) -> float:
    common = [_longest_common(tokens, reference) for reference in references]
    if not any(common):
        return 0.0
    precision = max(common) / len(tokens)
    recall = max(length / max(len(reference), 1) for length, reference in zip(common, references, strict=True))
    return (1 + _BETA**2) * precision * recall / (recall + _BETA**2 * precision)


def _longest_common(a: Sequence[str], b: Sequence[str]) -> int:
    """Length of the longest common subsequence, by bits: each 0 in `row` is one token of `a` more (Hyyrö 2004)."""
    places: dict[str, int] = {}  # of each token in a, a bit each
    for i, token in enumerate(a):
        places[token] = places.get(token, 0) | 1 << i
    row = everywhere = (1 << len(a)) - 1
    for token in b:
        matched = row & places.get(token, 0)
        row = (row + matched | row - matched) & everywhere
    return len(a) - row.bit_count()


def _cider_d(
    found: list[list[str]],
    wanted: list[list[list[str]]],
    found_counts: list[Counter],
    wanted_counts: list[list[Counter]],
) -> np.ndarray:
    """`(V,)` similarity 0 to 1 of the n-grams of one length, each weighted by how few videos have it (TF-IDF).

    Args:
        found: tokens of the caption of each video.
        wanted: tokens of the references of each video.
        found_counts: n-grams of the caption of each video.
        wanted_counts: n-grams of the references of each video.
    """
    num_with = Counter(ngram for counts in wanted_counts for ngram in set().union(*counts))
    squares = {ngram: math.log(len(found) / num) ** 2 for ngram, num in num_with.items()}  # of inverse frequencies
    unknown = math.log(len(found)) ** 2  # of what is in no reference

    def norm(counts: Counter) -> float:
        return math.sqrt(sum(squares.get(ngram, unknown) * count**2 for ngram, count in counts.items()))

    similarities = []
    for tokens, references, counts, counts_of_each in zip(found, wanted, found_counts, wanted_counts, strict=True):
        total, own_norm = 0.0, norm(counts)
        for reference, other in zip(references, counts_of_each, strict=True):
            shared = sum(squares[x] * min(count, other[x]) * other[x] for x, count in counts.items() if x in other)
            if shared:
                longer = len(tokens) - len(reference)
                total += shared / (own_norm * norm(other)) * math.exp(-(longer**2) / (2 * _SIGMA**2))
        similarities.append(total / len(references))
    return np.array(similarities)
