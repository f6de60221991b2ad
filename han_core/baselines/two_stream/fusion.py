"""Two nets' scores made one: the last step of the two-stream ConvNets (Simonyan and Zisserman 2014, section 5)."""

import numpy as np
from sklearn.svm import LinearSVC


def average_scores(streams: list[np.ndarray], weights: tuple[float, ...]) -> np.ndarray:
    """Weighted mean of class probabilities.

    Args:
        streams: (clips, classes) each.
        weights: one per stream, not all 0; their sum does not matter.

    Returns:
        (clips, classes) probabilities.
    """
    return np.average(streams, axis=0, weights=weights)


def svm_scores(
    train: list[np.ndarray], train_labels: np.ndarray, test: list[np.ndarray], classes: int, *, seed: int = 1
) -> np.ndarray:
    """A multi-class linear SVM (one against the rest, C = 1) on the streams' L2-normalised scores side by side.

    Args:
        train: (N, classes) of each stream, of training clips. train_labels: (N,) int.
        test: (M, classes) of each stream.

    Returns:
        (M, classes) that add up to 1: the softmax of the SVM's margins, which keeps their order but is not a calibrated
        probability. Classes without training clips get 0.

    Raises:
        ValueError: the training clips are of one class.
    """
    model = LinearSVC(C=1.0, dual="auto", random_state=seed, max_iter=20000)
    model.fit(_stacked(train), train_labels)
    margins = model.decision_function(_stacked(test))
    if margins.ndim == 1:  # of two classes scikit-learn tells the second one's margin alone
        margins = np.column_stack([-margins, margins])
    scores = np.full((len(margins), classes), -np.inf)
    scores[:, model.classes_] = margins
    scores = np.exp(scores - scores.max(1, keepdims=True))
    return scores / scores.sum(1, keepdims=True)


def _stacked(streams: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([scores / np.linalg.norm(scores, axis=1, keepdims=True) for scores in streams], axis=1)
