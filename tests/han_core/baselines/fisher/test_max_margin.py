"""The max-margin projection: its gradient against differences of the printed loss, and what it finds."""

import numpy as np
import pytest
from scipy.linalg import subspace_angles
from threadpoolctl import threadpool_limits

from han_core.baselines.fisher.max_margin import Fit, MaxMargin, evaluate, fit_max_margin
from han_core.baselines.fisher.principal import principal_directions
from han_core.baselines.fisher.row_store import RowStore

HOW = {"class_penalty": 1e-4, "projection_penalty": 1e-4, "epochs": 8, "batch": 64, "rate": 1.0, "seed": 1}


def stored(path, values: np.ndarray) -> RowStore:
    store = RowStore(path, values.shape[1])
    for row in values:
        store.append(row)
    return store


def two_among_many(count: int, classes: int = 4) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Classes on a circle in two directions, among 50 that say nothing and vary more; vectors, labels, directions."""
    random = np.random.default_rng(0)
    labels = np.arange(count) % classes
    angles = 2 * np.pi * labels / classes
    informative = np.stack([np.cos(angles), np.sin(angles)], axis=1) + 0.2 * random.standard_normal((count, 2))
    values = np.concatenate([informative, 1.5 * random.standard_normal((count, 50))], axis=1)
    turned, _ = np.linalg.qr(random.standard_normal((52, 52)))
    return values @ turned.T / 8, labels, turned[:, :2]


def loss(w, v, phi, labels) -> float:
    """As printed, without penalties."""
    total = 0.0
    for x, own in zip(phi, labels, strict=True):
        total += sum(max(0.0, 1 + (v[c] - v[own]) @ w @ x) for c in range(len(v)) if c != own)
    return total / len(phi)


def slope(function, at: np.ndarray) -> np.ndarray:
    """By differences."""
    found = np.zeros_like(at)
    for place in np.ndindex(at.shape):
        step = np.zeros_like(at)
        step[place] = 1e-6
        found[place] = (function(at + step) - function(at - step)) / 2e-6
    return found


def test_its_steps_go_down_the_slope_of_the_loss(tmp_path):
    random = np.random.default_rng(0)
    phi, labels = random.standard_normal((12, 6)).astype(np.float16).astype(np.float64), np.arange(12) % 3
    start = random.standard_normal((2, 6)).astype(np.float32)
    how = HOW | {"epochs": 2, "batch": 5, "class_penalty": 0.2, "projection_penalty": 0.3, "rate": 0.5}
    with stored(tmp_path / "r", phi) as rows:
        found = fit_max_margin(rows, np.arange(12), labels, start, classes=3, **how)
    w, v = start.astype(np.float64), np.zeros((3, 2))
    first = {"w": 0.5 * 0.3 * np.linalg.norm(w), "v": 0.5 * 3 * np.sqrt(3)}
    squares = {"w": 0.0, "v": 0.0}
    left = steps = 6
    for epoch in (1, 2):
        order = np.random.default_rng([1, epoch]).permutation(12)
        for batch in (order[:5], order[5:10], order[10:]):
            of_w = slope(lambda at, v=v, b=batch: loss(at, v, phi[b], labels[b]), w)
            of_v = slope(lambda at, w=w, b=batch: loss(w, at, phi[b], labels[b]), v)
            squares["w"] += (of_w**2).sum()
            squares["v"] += (of_v**2).sum()
            if squares["w"]:
                w = w - first["w"] * left / steps / np.sqrt(squares["w"]) * (of_w + 0.3 * w)
            v = v - first["v"] * left / steps / np.sqrt(squares["v"]) * (of_v + 0.2 * v)
            left -= 1
    np.testing.assert_allclose(found.projection, w, atol=1e-4)
    np.testing.assert_allclose(found.classes, v, atol=1e-4)
    assert np.abs(w - start).max() > 0.1


def test_it_finds_the_directions_that_tell_classes_apart_where_principal_components_do_not(tmp_path):
    values, labels, directions = two_among_many(3000)
    seen: list[Fit] = []
    with stored(tmp_path / "r", values) as rows:
        start = principal_directions(rows, np.arange(3000), 2, seed=1)
        model = fit_max_margin(
            rows, np.arange(3000), labels, start, classes=4, on_epoch=lambda _, fit: seen.append(fit), **HOW
        )
        after = evaluate(model, rows, np.arange(3000), labels)
    assert np.rad2deg(subspace_angles(start.T, directions)).max() > 60
    assert np.rad2deg(subspace_angles(model.projection.T, directions)).max() < 10
    assert seen[0].loss > seen[1].loss > seen[-1].loss
    assert after.loss < 0.05
    assert after.accuracy > 0.99


@pytest.mark.parametrize("classes", [1, 2, 3, 60])
def test_the_loss_falls_whatever_the_number_of_classes(tmp_path, classes):
    random = np.random.default_rng(0)
    labels = np.arange(300) % classes
    values = 0.5 * random.standard_normal((classes, 80))[labels] + random.standard_normal((300, 80))
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    with stored(tmp_path / "r", values) as rows:
        start = principal_directions(rows, np.arange(300), 10, seed=1)
        model = fit_max_margin(rows, np.arange(300), labels, start, classes=classes, **HOW)
        found = evaluate(model, rows, np.arange(300), labels)
    assert found.loss <= 0.5 * (classes - 1)
    assert np.isfinite(model.projection).all()


def test_evaluation_is_the_printed_loss(tmp_path):
    random = np.random.default_rng(0)
    phi, labels = random.standard_normal((300, 6)).astype(np.float16).astype(np.float64), np.arange(300) % 3
    model = MaxMargin(*(random.standard_normal(shape).astype(np.float32) for shape in ((2, 6), (3, 2))))
    chosen = np.arange(20, 300)
    with stored(tmp_path / "r", phi) as rows:
        found = evaluate(model, rows, chosen, labels[chosen])
    assert found.loss == pytest.approx(loss(model.projection, model.classes, phi[chosen], labels[chosen]), rel=1e-5)
    scores = phi[chosen] @ model.projection.T @ model.classes.T
    assert found.accuracy == pytest.approx((scores.argmax(1) == labels[chosen]).mean())


def test_seed_and_threads(tmp_path):
    values, labels, _ = two_among_many(200)
    values = np.tile(values, 64)  # long enough for several threads, and a multiple of 256
    with stored(tmp_path / "r", values) as rows:
        start = principal_directions(rows, np.arange(200), 40, seed=1)

        def made(**how) -> bytes:
            model = fit_max_margin(rows, np.arange(200), labels, start, classes=4, **HOW | {"epochs": 2} | how)
            return model.projection.tobytes() + model.classes.tobytes()

        one = made()
        assert made(seed=2) != one
        for threads in (1, 2):
            with threadpool_limits(threads, "blas"):
                assert made() == one
