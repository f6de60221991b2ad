"""Many long vectors on disk, in float16, read in blocks: a training set that does not fit in memory."""

import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np


class RowStore:
    """A file of equal vectors, appended one by one and then read by number; a context manager, which removes the file.

    Args:
        path: of the file, which is made; a scratch file, of no use to anyone else.
        length: numbers of a vector.

    Raises:
        OSError: the disk does not take it, or gives less than was written.
    """

    def __init__(self, path: str | Path, length: int) -> None:
        self.path, self.length = Path(path), length
        self._rows = 0
        self._file = self.path.open("w+b", buffering=0)

    def __len__(self) -> int:
        return self._rows

    def append(self, vector: np.ndarray) -> None:
        """Add a vector (length,), rounded to float16."""
        if vector.shape != (self.length,):
            raise ValueError(f"a vector of shape {vector.shape} among those of {self.length}")
        # Said by place: a write that was cut off before does not shift what follows.
        data = memoryview(vector.astype(np.float16).tobytes())
        place = self._rows * len(data)
        while data:
            written = os.pwrite(self._file.fileno(), data, place)
            data, place = data[written:], place + written
        self._rows += 1

    def rows(self, numbers: np.ndarray) -> np.ndarray:
        """(len(numbers), length) float32."""
        found = np.empty((len(numbers), self.length), np.float32)
        for place, number in enumerate(numbers):
            raw = os.pread(self._file.fileno(), 2 * self.length, int(number) * 2 * self.length)
            if len(raw) != 2 * self.length:
                raise OSError(f"{self.path}: row {number} cannot be read: the file is too short")
            found[place] = np.frombuffer(raw, np.float16)
        return found

    def blocks(self, numbers: np.ndarray, size: int) -> Iterator[np.ndarray]:
        """These rows, ``size`` at a time, (size, length) float32; the last block is filled up with zeros."""
        for start in range(0, len(numbers), size):
            block = self.rows(numbers[start : start + size])
            if len(block) < size:
                block = np.concatenate([block, np.zeros((size - len(block), self.length), np.float32)])
            yield block

    def close(self) -> None:
        """Close and remove the file."""
        self._file.close()
        self.path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
