"""Mixtures: densities against SciPy, what expectation maximisation promises, and samples that are hardly any."""

import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import norm
from threadpoolctl import threadpool_limits

from han_core.baselines.fisher import mixture as module
from han_core.baselines.fisher.mixture import Mixture, fit_mixture
from tests.han_core.baselines.fisher.made_up import drawn_from, some_mixture


def bytes_of(mixture: Mixture) -> bytes:
    return b"".join(values.tobytes() for values in (mixture.weights, mixture.means, mixture.variances))


@pytest.mark.parametrize("count", [1, 255, 256, 257, 1024, 2500])
def test_moments_and_likelihood_are_those_of_the_densities(count):
    mixture = some_mixture(offset=30)  # far from 0: raw squares would leave float32 little
    points = drawn_from(mixture, count)
    deviations = np.sqrt(mixture.variances.astype(np.float64))
    joint = np.log(mixture.weights) + norm.logpdf(points[:, None].astype(np.float64), mixture.means, deviations).sum(2)
    likelihood = logsumexp(joint, axis=1)
    q = np.exp(joint - likelihood[:, None])
    y = points - mixture.centre.astype(np.float64)
    expected = np.concatenate([q.T @ y**2, q.T @ y, q.sum(0)[:, None]], axis=1)
    moments, found = mixture.moments(points)
    np.testing.assert_allclose(moments, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
    assert found == pytest.approx(likelihood.sum(), rel=1e-5)


def test_the_likelihood_never_falls_and_rises_at_all(monkeypatch):
    monkeypatch.setattr(module, "TOLERANCE", -1.0)  # goes on past convergence
    sample = np.random.default_rng(0).gamma(1.0, size=(4000, 6)).astype(np.float32)
    seen: list[float] = []
    fit_mixture(sample, 8, seed=1, iterations=60, on_iteration=lambda _, value: seen.append(value))
    steps = np.diff(seen)
    assert len(steps) == 59
    assert steps.min() > -1e-6
    assert seen[-1] > seen[0] + 0.1


def test_it_stops_when_nothing_is_gained():
    seen: list[int] = []
    sample = drawn_from(some_mixture(1), 2000)
    fit_mixture(sample, 1, seed=1, on_iteration=lambda iteration, _: seen.append(iteration))
    assert seen == [1, 2]
    seen.clear()
    fit_mixture(drawn_from(some_mixture(), 2000), 5, seed=1, iterations=3, on_iteration=lambda i, _: seen.append(i))
    assert seen == [1, 2, 3]


def test_three_separated_gaussians_are_found():
    truth = Mixture(
        np.array([0.2, 0.3, 0.5], np.float32),
        np.array([[0, 0], [10, 0], [0, 10]], np.float32),
        np.array([[1, 2], [0.5, 1], [1, 0.25]], np.float32),
    )
    found = fit_mixture(drawn_from(truth, 20000), 3, seed=3)
    order = [int(np.abs(found.means - mean).sum(1).argmin()) for mean in truth.means]
    assert sorted(order) == [0, 1, 2]
    np.testing.assert_allclose(found.weights[order], truth.weights, atol=0.02)
    np.testing.assert_allclose(found.means[order], truth.means, atol=0.06)
    np.testing.assert_allclose(found.variances[order], truth.variances, rtol=0.06)


def test_one_gaussian_is_the_mean_and_the_variance():
    sample = drawn_from(some_mixture(), 3000)
    found = fit_mixture(sample, 1, seed=0)
    np.testing.assert_allclose(found.means[0], sample.mean(0), atol=1e-5)
    np.testing.assert_allclose(found.variances[0], sample.var(0), rtol=1e-4)


def sound(mixture: Mixture, sample: np.ndarray) -> None:
    for values in (mixture.weights, mixture.means, mixture.variances):
        assert values.dtype == np.float32
        assert np.isfinite(values).all()
    assert mixture.weights.min() >= 0.99e-6
    assert mixture.weights.sum() == pytest.approx(1, abs=1e-5)
    assert mixture.variances.min() >= 0.999e-4 * sample.var(0).max() > -1
    assert mixture.variances.min() > 0
    moments, likelihood = mixture.moments(sample.astype(np.float32))
    assert np.isfinite(moments).all()
    assert np.isfinite(likelihood)


@pytest.mark.parametrize(
    "sample",
    [
        np.repeat(np.eye(3), 50, axis=0),  # three points, eight Gaussians
        np.ones((20, 3)),
        np.zeros((1, 3)),
        np.random.default_rng(0).standard_normal((5, 3)),
        np.random.default_rng(0).standard_normal((500, 3)) * [1, 1e-6, 0],
        np.concatenate([np.random.default_rng(0).standard_normal((500, 3)), [[1e4, 1e4, 1e4]]]),
    ],
    ids=["repeated", "constant", "one", "few", "flat", "outlier"],
)
def test_samples_that_starve_a_gaussian_give_no_nan(sample):
    sound(fit_mixture(sample, 8, seed=1), sample)


def test_an_empty_gaussian_keeps_its_place_and_a_weight():
    before = Mixture(
        np.array([0.5, 0.5], np.float32), np.array([[0.0], [9.0]], np.float32), np.array([[1.0], [2.0]], np.float32)
    )
    moments = np.array([[3.0, 1.0, 10.0], [0.0, 0.0, 0.0]])
    found = module._maximised(moments, before, 1e-4)
    np.testing.assert_allclose(found.weights, [1 - 1e-6, 1e-6], rtol=1e-5)
    np.testing.assert_allclose(found.means[:, 0], [before.centre[0] + 0.1, 9])
    np.testing.assert_allclose(found.variances[:, 0], [0.3 - 0.01, 2], rtol=1e-6)


@pytest.mark.parametrize("count", [777, 5000])
def test_the_same_seed_gives_the_same_bytes_with_any_number_of_threads(count):
    sample = np.random.default_rng(0).gamma(1.0, size=(count, 7)).astype(np.float32)
    found = []
    for threads in (1, 1, 2, 4):
        with threadpool_limits(threads, "blas"):
            found.append(bytes_of(fit_mixture(sample, 6, seed=1, iterations=10)))
    assert len(set(found)) == 1
    assert bytes_of(fit_mixture(sample, 6, seed=2, iterations=10)) != found[0]


@pytest.mark.parametrize(
    ("sample", "words"),
    [(np.empty((0, 3)), "no sample"), (np.full((9, 3), np.nan), "not finite"), (np.full((9, 3), np.inf), "not finite")],
)
def test_what_no_mixture_can_be_fitted_to_is_told(sample, words):
    with np.errstate(invalid="ignore"), pytest.raises(ValueError, match=words):
        fit_mixture(sample, 2, seed=0)


def test_points_of_another_dimension_are_told():
    with pytest.raises(ValueError, match=r"shape \(3, 5\) for a mixture of 4"):
        some_mixture().moments(np.zeros((3, 5), np.float32))
