"""Linear classifiers of pooled features give the probabilities of scikit-learn's, as a kernel and a bias."""

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from activity.evaluation.linear import (
    baseline_probabilities,
    discriminant_analysis,
    logistic_regression,
    predict_linear,
)

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("num_labels", [2, 3])
@pytest.mark.parametrize("num_features", [5, 200], ids=["more videos", "more features"])
@pytest.mark.parametrize(
    ("fit", "reference"),
    [
        (logistic_regression, make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, tol=1e-6))),
        (discriminant_analysis, LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")),
    ],
    ids=["regression", "discriminant"],
)
def test_probabilities_are_those_of_scikit_learn(fit, reference, num_features, num_labels):
    label_ids = np.arange(60) % num_labels
    features = RNG.normal(size=(60, num_features)) * 3 + 1 + label_ids[:, None] * (RNG.random(num_features) < 0.3)
    kernel, bias = fit(features[:40], label_ids[:40], num_labels)
    expected = reference.fit(features[:40], label_ids[:40]).predict_proba(features)
    np.testing.assert_allclose(softmax(features @ kernel + bias, axis=1), expected, atol=2e-3)
    np.testing.assert_allclose(np.exp(predict_linear(features, kernel, bias)), expected, atol=2e-3)


@pytest.mark.parametrize("fit", [logistic_regression, discriminant_analysis])
def test_a_label_without_training_videos_is_never_the_answer(fit):
    features, label_ids = RNG.normal(size=(40, 4)), np.arange(40) % 2 * 2
    probabilities = np.exp(predict_linear(features, *fit(features, label_ids, 3)))
    assert probabilities[:, 1].max() < 1e-6 and np.isfinite(probabilities).all()


@pytest.mark.parametrize("fit", [logistic_regression, discriminant_analysis])
@pytest.mark.parametrize("label_ids", [[0, 1], [0, 0, 0, 1], [0, 1, 2]])
def test_a_few_videos_are_enough_to_fit(fit, label_ids):
    features = np.eye(len(label_ids), 6) * 5
    probabilities = np.exp(predict_linear(features, *fit(features, np.asarray(label_ids), 3)))
    assert np.isfinite(probabilities).all() and probabilities.argmax(axis=1)[-1] == label_ids[-1]


def test_a_feature_that_never_changes_does_no_harm():
    features, label_ids = RNG.normal(size=(40, 4)), np.arange(40) % 2
    features[:, 1] = 7
    assert all(np.isfinite(part).all() for part in logistic_regression(features, label_ids, 2))


@pytest.mark.parametrize("fit", [logistic_regression, discriminant_analysis])
@pytest.mark.parametrize("num_features", [4, 60])
def test_of_features_that_never_change_only_the_frequency_of_the_labels_is_learned(fit, num_features):
    features, label_ids = np.full((40, num_features), 0.3), np.arange(40) % 4 == 0
    probabilities = np.exp(predict_linear(features, *fit(features, label_ids.astype(int), 2)))
    np.testing.assert_allclose(probabilities, np.tile([[0.75, 0.25]], (40, 1)), atol=1e-3)


def test_the_baseline_reads_the_mean_over_time():
    label_ids = np.arange(30) % 3
    stacks = [RNG.normal(size=(5 + i % 3, 2, 4)) + label_ids[i] for i in range(30)]
    test = np.arange(30) >= 20
    shuffled = [stack[::-1] for stack in stacks]
    probabilities = baseline_probabilities(stacks, label_ids, test, 3)
    assert probabilities.shape == (10, 3)
    np.testing.assert_allclose(probabilities, baseline_probabilities(shuffled, label_ids, test, 3), atol=1e-6)
    assert (probabilities.argmax(axis=1) == label_ids[test]).mean() > 0.8
