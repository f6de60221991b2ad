"""Reading and writing sealed safetensors files.

Any program that reads safetensors reads them; :mod:`han_core.tensorfile.seal` says what the seal is. The format is a
header's length (8 bytes, little-endian), the header (JSON, padded with spaces to 8 bytes) and the tensors' bytes.
"""

import json
import stat
import struct
from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from safetensors import SafetensorError, safe_open

from han_core.errors import HanError
from han_core.tensorfile.seal import (
    CONTENT,
    METADATA,
    SEAL,
    ContentDigest,
    bytes_of,
    in_order,
    metadata_digest,
    type_name,
)

if TYPE_CHECKING:  # importing torch takes seconds, and whoever reads arrays needs none of it
    import torch
    from torch import Tensor

LARGEST_HEADER = 16 << 20
"""Bytes. A thousand tensors and the names of a hundred thousand clips fit; a longer one is no file of this project."""


class TensorFileError(HanError, ValueError):
    """A safetensors file that cannot be read or is damaged; the message names it and says what is wrong.

    Attributes:
        problem: ``unreadable``: there is no such file, or no permission; ``format``: it is not a safetensors file, or
            one that was damaged; ``seal``: it is a damaged one for certain; ``unsealed``: it carries no seal.
    """

    def __init__(self, message: str, problem: Literal["unreadable", "format", "seal", "unsealed"]) -> None:
        super().__init__(message)
        self.problem = problem


def write_tensors(path: str | Path, tensors: Mapping[str, "Tensor | np.ndarray"], metadata: Mapping[str, str]) -> None:
    """Write a sealed file; the same content gives the same bytes. An old file of the name is unlinked first.

    Tensors are written one by one, so no more than one is copied. The seal is filled in last: a file that was cut
    short has none. Flushing and an atomic rename are the caller's matter.

    Args:
        tensors: of any type in :data:`han_core.tensorfile.seal.DTYPES`.
        metadata: entries of an older seal among it are replaced.

    Raises:
        ValueError: a tensor is of another type.

    Example:
        >>> write_tensors("some.safetensors", {"x": torch.arange(3)}, {"what": "numbers"})
        >>> tensors, metadata = read_tensors("some.safetensors")
        >>> tensors["x"].tolist(), metadata["what"]
        ([0, 1, 2], 'numbers')
    """
    path = Path(path)
    made = in_order({name: _tensor(value) for name, value in tensors.items()})
    for name, tensor in made:
        if type_name(tensor) is None:
            raise ValueError(f"{name}: {tensor.dtype} cannot be written")
    sealed = {**metadata, **dict.fromkeys(SEAL, "0" * 64)}
    digest = ContentDigest(sealed)
    path.unlink(missing_ok=True)
    with path.open("wb") as file:
        file.write(_header(made, sealed))
        for name, tensor in made:
            data = bytes_of(tensor)
            digest.add(name, tensor, data)
            file.write(data)
        sealed[CONTENT] = digest.hexdigest()
        sealed[METADATA] = metadata_digest(sealed)
        file.seek(0)
        file.write(_header(made, sealed))


def read_tensors(
    path: str | Path, device: "torch.device | str" = "cpu", *, sealed: bool = True
) -> "tuple[dict[str, Tensor], dict[str, str]]":
    """All tensors of a file by name, and its metadata, the seal among it.

    Args:
        device: where the tensors are wanted. On the CPU they may share their memory with the file's pages.
        sealed: False also takes a file without a seal, from another program. One with a seal is verified always.

    Raises:
        TensorFileError: it is missing, no safetensors file, damaged, or has no seal where one is required.
    """
    tensors, metadata = _read(Path(path), "pt", sealed)
    return {name: tensor.to(device) for name, tensor in tensors.items()}, metadata


def read_arrays(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """As :func:`read_tensors`, in numpy's arrays and without torch.

    Raises:
        TensorFileError: as :func:`read_tensors`; also where there is a bfloat16 tensor, which numpy does not have.
    """
    return _read(Path(path), "np", True)


def _read(path: Path, framework: Literal["pt", "np"], sealed: bool) -> tuple[dict[str, Any], dict[str, str]]:
    """What a file holds, in torch's or numpy's kind."""
    with _opened(path, framework) as file:
        metadata = _checked_metadata(path, file, sealed)
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    if CONTENT in metadata:
        digest = ContentDigest(metadata)
        for name, tensor in in_order(tensors):
            if type_name(tensor) is None:
                raise TensorFileError(f"{path}: is damaged (a number type that is never written)", "seal")
            digest.add(name, tensor, bytes_of(tensor))
        if digest.hexdigest() != metadata[CONTENT]:
            raise TensorFileError(f"{path}: is damaged (its checksum does not fit what it holds)", "seal")
    return tensors, metadata


def read_metadata(path: str | Path, *, sealed: bool = True) -> dict[str, str]:
    """The metadata of a file, verified by itself: of the tensors nothing is read.

    Args:
        sealed: as of :func:`read_tensors`.

    Raises:
        TensorFileError: as :func:`read_tensors`, but damage to the tensors is not noticed.
    """
    path = Path(path)
    with _opened(path, "np") as file:
        return _checked_metadata(path, file, sealed)


def _tensor(value: "Tensor | np.ndarray") -> "Tensor":
    import torch

    if isinstance(value, torch.Tensor):
        return value
    return torch.from_numpy(value if value.flags.writeable else value.copy())  # torch warns of read-only memory


def _header(tensors: "list[tuple[str, Tensor]]", metadata: Mapping[str, str]) -> bytes:
    entries: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))}
    end = 0
    for name, tensor in tensors:
        start, end = end, end + tensor.nbytes
        entries[name] = {"dtype": type_name(tensor), "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


@contextmanager
def _opened(path: Path, framework: Literal["pt", "np"]) -> Any:
    """The file in safetensors' own reader, which checks offsets, overlaps and sizes; its errors are told in ours."""
    try:
        _check_length(path)
        with safe_open(path, framework) as file:
            yield file
    except OSError as error:
        raise TensorFileError(f"{path}: cannot be read ({error.strerror or 'no such file'})", "unreadable") from None
    except HanError:
        raise
    # Beside its own error the library lets through Python's and torch's for headers that make no sense.
    except (SafetensorError, RuntimeError, ValueError, TypeError, KeyError, OverflowError) as error:
        detail = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise TensorFileError(f"{path}: is not a safetensors file, or is damaged ({detail})", "format") from None


def _check_length(path: Path) -> None:
    """Refuse a header of absurd length before anything of it is read."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise TensorFileError(f"{path}: is not a file", "unreadable")
    with path.open("rb") as file:
        start = file.read(8)
    length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
    if not 2 <= length <= min(status.st_size - 8, LARGEST_HEADER):
        raise TensorFileError(
            f"{path}: is not a safetensors file, or is damaged (a header of {length:,} bytes in a file of "
            f"{status.st_size:,})",
            "format",
        )


def _checked_metadata(path: Path, file: Any, sealed: bool) -> dict[str, str]:
    metadata = file.metadata() or {}
    # One entry of the seal is enough to know that there were two: a flipped letter in the key of one of them must not
    # make the file pass for one that never had any.
    if not any(key in metadata for key in SEAL):
        if sealed:
            raise TensorFileError(f"{path}: carries no checksum: it is damaged, or of an earlier version", "unsealed")
        return metadata
    if CONTENT not in metadata or metadata.get(METADATA) != metadata_digest(metadata):
        raise TensorFileError(f"{path}: is damaged (its metadata does not fit its checksum)", "seal")
    return metadata
