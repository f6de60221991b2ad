"""Single images out of many clip files, read while a net trains: no HDF5 in the way of a random access.

Opening an HDF5 file takes longer than decoding a small image, and h5py holds one lock over all threads meanwhile. The
images of a clip file lie in it as they were encoded, in blocks that are not compressed; so where they lie is asked of
HDF5 once a file, and from then on they are read with ``pread`` and decoded by OpenCV, both of which run in parallel.
"""

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np

from han_core.clipfile.decoding import decode_image
from han_core.clipfile.reader import ClipFile, ImageTable, NoSuchImage
from han_core.clipfile.trailer import REMAKE, ClipFileError

_AT_ONCE = 64  # images, of which each takes as much memory as its bytes until it is decoded
_FILES = 1 << 15  # whose index is kept: about 4 KiB each


@dataclass(frozen=True)
class ImageIndex:
    """Where the encoded images of one dataset lie in their file."""

    table: ImageTable
    blocks: np.ndarray
    """(m,) int64: position in the file of each block of the dataset."""
    block_bytes: int

    def __len__(self) -> int:
        return len(self.table)


class ImageReader:
    """Reads encoded images out of clip files; may be called from any number of threads.

    Args:
        files: number of files whose index is kept in memory; the oldest is dropped first.

    Raises:
        ClipFileError: from any method, where a file is missing, unfinished, damaged or lacks what is asked for.
    """

    def __init__(self, files: int = _FILES) -> None:
        self._files = files
        self._known: dict[Path, dict[str, ImageIndex]] = {}
        self._sizes: dict[Path, tuple[int, ...]] = {}  # height and width of the images of a file
        self._lock = threading.Lock()

    def count(self, path: Path, name: str) -> int:
        """Number of images of a dataset; at least one, since nothing can be drawn of none."""
        count = len(self._index(path, name))
        if not count:
            raise ClipFileError(f"{path}: {name} holds no images")
        return count

    def counts(self, path: Path, names: Sequence[str]) -> list[int]:
        """As :meth:`count`, of several datasets of a file, which HDF5 opens once for all of them."""
        self._indices(path, names)
        return [self.count(path, name) for name in names]

    def decode_some(self, path: Path, name: str, numbers: Sequence[int], *, grey: bool) -> list[np.ndarray]:
        """As :meth:`decode`, of images whose numbers rise; neighbours are read at once."""
        images: list[np.ndarray] = []
        start = 0
        for end in range(1, len(numbers) + 1):
            if end == len(numbers) or numbers[end] != numbers[end - 1] + 1 or end - start == _AT_ONCE:
                images += self.decode(path, name, numbers[start], numbers[end - 1], grey=grey)
                start = end
        return images

    def decode(self, path: Path, name: str, first: int, last: int, *, grey: bool) -> list[np.ndarray]:
        """Images ``first`` to ``last``, the latter included.

        Args:
            grey: read them as (height, width) uint8; else as (height, width, 3) uint8 BGR, OpenCV's order. All images
                of a file have one size.
        """
        flag = cv2.IMREAD_GRAYSCALE if grey else cv2.IMREAD_COLOR
        images = []
        for number, encoded in enumerate(self.encoded(path, name, first, last), start=first):
            try:
                images.append(decode_image(encoded, flag))
            except ClipFileError as error:
                raise ClipFileError(f"{path}: image {number} of {name} {error}. {REMAKE}") from None
            size, usual = images[-1].shape[:2], self._sizes.setdefault(path, images[-1].shape[:2])
            if size != usual:
                raise ClipFileError(
                    f"{path}: image {number} of {name} has another size than others: {size}, {usual}. {REMAKE}"
                )
        return images

    def encoded(self, path: Path, name: str, first: int, last: int) -> list[np.ndarray]:
        """Encoded bytes of images ``first`` to ``last``, the latter included, each uint8."""
        index = self._index(path, name)
        if not 0 <= first <= last < len(index):
            raise NoSuchImage(f"{path}: {name} has images 0 to {len(index) - 1}, not {first} to {last}")
        offsets = index.table.offsets[first : last + 2]
        data = np.frombuffer(_read(path, index, int(offsets[0]), int(offsets[-1])), np.uint8)
        starts = (offsets - offsets[0]).tolist()
        images = [data[start:end] for start, end in pairwise(starts)]
        for number, encoded in enumerate(images, start=first):
            if not index.table.is_sound(number, encoded.data):
                raise ClipFileError(f"{path}: image {number} of {name} does not have its checksum. {REMAKE}")
        return images

    def _index(self, path: Path, name: str) -> ImageIndex:
        return self._indices(path, (name,))[name]

    def _indices(self, path: Path, names: Sequence[str]) -> dict[str, ImageIndex]:
        with self._lock:
            known = self._known.get(path, {})
        if lacking := [name for name in names if name not in known]:
            known = known | read_index(path, *lacking)
            with self._lock:
                self._known[path] = {**self._known.get(path, {}), **known}
                while len(self._known) > self._files:
                    oldest = next(iter(self._known))
                    del self._known[oldest]
                    self._sizes.pop(oldest, None)
        return known


def read_index(path: Path, *names: str) -> dict[str, ImageIndex]:
    """Ask HDF5 where the images of some datasets lie.

    Raises:
        ClipFileError: the file is missing, unfinished or damaged, or keeps no images under one of these names.
    """
    found = {}
    with ClipFile(path) as file:
        for name in names:
            table = file.images(name)
            block_bytes, blocks = file.blocks(name)
            found[name] = ImageIndex(table, blocks, block_bytes)
    return found


def _read(path: Path, index: ImageIndex, start: int, end: int) -> bytes:
    """Bytes ``start`` to ``end`` of a dataset, block by block."""
    parts, size = [], index.block_bytes
    try:
        handle = os.open(path, os.O_RDONLY)
        try:
            while start < end:
                block, within = divmod(start, size)
                length = min(end - start, size - within)
                part = os.pread(handle, length, int(index.blocks[block]) + within)
                if len(part) < length:
                    raise ClipFileError(f"{path}: ends too early. {REMAKE}")
                parts.append(part)
                start += length
        finally:
            os.close(handle)
    except OSError as error:
        raise ClipFileError(f"{path}: cannot be read ({error.strerror})") from None
    return parts[0] if len(parts) == 1 else b"".join(parts)
