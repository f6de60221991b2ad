"""The max-margin projection: long vectors made short so that linear classifiers of the short ones keep a margin.

As in Deep Fisher Networks (Simonyan, Vedaldi and Zisserman 2013), which stacked Fisher vectors take it from: W and one
vector v_c a class minimise, over vectors phi_i of class c_i,

    mean_i sum_{c != c_i} max(0, 1 + (v_c - v_{c_i}) W phi_i) + lambda / 2 sum_c |v_c|^2 + mu / 2 |W|^2

by stochastic gradients. There the sum over i is not divided by their number; here it is, so that lambda and mu mean the
same for sets of any size. The step of W and that of the class vectors are each divided by the root of the sum of all
squared gradients so far (AdaGrad with one number a matrix), because no fixed step suits 3 classes and 101: one that
learns the many blows up on the few.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from han_core.baselines.fisher.one_thread import inner, one_thread, times
from han_core.baselines.fisher.row_store import RowStore

_CLASS_STEP, _PROJECTION_STEP = 3.0, 0.3
"""Lengths of the first steps: of a class vector, and of W in parts of its own length. Scores have to differ by 1, and
psi is shorter than phi, whose length is 1."""
_PAD = 256  # rows of a block: what is filled up adds nothing


@dataclass(frozen=True, eq=False)
class MaxMargin:
    """A projection with the classifiers that it was learnt with."""

    projection: np.ndarray
    """W, (p, D) float32."""
    classes: np.ndarray
    """v, (classes, p) float32."""


@dataclass(frozen=True)
class Fit:
    """How well a projection and its classifiers do on some vectors."""

    loss: float
    """Mean sum of hinges, without penalties."""
    accuracy: float
    """Share of the vectors whose own class has the largest score."""


def fit_max_margin(
    rows: RowStore,
    numbers: np.ndarray,
    labels: np.ndarray,
    start: np.ndarray,
    *,
    classes: int,
    class_penalty: float,
    projection_penalty: float,
    epochs: int,
    batch: int,
    rate: float,
    seed: int,
    on_epoch: Callable[[int, Fit], None] | None = None,
) -> MaxMargin:
    """Learn a projection from ``start``, with all class vectors 0 at first.

    Beside what the gradients make of it, the step size falls to 0 linearly. Memory: ``start`` three times and a batch,
    in float32. The same bytes by however many cores.

    Args:
        rows: vectors. numbers: (n,) of those to learn from.
        labels: (n,) int, their classes.
        start: (p, D) float32, e.g. principal directions.
        class_penalty: lambda. projection_penalty: mu.
        rate: factor of all step sizes.
        seed: of the order of the vectors, another one each epoch.
        on_epoch: called after each epoch with its number, from 1, and the fit to the batches as they were learnt from.
    """
    projection = start.astype(np.float32)
    vectors = np.zeros((classes, len(start)), np.float32)
    vector_steps = _Steps(rate * _CLASS_STEP * np.sqrt(classes))
    projection_steps = _Steps(rate * _PROJECTION_STEP * np.sqrt(np.square(projection).sum(dtype=np.float64)))
    left = steps = epochs * -(-len(numbers) // batch)
    for epoch in range(1, epochs + 1):
        order = np.random.default_rng([seed, epoch]).permutation(len(numbers))
        loss = right = 0.0
        for first in range(0, len(order), batch):
            chosen = order[first : first + batch]
            found = rows.rows(numbers[chosen])
            reduced = inner(found, projection)
            hinges, good = _hinges(reduced, vectors, labels[chosen])
            loss, right = loss + float(hinges.sum(dtype=np.float64)), right + good
            pull = (hinges > 0).astype(np.float32)
            pull[np.arange(len(chosen)), labels[chosen]] = -pull.sum(1)
            pull /= len(chosen)
            with one_thread():
                of_reduced, of_vectors = pull @ vectors, pull.T @ reduced
            of_projection = times(of_reduced.T, found)
            vector_steps.take(vectors, of_vectors, class_penalty, left / steps)
            projection_steps.take(projection, of_projection, projection_penalty, left / steps)
            left -= 1
        if on_epoch is not None:
            on_epoch(epoch, Fit(loss / len(order), right / len(order)))
    return MaxMargin(projection, vectors)


def evaluate(model: MaxMargin, rows: RowStore, numbers: np.ndarray, labels: np.ndarray) -> Fit:
    """The fit of a projection to some vectors, such as held-out ones, by which the penalties can be chosen."""
    loss = right = 0.0
    for first, block in zip(range(0, len(numbers), _PAD), rows.blocks(numbers, _PAD), strict=True):
        own = labels[first : first + _PAD]
        hinges, good = _hinges(inner(block, model.projection)[: len(own)], model.classes, own)
        loss, right = loss + float(hinges.sum(dtype=np.float64)), right + good
    return Fit(loss / len(numbers), right / len(numbers))


class _Steps:
    """The steps of one matrix, the first of which is ``length`` long."""

    def __init__(self, length: float) -> None:
        self._length, self._squares = length, 0.0

    def take(self, matrix: np.ndarray, gradient: np.ndarray, penalty: float, decay: float) -> None:
        """Change the matrix by the gradient of the loss, and of its penalty, which does not count for the size."""
        self._squares += float(np.square(gradient).sum(dtype=np.float64))
        if self._squares:
            size = self._length * decay / np.sqrt(self._squares)
            matrix *= np.float32(max(0.0, 1 - size * penalty))
            gradient *= np.float32(size)
            matrix -= gradient


def _hinges(reduced: np.ndarray, vectors: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, int]:
    """(n, classes) max(0, ..) of each other class, and how many scores are largest for the own class."""
    with one_thread():
        scores = reduced @ vectors.T
    each = np.arange(len(labels))
    hinges = np.maximum(1 + scores - scores[each, labels][:, None], 0)
    hinges[each, labels] = 0
    return hinges, int((scores.argmax(1) == labels).sum())
