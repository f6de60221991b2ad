"""Nets as safetensors files, with torchvision's VGG-16 keys, and in the metadata what they are.

Nets written here are sealed (:mod:`han_core.tensorfile.seal`): a damaged one is refused. Weights from elsewhere, which
have no seal, are read as long as they do not claim to be one of ours.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from han_core.errors import REPAIR, HanError
from han_core.nets.vgg16 import VGG16
from han_core.tensorfile import file as tensorfile
from han_core.tensorfile.file import TensorFileError
from han_core.tensorfile.seal import CONTENT

FC6, FC7, FC8 = "classifier.0", "classifier.3", "classifier.6"
"""Modules of the fully connected layers, whose keys start so."""

OURS = frozenset({"classifier", "fingerprint", "recipe", "stack", "stream"})
"""Keys of the metadata that nobody but stage finetune writes: a file with one of them must have a seal."""

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

_ADVICE = "if stage finetune made it, remove it and run the stage again; else get the file again"
_LARGEST = {"classes": 1_000_000, "channels": 4096, "units": 1 << 20}


class WeightsError(HanError, ValueError):
    """Weights that cannot be had or do not fit; the message says which and what to do."""


def empty_net(**sizes: Any) -> VGG16:
    """A net whose tensors have a shape and no values: fc6 alone would take a second to fill in vain."""
    with torch.device("meta"):
        return VGG16(**sizes)


def with_tensors(net: VGG16, tensors: Mapping[str, Tensor]) -> VGG16:
    """The net with these tensors in place of its own."""
    net.load_state_dict(tensors, assign=True)
    return net.to(memory_format=torch.channels_last)


def write_net(path: str | Path, net: VGG16, metadata: Mapping[str, str]) -> None:
    """Write a net as sealed safetensors; the same net and metadata give the same bytes."""
    tensorfile.write_tensors(path, net.state_dict(), metadata)


def read_net(path: str | Path) -> tuple[VGG16, dict[str, str]]:
    """Read a whole net, its size taken from the tensors; also the file's metadata.

    Raises:
        WeightsError: the file is missing, damaged, or holds no whole VGG-16.
    """
    tensors, metadata = _read(Path(path))
    needed = {"features.0.weight", f"{FC7}.weight", f"{FC8}.weight"}
    if missing := sorted(needed - tensors.keys()):
        raise WeightsError(f"{path}: lacks {missing[0]}, so it is not a whole VGG-16; make one with stage finetune")
    net = empty_net(**_sizes(path, tensors))
    wanted = net.state_dict()
    if differing := sorted(wanted.keys() ^ tensors.keys()):
        said = "lacks" if differing[0] in wanted else "has"
        raise WeightsError(f"{path}: is not a VGG-16 with torchvision's key names: {said} {differing[0]}")
    for name, tensor in tensors.items():
        if tensor.shape != wanted[name].shape:
            raise WeightsError(
                f"{path}: {name} is {tuple(tensor.shape)}, but a VGG-16 of its size has {tuple(wanted[name].shape)}"
            )
    return with_tensors(net, {name: tensor.float() for name, tensor in tensors.items()}), metadata


def net_identity(path: str | Path, metadata: Mapping[str, str]) -> str:
    """A hash of all that a net's file holds: the one in its seal, or of the file's bytes for a net from elsewhere.

    Args:
        metadata: of the file, as read here.
    """
    if CONTENT in metadata:
        return metadata[CONTENT]
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(unreadable(path, error.strerror)) from None


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
    return _read(Path(path))[0]


def unreadable(path: str | Path, reason: str | None) -> str:
    """What is said of a file of weights that cannot be read."""
    reason = reason or "no such file"
    return f"{path}: cannot be read ({reason}); `weights` is imagenet, random or the path of a safetensors file"


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        tensors, metadata = tensorfile.read_tensors(path, sealed=False)
    except TensorFileError as error:
        raise _told(path, error) from None
    _check_metadata(path, metadata)
    for name, tensor in sorted(tensors.items()):
        if tensor.dtype not in _FLOATS:
            raise WeightsError(f"{path}: {name} holds {tensor.dtype}, not floating point numbers; they are no weights")
        # Infinities and NaN show in the extremes, which take no memory: fc6 alone is 400 MB.
        if tensor.numel() and not torch.stack(torch.aminmax(tensor)).isfinite().all():
            raise WeightsError(f"{path}: {name} holds numbers that are not finite; {_ADVICE}")
    return tensors, metadata


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


def _sizes(path: str | Path, tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """What a net must be made with to hold these tensors, whose ranks and sizes are sane."""
    fc8, fc7, conv1 = (tensors[f"{name}.weight"] for name in (FC8, FC7, "features.0"))
    for name, tensor, rank in ((FC8, fc8, 2), (FC7, fc7, 2), ("features.0", conv1, 4)):
        if tensor.ndim != rank:
            raise WeightsError(f"{path}: {name}.weight has {tensor.ndim} dimensions, but in a VGG-16 it has {rank}")
    sizes = {"classes": fc8.shape[0], "units": fc8.shape[1], "channels": conv1.shape[1]}
    for name, size in sizes.items():
        if not 1 <= size <= _LARGEST[name]:
            raise WeightsError(f"{path}: {size} {name}: is no VGG-16 that can be used; make one with stage finetune")
    return {"classes": sizes["classes"], "fc_size": sizes["units"], "in_channels": sizes["channels"]}
