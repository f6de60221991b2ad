"""Reading whole arrays of a clip file by their place in it, past HDF5 and its global lock."""

import os
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import zstandard

from han_core.clipfile.trailer import ClipFileError, StoredArray, Trailer

_thread = threading.local()


def read_parts(path: str | Path, trailer: Trailer, names: tuple[str, ...]) -> list[np.ndarray]:
    """Arrays of a file that lie in one piece each, read without HDF5.

    Raises:
        ClipFileError: the file cannot be read, lacks an array, or is damaged.
    """
    missing = [name for name in names if name not in trailer.arrays]
    if missing:
        have = ", ".join(trailer.arrays) or "none"
        raise ClipFileError(f"{path}: clip {trailer.clip} holds no {', '.join(missing)}; its arrays: {have}")
    if not hasattr(_thread, "decompressor"):
        _thread.decompressor = zstandard.ZstdDecompressor()
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise ClipFileError(f"{path}: cannot be opened ({error.strerror})") from None
    try:
        return read_arrays(file, [trailer.arrays[name] for name in names], _thread.decompressor)
    except ClipFileError as error:
        raise ClipFileError(f"{path}: clip {trailer.clip}: {error}") from None
    finally:
        os.close(file)


def read_arrays(file: int, arrays: Sequence[StoredArray], decompressor: zstandard.ZstdDecompressor) -> list[np.ndarray]:
    """Read stored arrays of one file by their place in it.

    Unlike h5py this holds no lock, neither HDF5's nor (while it reads and decompresses) Python's.

    Args:
        file: descriptor of the open file.
        decompressor: one per thread.

    Raises:
        ClipFileError: what lies there is not the array (the file changed, or is damaged).
    """
    return [_decoded(os.pread(file, array.size, array.offset), array, decompressor) for array in arrays]


def _decoded(stored: bytes, array: StoredArray, decompressor: zstandard.ZstdDecompressor) -> np.ndarray:
    dtype = np.dtype(array.dtype)
    expected = dtype.itemsize * int(np.prod(array.shape))
    if not expected:
        return np.empty(array.shape, dtype)
    try:
        raw = stored if array.codec == "none" else decompressor.decompress(stored, max_output_size=expected)
    except zstandard.ZstdError as error:
        raise ClipFileError(f"what is stored cannot be decompressed ({error})") from None
    if len(raw) != expected:
        raise ClipFileError(f"what is stored has {len(raw)} bytes, not {expected}")
    if array.codec != "shuffle-zstd":
        return np.frombuffer(raw, dtype).reshape(array.shape)
    planes = np.frombuffer(raw, np.uint8).reshape(dtype.itemsize, -1)
    values = np.empty(planes.shape[::-1], np.uint8)
    for number, plane in enumerate(planes):
        values[:, number] = plane
    return values.view(dtype).reshape(array.shape)
