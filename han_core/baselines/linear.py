"""Simple methods that a result must be read beside."""

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def logistic_regression(
    train_features: np.ndarray, train_labels: np.ndarray, test_features: np.ndarray, classes: int
) -> np.ndarray:
    """Multinomial logistic regression on standardised features.

    Args:
        train_features: (N, F). train_labels: (N,) int. test_features: (M, F).
        classes: C; classes without training clips get probability 0.

    Returns:
        (M, C) probabilities.
    """
    model = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=2000))
    model.fit(train_features, train_labels)
    probabilities = np.zeros((len(test_features), classes))
    probabilities[:, model.classes_] = model.predict_proba(test_features)
    return probabilities


def clip_vectors(streams: dict[str, np.ndarray], *, over_time: bool = False) -> np.ndarray:
    """One vector per clip: each stream's cubes averaged over the regions, frames side by side, streams side by side.

    Args:
        streams: {stream: (N, T, D, R)}; R may be 1 for cubes that are averaged already.
        over_time: average over the frames as well.

    Returns:
        (N, streams x T x D) float32, or (N, streams x D) averaged over the frames.
    """
    parts = [values.astype(np.float32).mean(axis=3) for values in streams.values()]
    parts = [part.mean(axis=1) if over_time else part.reshape(len(part), -1) for part in parts]
    return np.concatenate(parts, axis=1)


def frame_size_features(sizes: np.ndarray) -> np.ndarray:
    """Width, height and their ratio: what a crop tells before anyone looks into it.

    UT-Interaction's clips are cropped to the action, so this alone beats chance there.

    Args:
        sizes: (N, 2) width and height in pixels.

    Returns:
        (N, 3) float64.
    """
    sizes = sizes.astype(np.float64)
    return np.column_stack([sizes, sizes[:, 0] / sizes[:, 1]])
