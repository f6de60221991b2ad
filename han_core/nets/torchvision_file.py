"""A net of torchvision as a safetensors file: torchvision's key names, and in the metadata which net and which input.

Entries of the metadata, beside those of every net (:mod:`han_core.nets.sealed_net`):

``architecture``
    ``torchvision <name of the model>``.
``mean``, ``std``
    Of the three channels of RGB values 0..1, as JSON lists.
``size``
    Side of the input image in pixels.

No other kind of file is read: a pickled one, and a TorchScript one, can run code when it is opened.
"""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from han_core.nets.preprocess import SIZE, Scale
from han_core.nets.sealed_net import WeightsError, read_weights
from han_core.nets.torchvision_net import TorchvisionNet, drawn_net
from han_core.nets.weights import across_modality
from han_core.tensorfile import file as tensorfile

VGG16 = "vgg16"
"""The net that has a file format of its own (:mod:`han_core.nets.net_file`)."""

_TITLE = "torchvision "
_SIZES = range(32, 1025)
_MOST_CLASSES, _MOST_CHANNELS = 1_000_000, 4096
_UNUSED = {"googlenet": ("aux1.", "aux2."), "inception_v3": ("AuxLogits.",)}
"""Starts of the keys of branches that exist for training."""
_ZERO_TO_ONE = Scale((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")


def architecture_of(metadata: Mapping[str, str]) -> str | None:
    """The name of the net that a file says it holds; None where it does not say."""
    stated = metadata.get("architecture", "")
    return stated.removeprefix(_TITLE) if stated.startswith(_TITLE) else None


def default_scale(architecture: str) -> Scale:
    """The input of a net whose file says nothing of it: torchvision's for ImageNet, at 224 pixels. The two Inception
    nets of torchvision take values of -1 to 1."""
    return _ZERO_TO_ONE if architecture in _UNUSED else Scale()


def stated_scale(path: str | Path, metadata: Mapping[str, str], default: Scale) -> Scale:
    """The input that a file names in its metadata; each of ``mean``, ``std``, ``size`` that is not there by default.

    Raises:
        WeightsError: an entry is not what it should be.
    """
    mean = _numbers(path, metadata, "mean", default.mean)
    std = _numbers(path, metadata, "std", default.std)
    if not all(0 <= value <= 1 for value in mean):
        raise WeightsError(f"{path}: `mean` in its metadata must be of values 0..1, not {list(mean)}")
    if not all(0 < value <= 1 for value in std):
        raise WeightsError(f"{path}: `std` in its metadata must be of values 0..1 and more than 0, not {list(std)}")
    size = metadata.get("size", str(default.size))
    if not (size.isascii() and size.isdecimal() and len(size) < 5 and int(size) in _SIZES):
        raise WeightsError(
            f"{path}: `size` in its metadata must be a number of pixels from {_SIZES[0]} to {_SIZES[-1]}, "
            f"not {size[:40]!r}"
        )
    return Scale(mean, std, int(size))


def scale_metadata(architecture: str, scale: Scale) -> dict[str, str]:
    """The entries that say which net it is and what its input is."""
    return {
        "architecture": _TITLE + architecture,
        "mean": json.dumps(list(scale.mean)),
        "std": json.dumps(list(scale.std)),
        "size": str(scale.size),
    }


def write_torchvision_net(path: str | Path, net: TorchvisionNet, metadata: Mapping[str, str]) -> None:
    """Write a net as sealed safetensors; the same net and metadata give the same bytes.

    Args:
        metadata: with :func:`scale_metadata`.
    """
    tensorfile.write_tensors(path, net.model.state_dict(), metadata)


def read_torchvision_net(path: str | Path) -> tuple[TorchvisionNet, Scale, dict[str, str]]:
    """Read a net that :func:`write_torchvision_net` wrote; also its input and the file's metadata.

    Raises:
        WeightsError: the file is missing, damaged, or not the net that it says it is.
    """
    tensors, metadata = read_weights(path, integers=True)
    architecture = architecture_of(metadata)
    if architecture is None:
        raise WeightsError(f"{path}: does not say which net it holds; make it with stage finetune, as its `weights`")
    scale = stated_scale(path, metadata, default_scale(architecture))
    return fitted_net(path, architecture, tensors, size=scale.size, whole=True), scale, metadata


def fitted_net(
    source: str | Path,
    architecture: str,
    tensors: Mapping[str, Tensor],
    *,
    size: int = SIZE,
    in_channels: int | None = None,
    seed: int = 0,
    whole: bool = False,
) -> TorchvisionNet:
    """A net that holds copies of these tensors, in float32.

    Args:
        source: where they come from, for messages.
        tensors: by torchvision's names. The last linear layer may have any number of outputs.
        in_channels: the first convolution of an RGB net is averaged over the three channels and repeated where this is
            not 3; None takes as many as the tensors have.
        seed: draws the last linear layer where it is not among the tensors.
        whole: it must be.

    Raises:
        WeightsError: they are not those of this net.
    """
    try:
        net = drawn_net(architecture, seed=seed, size=size)
    except WeightsError as error:
        raise WeightsError(f"{source}: {error}") from None
    unused = _UNUSED.get(architecture, ())
    given = {_named(architecture, name): tensor.float() for name, tensor in tensors.items()}
    given = {name: tensor for name, tensor in given.items() if not name.startswith(unused)}
    shapes = {name: tuple(value.shape) for name, value in net.model.state_dict().items() if value.is_floating_point()}
    head = {name for name in shapes if name.startswith(f"{net.last}.")}
    if missing := sorted(shapes.keys() - given.keys() - (set() if whole else head)):
        raise WeightsError(f"{source}: lacks {missing[0]}, which {architecture} has")
    if unknown := sorted(given.keys() - shapes.keys()):
        raise WeightsError(f"{source}: has {unknown[0]}, unknown to torchvision's {architecture}")
    first, last = f"{net.first}.weight", f"{net.last}.weight"
    if in_channels and given[first].ndim == 4 and given[first].shape[1] == 3:
        given[first] = across_modality(given[first], in_channels)
    channels = in_channels or _size(given[first], 4, 1, _MOST_CHANNELS) or 3
    classes = _size(given[last], 2, 0, _MOST_CLASSES) if last in given else None
    shapes[first] = (shapes[first][0], channels, *shapes[first][2:])
    shapes |= {name: (classes, *shapes[name][1:]) for name in head if classes}
    for name, tensor in given.items():
        if tuple(tensor.shape) != shapes[name]:
            raise WeightsError(
                f"{source}: {name} is {tuple(tensor.shape)}, but {architecture} needs {shapes[name]}"
                + ("; the weights are those of a net with another `stack`" if name == first else "")
            )
    net.change(in_channels=channels, classes=classes)
    own = net.model.state_dict()  # whole numbers in it, and a head that is not given, stay as they are
    for name, tensor in given.items():
        own[name].copy_(tensor)
    return net


def _size(weights: Tensor, rank: int, axis: int, most: int) -> int | None:
    """Size of one axis; None where weights of such a shape cannot be."""
    return weights.shape[axis] if weights.ndim == rank and 1 <= weights.shape[axis] <= most else None


def _named(architecture: str, name: str) -> str:
    """Today's name of a tensor: ImageNet's DenseNets are published under older ones."""
    return _OLD_DENSENET.sub(r"\1\2", name) if architecture.startswith("densenet") else name


def _numbers(
    path: str | Path, metadata: Mapping[str, str], key: str, default: tuple[float, float, float]
) -> tuple[float, float, float]:
    if key not in metadata:
        return default
    try:
        values = json.loads(metadata[key])
    except (ValueError, RecursionError):
        values = None
    numbers = isinstance(values, list) and all(type(value) in (int, float) for value in values)
    if not numbers or len(values) != 3 or not all(map(math.isfinite, values)):
        raise WeightsError(
            f"{path}: `{key}` in its metadata must be a JSON list of three numbers, e.g. {json.dumps(default)}, "
            f"not {metadata[key][:80]!r}"
        )
    red, green, blue = map(float, values)
    return red, green, blue
