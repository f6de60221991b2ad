"""The net of one stream, opened and checked once for whoever runs it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from han_core.nets.net_file import read_net
from han_core.nets.preprocess import Convention
from han_core.nets.sealed_net import WeightsError, net_identity
from han_core.nets.vgg16 import VGG16
from han_core.nets.weights import resolve_convention


@dataclass(frozen=True)
class StreamNet:
    """The net of a stream and what its input is."""

    path: Path
    net: VGG16
    identity: str
    """Hash of all that its file holds (:func:`han_core.nets.sealed_net.net_identity`)."""
    input: Convention
    stack: int
    """0 for the spatial stream."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """What the file says of itself."""


def open_net(
    path: Path, stream: str, *, stack: int, convention: Literal["caffe", "torchvision", "auto"] = "auto"
) -> StreamNet:
    """Read the net of a stream, and check that it is one.

    Args:
        stack: L, flow fields in one input; ignored for the spatial stream.
        convention: scale of the input; ``auto`` takes it from the file.

    Raises:
        WeightsError: the file is missing or damaged, or the net is not one for this stream and stack.
    """
    if not path.exists():
        raise WeightsError(f"{path}: is missing; make it with stage finetune")
    net, metadata = read_net(path)
    stack = stack if stream == "temporal" else 0
    channels = 2 * stack or 3
    if net.in_channels != channels:
        raise WeightsError(
            f"{path}: the net takes {net.in_channels} channels, but the {stream} stream has {channels}"
            + (f" (stack: {stack})" if stack else "")
        )
    learnt_stream = metadata.get("stream", stream)
    if learnt_stream != stream:
        raise WeightsError(f"{path}: is a net of the {learnt_stream} stream")
    return StreamNet(
        path, net, net_identity(path, metadata), resolve_convention(str(path), convention), stack, metadata
    )
