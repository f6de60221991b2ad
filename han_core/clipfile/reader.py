"""Reading a clip file with h5py, one dataset or one image at a time."""

import hashlib
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import cv2
import h5py
import numpy as np

from han_core.clipfile.checksums import raw_bytes, sha256_of_dataset
from han_core.clipfile.decoding import decode_image
from han_core.clipfile.trailer import (
    DTYPES,
    REMAKE,
    RESERVED,
    ClipFileError,
    read_trailer,
)

_LARGEST = 1 << 32  # bytes of an array that is read whole
_EXPANDING = 1 << 16  # no zstd frame expands further


@dataclass(frozen=True)
class ImageTable:
    """Where the encoded images of one dataset lie in it."""

    offsets: np.ndarray
    """(n + 1,) int64: image i is bytes offsets[i] to offsets[i + 1] of the dataset."""
    crc32: np.ndarray
    """(n,) uint32, of each encoded image."""

    def __len__(self) -> int:
        return len(self.crc32)

    def is_sound(self, number: int, encoded: bytes | memoryview) -> bool:
        """Whether these are the bytes that were written as this image."""
        return zlib.crc32(encoded) == self.crc32[number]


class ClipFile:
    """Reads one clip file; a context manager.

    The file is opened at the first use, without file locking, so that an object can be made in one process and
    used in another (it can be pickled) and so that a published store on a shared or read-only disk can be read.

    Raises:
        ClipFileError: from any method, if the file is missing, unfinished, damaged or lacks what is asked for.
            What is read is compared with its checksum.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._file: h5py.File | None = None
        self._tables: dict[str, ImageTable] = {}

    def __getstate__(self) -> dict:
        return {"path": self.path, "_file": None, "_tables": {}}

    @property
    def schema(self) -> int:
        return self._attribute("schema")

    @property
    def kind(self) -> str:
        return self._attribute("kind")

    @property
    def clip(self) -> str:
        return self._attribute("clip")

    @property
    def fingerprint(self) -> str:
        return self._attribute("fingerprint")

    @property
    def tools(self) -> dict[str, str]:
        """Versions of the tools that wrote the file."""
        return json.loads(self._attribute("tools"))

    @property
    def attributes(self) -> dict[str, str | int | float | np.ndarray]:
        """The attributes given to the writer, as Python values."""
        with self._plain_errors():
            names = [name for name in self._h5().attrs if name not in RESERVED]
        return {name: self._attribute(name) for name in names}

    def names(self) -> list[str]:
        """Names of the datasets; those in a group with its name before them, ``a/b``."""
        found: list[str] = []

        def collect(name: str, item: h5py.Dataset | h5py.Group) -> None:
            if isinstance(item, h5py.Dataset):
                found.append(name)

        with self._plain_errors():
            self._h5().visititems(collect)
        return sorted(found)

    def array(self, name: str) -> np.ndarray:
        """Read a whole dataset."""
        with self._plain_errors():
            dataset = self._dataset(name)
            self._check_size(name, dataset)
            values = dataset[()]
            if hashlib.sha256(raw_bytes(values)).hexdigest() != _checksum(dataset):
                raise ClipFileError(f"{self.path}: {name} does not have the checksum it was written with. {REMAKE}")
        return values

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a dataset, without reading it."""
        with self._plain_errors():
            return self._dataset(name).shape

    def checksums(self, name: str) -> tuple[str, str]:
        """SHA-256 of a dataset's raw content: as it was written, and as it is now."""
        with self._plain_errors():
            dataset = self._dataset(name)
            self._check_size(name, dataset)
            return _checksum(dataset), sha256_of_dataset(dataset)

    def image_count(self, name: str) -> int:
        """Number of images appended under ``name``."""
        return len(self.images(name))

    def images(self, name: str) -> ImageTable:
        """Where the images appended under ``name`` lie in their dataset."""
        if name not in self._tables:
            offsets, crc32 = self.array(f"{name}_offsets"), self.array(f"{name}_crc32")
            types = (offsets.dtype, crc32.dtype, offsets.ndim, crc32.ndim) == (np.int64, np.uint32, 1, 1)
            fits = types and len(offsets) == len(crc32) + 1 and (np.diff(offsets) > 0).all()
            if not fits or offsets[0] != 0 or (int(offsets[-1]),) != self.shape(name):
                raise ClipFileError(f"{self.path}: the offsets of {name} do not fit its images. {REMAKE}")
            self._tables[name] = ImageTable(offsets, crc32)
        return self._tables[name]

    def blocks(self, name: str) -> tuple[int, np.ndarray]:
        """Bytes of a block of the images under ``name``, and (m,) int64 where in the file each block begins."""
        with self._plain_errors():
            dataset = self._dataset(name)
            if dataset.ndim != 1 or not dataset.chunks or dataset.id.get_create_plist().get_nfilters():
                raise ClipFileError(f"{self.path}: the images of {name} are not stored in plain blocks. {REMAKE}")
            (size,) = dataset.chunks
            infos = [dataset.id.get_chunk_info(i) for i in range(dataset.id.get_num_chunks())]
        places = {info.chunk_offset[0] // size: info.byte_offset for info in infos}
        if sorted(places) != list(range(-(-dataset.shape[0] // size))):
            raise ClipFileError(f"{self.path}: {name} lacks a block. {REMAKE}")
        return size, np.array([places[i] for i in range(len(places))], np.int64)

    def image_bytes(self, name: str, i: int) -> bytes:
        """Encoded bytes of image i (from 0)."""
        table = self.images(name)
        if not 0 <= i < len(table):
            raise IndexError(f"{self.path}: {name} has images 0 to {len(table) - 1}, not {i}")
        with self._plain_errors():
            encoded = self._dataset(name)[int(table.offsets[i]) : int(table.offsets[i + 1])].tobytes()
        if not table.is_sound(i, encoded):
            raise ClipFileError(f"{self.path}: image {i} of {name} does not have its checksum. {REMAKE}")
        return encoded

    def image(self, name: str, i: int) -> np.ndarray:
        """Image i decoded: (H, W, 3) uint8 RGB for colour images, (H, W) uint8 for grey ones."""
        encoded = self.image_bytes(name, i)
        try:
            decoded = decode_image(encoded, cv2.IMREAD_UNCHANGED)
        except ClipFileError as error:
            raise ClipFileError(f"{self.path}: image {i} of {name} {error}. {REMAKE}") from None
        return cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB) if decoded.ndim == 3 else decoded

    def close(self) -> None:
        """Close the file; it opens again at the next use."""
        self._tables = {}
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _h5(self) -> h5py.File:
        if self._file is None:
            read_trailer(self.path)
            self._file = h5py.File(self.path, "r", locking=False)
        return self._file

    def _dataset(self, name: str) -> h5py.Dataset:
        dataset = self._h5().get(name)
        if not isinstance(dataset, h5py.Dataset):
            raise ClipFileError(
                f"{self.path}: holds no {name}; it is a {self.kind} file with {', '.join(self.names())}"
            )
        return dataset

    def _attribute(self, name: str) -> str | int | float | np.ndarray:
        with self._plain_errors():
            attributes = self._h5().attrs
            if name not in attributes:
                raise ClipFileError(f"{self.path}: has no attribute {name}. {REMAKE}")
            value = attributes[name]
        if isinstance(value, bytes):
            try:
                return value.decode("utf-8")
            except UnicodeDecodeError:
                raise ClipFileError(f"{self.path}: attribute {name} is not text. {REMAKE}") from None
        return value.item() if isinstance(value, np.generic) else value

    def _check_size(self, name: str, dataset: h5py.Dataset) -> None:
        """Before memory is taken: is there so much on disk?"""
        stored = dataset.id.get_storage_size()
        if dataset.dtype.str not in DTYPES or not dataset.shape:
            raise ClipFileError(f"{self.path}: {name} is of type {dataset.dtype} {dataset.shape}. {REMAKE}")
        most = stored * (_EXPANDING if dataset.id.get_create_plist().get_nfilters() else 1)
        if dataset.nbytes > min(most, _LARGEST):
            raise ClipFileError(f"{self.path}: {name} claims {dataset.nbytes} bytes, {stored} are stored. {REMAKE}")

    @contextmanager
    def _plain_errors(self) -> Iterator[None]:
        """Turn what h5py raises for a damaged file into one plain sentence."""
        try:
            yield
        except ClipFileError:
            raise
        except (OSError, RuntimeError, KeyError, ValueError, TypeError, MemoryError) as error:
            raise ClipFileError(f"{self.path}: cannot be read as HDF5. {REMAKE}") from error


def _checksum(dataset: h5py.Dataset) -> str:
    """SHA-256 that a dataset was written with; "" where it says none."""
    value = dataset.attrs.get("sha256", b"")
    return value.decode("ascii", "replace") if isinstance(value, bytes) else ""
