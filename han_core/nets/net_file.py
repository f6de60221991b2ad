"""Nets as safetensors files, with torchvision's VGG-16 keys, and in the metadata what they are."""

import hashlib
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from han_core.errors import HanError
from han_core.nets.vgg16 import VGG16

FC6, FC7, FC8 = "classifier.0", "classifier.3", "classifier.6"
"""Modules of the fully connected layers, whose keys start so."""


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
    """Write a net as safetensors; the same net and metadata give the same bytes."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in sorted(net.state_dict().items())}
    data = save(tensors, metadata=dict(metadata))
    # safetensors writes the metadata in the order of a hash map that is seeded afresh in each process; the header is a
    # length and a JSON text padded with spaces to 8 bytes, so it can be written again with its keys sorted.
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with Path(path).open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.write(memoryview(data)[8 + length :])


def read_net(path: str | Path) -> tuple[VGG16, dict[str, str]]:
    """Read a whole net, its size taken from the tensors; also the file's metadata.

    Raises:
        WeightsError: the file is missing, damaged, or holds no whole VGG-16.
    """
    tensors = read_tensors(Path(path))
    needed = {"features.0.weight", f"{FC7}.weight", f"{FC8}.weight"}
    if missing := sorted(needed - tensors.keys()):
        raise WeightsError(f"{path}: lacks {missing[0]}, so it is not a whole VGG-16; make one with stage finetune")
    classes, fc_size = tensors[f"{FC8}.weight"].shape
    channels = tensors["features.0.weight"].shape[1]
    try:
        net = with_tensors(empty_net(classes=classes, fc_size=fc_size, in_channels=channels), tensors)
    except RuntimeError as error:
        detail = str(error).splitlines()[-1].strip()
        raise WeightsError(f"{path}: is not a VGG-16 with torchvision's key names: {detail}") from None
    return net, read_metadata(Path(path))


def net_identity(path: str | Path, metadata: Mapping[str, str]) -> str:
    """The fingerprint that stage finetune gave a net, or a hash of the file for a net from elsewhere."""
    if "fingerprint" in metadata:
        return metadata["fingerprint"]
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_metadata(path: Path) -> dict[str, str]:
    """Metadata of a safetensors file; empty where it has none."""
    try:
        with safe_open(path, "pt") as file:
            return file.metadata() or {}
    except OSError as error:
        raise WeightsError(unreadable(path, error)) from None
    except SafetensorError as error:
        raise WeightsError(f"{path}: is not a safetensors file ({error})") from None


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, by name.

    Raises:
        WeightsError: it is missing or damaged.
    """
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except OSError as error:
        raise WeightsError(unreadable(path, error)) from None
    except SafetensorError as error:
        raise WeightsError(f"{path}: is not a safetensors file ({error})") from None


def unreadable(path: str | Path, error: OSError) -> str:
    """What is said of a file of weights that cannot be read."""
    reason = error.strerror or "no such file"
    return f"{path}: cannot be read ({reason}); `weights` is imagenet, random or the path of a safetensors file"
