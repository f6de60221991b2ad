"""Kernels in blocks against one product; SVMs against scikit-learn's on the vectors; what is no problem at all."""

import numpy as np
import pytest
from sklearn.svm import SVC, LinearSVC
from threadpoolctl import threadpool_limits

from han_core.baselines.fisher import kernel_svm as module
from han_core.baselines.fisher.kernel_svm import VectorError, linear_kernel, margins, probabilities


def some_vectors(count: int, length: int, seed: int = 0) -> np.ndarray:
    """(count, length) float16 of length about 1."""
    vectors = np.random.default_rng(seed).standard_normal((count, length))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)


def loaders(vectors: np.ndarray) -> list:
    return [lambda v=v: v for v in vectors]


def classified(count: int, classes: int, length: int = 300, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of length 1 whose class shows, and their labels."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    directions = np.random.default_rng(99).standard_normal((classes, length))
    vectors = 0.4 * directions[labels] + random.standard_normal((count, length))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), labels


@pytest.mark.parametrize("rows", [16, 17, 40, 1000])
@pytest.mark.parametrize(("n", "m"), [(50, 30), (51, 0), (1, 5), (48, 16)])
def test_blocks_make_the_whole_product(monkeypatch, rows, n, m):
    monkeypatch.setattr(module, "_BLOCK_BYTES", 4 * 2048 * rows)
    vectors = some_vectors(n + m, 1500)
    kernel = linear_kernel(loaders(vectors[:n]), loaders(vectors[n:]))
    exact = vectors.astype(np.float64)
    assert kernel.dtype == np.float32
    np.testing.assert_allclose(kernel, exact @ exact[:n].T, atol=1e-6)
    np.testing.assert_array_equal(kernel[:n], kernel[:n].T)


def test_kernels_of_channels_add_up_to_that_of_the_vectors_side_by_side():
    parts = [some_vectors(40, length, seed) for seed, length in enumerate((100, 7, 2048))]
    together = linear_kernel(loaders(np.concatenate(parts, axis=1)[:25]), loaders(np.concatenate(parts, axis=1)[25:]))
    summed = sum(linear_kernel(loaders(part[:25]), loaders(part[25:])) for part in parts)
    np.testing.assert_allclose(summed, together, rtol=2e-6, atol=1e-6)


def test_threads_change_no_bit(monkeypatch):
    monkeypatch.setattr(module, "_BLOCK_BYTES", 4 * 5120 * 400)
    vectors = some_vectors(401, 5000)  # the last block is of one vector
    found = set()
    for blas, threads in ((1, 1), (1, 3), (2, 1), (4, 1)):
        with threadpool_limits(blas, "blas"):
            found.add(linear_kernel(loaders(vectors[:200]), loaders(vectors[200:]), threads=threads).tobytes())
    assert len(found) == 1


def test_each_vector_is_read_once():
    reads = []
    vectors = some_vectors(9, 32)
    linear_kernel([lambda i=i: reads.append(i) or vectors[i] for i in range(6)], loaders(vectors[6:]))
    assert reads == list(range(6))


def test_vectors_of_different_lengths_are_told():
    with pytest.raises(VectorError, match="number 2 has 11 numbers, the first has 10"):
        linear_kernel([*loaders(some_vectors(2, 10)), *loaders(some_vectors(1, 11))])
    with pytest.raises(VectorError, match="no training clip"):
        linear_kernel([], loaders(some_vectors(2, 10)))


@pytest.mark.parametrize("classes", [2, 5])
def test_margins_are_those_of_linear_svms_on_the_vectors(classes):
    (train, labels), (test, _) = classified(60, classes), classified(60, classes, seed=1)
    found = margins(train @ train.T, labels, test @ train.T, c=100, classes=classes)
    expected = np.empty_like(found)
    for label in range(classes):
        # A large scaling of the constant feature all but takes the bias out of what is regularised, as in libsvm.
        model = LinearSVC(loss="hinge", C=100, intercept_scaling=10, max_iter=100_000, tol=1e-5, random_state=0)
        expected[:, label] = model.fit(train, labels == label).decision_function(test)
    np.testing.assert_allclose(found, expected, atol=1e-3)
    np.testing.assert_array_equal(found.argmax(1), expected.argmax(1))


def test_it_is_one_against_the_rest():
    """Points on a circle, the middle class between the others: voting in pairs decides otherwise."""
    angles = np.array([0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5])
    train = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    labels = np.array([0, 0, 1, 1, 1, 2, 2])
    grid = np.linspace(-3, 4, 200)
    test = np.stack([np.cos(grid), np.sin(grid)], axis=1)
    found = margins(train @ train.T, labels, test @ train.T, c=100, classes=3)
    for label in range(3):
        own = SVC(C=100, kernel="linear", tol=1e-6).fit(train, np.where(labels == label, 1, -1))
        np.testing.assert_allclose(found[:, label], own.decision_function(test), atol=1e-2)
    in_pairs = SVC(C=100, kernel="linear").fit(train, labels).predict(test)
    assert (found.argmax(1) != in_pairs).any()


def test_threads_do_not_change_margins():
    (train, labels), (test, _) = classified(60, 6), classified(20, 6, seed=1)
    one, three = (
        margins(train @ train.T, labels, test @ train.T, c=100, classes=6, threads=threads) for threads in (1, 3)
    )
    np.testing.assert_array_equal(one, three)


def test_a_class_without_training_clips_gets_nothing_and_one_with_one_clip_its_own():
    (train, labels), (test, _) = classified(61, 5), classified(25, 5, seed=1)
    keep = np.where((labels != 1) & ((labels != 3) | (np.arange(61) == 3)))[0]
    train, labels = train[keep], labels[keep]
    found = margins(train @ train.T, labels, test @ train.T, c=100, classes=5)
    assert (found[:, 1] == -np.inf).all()
    scores = probabilities(found)
    assert not scores[:, 1].any()
    np.testing.assert_allclose(scores.sum(1), 1)
    itself = margins(train @ train.T, labels, train @ train.T, c=100, classes=5)
    assert itself[labels == 3].argmax() == 3


def test_training_clips_of_one_class_alone_leave_no_choice():
    train, _ = classified(10, 2)
    found = margins(train @ train.T, np.full(10, 2), train[:4] @ train.T, c=100, classes=4)
    np.testing.assert_array_equal(probabilities(found), np.eye(4)[[2] * 4])


def test_clips_without_a_trajectory_get_the_biases():
    """Their vector is 0, in training and in test."""
    (train, labels), (test, _) = classified(40, 4), classified(8, 4, seed=1)
    train[5] = train[6] = test[0] = 0
    found = margins(train @ train.T, labels, test @ train.T, c=100, classes=4)
    assert np.isfinite(found).all()
    expected = [
        SVC(C=100, kernel="linear", tol=1e-6).fit(train, np.where(labels == k, 1, -1)).intercept_[0] for k in range(4)
    ]
    np.testing.assert_allclose(found[0], expected, atol=1e-2)
    nothing = margins(np.zeros((6, 6)), np.arange(6) % 3, np.zeros((2, 6)), c=100, classes=3)
    assert np.isfinite(probabilities(nothing)).all()


def test_no_training_clip_is_told():
    with pytest.raises(VectorError, match="no training clip"):
        margins(np.empty((0, 0)), np.empty(0, int), np.empty((3, 0)), c=100, classes=2)


def test_probabilities_are_the_softmax():
    found = probabilities(np.array([[0.0, np.log(3)], [1000.0, -1000.0]]))
    np.testing.assert_allclose(found, [[0.25, 0.75], [1, 0]])
