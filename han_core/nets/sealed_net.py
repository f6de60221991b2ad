"""Nets, and weights, as sealed safetensors files: what does not depend on the architecture.

Nets written here are sealed (:mod:`han_core.tensorfile.seal`): a damaged one is refused. Weights from elsewhere, which
have no seal, are read as long as they do not claim to be one of ours.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from han_core.errors import REPAIR, HanError
from han_core.tensorfile import file as tensorfile
from han_core.tensorfile.file import TensorFileError
from han_core.tensorfile.seal import CONTENT

OURS = frozenset({"classifier", "fingerprint", "recipe", "stack", "stream"})
"""Keys of the metadata that nobody but stage finetune writes: a file with one of them must have a seal."""

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

_ADVICE = "if stage finetune made it, remove it and run the stage again; else get the file again"


class WeightsError(HanError, ValueError):
    """Weights that cannot be had or do not fit; the message says which and what to do."""


def net_identity(path: str | Path, metadata: Mapping[str, str]) -> str:
    """A hash of all that a net's file holds: the one in its seal, or of the file's bytes for a net from elsewhere.

    Args:
        metadata: of the file, as read here.
    """
    return metadata[CONTENT] if CONTENT in metadata else file_digest(path)


def file_digest(path: str | Path) -> str:
    """SHA-256 of a file of weights as it is, whether it has a seal or not.

    Raises:
        WeightsError: it cannot be read.
    """
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(unreadable(path, error.strerror)) from None


def knows(metadata: Mapping[str, str], classes: Sequence[str]) -> bool:
    """Whether a file says that its last layer was trained to tell these classes apart.

    Args:
        metadata: of the file, as read here.
    """
    learnt = metadata.get("classifier") == "trained"
    return learnt and json.loads(metadata.get("classes", "[]")) == list(classes)


def read_metadata(path: str | Path) -> dict[str, str]:
    """Metadata of a file of weights, verified by itself; empty where it has none.

    Raises:
        WeightsError: the file is missing, its metadata are damaged, or do not say what they should.
    """
    try:
        metadata = tensorfile.read_metadata(path, sealed=False)
    except TensorFileError as error:
        raise _told(path, error) from None
    _check_metadata(path, metadata)
    return metadata


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """All tensors of a file of weights, by name: finite, of a floating type.

    Raises:
        WeightsError: it is missing or damaged.
    """
    return read_weights(path)[0]


def read_weights(path: str | Path, *, integers: bool = False) -> tuple[dict[str, Tensor], dict[str, str]]:
    """As :func:`read_tensors`, with the file's metadata.

    Args:
        integers: leave out int64 tensors, which nets keep beside their weights (counts of batches, tables of places),
            in place of refusing the file.
    """
    try:
        tensors, metadata = tensorfile.read_tensors(path, sealed=False)
    except TensorFileError as error:
        raise _told(path, error) from None
    _check_metadata(path, metadata)
    if integers:
        tensors = {name: tensor for name, tensor in tensors.items() if tensor.dtype != torch.int64}
    for name, tensor in sorted(tensors.items()):
        if tensor.dtype not in _FLOATS:
            raise WeightsError(f"{path}: {name} holds {tensor.dtype}, not floating point numbers: not weights")
        # Infinities and NaN show in the extremes, which take no memory: fc6 alone is 400 MB.
        if tensor.numel() and not torch.stack(torch.aminmax(tensor)).isfinite().all():
            raise WeightsError(f"{path}: {name} holds numbers that are not finite; {_ADVICE}")
    return tensors, metadata


def unreadable(path: str | Path, reason: str | None) -> str:
    """What is said of a file of weights that cannot be read."""
    reason = reason or "no such file"
    return f"{path}: cannot be read ({reason}); `weights` is imagenet, random or the path of a safetensors file"


def _told(path: str | Path, error: TensorFileError) -> WeightsError:
    if error.problem == "seal":
        return WeightsError(f"{error}. Run stage finetune again ({REPAIR})")
    if error.problem == "unreadable":
        reason = str(error).removeprefix(f"{path}: ").removeprefix("cannot be read (").removesuffix(")")
        return WeightsError(unreadable(path, reason))
    return WeightsError(f"{error}; {_ADVICE}")


def _check_metadata(path: str | Path, metadata: Mapping[str, str]) -> None:
    """Raise WeightsError where a net of ours has no seal, or its list of classes is none."""
    if CONTENT not in metadata and (own := sorted(OURS & metadata.keys())):
        raise WeightsError(
            f"{path}: says {own[0]}, as nets of stage finetune do, but carries no checksum: it is damaged, or of an "
            f"earlier version. Run stage finetune again ({REPAIR})"
        )
    if "classes" in metadata:
        try:
            classes = json.loads(metadata["classes"])
        except (ValueError, RecursionError):
            classes = None
        if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
            raise WeightsError(f"{path}: `classes` in its metadata is not a list of names; run stage finetune again")
