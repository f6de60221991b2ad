"""Whole arrays of a clip file by their place in it, past HDF5 and its global lock, and how they are compressed."""

import os
import threading
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import zstandard

from han_core.clipfile.trailer import REMAKE, SPARSE, ClipFileError, Codec, StoredArray, Trailer

LEVEL = 3
"""Of zstd; higher ones gain a few percent at a third of the speed (docs/results.md)."""

_thread = threading.local()


def read_parts(path: str | Path, trailer: Trailer, names: tuple[str, ...]) -> list[np.ndarray]:
    """Arrays of a file that lie in one piece each, read without HDF5.

    Raises:
        ClipFileError: the file cannot be read, lacks an array, or is damaged.
    """
    missing = [name for name in names if name not in trailer.arrays or trailer.arrays[name].codec == SPARSE]
    if missing:
        have = ", ".join(trailer.arrays) or "none"
        raise ClipFileError(f"{path}: clip {trailer.clip} holds no {', '.join(missing)}; its arrays: {have}")
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise ClipFileError(f"{path}: cannot be opened ({error.strerror})") from None
    try:
        return read_arrays(file, [trailer.arrays[name] for name in names], own_decompressor())
    except ClipFileError as error:
        raise ClipFileError(f"{path}: clip {trailer.clip}: {error}") from None
    except OSError as error:
        raise ClipFileError(f"{path}: clip {trailer.clip}: cannot be read ({error.strerror})") from None
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
    return [decoded(os.pread(file, array.size, array.offset), array, decompressor) for array in arrays]


def own_decompressor() -> zstandard.ZstdDecompressor:
    """That of this thread."""
    if not hasattr(_thread, "decompressor"):
        _thread.decompressor = zstandard.ZstdDecompressor()
    return _thread.decompressor


def decoded(stored: bytes, array: StoredArray, decompressor: zstandard.ZstdDecompressor) -> np.ndarray:
    """The array of which ``stored`` are the bytes in its file.

    Raises:
        ClipFileError: they are not.
    """
    dtype, expected = np.dtype(array.dtype), array.memory
    if len(stored) != array.size:
        raise ClipFileError(f"it ends too early. {REMAKE}")
    if not expected:
        return np.empty(array.shape, dtype)
    if array.codec == "none":
        if zlib.crc32(stored) != array.crc32:
            raise ClipFileError(f"an array does not have the checksum it was written with. {REMAKE}")
        return np.frombuffer(stored, dtype).reshape(array.shape)
    try:
        # The frame says how much it expands to, and memory is taken for that before anything is read.
        if zstandard.frame_content_size(stored) != expected:
            raise ClipFileError(f"what is stored does not expand to {expected} bytes. {REMAKE}")
        raw = decompressor.decompress(stored, max_output_size=expected)  # compares the frame's checksum
    except zstandard.ZstdError as error:
        raise ClipFileError(f"what is stored cannot be decompressed ({error}). {REMAKE}") from None
    if array.codec != "shuffle-zstd":
        return np.frombuffer(raw, dtype).reshape(array.shape)
    planes = np.frombuffer(raw, np.uint8).reshape(dtype.itemsize, -1)
    values = np.empty(planes.shape[::-1], np.uint8)
    for number, plane in enumerate(planes):
        values[:, number] = plane
    return values.view(dtype).reshape(array.shape)


def compressed(values: np.ndarray, codec: Codec) -> bytes:
    """What is stored of an array, as HDF5's filters would have it: one zstd frame, but with a checksum in it.

    Args:
        values: contiguous, not empty.
        codec: ``zstd`` or ``shuffle-zstd``.
    """
    raw = values.reshape(-1).view(np.uint8)
    if codec == "shuffle-zstd":
        raw = np.ascontiguousarray(raw.reshape(-1, values.dtype.itemsize).T)
    if not hasattr(_thread, "compressor"):
        _thread.compressor = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True, write_content_size=True)
    return _thread.compressor.compress(raw.data)
