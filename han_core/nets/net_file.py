"""A VGG-16 as a safetensors file, with torchvision's keys, and in the metadata what it is.

What such files have in common is in :mod:`han_core.nets.sealed_net`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from han_core.nets.sealed_net import WeightsError, read_weights
from han_core.nets.vgg16 import VGG16
from han_core.tensorfile import file as tensorfile

FC6, FC7, FC8 = "classifier.0", "classifier.3", "classifier.6"
"""Modules of the fully connected layers, whose keys start so."""

_LARGEST = {"classes": 1_000_000, "channels": 4096, "units": 1 << 20}


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
    tensors, metadata = read_weights(path)
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


def _sizes(path: str | Path, tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """What a net must be made with to hold these tensors, whose ranks and sizes are sane."""
    fc8, fc7, conv1 = (tensors[f"{name}.weight"] for name in (FC8, FC7, "features.0"))
    for name, tensor, rank in ((FC8, fc8, 2), (FC7, fc7, 2), ("features.0", conv1, 4)):
        if tensor.ndim != rank:
            raise WeightsError(f"{path}: {name}.weight has {tensor.ndim} dimensions, but in a VGG-16 it has {rank}")
    sizes = {"classes": fc8.shape[0], "units": fc8.shape[1], "channels": conv1.shape[1]}
    for name, size in sizes.items():
        if not 1 <= size <= _LARGEST[name]:
            raise WeightsError(f"{path}: {size} {name}: it cannot be used as a VGG-16; make one with stage finetune")
    return {"classes": sizes["classes"], "fc_size": sizes["units"], "in_channels": sizes["channels"]}
