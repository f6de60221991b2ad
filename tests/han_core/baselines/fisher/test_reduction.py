"""Principal components: what they must do to their own sample, and samples that have hardly any."""

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from han_core.baselines.fisher import reduction as module
from han_core.baselines.fisher.reduction import Projection, fit_pca


def made_up(n: int = 3000, d: int = 12, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return (random.standard_normal((n, d)) @ random.standard_normal((d, d)) + 5).astype(np.float32)


def test_the_projected_sample_is_uncorrelated_and_centred_largest_first():
    sample = made_up()
    projected = fit_pca(sample, 6)(sample)
    assert projected.dtype == np.float32
    covariance = np.cov(projected.astype(np.float64).T, bias=True)
    expected = np.linalg.eigvalsh(np.cov(sample.astype(np.float64).T, bias=True))[::-1][:6]
    np.testing.assert_allclose(covariance, np.diag(expected), atol=1e-4 * expected[0])
    np.testing.assert_allclose(projected.mean(0), 0, atol=1e-4)


def test_whitened_each_direction_has_variance_1():
    sample = made_up()
    projected = fit_pca(sample, 12, whiten=True)(sample)
    np.testing.assert_allclose(np.cov(projected.astype(np.float64).T, bias=True), np.eye(12), atol=1e-3)


def test_directions_are_orthonormal_and_their_largest_entry_is_positive():
    components = fit_pca(made_up(), 8).components.astype(np.float64)
    np.testing.assert_allclose(components @ components.T, np.eye(8), atol=1e-6)
    assert (components[np.arange(8), np.abs(components).argmax(1)] > 0).all()


def test_what_is_kept_is_what_a_decomposition_of_the_sample_gives():
    sample = made_up(n=200)
    _, _, vectors = np.linalg.svd(sample - sample.mean(0, dtype=np.float64), full_matrices=False)
    found = fit_pca(sample, 3).components
    np.testing.assert_allclose(np.abs((found * vectors[:3]).sum(1)), 1, atol=1e-5)


def test_the_same_sample_gives_the_same_bytes():
    one, two = fit_pca(made_up(), 6, whiten=True), fit_pca(made_up(), 6, whiten=True)
    assert (one.mean.tobytes(), one.components.tobytes()) == (two.mean.tobytes(), two.components.tobytes())


def test_the_number_of_threads_changes_no_bit():
    sample = made_up(1500, 396)
    found = set()
    for threads in (1, 2, 4):
        with threadpool_limits(threads, "blas"):
            projection = fit_pca(sample, 200, whiten=True)
            # In float32, in which the projection is, differences would show only now and then.
            scatter = module._covariance(sample, sample.mean(0, dtype=np.float64))
            found.add(projection.components.tobytes() + projection(sample).tobytes() + scatter.tobytes())
    assert len(found) == 1


@pytest.mark.parametrize("whiten", [False, True])
@pytest.mark.parametrize("sample", [made_up(3), made_up(1), np.ones((50, 12)), np.zeros((4, 12), np.float32)])
def test_samples_with_fewer_directions_than_dimensions_give_finite_ones(sample, whiten):
    projection = fit_pca(sample, 8, whiten=whiten)
    assert np.isfinite(projection.components).all()
    spread = projection(sample).std(0)
    directions = min(len(sample), 12) - 1 if sample.std() else 0
    assert (spread[directions:] < 1e-4).all()
    if whiten:
        assert not projection.components[directions:].any()
        np.testing.assert_allclose(spread[:directions], 1, rtol=1e-3)


def test_a_constant_dimension_does_no_harm():
    sample = made_up()
    sample[:, 3] = 7
    projected = fit_pca(sample, 12, whiten=True)(sample)
    np.testing.assert_allclose(projected.std(0), [1] * 11 + [0], atol=1e-3)


def test_no_points_are_projected_to_no_points():
    assert fit_pca(made_up(), 6)(np.empty((0, 12), np.float32)).shape == (0, 6)


@pytest.mark.parametrize(
    ("sample", "dimensions", "words"),
    [
        (np.empty((0, 12)), 6, "no sample"),
        (np.ones(12), 6, "no sample"),
        (made_up(), 13, "cannot be reduced to 13"),
        (made_up(), 0, "cannot be reduced to 0"),
        (np.full((5, 12), np.nan), 6, "not finite"),
        (np.full((5, 12), np.inf), 6, "not finite"),
    ],
)
def test_what_cannot_be_analysed_is_told(sample, dimensions, words):
    with pytest.raises(ValueError, match=words):
        fit_pca(sample, dimensions)


def test_points_of_another_dimension_are_told():
    projection = Projection(np.zeros(3, np.float32), np.eye(2, 3, dtype=np.float32))
    with pytest.raises(ValueError, match=r"shape \(5, 4\) where \(n, 3\)"):
        projection(np.zeros((5, 4)))
