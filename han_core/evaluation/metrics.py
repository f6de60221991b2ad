"""How good a set of predictions is."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Accuracy:
    """Figures of one model on the test clips of one split."""

    top1: float
    top5: float | None
    """None where there are no more than five classes."""
    per_class: np.ndarray
    """(C,) share of each class's clips classified correctly; NaN for a class without test clips."""
    confusion: np.ndarray
    """(C, C) int64: rows the true class, columns the predicted one."""


def measure_accuracy(probabilities: np.ndarray, labels: np.ndarray) -> Accuracy:
    """Top-1, top-5, accuracy by class and confusion.

    A clip without a prediction (it failed in an earlier stage) has NaN probabilities; it counts as wrong everywhere
    and stands in no column of the confusion matrix, so that dropping hard clips cannot raise a figure.

    Args:
        probabilities: (N, C) float.
        labels: (N,) int, the true classes.

    Raises:
        ValueError: no clips, or shapes that do not fit.
    """
    if len(labels) == 0 or probabilities.shape[0] != len(labels):
        raise ValueError(f"{probabilities.shape[0]} predictions for {len(labels)} labels")
    classes = probabilities.shape[1]
    predicted = predictions(probabilities)
    right = predicted == labels
    confusion = np.zeros((classes, classes), dtype=np.int64)
    known = predicted >= 0
    np.add.at(confusion, (labels[known], predicted[known]), 1)
    counts = np.bincount(labels, minlength=classes)
    hits = np.bincount(labels[right], minlength=classes)
    per_class = np.divide(hits, counts, out=np.full(classes, np.nan), where=counts > 0)
    top5 = None
    if classes > 5:
        best = np.argsort(-np.nan_to_num(probabilities, nan=-1.0), axis=1, kind="stable")[:, :5]
        top5 = float(((best == labels[:, None]).any(axis=1) & known).mean())
    return Accuracy(float(right.mean()), top5, per_class, confusion)


def predictions(probabilities: np.ndarray) -> np.ndarray:
    """(N, C) probabilities -> (N,) most likely class, -1 where there is no prediction (NaN)."""
    known = ~np.isnan(probabilities).any(axis=1)
    return np.where(known, np.nan_to_num(probabilities).argmax(axis=1), -1)
