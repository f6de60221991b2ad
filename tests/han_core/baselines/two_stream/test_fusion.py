"""Joining two streams: the mean by hand, the SVM against scikit-learn's on scores normalised by hand."""

import numpy as np
import pytest
from sklearn.svm import LinearSVC

from han_core.baselines.two_stream.fusion import average_scores, svm_scores


def made_up(count: int, classes: int, seed: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Probabilities of two streams, the second one the better."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    streams = []
    for sharpness in (0.5, 2.0):
        raw = random.standard_normal((count, classes)) + sharpness * np.eye(classes)[labels]
        streams.append(np.exp(raw) / np.exp(raw).sum(1, keepdims=True))
    return streams, labels


def test_the_mean_is_weighted():
    one, other = np.array([[0.9, 0.1]]), np.array([[0.3, 0.7]])
    np.testing.assert_allclose(average_scores([one, other], (1, 1)), [[0.6, 0.4]])
    np.testing.assert_allclose(average_scores([one, other], (1, 2)), [[0.5, 0.5]])
    np.testing.assert_allclose(average_scores([one, other], (0, 1)), other)


@pytest.mark.parametrize("classes", [2, 4])
def test_the_svm_is_linear_on_normalised_scores_side_by_side(classes):
    (train, labels), (test, truth) = made_up(200, classes, 1), made_up(60, classes, 2)
    found = svm_scores(train, labels, test, classes)
    rows = [np.hstack([s / np.sqrt((s**2).sum(1))[:, None] for s in streams]) for streams in (train, test)]
    expected = LinearSVC(C=1.0, dual=False, random_state=1, max_iter=20000).fit(rows[0], labels)
    np.testing.assert_array_equal(found.argmax(1), expected.predict(rows[1]))
    np.testing.assert_allclose(found.sum(1), 1)
    joined = (found.argmax(1) == truth).mean()
    assert joined >= (test[0].argmax(1) == truth).mean()
    scaled = svm_scores([100 * s for s in train], labels, [3 * s for s in test], classes)
    np.testing.assert_allclose(scaled, found, atol=1e-6)


def test_classes_without_training_clips_get_nothing():
    (train, labels), (test, _) = made_up(90, 3, 1), made_up(9, 3, 2)
    keep = labels != 1
    found = svm_scores([s[keep] for s in train], labels[keep], test, 3)
    assert not found[:, 1].any()
    np.testing.assert_allclose(found.sum(1), 1)
