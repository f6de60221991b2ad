"""The seal of a safetensors file: two entries of its metadata, by which a flipped bit anywhere in it is found.

``sha256`` covers all tensors and all other metadata, whatever the order in which the file holds them, so it is also an
identity of the content. ``metadata_sha256`` covers the metadata with ``sha256`` among it, so that a reader who wants
nothing but the metadata can trust it without reading the tensors.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import Tensor

CONTENT, METADATA = "sha256", "metadata_sha256"
SEAL = (CONTENT, METADATA)
"""Keys of the metadata that make up the seal."""

DTYPES = {
    torch.float64: "F64",
    torch.int64: "I64",
    torch.uint64: "U64",
    torch.float32: "F32",
    torch.int32: "I32",
    torch.uint32: "U32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int16: "I16",
    torch.uint16: "U16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""Types that a sealed file may hold -> their names in the format."""


def in_order(tensors: Mapping[str, Tensor]) -> list[tuple[str, Tensor]]:
    """Tensors in the order of the file: wide types first, which aligns all of them, then by name."""
    return sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0]))


def bytes_of(tensor: Tensor) -> np.ndarray:
    """The bytes (n,) uint8 of a tensor, copied only where it is not contiguous or not in main memory."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()


class ContentDigest:
    """SHA-256 of tensors, which come one after the other in the order of :func:`in_order`, and of metadata."""

    def __init__(self, metadata: Mapping[str, str]) -> None:
        self._sha256 = hashlib.sha256(_text(sorted((k, v) for k, v in metadata.items() if k not in SEAL)))

    def add(self, name: str, tensor: Tensor, data: np.ndarray) -> None:
        """Take in a tensor whose bytes are ``data``."""
        self._sha256.update(_text([name, DTYPES[tensor.dtype], list(tensor.shape)]))
        self._sha256.update(data)

    def hexdigest(self) -> str:
        """What belongs under ``sha256``."""
        return self._sha256.hexdigest()


def metadata_digest(metadata: Mapping[str, str]) -> str:
    """What belongs under ``metadata_sha256``."""
    return hashlib.sha256(_text(sorted((k, v) for k, v in metadata.items() if k != METADATA))).hexdigest()


def _text(value: Iterable[object]) -> bytes:
    return json.dumps(value).encode() + b"\n"
