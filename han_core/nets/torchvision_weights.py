"""Weights that a net of torchvision is made with: torchvision's own, random ones, or those of a file."""

from collections.abc import Mapping
from pathlib import Path

import torch
import torchvision
from torch import Tensor
from torchvision.models import WeightsEnum, get_model_weights

from han_core.nets.preprocess import Scale
from han_core.nets.sealed_net import WeightsError, file_digest, read_metadata, read_weights
from han_core.nets.torchvision_file import architecture_of, default_scale, fitted_net, stated_scale
from han_core.nets.torchvision_net import TorchvisionNet, drawn_net, require_architecture


def torchvision_identity(architecture: str, weights: str) -> str:
    """What the weights are, as a string that changes when they do: part of the net's fingerprint.

    Raises:
        WeightsError: there is no such net, or the file cannot be read.
    """
    require_architecture(architecture)
    if weights == "random":
        return f"random: torchvision {torchvision.__version__}"
    if weights == "imagenet":
        return f"torchvision: {_published(architecture).url.rsplit('/', 1)[-1]}"
    return "sha256: " + file_digest(weights)


def torchvision_scale(architecture: str, weights: str) -> Scale:
    """The input that the weights were trained with.

    ``imagenet``: what torchvision says of them, its centre crop's side being the size; a file: what its metadata say,
    as far as they do; else torchvision's for ImageNet at 224 pixels.

    Raises:
        WeightsError: there is no such net, or the file cannot be read, or says of itself that it is of another net, or
            what cannot be.
    """
    require_architecture(architecture)
    default = default_scale(architecture)
    if weights == "random":
        return default
    if weights == "imagenet":
        preset = _published(architecture).transforms()
        if architecture in ("googlenet", "inception_v3"):  # torchvision's nets rescale such input themselves
            return Scale(default.mean, default.std, preset.crop_size[0])
        return Scale(tuple(preset.mean), tuple(preset.std), preset.crop_size[0])
    metadata = read_metadata(Path(weights))
    if (stated := architecture_of(metadata)) not in (None, architecture):
        raise WeightsError(f"{weights}: says that it is a {stated}, not a {architecture}")
    return stated_scale(weights, metadata, default)


def torchvision_net(
    architecture: str, weights: str, *, size: int, in_channels: int = 3, seed: int = 1
) -> TorchvisionNet:
    """A net with the named weights.

    Args:
        weights: ``imagenet`` (torchvision's default weights, downloaded once), ``random``, or the path of a safetensors
            file with torchvision's key names, with or without the last linear layer.
        size: side of its input in pixels.
        in_channels: 3, or 2L for the temporal net. The first convolution of given RGB weights is averaged over the
            three channels and repeated; a random one is drawn.
        seed: draws what the weights do not hold.

    Raises:
        WeightsError: the weights cannot be had, or are not those of this net.
    """
    if weights == "random":
        return drawn_net(architecture, seed=seed, size=size, in_channels=in_channels)
    tensors = _download(architecture) if weights == "imagenet" else read_weights(Path(weights), integers=True)[0]
    return fitted_net(weights, architecture, tensors, size=size, in_channels=in_channels, seed=seed)


def _published(architecture: str) -> WeightsEnum:
    return get_model_weights(architecture).DEFAULT


def _download(architecture: str) -> Mapping[str, Tensor]:
    published = _published(architecture)
    try:
        # torchvision publishes a .pth; its hash is checked and only tensors are unpickled.
        state = published.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: the hash is wrong
        raise WeightsError(
            f"the ImageNet weights of {architecture} cannot be downloaded ({error}). Without network access, copy "
            f"{published.url} into {torch.hub.get_dir()}/checkpoints/, or set `weights` to a safetensors file or to "
            "random"
        ) from None
    return {name: tensor for name, tensor in state.items() if tensor.dtype != torch.int64}
