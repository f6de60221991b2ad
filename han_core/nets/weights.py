"""Weights that the two nets start from.

A file of weights has torchvision's VGG-16 keys. Nets written here say in the file's metadata what they are
(:mod:`han_core.nets.sealed_net`); of files from elsewhere at least the input convention must be known: named
in the metadata under ``input``, or by the text under ``layout`` of the published VGG weights, or by the caller.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from han_core.nets.net_file import FC6, FC7, FC8, empty_net, with_tensors
from han_core.nets.preprocess import Convention
from han_core.nets.sealed_net import WeightsError, file_digest, knows, read_metadata, read_tensors
from han_core.nets.vgg16 import VGG16

IMAGENET_URL = "https://download.pytorch.org/models/vgg16-397923af.pth"

_LAYOUTS: dict[str, Convention] = {
    "RGB input, 0..255 minus mean (123.68,116.779,103.939); no scaling": "caffe",
}


def weights_identity(weights: str) -> str:
    """What an initial net's weights are, as a string that changes when they do: part of the net's fingerprint."""
    if weights == "random":
        return "random: He, NumPy PCG64"
    if weights == "imagenet":
        return f"torchvision: {IMAGENET_URL.rsplit('/', 1)[-1]}"
    return "sha256: " + file_digest(weights)


def resolve_convention(weights: str, choice: Literal["caffe", "torchvision", "auto"] = "auto") -> Convention:
    """The input convention of the named weights.

    ``auto`` takes torchvision's for ``imagenet`` and for ``random`` (whose activations stay as small as their
    input), and reads a file's metadata.

    Raises:
        WeightsError: the file does not say, or names another convention than ``choice``.
    """
    if choice != "auto" and choice not in get_args(Convention):
        raise WeightsError(f"input must be {', '.join(get_args(Convention))} or auto, not {choice!r}")
    if weights == "random":
        return "torchvision" if choice == "auto" else choice
    stated = "torchvision" if weights == "imagenet" else _stated_convention(read_metadata(Path(weights)))
    if stated and choice not in ("auto", stated):
        raise WeightsError(f"{weights}: these weights expect input in the {stated} convention, but input is {choice}")
    if stated:
        return stated
    if choice == "auto":
        raise WeightsError(
            f"{weights}: its metadata does not say which scale of input the weights were trained with; set `input` to "
            "caffe (RGB 0..255 minus 123.68, 116.779, 103.939) or to torchvision (0..1, minus mean, over deviation)"
        )
    return choice


def initial_net(
    weights: str,
    *,
    classes: int,
    fc_size: int,
    in_channels: int = 3,
    dropout: tuple[float, float] = (0.5, 0.5),
    seed: int = 1,
) -> VGG16:
    """A net as it is before fine-tuning.

    Args:
        weights: ``imagenet`` (torchvision's IMAGENET1K_V1, downloaded once), ``random`` (He), or the path of a
            safetensors file, which may hold the convolutional layers only.
        in_channels: 3, or 2L for the temporal net. Weights of an RGB net start a temporal one: its first layer is
            averaged over the three channels and repeated, and every other layer is carried over, fc6 and fc7 too.
        seed: draws the layers that the weights do not hold: fc6 and fc7 where the file ends before them, and fc8
            unless the number of classes is the same.

    Raises:
        WeightsError: the weights cannot be had, or are not those of a VGG-16 of this size.

    Example:
        >>> net = initial_net("random", classes=8, fc_size=16)
        >>> activations = net.extract(torch.zeros(1, 3, 224, 224), ["conv5_3", "fc7"])
        >>> {layer: tuple(values.shape) for layer, values in activations.items()}
        {'conv5_3': (1, 512, 14, 14), 'fc7': (1, 16)}
    """
    net = empty_net(classes=classes, in_channels=in_channels, fc_size=fc_size, dropout=dropout)
    shapes = {name: tuple(value.shape) for name, value in net.state_dict().items()}
    given: dict[str, Tensor] = {}
    if weights != "random":
        given = _download() if weights == "imagenet" else read_tensors(Path(weights))
        given = _fit(weights, given, shapes, fc_size)
    random_layers = {
        name: _draw(name, shape, seed, alone=not given) for name, shape in shapes.items() if name not in given
    }
    return with_tensors(net, random_layers | given)


def knows_classes(weights: str, classes: Sequence[str]) -> bool:
    """Whether the last layer of an initial net tells these classes apart: only if a file says that it learnt them."""
    if weights in ("random", "imagenet"):
        return False
    return knows(read_metadata(Path(weights)), classes)


def _draw(name: str, shape: tuple[int, ...], seed: int, *, alone: bool) -> Tensor:
    """Draw one tensor; biases are 0, fc8 is small so that all classes start equal.

    Where nothing is given (``alone``) He's rule (fan in, ReLU) keeps the size of the activations from layer to layer.
    Layers on top of given ones have deviation 0.01, as VGG's authors and torchvision draw them: ImageNet's conv5_3 is
    large, and with He's rule the scores start so far apart that the first steps can put out units for good.

    NumPy draws, because its stream is the same on every machine; each tensor has its own, so that one layer's shape
    does not change another layer's values.
    """
    if name.endswith(".bias"):
        return torch.zeros(shape)
    random = np.random.default_rng([seed, *name.encode()])
    he = alone and not name.startswith(FC8)
    deviation = math.sqrt(2 / math.prod(shape[1:])) if he else 0.01
    return torch.from_numpy(random.standard_normal(shape, dtype=np.float32)).mul_(deviation)


def _fit(
    weights: str, given: Mapping[str, Tensor], wanted: Mapping[str, tuple[int, ...]], fc_size: int
) -> dict[str, Tensor]:
    """The given tensors as far as they go into a net of the wanted shapes."""
    missing = [name for name in wanted if name.startswith("features.") and name not in given]
    if missing:
        raise WeightsError(f"{weights}: lacks {missing[0]}; all convolutional layers of VGG-16 are needed")
    if unknown := sorted(given.keys() - wanted.keys()):
        raise WeightsError(f"{weights}: has {unknown[0]}, unknown to VGG-16; torchvision's key names are expected")
    for layer in (FC6, FC7):
        held = given.get(f"{layer}.weight")
        if held is not None and held.ndim == 2 and len(held) != fc_size:
            raise WeightsError(f"{weights}: fc6 and fc7 have {len(held)} units; set fc_size to that, not to {fc_size}")
    fitted = {name: tensor.float() for name, tensor in given.items()}
    first = "features.0.weight"
    if fitted[first].ndim == 4 and fitted[first].shape[1] == 3:
        fitted[first] = across_modality(fitted[first], wanted[first][1])
    if f"{FC8}.weight" in fitted and tuple(fitted[f"{FC8}.weight"].shape) != wanted[f"{FC8}.weight"]:
        fitted = {name: tensor for name, tensor in fitted.items() if not name.startswith(FC8)}
    for name, tensor in fitted.items():
        if tuple(tensor.shape) != wanted[name]:
            raise WeightsError(
                f"{weights}: {name} is {tuple(tensor.shape)}, but this net needs {wanted[name]}"
                + ("; the weights are those of a net with another `stack`" if name == first else "")
            )
    return fitted


def across_modality(conv1: Tensor, in_channels: int) -> Tensor:
    """First layer of an RGB net (64, 3, 3, 3) for another number of channels: averaged over RGB and repeated."""
    if in_channels == 3:
        return conv1
    return conv1.mean(dim=1, keepdim=True).repeat(1, in_channels, 1, 1)


def _download() -> dict[str, Tensor]:
    from torchvision.models import VGG16_Weights

    try:
        # torchvision publishes a .pth; its hash is checked and only tensors are unpickled.
        return VGG16_Weights.IMAGENET1K_V1.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: the hash is wrong
        raise WeightsError(
            f"the ImageNet weights cannot be downloaded ({error}). Without network access, copy {IMAGENET_URL} into "
            f"{torch.hub.get_dir()}/checkpoints/, or set `weights` to a safetensors file or to random"
        ) from None


def _stated_convention(metadata: Mapping[str, str]) -> Convention | None:
    stated = metadata.get("input", _LAYOUTS.get(metadata.get("layout", "")))
    return stated if stated in get_args(Convention) else None
