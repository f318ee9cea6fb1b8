import json
import math
import time
from pathlib import Path

import numpy as np
import pytest

from activity.datasets.words import tokens_of
from activity.evaluation.captions import CaptionScores, score_captions
from activity.evaluation.metrics import error_by_group

FIXTURE = json.loads((Path(__file__).parent / "data" / "captions.json").read_text(encoding="utf-8"))
CAPTIONS = [video["caption"] for video in FIXTURE["videos"]]
REFERENCES = [video["references"] for video in FIXTURE["videos"]]
SCORES = score_captions(CAPTIONS, REFERENCES)


# === Against the reference implementation ===


def test_the_fixture_says_its_tokens_by_white_space():
    """So its scores, which were computed without our tokens, are of the same tokens."""
    assert all(tokens_of(text) == text.split() for text in [*CAPTIONS, *sum(REFERENCES, [])])


@pytest.mark.parametrize("metric", FIXTURE["scores"])
def test_corpus_as_in_pycocoevalcap(metric):
    assert getattr(SCORES, metric) == pytest.approx(FIXTURE["scores"][metric], rel=1e-12, abs=0)


@pytest.mark.parametrize("metric", ["rouge_l_each", "cider_d_each"])
def test_each_video_as_in_pycocoevalcap(metric):
    assert getattr(SCORES, metric) == pytest.approx(FIXTURE[metric], rel=1e-12, abs=1e-15)


# === By hand ===


def bleu_of(scores):
    return [scores.bleu_1, scores.bleu_2, scores.bleu_3, scores.bleu_4]


def test_identical_captions_are_perfect():
    texts = ["a man runs in the park", "two dogs play with a ball"]
    scores = score_captions(texts, [["something else", text] for text in texts])
    assert bleu_of(scores) == pytest.approx([1, 1, 1, 1], abs=1e-8)
    assert (scores.rouge_l, scores.exact) == (1, 1)
    alone = score_captions(texts, [[text] for text in texts])
    assert alone.cider_d_each == pytest.approx([10, 10])  # "a" is in both, and counts nothing


def test_bleu_counts_a_word_as_often_as_a_reference_has_it():
    """The example of Papineni et al. 2002: 2 of 7, no bigram."""
    scores = score_captions(["the " * 7], [["The cat is on the mat.", "There is a cat on the mat."]])
    assert scores.bleu_1 == pytest.approx(2 / 7)
    assert scores.bleu_2 < 1e-7


def test_bleu_of_a_corpus_is_no_mean():
    """3 of 4 words and 1 of 2 are 4 of 6; bigrams 2 of 3 and 0 of 1 are 2 of 4."""
    scores = score_captions(["a b c x", "a y"], [["a b c d"], ["a b"]])
    assert scores.bleu_1 == pytest.approx(4 / 6)
    assert scores.bleu_2 == pytest.approx(math.sqrt(4 / 6 * 2 / 4))


@pytest.mark.parametrize(
    ("references", "length"),
    [
        (["a b c d e f"], 6),
        (["a", "a b c d e", "a b c d e f"], 5),  # the closest
        (["a b c d e f", "a b"], 2),  # of two as close, the shorter: no penalty
        (["a"], 4),  # longer than the reference: no penalty, but precision
    ],
)
def test_brevity_penalty_is_by_the_closest_length(references, length):
    scores = score_captions(["a b c d"], [references])
    precision = 1 / 4 if references == ["a"] else 1
    assert scores.bleu_1 == pytest.approx(precision * math.exp(min(0, 1 - length / 4)))


def test_bleu_of_captions_without_four_words_has_the_constants_of_pycocoevalcap():
    assert score_captions(["a man runs"], [["a man runs"]]).bleu_4 == pytest.approx((1e-15 / 1e-9) ** (1 / 4))


def test_rouge_takes_precision_and_recall_of_the_best_reference_each():
    """Precision 3 / 4 of the first, recall 1 of the second; in order, but with gaps."""
    scores = score_captions(["a b c d"], [["a x b y c z z z", "b d"]])
    assert scores.rouge_l == pytest.approx((1 + 1.2**2) * 3 / 4 / (1 + 1.2**2 * 3 / 4))
    assert score_captions(["a b c d"], [["d c b a"]]).rouge_l == pytest.approx(1 / 4)


def test_rouge_of_repeated_words_uses_each_once():
    assert score_captions(["a a a a"], [["a a b b"]]).rouge_l == pytest.approx(1 / 2)
    assert score_captions(["a b a b a b"], [["b b a a"]]).rouge_l == pytest.approx(
        (1 + 1.2**2) * 3 / 6 * 3 / 4 / (3 / 4 + 1.2**2 * 3 / 6)
    )


def test_cider_by_hand():
    """Two videos of single words: only n = 1 counts, and the word that both have weighs nothing."""
    scores = score_captions(["x", "a"], [["x", "y"], ["a", "y"]])
    assert scores.cider_d_each == pytest.approx([10 / 4 / 2, 10 / 4 / 2])
    assert score_captions(["y", "a"], [["x", "y"], ["a", "y"]]).cider_d_each[0] == 0


def test_cider_punishes_repetition_and_length():
    """x three times for once: clipped, the shared weight is 1 of a norm of 3; and 2 tokens longer."""
    scores = score_captions(["x x x", "z"], [["x"], ["y"]])
    assert scores.cider_d_each == pytest.approx([10 / 4 / 3 * math.exp(-(2**2) / (2 * 6**2)), 0])


def test_cider_of_a_single_video_is_0_and_that_is_said():
    scores = score_captions(["a man runs"], [["a man runs"]])
    assert scores.cider_d == 0
    assert "CIDEr-D of a single video is always 0" in scores.as_text()
    assert "always 0" not in SCORES.as_text()


def test_exact_is_by_tokens():
    scores = score_captions(["A man runs.", "a man", ""], [["he runs", "a man runs"], ["a man runs"], [""]])
    assert scores.exact_each.tolist() == [True, False, False]
    assert scores.exact == pytest.approx(1 / 3)


# === Properties ===


def test_order_does_not_matter():
    order = np.random.default_rng(0).permutation(len(CAPTIONS))
    scores = score_captions([CAPTIONS[i] for i in order], [REFERENCES[i][::-1] for i in order])
    assert scores.as_dict() == pytest.approx(SCORES.as_dict(), rel=1e-12)
    assert scores.cider_d_each == pytest.approx(SCORES.cider_d_each[order])
    assert scores.rouge_l_each.tolist() == SCORES.rouge_l_each[order].tolist()


def test_case_punctuation_and_white_space_do_not_matter():
    captions = ["  " + caption.upper().replace(" ", " \t") + " ." for caption in CAPTIONS]
    assert score_captions(captions, REFERENCES).as_dict() == SCORES.as_dict()


def test_scores_are_within_their_ranges():
    rng = np.random.default_rng(0)

    def text():
        return " ".join(rng.choice(list("abcdef"), size=rng.integers(0, 8)))

    for _ in range(50):
        references = [[text() for _ in range(rng.integers(1, 4))] for _ in range(rng.integers(1, 6))]
        scores = score_captions([text() for _ in references], references)
        assert all(0 <= bleu <= 1 for bleu in bleu_of(scores))
        assert scores.rouge_l_each.min() >= 0 and scores.rouge_l_each.max() <= 1
        assert scores.cider_d_each.min() >= 0 and scores.cider_d_each.max() <= 10 + 1e-9
        assert np.all(scores.rouge_l_each[scores.exact_each] == 1)


@pytest.mark.parametrize("nothing", ["", " ", "...", "-- ' \""])
def test_captions_and_references_without_tokens_score_0(nothing):
    scores = score_captions([nothing, nothing, "a man runs"], [["a man runs"], [nothing], [nothing]])
    assert scores.rouge_l_each.tolist() == scores.cider_d_each.tolist() == [0, 0, 0]
    assert scores.exact == 0
    only = score_captions([nothing] * 2, [[nothing]] * 2)
    assert only.rouge_l == only.cider_d == only.exact == 0
    assert max(bleu_of(only)) < 1e-12


def test_a_large_corpus_takes_seconds():
    words = np.random.default_rng(0).zipf(1.3, size=(2000, 6, 10)) % 1000
    texts = [[" ".join(map(str, row)) for row in video] for video in words]
    start = time.process_time()
    score_captions([video[0] for video in texts], [video[1:] for video in texts])
    assert time.process_time() - start < 10  # about 1 on a laptop


# === Input and output ===


@pytest.mark.parametrize(
    ("captions", "references", "message"),
    [
        ([], [], "received 0 captions and references of 0 videos"),
        (["a"], [["a"], ["b"]], "expected as many captions as videos.*received 1 captions and references of 2 videos"),
        (["a", "b"], [["a"], []], r"expected at least one reference for video 1 \(counted from 0\), received none"),
        (["a", "b"], [["a"], "a man"], "expected a sequence of references for video 1, received one string: 'a man'"),
    ],
)
def test_input_that_does_not_fit(captions, references, message):
    with pytest.raises(ValueError, match=message):
        score_captions(captions, references)


def test_as_dict_is_json():
    about = SCORES.as_dict()
    assert json.loads(json.dumps(about, allow_nan=False)) == about
    assert list(about) == ["bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "cider_d", "exact"]
    assert about["exact"] == 2 / 12


def test_as_text():
    scores = CaptionScores(0.5, 0.25, 0.125, 0, np.array([1, 0.5]), np.array([10, 0.5]), np.array([True, False]))
    assert scores.as_text(["a note"]).splitlines() == [
        "BLEU-1  BLEU-2  BLEU-3  BLEU-4  ROUGE-L  CIDEr-D  exact  videos",
        " 0.500   0.250   0.125   0.000    0.750    5.250  0.500       2",
        "a note",
    ]


def test_means_and_errors_by_group():
    groups = [f"g{i % 6}" for i in range(len(CAPTIONS))]
    means = SCORES.by_group(groups)
    assert {name: mean.value for name, mean in means.items()} == pytest.approx(
        {name: getattr(SCORES, name) for name in ("rouge_l", "cider_d", "exact")}
    )
    assert means["cider_d"].standard_error == pytest.approx(error_by_group(SCORES.cider_d_each, groups))
    assert all(mean.low < mean.value < mean.high for mean in means.values())
    with pytest.raises(ValueError, match="expected a group for each of 12 videos, received 1"):
        SCORES.by_group(["g"])


def test_where_all_captions_are_wrong_the_interval_goes_up_to_what_a_metric_may_be():
    """Of 4 videos, up to 60 % may be otherwise (Clopper & Pearson), with a CIDEr-D of 10."""
    means = score_captions(["x"] * 4, [["a"], ["b"], ["c"], ["d"]]).by_group(list("aabb"))
    assert (means["rouge_l"].high, means["cider_d"].high) == pytest.approx((0.602, 6.02), abs=0.01)
