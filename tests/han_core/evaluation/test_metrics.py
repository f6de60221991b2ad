"""Figures of a set of predictions, counted by hand."""

import numpy as np
import pytest

from han_core.evaluation.metrics import measure_accuracy, predictions


def test_counts_by_hand():
    probabilities = np.array([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3], [0.4, 0.35, 0.25], [0.1, 0.1, 0.8]])
    scores = measure_accuracy(probabilities, np.array([0, 1, 1, 1]))
    assert scores.top1 == 0.5
    assert scores.top5 is None
    np.testing.assert_allclose(scores.per_class, [1, 1 / 3, np.nan])
    np.testing.assert_array_equal(scores.confusion, [[1, 0, 0], [1, 1, 1], [0, 0, 0]])


def test_a_clip_without_a_prediction_counts_as_wrong():
    probabilities = np.array([[0.9, 0.1], [np.nan, np.nan]])
    assert predictions(probabilities).tolist() == [0, -1]
    scores = measure_accuracy(probabilities, np.array([0, 0]))
    assert scores.top1 == 0.5
    assert scores.confusion.sum() == 1


def test_top5():
    probabilities = np.tile(np.arange(7.0) / 21, (3, 1))
    scores = measure_accuracy(probabilities, np.array([6, 2, 1]))
    assert scores.top5 == pytest.approx(2 / 3)
    assert scores.top1 == pytest.approx(1 / 3)


def test_nothing_to_score_is_an_error():
    with pytest.raises(ValueError, match="0 predictions for 0 labels"):
        measure_accuracy(np.zeros((0, 3)), np.zeros(0, dtype=int))
