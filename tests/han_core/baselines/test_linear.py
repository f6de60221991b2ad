"""Baselines on data whose answer is known."""

import numpy as np

from han_core.baselines.linear import clip_vectors, frame_size_features, logistic_regression


def test_logistic_regression_learns_and_leaves_out_classes_it_never_saw():
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 2 * 2  # classes 0 and 2 of 3
    features = rng.normal(size=(40, 5)) + 4 * labels[:, None]
    probabilities = logistic_regression(features[:20], labels[:20], features[20:], classes=3)
    assert (probabilities.argmax(1) == labels[20:]).all()
    np.testing.assert_allclose(probabilities.sum(1), 1)
    assert (probabilities[:, 1] == 0).all()


def test_clip_vectors_average_regions_and_keep_frames_apart():
    cubes = np.arange(2 * 3 * 4 * 5, dtype=np.float16).reshape(2, 3, 4, 5)
    vectors = clip_vectors({"spatial": cubes, "temporal": cubes + 1})
    assert vectors.shape == (2, 24)
    assert vectors[1, 4 + 2] == cubes[1, 1, 2].astype(np.float32).mean()
    assert vectors[0, 12] == vectors[0, 0] + 1
    averaged = clip_vectors({"spatial": cubes}, over_time=True)
    np.testing.assert_allclose(averaged, cubes.astype(np.float32).mean(axis=(1, 3)))


def test_frame_size_features():
    np.testing.assert_allclose(frame_size_features(np.array([[320, 240]])), [[320, 240, 4 / 3]])
