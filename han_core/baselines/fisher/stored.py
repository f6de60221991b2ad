"""Projections and mixtures as tensors of a file, and the checks that what is read can be one."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from han_core.baselines.fisher.mixture import Mixture
from han_core.baselines.fisher.reduction import Projection
from han_core.errors import REPAIR, HanError
from han_core.tensorfile.file import TensorFileError, read_tensors
from han_core.tensorfile.seal import CONTENT


class CodebookError(HanError, ValueError):
    """A codebook that cannot be fitted or read; the message says which and why."""


def projection_tensors(projection: Projection, name: str) -> dict[str, np.ndarray]:
    """The tensors of a projection, whose names start with ``name``."""
    return {f"{name}.mean": projection.mean, f"{name}.components": projection.components}


def mixture_tensors(mixture: Mixture, name: str) -> dict[str, np.ndarray]:
    """The tensors of a mixture, whose names start with ``name``."""
    return {
        f"{name}.weights": mixture.weights,
        f"{name}.means": mixture.means,
        f"{name}.variances": mixture.variances,
    }


class StoredTensors:
    """The tensors of a file, taken one by one and checked; a context manager, which at its end refuses any left over.

    Args:
        path: of the file, for messages.

    Raises:
        CodebookError: from any method, if a tensor is missing or cannot be what it is taken for.
    """

    def __init__(self, path: str | Path, tensors: Mapping[str, Tensor]) -> None:
        self._path, self._left = path, dict(tensors)

    def __enter__(self) -> "StoredTensors":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None and self._left:
            raise self.error(f"has {min(self._left)}, which is no part of it")

    def error(self, problem: str) -> CodebookError:
        """What is raised for this file."""
        return CodebookError(f"{self._path}: {problem}. Make it again ({REPAIR})")

    def array(self, name: str, *shape: int | None) -> np.ndarray:
        """A tensor of finite float32 numbers and of this shape, of which None may be any length but 0."""
        if name not in self._left:
            raise self.error(f"lacks {name}")
        found = self._left.pop(name)
        fits = found.ndim == len(shape) and all(
            have == want or (want is None and have) for have, want in zip(found.shape, shape, strict=True)
        )
        if found.dtype != torch.float32 or not fits:
            wanted = " x ".join("n" if length is None else str(length) for length in shape)
            raise self.error(f"{name} is {found.dtype} of shape {tuple(found.shape)}, not torch.float32 of {wanted}")
        if not found.isfinite().all():
            raise self.error(f"{name} holds numbers that are not finite")
        return found.numpy()

    def projection(self, name: str) -> Projection:
        """The projection whose tensors' names start so."""
        mean = self.array(f"{name}.mean", None)
        components = self.array(f"{name}.components", None, len(mean))
        if len(components) > len(mean):
            raise self.error(f"{name}.components project {len(mean)} dimensions to more, {len(components)}")
        return Projection(mean, components)

    def mixture(self, name: str, dimensions: int) -> Mixture:
        """The mixture of so many dimensions whose tensors' names start so."""
        weights = self.array(f"{name}.weights", None)
        means = self.array(f"{name}.means", len(weights), dimensions)
        variances = self.array(f"{name}.variances", len(weights), dimensions)
        if not (weights > 0).all() or abs(float(weights.sum(dtype=np.float64)) - 1) > 1e-3:
            raise self.error(f"{name}.weights are not positive numbers of sum 1")
        # Below the smallest normal number 1 / variance overflows.
        if not (variances >= np.finfo(np.float32).tiny).all():
            raise self.error(f"{name}.variances are not all positive")
        found = Mixture(weights, means, variances)
        with np.errstate(over="ignore"):
            usable = np.isfinite(found.terms).all()
        if not usable:
            raise self.error(f"{name}.means are out of all proportion to {name}.variances")
        return found


def read_sealed(path: str | Path, what: str, key: str) -> tuple[StoredTensors, dict[str, str]]:
    """The tensors of a file that this room wrote, and its metadata, in which ``key`` says what the file is.

    Args:
        what: the file should be, for messages.

    Raises:
        CodebookError: it is missing, damaged, or of another kind.
    """
    try:
        tensors, metadata = read_tensors(path)
    except TensorFileError as error:
        advice = "" if error.problem == "unreadable" else f". Make it again ({REPAIR})"
        raise CodebookError(f"{error}, so it cannot be used as {what}{advice}") from None
    if key not in metadata:
        raise CodebookError(f"{path}: is not {what}")
    return StoredTensors(path, tensors), metadata


def identity(metadata: Mapping[str, str]) -> str:
    """A hash of all that a sealed file holds, for fingerprints of what is made with it."""
    return metadata[CONTENT]
