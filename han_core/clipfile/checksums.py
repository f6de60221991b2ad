"""SHA-256 of files and of arrays, as clip files carry them."""

import hashlib
from pathlib import Path

import h5py
import numpy as np


def sha256_of_file(path: Path, size: int) -> str:
    """Of the first ``size`` bytes of a file, hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while size > 0:
            block = file.read(min(size, 1 << 20))
            if not block:
                break
            digest.update(block)
            size -= len(block)
    return digest.hexdigest()


def sha256_of_dataset(dataset: h5py.Dataset) -> str:
    """Of the raw content in C order, read in pieces along the first axis so that memory stays bounded."""
    digest = hashlib.sha256()
    if dataset.size:
        row_bytes = dataset.dtype.itemsize * (dataset.size // dataset.shape[0])
        step = max(1, (1 << 22) // row_bytes)
        if dataset.chunks:
            step = -(-step // dataset.chunks[0]) * dataset.chunks[0]
        for start in range(0, dataset.shape[0], step):
            digest.update(raw_bytes(np.ascontiguousarray(dataset[start : start + step])))
    return digest.hexdigest()


def raw_bytes(values: np.ndarray) -> memoryview:
    """The bytes of a contiguous array in C order, not copied."""
    return memoryview(values.reshape(-1).view(np.uint8)) if values.size else memoryview(b"")
