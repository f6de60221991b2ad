"""A Slow Fusion net as a safetensors file: a tensor for each layer's weight and bias, and in the metadata what it is.

What such files have in common with those of other nets is in :mod:`han_core.nets.sealed_net`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from han_core.nets.sealed_net import WeightsError, net_identity, read_metadata, read_weights
from han_core.nets.slow_fusion.inputs import SquareViews
from han_core.nets.slow_fusion.net import SIDE, SlowFusion
from han_core.tensorfile import file as tensorfile

ARCHITECTURE = "slow fusion"
"""In the metadata under ``architecture``."""

_LARGEST = {"classes": 1_000_000, "units": 1 << 20}
_LARGEST_RESIZE = 16_384
_AGAIN = "make it with stage finetune-slow-fusion"


@dataclass(frozen=True)
class StatedSlowFusion:
    """What a file says of itself."""

    views: SquareViews
    """What the net was trained on, and is tested on."""
    identity: str
    """Hash of all that the file holds."""
    metadata: Mapping[str, str]


@dataclass(frozen=True)
class TrainedSlowFusion(StatedSlowFusion):
    """What a file holds."""

    net: SlowFusion


def empty_net(**sizes: Any) -> SlowFusion:
    """A net whose tensors have a shape and no values: fc6 alone would take a second to fill in vain."""
    with torch.device("meta"):
        return SlowFusion(**sizes)


def with_tensors(net: SlowFusion, tensors: Mapping[str, Tensor]) -> SlowFusion:
    """The net with these tensors in place of its own."""
    net.load_state_dict(tensors, assign=True)
    return net


def write_net(path: str | Path, net: SlowFusion, views: SquareViews, metadata: Mapping[str, str]) -> None:
    """Write a net as sealed safetensors; the same net, views and metadata give the same bytes."""
    seen = {"architecture": ARCHITECTURE, "resize": str(views.resize), "flip": "true" if views.flip else "false"}
    tensorfile.write_tensors(path, net.state_dict(), {**metadata, **seen})


def look_at_net(path: str | Path) -> StatedSlowFusion:
    """What a file says of itself, verified by itself: the net is not read.

    Raises:
        WeightsError: the file is missing, or does not say that it holds a Slow Fusion net of this project.
    """
    return _stated(path, read_metadata(path))


def read_net(path: str | Path) -> TrainedSlowFusion:
    """Read a whole net, its size taken from the tensors.

    Raises:
        WeightsError: the file is missing, damaged, or holds no whole Slow Fusion net of this project.
    """
    tensors, metadata = read_weights(path)
    stated = _stated(path, metadata)
    net = empty_net(**_sizes(path, tensors))
    check_tensors(path, tensors, {name: tuple(value.shape) for name, value in net.state_dict().items()})
    net = with_tensors(net, {name: tensor.float() for name, tensor in tensors.items()})
    return TrainedSlowFusion(**vars(stated), net=net)


def check_tensors(
    path: str | Path, tensors: Mapping[str, Tensor], wanted: Mapping[str, tuple[int, ...]], *, whole: bool = True
) -> None:
    """Compare names and shapes with those of a net.

    Args:
        wanted: name -> shape.
        whole: none may be missing.

    Raises:
        WeightsError: one is missing, unknown, or of another shape.
    """
    missing = [name for name in wanted if name not in tensors] if whole else []
    if missing:
        raise WeightsError(f"{path}: is not a complete {ARCHITECTURE} net: lacks {missing[0]}; {_AGAIN}")
    if unknown := sorted(tensors.keys() - wanted.keys()):
        raise WeightsError(
            f"{path}: has {unknown[0]!a}, unknown to a {ARCHITECTURE} net, whose tensors are conv1.weight, "
            "conv1.bias .. conv5, fc6, fc7, fc8.bias"
        )
    for name, tensor in tensors.items():
        if tuple(tensor.shape) != wanted[name]:
            raise WeightsError(
                f"{path}: {name} is {tuple(tensor.shape)}, but a {ARCHITECTURE} net of its size has {wanted[name]}"
            )


def _sizes(path: str | Path, tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """What a net must be made with to hold these tensors."""
    fc8 = tensors.get("fc8.weight")
    if fc8 is None or fc8.ndim != 2:
        raise WeightsError(f"{path}: has no fc8.weight of two dimensions, so it is not a {ARCHITECTURE} net; {_AGAIN}")
    for name, size in zip(_LARGEST, fc8.shape, strict=True):
        if not 1 <= size <= _LARGEST[name]:
            raise WeightsError(f"{path}: {size} {name}: it cannot be used as a net; {_AGAIN}")
    return {"classes": fc8.shape[0], "fc_size": fc8.shape[1]}


def _stated(path: str | Path, metadata: Mapping[str, str]) -> StatedSlowFusion:
    if metadata.get("architecture") != ARCHITECTURE:
        raise WeightsError(f"{path}: its metadata does not say that it is a {ARCHITECTURE} net; {_AGAIN}")
    return StatedSlowFusion(_views(path, metadata), net_identity(path, metadata), metadata)


def _views(path: str | Path, metadata: Mapping[str, str]) -> SquareViews:
    resize, flip = metadata.get("resize", ""), metadata.get("flip", "")
    sound = resize.isascii() and resize.isdecimal() and len(resize) <= 5 and flip in ("true", "false")
    if not sound or not SIDE <= int(resize) <= _LARGEST_RESIZE:
        raise WeightsError(f"{path}: its metadata does not say how frames are resized and mirrored for it; {_AGAIN}")
    return SquareViews(int(resize), flip == "true")
