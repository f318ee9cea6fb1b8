"""Sentences of a model beside those of the nearest training videos."""

import dataclasses
import json
import logging

import numpy as np
import pytest

from activity.errors import DatasetError
from activity.evaluation.captioning import CaptionEvaluation, evaluate_captions, nearest_stacks
from activity.models.sentences import Sentence


@pytest.fixture(scope="module")
def evaluation(caption_run, captioned_dataset):
    return evaluate_captions(caption_run.model, captioned_dataset)


def sentence(text, log_probability=-1.0):
    words = tuple(text.split())
    return Sentence(words, log_probability, np.ones((len(words), 1)))


def test_an_evaluation_tells_of_model_and_baseline(evaluation):
    assert evaluation.scores.exact == 1.0
    assert evaluation.leads["exact"].value == pytest.approx(1 - evaluation.baseline.exact)
    values = evaluation.as_dict()
    assert json.loads(json.dumps(values)) == values
    assert (
        values["exact"] == 1.0
        and values["num_videos"] == 8
        and values["baseline"]["exact"] == evaluation.baseline.exact
    )
    assert set(values["lead"]) == {"cider_d", "rouge_l", "exact"} and set(values["standard_errors"]) >= {
        "cider_d",
        "exact",
    }
    text = evaluation.as_text()
    assert (
        "baseline" in text
        and "the caption of the nearest training video" in text
        and "By CIDEr-D, the model is" in text
    )
    assert [name for name, _, _ in evaluation.headline()] == ["CIDEr-D", "exactly right", "ROUGE-L", "BLEU-4"]


def test_rows_name_all_that_was_compared(evaluation):
    row = evaluation.rows()[0]
    assert list(row) == ["path", "caption", "log_probability", "exact", "cider_d", "baseline", "references"]
    assert row["caption"] in row["references"].split(" | ") and row["exact"] is True


def test_the_nearest_is_nearest_by_all_features():
    rng = np.random.default_rng(0)
    known = [rng.normal(size=(n, 2, 5)) for n in (3, 6, 1, 4)]
    assert nearest_stacks([known[2] + 0.01, known[0], known[3] * 1.01], known) == [2, 0, 3]
    scaled = [stack * np.array([1e6, 1, 1, 1, 1]) for stack in known]
    assert nearest_stacks(scaled, scaled) == [0, 1, 2, 3]


def test_lead_and_ranking_are_those_of_the_sentences(captioned_dataset):
    samples = captioned_dataset.split("test")
    references = [sample.captions[0] for sample in samples]
    sentences = [sentence(references[0], -5.0), *(sentence("it rains", -3.0) for _ in references[1:])]
    evaluation = CaptionEvaluation(samples, sentences, ["it rains", *references[1:]])
    assert evaluation.scores.exact == 0.125 and evaluation.baseline.exact == 0.875
    assert evaluation.leads["exact"].value == -0.75
    assert evaluation.ranking()[-1] == 0
    assert "worse than" in evaluation.verdict() or "level with" in evaluation.verdict()
    assert (
        CaptionEvaluation(samples, sentences).verdict() == "" and CaptionEvaluation(samples, sentences).baseline is None
    )
    assert CaptionEvaluation(samples, sentences).as_dict()["baseline"] is None


def test_where_all_references_are_alike_another_measure_decides(captioned_dataset):
    samples = [dataclasses.replace(x, captions=("a dog runs",)) for x in captioned_dataset.split("test")]
    evaluation = CaptionEvaluation(samples, [sentence("it rains")] * len(samples), ["a dog runs"] * len(samples))
    assert evaluation.leads["cider_d"].value == 0 and "CIDEr-D says nothing" in evaluation.verdict()
    assert evaluation.verdict().startswith("By ROUGE-L") and "worse than the baseline" in evaluation.verdict()


def test_without_training_videos_there_is_no_baseline(caption_run, captioned_dataset, caplog):
    caplog.set_level(logging.WARNING)
    samples = [x for x in captioned_dataset.samples if x.split == "test"]
    alone = evaluate_captions(caption_run.model, dataclasses.replace(captioned_dataset, samples=samples))
    assert alone.baseline is None and "no baseline: the data set has no training videos" in caplog.text
    caplog.clear()
    trained = evaluate_captions(caption_run.model, captioned_dataset, split="train")
    assert trained.baseline is None and "no baseline: the model was trained on the split train" in caplog.text


def test_a_data_set_that_does_not_fit_is_refused(caption_run, ramp_dataset, captioned_dataset):
    with pytest.raises(DatasetError, match="it has no captions"):
        evaluate_captions(caption_run.model, ramp_dataset)
    with pytest.raises(DatasetError, match="does not fit this model"):
        evaluate_captions(caption_run.model, captioned_dataset.with_streams(("rgb",)))
