"""Linear SVMs on vectors far longer than there are clips, by way of their kernel.

The vectors of all clips are read once and held in float16; float32 is made of them in blocks. Kernels of channels that
lie side by side in one vector add up.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from sklearn import config_context
from sklearn.svm import SVC

from han_core.baselines.fisher.one_thread import in_order, one_thread
from han_core.errors import HanError

Loader = Callable[[], np.ndarray]
"""Reads a clip's vector (D,), exact in float16 as :func:`han_core.baselines.fisher.fisherfile.read_half` gives it."""

_BLOCK_BYTES = 1 << 25  # of a block of rows in float32
_TOLERANCE = 1e-4  # of the optimality conditions, in margins
_PAD, _PAD_ROWS = 1024, 16
"""Vectors are filled up with zeros to a multiple, as are blocks of them, which BLAS likes."""
_NO_TRAINING_CLIP = "there is no training clip, so no SVM can be fitted"


class VectorError(HanError, ValueError):
    """Vectors of clips that do not fit together."""


def linear_kernel(train: Sequence[Loader], test: Sequence[Loader] = (), *, threads: int = 1) -> np.ndarray:
    """Inner products of vectors, those of the training clips among each other exactly symmetric.

    Memory: 2 bytes for each number of each vector, the kernel, and two blocks of 32 MiB for each core. At the size of
    UCF-101 (9,537 and 3,783 vectors of at most 27,648 for a channel) and 16 cores that is 2.5 GB.

    Args:
        train: n loaders. test: m further ones.
        threads: that read vectors. All cores multiply; neither changes a bit of the result.

    Returns:
        (n + m, n) float32: the first n rows are the kernel of the training clips, the others that of the test clips
        with them.

    Raises:
        VectorError: there is no training clip, or vectors are of different lengths.
    """
    if not train:
        raise VectorError(_NO_TRAINING_CLIP)
    vectors = _read([*train, *test], threads)
    n, length = len(train), vectors.shape[1]
    kernel = np.empty((n + len(test), n), np.float32)
    rows = max(1, _BLOCK_BYTES // (4 * length * _PAD_ROWS)) * _PAD_ROWS

    def multiply(place: tuple[int, int]) -> None:
        down, across = place
        block = vectors[down : down + rows].astype(np.float32)
        if across == down:
            products = block @ block.T  # which BLAS knows to be symmetric
        else:
            products = block @ vectors[across : min(across + rows, _padded(n, _PAD_ROWS))].astype(np.float32).T
        part = kernel[down : down + rows, across : across + rows]
        part[:] = products[: len(part), : part.shape[1]]
        if across < down < n:
            kernel[across : across + rows, down : down + rows] = part[: n - down].T

    starts = range(0, len(kernel), rows)
    for _ in in_order(
        multiply, [(down, across) for down in starts for across in starts if across < min(n, down + rows)]
    ):
        pass
    return kernel


def margins(
    kernel_train: np.ndarray,
    labels: np.ndarray,
    kernel_test: np.ndarray,
    *,
    c: float,
    classes: int,
    threads: int = 1,
) -> np.ndarray:
    """Margins of test clips under one SVM a class, which separates it from all the others (hinge loss, one bias each).

    Memory: the training kernel once more in float64, and 200 MB for each thread.

    Args:
        kernel_train: (n, n) of the training clips. labels: (n,) int, their classes.
        kernel_test: (m, n) of the test clips with the training clips.
        c: cost of a training clip on the wrong side.
        threads: SVMs fitted at a time; the result does not depend on it.

    Returns:
        (m, classes) float64. A class without training clips has -inf; where all training clips are of one class,
        that one has 0.

    Raises:
        VectorError: there is no training clip.
    """
    labels = np.asarray(labels)
    present = np.unique(labels)
    found = np.full((len(kernel_test), classes), -np.inf)
    if not len(present):
        raise VectorError(_NO_TRAINING_CLIP)
    if len(present) == 1:
        found[:, present] = 0
        return found
    train = np.ascontiguousarray(kernel_train, np.float64)  # libsvm's own type; otherwise each SVM would copy it

    def fit(label: int) -> tuple[np.ndarray, float]:
        # scikit-learn's own multi-class SVC is one against one, whatever its decision_function_shape.
        model = SVC(C=c, kernel="precomputed", tol=_TOLERANCE, cache_size=200)
        with config_context(assume_finite=True):  # a setting of this thread; looking takes longer than fitting
            model.fit(train, np.where(labels == label, 1, -1))
        factors = np.zeros(len(labels))
        factors[model.support_] = model.dual_coef_[0]
        return factors, float(model.intercept_[0])

    with ThreadPoolExecutor(threads) as pool:
        factors, biases = zip(*pool.map(fit, present), strict=True)
    found[:, present] = _products(kernel_test, np.stack(factors, axis=1)) + biases
    return found


def probabilities(found: np.ndarray) -> np.ndarray:
    """(m, classes) float64 that add up to 1: the softmax of margins, which keeps their order but is not calibrated.

    A margin of -inf gives 0; each clip has at least one that is finite.
    """
    scores = np.exp(found - found.max(1, keepdims=True))
    return scores / scores.sum(1, keepdims=True)


def _read(loaders: list[Loader], threads: int) -> np.ndarray:
    """All vectors (clips, D) float16, filled up with zeros along both axes."""
    with ThreadPoolExecutor(threads) as pool:
        found: Iterator[np.ndarray] = pool.map(lambda load: load(), loaders)
        first = next(found)
        vectors = np.zeros((_padded(len(loaders), _PAD_ROWS), _padded(len(first), _PAD)), np.float16)
        vectors[0, : len(first)] = first
        for number, vector in enumerate(found, start=1):
            if vector.shape != first.shape:
                raise VectorError(
                    f"the vectors of clips do not fit together: number {number} has {vector.shape[0]:,} numbers, the "
                    f"first has {len(first):,}; make all of them with one codebook"
                )
            vectors[number, : len(vector)] = vector
    return vectors


def _padded(length: int, multiple: int) -> int:
    return -(-length // multiple) * multiple


def _products(kernel_test: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Their product in float64, of which only parts exist at a time."""
    found = np.empty((len(kernel_test), factors.shape[1]))
    with one_thread():
        for start in range(0, len(kernel_test), 1024):
            found[start : start + 1024] = kernel_test[start : start + 1024].astype(np.float64) @ factors
    return found
