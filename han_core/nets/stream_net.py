"""The net of one stream, opened and checked once for whoever runs it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from han_core.nets.net_file import read_net
from han_core.nets.preprocess import Convention, Scale
from han_core.nets.sealed_net import WeightsError, net_identity, read_metadata
from han_core.nets.torchvision_file import architecture_of, read_torchvision_net
from han_core.nets.torchvision_net import TorchvisionNet
from han_core.nets.vgg16 import MAPS, VGG16
from han_core.nets.weights import resolve_convention

_VGG16 = "vgg16"
"""Also of a file that does not say which net it holds."""


@dataclass(frozen=True)
class StatedNet:
    """What the file of a stream's net says of itself."""

    path: Path
    identity: str
    """Hash of all that the file holds (:func:`han_core.nets.sealed_net.net_identity`)."""
    input: Convention
    """``torchvision`` for a net other than VGG-16, whose file says more (:attr:`StreamNet.scale`)."""
    stack: int
    """0 for the spatial stream."""
    metadata: Mapping[str, str]


@dataclass(frozen=True)
class StreamNet(StatedNet):
    """The net of a stream and what its input is."""

    net: VGG16 | TorchvisionNet
    scale: Convention | Scale
    """What its input is made by: the convention, or of a net other than VGG-16 what its file says."""


@dataclass(frozen=True)
class NetSource:
    """Where the net of a stream is and what it must be: enough to open it in another process. As the arguments of
    :func:`open_net`."""

    path: Path
    stream: str
    stack: int
    camera: str = "none"
    convention: Literal["caffe", "torchvision", "auto"] = "auto"
    architecture: str | None = _VGG16
    layer: str | None = None

    def absolute(self) -> "NetSource":
        """The same for a process that is in another folder."""
        return replace(self, path=self.path.absolute())

    def look(self) -> StatedNet:
        """What the net's file says, verified by itself. The net is not read: whoever finds all that it would make
        in the cache needs none of it.

        Raises:
            WeightsError: the file is missing, or says that it is not the net that it must be.
        """
        metadata, stated = _metadata(self.path, self.architecture)
        return _checked(self.path, metadata, stated, self.stream, self.stack, self.camera, self.convention)

    def open(self, identity: str | None = None) -> StreamNet:
        """The net, in main memory.

        Args:
            identity: the net's, if it is to be the one that was looked at before.

        Raises:
            WeightsError: as :func:`open_net`, or the file holds another net by now.
        """
        net = open_net(
            self.path,
            self.stream,
            stack=self.stack,
            camera=self.camera,
            convention=self.convention,
            architecture=self.architecture,
            layer=self.layer,
        )
        if identity not in (None, net.identity):
            raise WeightsError(f"{self.path}: was replaced by another net meanwhile; run the stage again")
        return net


def open_net(
    path: Path,
    stream: str,
    *,
    stack: int,
    camera: str = "none",
    convention: Literal["caffe", "torchvision", "auto"] = "auto",
    architecture: str | None = _VGG16,
    layer: str | None = None,
) -> StreamNet:
    """Read the net of a stream, and check that it is one.

    Args:
        stack: L, flow fields in one input; ignored for the spatial stream.
        camera: what is taken out of its flow as the camera's motion; ignored for the spatial stream, and for a net that
            was not trained.
        convention: scale of the input; ``auto`` takes it from the file, and so does a net other than VGG-16.
        architecture: which net it must be, as ``cubes.net`` of the params; None takes any.
        layer: the one whose map is wanted; None wants none.

    Raises:
        WeightsError: the file is missing or damaged, the net is not one for this stream, stack and flow, is another
            than wanted, or gives no such map.
    """
    _, stated = _metadata(path, architecture)
    scale: Scale | None = None
    if stated == _VGG16:
        net, metadata = read_net(path)
        if layer not in (None, *MAPS):
            raise WeightsError(f"{path}: VGG-16 has no layer {layer!r} that gives maps; those are {', '.join(MAPS)}")
    else:
        net, scale, metadata = read_torchvision_net(path)
        _require_map(path, net, layer)
    channels = 2 * stack if stream == "temporal" else 3
    if net.in_channels != channels:
        raise WeightsError(
            f"{path}: the net takes {net.in_channels} channels, but the {stream} stream has {channels}"
            + (f" (stack: {stack})" if stream == "temporal" else "")
        )
    said = _checked(path, metadata, stated, stream, stack, camera, convention)
    return StreamNet(**vars(said), net=net, scale=scale or said.input)


def _metadata(path: Path, architecture: str | None) -> tuple[dict[str, str], str]:
    """What a net's file says of itself, and which net that is, if it is the one that is wanted."""
    if not path.exists():
        raise WeightsError(f"{path}: is missing; make it with stage finetune")
    metadata = read_metadata(path)
    stated = architecture_of(metadata) or _VGG16
    if architecture not in (None, stated):
        advice = f"set cubes.net to {stated}, or run stage finetune again"
        raise WeightsError(f"{path}: is a {stated}, but {architecture} is wanted; {advice}")
    return metadata, stated


def _checked(
    path: Path, metadata: Mapping[str, str], architecture: str, stream: str, stack: int, camera: str, convention: str
) -> StatedNet:
    """The net by its metadata, if these are of a net of this stream and flow."""
    learnt_stream = metadata.get("stream", stream)
    if learnt_stream != stream:
        raise WeightsError(f"{path}: is a net of the {learnt_stream} stream")
    learnt_camera = metadata.get("camera", "none")
    if stream == "temporal" and _iterations(metadata) and learnt_camera != camera:
        raise WeightsError(f"{path}: the net was trained on flow with camera: {learnt_camera}, not {camera}")
    if architecture == _VGG16:
        named = resolve_convention(str(path), convention)
    elif convention in ("auto", "torchvision"):
        named = "torchvision"
    else:
        raise WeightsError(
            f"{path}: is a {architecture}, whose file says what its input is; `input` must be auto or torchvision, "
            f"not {convention}"
        )
    return StatedNet(path, net_identity(path, metadata), named, stack if stream == "temporal" else 0, metadata)


def _require_map(path: Path, net: TorchvisionNet, layer: str | None) -> None:
    """Raise WeightsError where a net other than VGG-16 gives no map of this layer."""
    if layer is None:
        return
    try:
        net.require_map(layer)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from None


def _iterations(metadata: Mapping[str, str]) -> int:
    """For how long stage finetune trained the net; 0 where the file does not say."""
    try:
        recipe = json.loads(metadata.get("recipe", "{}"))
    except (ValueError, RecursionError):
        return 0
    iterations = recipe.get("iterations") if isinstance(recipe, dict) else None
    return iterations if isinstance(iterations, int) else 0
