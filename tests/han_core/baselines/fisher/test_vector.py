"""Fisher vectors against their definition, point by point in float64, and scikit-image where it is installed."""

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from han_core.baselines.fisher.mixture import Mixture
from han_core.baselines.fisher.vector import Statistics, fisher_vector, improved, statistics
from tests.han_core.baselines.fisher.made_up import drawn_from, some_mixture


def by_definition(points: np.ndarray, mixture: Mixture) -> np.ndarray:
    """Two loops, as the formulas are printed."""
    weights, means, variances = (
        values.astype(np.float64) for values in (mixture.weights, mixture.means, mixture.variances)
    )
    u, v = np.zeros(means.shape), np.zeros(means.shape)
    for x in points.astype(np.float64):
        density = [
            w * np.prod(np.exp(-((x - m) ** 2) / (2 * s)) / np.sqrt(2 * np.pi * s))
            for w, m, s in zip(weights, means, variances, strict=True)
        ]
        for k, q in enumerate(np.array(density) / np.sum(density)):
            z = (x - means[k]) / np.sqrt(variances[k])
            u[k] += q * z / (len(points) * np.sqrt(weights[k]))
            v[k] += q * (z**2 - 1) / (len(points) * np.sqrt(2 * weights[k]))
    return np.concatenate([u.ravel(), v.ravel()])


def vector_of(points: np.ndarray, mixture: Mixture) -> np.ndarray:
    return fisher_vector(statistics(points, mixture), mixture)


@pytest.mark.parametrize("offset", [0.0, 20.0])
def test_the_matrix_form_is_the_definition(offset):
    mixture = some_mixture(gaussians=6, d=5, offset=offset)
    points = drawn_from(some_mixture(gaussians=6, d=5, seed=9, offset=offset), 1500)
    expected = by_definition(points, mixture)
    found = vector_of(points, mixture)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max(), rtol=1e-5)


def test_scikit_image_agrees():
    fisher = pytest.importorskip("skimage.feature")
    from sklearn.mixture import GaussianMixture

    mixture = some_mixture(gaussians=6, d=5)
    points = drawn_from(some_mixture(gaussians=6, d=5, seed=9), 700)
    fitted = GaussianMixture(6, covariance_type="diag")
    fitted.weights_, fitted.means_, fitted.covariances_ = mixture.weights, mixture.means, mixture.variances
    fitted.precisions_cholesky_ = 1 / np.sqrt(mixture.variances)
    theirs = fisher.fisher_vector(points.astype(np.float64), fitted)[6:]  # without the derivatives by the weights
    theirs[30:] *= -1
    np.testing.assert_allclose(vector_of(points, mixture), theirs, atol=2e-5)


def test_points_of_the_mixture_itself_have_a_vector_near_0():
    mixture = some_mixture(gaussians=3, d=4)
    count = 40_000
    assert np.abs(vector_of(drawn_from(mixture, count), mixture)).max() < 6 / np.sqrt(count)
    assert np.abs(vector_of(drawn_from(some_mixture(3, 4, seed=5), count), mixture)).max() > 60 / np.sqrt(count)


def test_a_point_on_a_mean():
    mixture = Mixture(
        np.array([0.25, 0.75], np.float32),
        np.array([[-50, 3], [50, 1]], np.float32),
        np.array([[2, 0.5], [1, 4]], np.float32),
    )
    found = vector_of(mixture.means[:1], mixture)
    expected = np.zeros((2, 2, 2))
    expected[1, 0] = -1 / np.sqrt(2 * 0.25)
    np.testing.assert_allclose(found.reshape(2, 2, 2), expected, atol=1e-5)


def test_statistics_of_parts_add_up_to_those_of_the_whole():
    mixture = some_mixture(offset=3)
    points = drawn_from(some_mixture(seed=4, offset=3), 2001)
    whole = statistics(points, mixture)
    summed = statistics(points[:700], mixture) + statistics(points[700:], mixture)
    assert summed.count == whole.count == 2001
    for name in ("s0", "s1", "s2"):
        np.testing.assert_allclose(getattr(summed, name), getattr(whole, name), rtol=2e-5)
    np.testing.assert_allclose(fisher_vector(summed, mixture), fisher_vector(whole, mixture), atol=1e-5)


def test_statistics_are_the_sums_that_they_say():
    """Of raw points, whatever they are taken about: with one Gaussian all posteriors are 1."""
    mixture = some_mixture(gaussians=1, offset=7)
    points = drawn_from(mixture, 300)
    found = statistics(points, mixture)
    np.testing.assert_allclose(found.s0, [300])
    np.testing.assert_allclose(found.s1, points.sum(0, dtype=np.float64)[None], rtol=1e-6)
    np.testing.assert_allclose(found.s2, (points.astype(np.float64) ** 2).sum(0)[None], rtol=1e-6)


def test_points_twice_or_in_another_order_have_the_same_vector():
    mixture, points = some_mixture(), drawn_from(some_mixture(seed=4), 1800)
    expected = vector_of(points, mixture)
    np.testing.assert_allclose(vector_of(np.repeat(points, 2, axis=0), mixture), expected, atol=1e-5)
    np.testing.assert_allclose(vector_of(points[::-1], mixture), expected, atol=1e-5)


def test_no_points_have_the_vector_0():
    mixture = some_mixture()
    found = statistics(np.empty((0, 4), np.float32), mixture)
    assert found.count == 0
    vector = improved(fisher_vector(found, mixture))
    assert vector.shape == (2 * 5 * 4,)
    assert vector.dtype == np.float32
    assert not vector.any()
    added = found + statistics(drawn_from(mixture, 9), mixture)
    assert added.count == 9


def test_points_infinitely_far_away_give_finite_numbers():
    vector = vector_of(np.full((3, 4), 1e6, np.float32), some_mixture())
    assert np.isfinite(vector).all()


def test_the_root_keeps_signs_and_the_length_is_1():
    np.testing.assert_allclose(improved(np.array([4, -9], np.float32)), np.array([2, -3]) / np.sqrt(13), rtol=1e-6)
    np.testing.assert_array_equal(improved(np.zeros(3, np.float32)), np.zeros(3))
    found = improved(vector_of(drawn_from(some_mixture(seed=4), 500), some_mixture()))
    assert np.linalg.norm(found) == pytest.approx(1, abs=1e-6)


def test_the_number_of_threads_changes_no_bit():
    mixture = some_mixture(gaussians=256, d=15)
    points = drawn_from(mixture, 777)
    found = set()
    for threads in (1, 2, 4):
        with threadpool_limits(threads, "blas"):
            found.add(improved(vector_of(points, mixture)).tobytes())
    assert len(found) == 1


def test_sums_of_float32_statistics_are_taken_too():
    mixture = some_mixture()
    exact = statistics(drawn_from(some_mixture(seed=4), 500), mixture)
    rounded = Statistics(*(getattr(exact, name).astype(np.float32) for name in ("s0", "s1", "s2")), exact.count)
    np.testing.assert_allclose(fisher_vector(rounded, mixture), fisher_vector(exact, mixture), atol=1e-4)
