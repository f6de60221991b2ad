"""The seal of a safetensors file: two entries of its metadata, by which a flipped bit anywhere in it is found.

``sha256`` covers all tensors and all other metadata, whatever the order in which the file holds them, so it is also an
identity of the content. ``metadata_sha256`` covers the metadata with ``sha256`` among it, so that a reader who wants
nothing but the metadata can trust it without reading the tensors.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

CONTENT, METADATA = "sha256", "metadata_sha256"
SEAL = (CONTENT, METADATA)
"""Keys of the metadata that make up the seal."""

DTYPES = {
    "float64": "F64",
    "int64": "I64",
    "uint64": "U64",
    "float32": "F32",
    "int32": "I32",
    "uint32": "U32",
    "float16": "F16",
    "bfloat16": "BF16",
    "int16": "I16",
    "uint16": "U16",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
}
"""Types that a sealed file may hold, as torch and numpy name them -> their names in the format."""

Some = TypeVar("Some", "Tensor", np.ndarray)


def type_name(tensor: "Tensor | np.ndarray") -> str | None:
    """The format's name for the type of a tensor's numbers; None for one that a sealed file may not hold."""
    return DTYPES.get(str(tensor.dtype).removeprefix("torch."))


def in_order(tensors: Mapping[str, Some]) -> list[tuple[str, Some]]:
    """Tensors in the order of the file: wide types first, which aligns all of them, then by name."""
    return sorted(tensors.items(), key=lambda item: (-item[1].itemsize, item[0]))


def bytes_of(tensor: "Tensor | np.ndarray") -> np.ndarray:
    """The bytes (n,) uint8 of a tensor, copied only where it is not contiguous or not in main memory."""
    if isinstance(tensor, np.ndarray):
        return np.ascontiguousarray(tensor).reshape(-1).view(np.uint8)
    import torch

    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()


class ContentDigest:
    """SHA-256 of tensors, which come one after the other in the order of :func:`in_order`, and of metadata."""

    def __init__(self, metadata: Mapping[str, str]) -> None:
        self._sha256 = hashlib.sha256(_text(sorted((k, v) for k, v in metadata.items() if k not in SEAL)))

    def add(self, name: str, tensor: "Tensor | np.ndarray", data: np.ndarray) -> None:
        """Take in a tensor whose bytes are ``data``."""
        self._sha256.update(_text([name, type_name(tensor), list(tensor.shape)]))
        self._sha256.update(data)

    def hexdigest(self) -> str:
        """What belongs under ``sha256``."""
        return self._sha256.hexdigest()


def metadata_digest(metadata: Mapping[str, str]) -> str:
    """What belongs under ``metadata_sha256``."""
    return hashlib.sha256(_text(sorted((k, v) for k, v in metadata.items() if k != METADATA))).hexdigest()


def _text(value: Iterable[object]) -> bytes:
    return json.dumps(value).encode() + b"\n"
