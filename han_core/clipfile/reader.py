"""Reading a clip file with h5py, one dataset or one image at a time."""

import hashlib
import json
import math
import os
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar

import cv2
import h5py
import numpy as np

from han_core.clipfile.arrays import decoded, own_decompressor
from han_core.clipfile.checksums import raw_bytes, sha256_of_dataset
from han_core.clipfile.decoding import decode_image
from han_core.clipfile.layout import pieces
from han_core.clipfile.trailer import (
    DTYPES,
    REMAKE,
    RESERVED,
    ClipFileError,
    Codec,
    StoredArray,
    checked_array,
    is_plain,
    read_trailer,
)

_LONGEST_ATTRIBUTE = 1 << 20  # bytes
_NAMED = 20  # datasets, in a message
_SMALLEST_PIECE = 1 << 12  # bytes of a file for each piece of a dataset in it; those of images are larger
_CODECS: dict[tuple[int, ...], Codec] = {(): "none", (32015,): "zstd", (h5py.h5z.FILTER_SHUFFLE, 32015): "shuffle-zstd"}
"""By HDF5's numbers of the filters. No others are run, nor those of HDF5, which believe what a file says of itself."""


_T = TypeVar("_T", str, int)


_FOREIGN = (ArithmeticError, AttributeError, LookupError, MemoryError, OSError, RuntimeError, TypeError, ValueError)
"""What h5py and NumPy raise for a damaged file."""


class NoSuchImage(ClipFileError, IndexError):
    """A clip file holds no image of this number."""


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
        self._forget()

    def _forget(self) -> None:
        self._size = 0  # bytes of the HDF5 part
        self._datasets: dict[str, h5py.Dataset] = {}
        self._tables: dict[str, ImageTable] = {}
        self._image_shape: tuple[int, ...] | None = None

    def __getstate__(self) -> dict:
        return {"path": self.path}

    def __setstate__(self, state: dict) -> None:
        self.__init__(state["path"])

    @property
    def schema(self) -> int:
        return self._typed("schema", int)

    @property
    def kind(self) -> str:
        return self._typed("kind", str)

    @property
    def clip(self) -> str:
        return self._typed("clip", str)

    @property
    def fingerprint(self) -> str:
        return self._typed("fingerprint", str)

    @property
    def tools(self) -> dict[str, str]:
        """Versions of the tools that wrote the file."""
        text = self._typed("tools", str)
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict) or not all(isinstance(v, str) and is_plain(k + v) for k, v in found.items()):
            raise ClipFileError(f"{self.path}: attribute tools does not hold names and versions. {REMAKE}")
        return found

    @property
    def attributes(self) -> dict[str, str | int | float | np.ndarray]:
        """The attributes given to the writer, as Python values."""
        with self._plain_errors():
            names = [name for name in self._h5().attrs if name not in RESERVED]
        if not _are_plain(names):
            raise ClipFileError(f"{self.path}: the name of an attribute holds a control character. {REMAKE}")
        return {name: self._attribute(name) for name in names}

    def names(self) -> list[str]:
        """Names of the datasets; those in a group with its name before them, ``a/b``. Links are not followed."""
        found: list[str] = []

        def collect(name: str, item: h5py.Dataset | h5py.Group) -> None:
            if isinstance(item, h5py.Dataset):
                found.append(name)

        with self._plain_errors():
            self._h5().visititems(collect)
        if not _are_plain(found):
            raise ClipFileError(f"{self.path}: the name of a dataset holds a control character. {REMAKE}")
        return sorted(found)

    def array(self, name: str) -> np.ndarray:
        """Read a whole dataset."""
        with self._plain_errors():
            dataset = self._dataset(name)
            self._check_size(name, dataset)
            values = self._in_one_piece(name, dataset) if _filters(dataset) else dataset[()]
            if hashlib.sha256(raw_bytes(values)).hexdigest() != self._checksum(dataset):
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
            if _filters(dataset):
                found = hashlib.sha256(raw_bytes(self._in_one_piece(name, dataset))).hexdigest()
            else:
                found = sha256_of_dataset(dataset)
            return self._checksum(dataset), found

    def stored(self, name: str) -> StoredArray:
        """Where HDF5 has a dataset, and how it is stored: what the trailer should say of it, too."""
        with self._plain_errors():
            dataset = self._dataset(name)
            self._check_size(name, dataset)
            if codec := _CODECS[_filters(dataset)] if _filters(dataset) else "":
                piece = dataset.id.get_chunk_info(0)
                return StoredArray(dataset.dtype.str, dataset.shape, codec, piece.byte_offset, piece.size)
            place, crc32 = dataset.id.get_offset() or 0, zlib.crc32(raw_bytes(dataset[()]))
            return StoredArray(dataset.dtype.str, dataset.shape, "none", place, dataset.id.get_storage_size(), crc32)

    def image_count(self, name: str) -> int:
        """Number of images appended under ``name``."""
        return len(self.images(name))

    def images(self, name: str) -> ImageTable:
        """Where the images appended under ``name`` lie in their dataset, which is of bytes."""
        if name not in self._tables:
            offsets, crc32 = self.array(f"{name}_offsets"), self.array(f"{name}_crc32")
            types = (offsets.dtype, crc32.dtype, offsets.ndim, crc32.ndim) == (np.int64, np.uint32, 1, 1)
            # Compared, for differences of numbers this large may wrap around.
            fits = types and len(offsets) == len(crc32) + 1 and (offsets[1:] > offsets[:-1]).all()
            with self._plain_errors():
                dataset = self._dataset(name)
                shape, of_bytes = dataset.shape, dataset.dtype == np.uint8
            if not fits or not of_bytes or offsets[0] != 0 or (int(offsets[-1]),) != shape or shape[0] > self._size:
                raise ClipFileError(f"{self.path}: the offsets of {name} do not fit its images. {REMAKE}")
            self._tables[name] = ImageTable(offsets, crc32)
        return self._tables[name]

    def blocks(self, name: str) -> tuple[int, np.ndarray]:
        """Bytes of a block of the images under ``name``, and (m,) int64 where in the file each block begins."""
        total = int(self.images(name).offsets[-1])
        with self._plain_errors():
            dataset = self._dataset(name)
            if not dataset.chunks or _filters(dataset):
                raise ClipFileError(f"{self.path}: the images of {name} are not stored in plain blocks. {REMAKE}")
            (size,) = dataset.chunks
            found: list[h5py.h5d.StoreInfo] = []
            if dataset.id.get_num_chunks():
                dataset.id.chunk_iter(found.append)
            last = self._size - size
            places = {i.chunk_offset[0] // size: i.byte_offset for i in found if 0 <= (i.byte_offset or -1) <= last}
        count = -(-total // size)
        if len(places) != count or len(found) != count or (count and max(places) != count - 1):
            raise ClipFileError(f"{self.path}: {name} lacks a block. {REMAKE}")
        return size, np.array([places[i] for i in range(count)], np.int64)

    def image_bytes(self, name: str, i: int) -> bytes:
        """Encoded bytes of image i (from 0)."""
        table = self.images(name)
        if not 0 <= i < len(table):
            raise NoSuchImage(f"{self.path}: {name} has images 0 to {len(table) - 1}, not {i}")
        with self._plain_errors():
            encoded = self._dataset(name)[int(table.offsets[i]) : int(table.offsets[i + 1])].tobytes()
        if not table.is_sound(i, encoded):
            raise ClipFileError(f"{self.path}: image {i} of {name} does not have its checksum. {REMAKE}")
        return encoded

    def image(self, name: str, i: int) -> np.ndarray:
        """Image i decoded: (H, W, 3) uint8 RGB for colour images, (H, W) uint8 for grey ones; all of a file have one
        shape."""
        encoded = self.image_bytes(name, i)
        try:
            image = decode_image(encoded, cv2.IMREAD_UNCHANGED)
        except ClipFileError as error:
            raise ClipFileError(f"{self.path}: image {i} of {name} {error}. {REMAKE}") from None
        self._image_shape = self._image_shape or image.shape
        if image.shape != self._image_shape:
            raise ClipFileError(
                f"{self.path}: image {i} of {name} has another size than others: {image.shape}, {self._image_shape}. "
                f"{REMAKE}"
            )
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB) if image.ndim == 3 else image

    def close(self) -> None:
        """Close the file; it opens again at the next use."""
        self._forget()
        if self._file is not None:
            file, self._file = self._file, None
            with self._plain_errors():
                file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _h5(self) -> h5py.File:
        if self._file is None:
            self._size = read_trailer(self.path).size
            self._file = h5py.File(self.path, "r", locking=False)
        return self._file

    def _dataset(self, name: str) -> h5py.Dataset:
        """A dataset whose content lies in this file, and in no other to which a link or a layout would lead."""
        if name in self._datasets:
            return self._datasets[name]
        file = self._h5()
        parts = name.split("/")
        for end in range(1, len(parts) + 1):
            link = file.get("/".join(parts[:end]), getlink=True)
            if link is not None and not isinstance(link, h5py.HardLink):
                raise ClipFileError(f"{self.path}: {name} is a link to something else. {REMAKE}")
        dataset = file.get(name)
        if not isinstance(dataset, h5py.Dataset):
            have = ", ".join(self.names()[:_NAMED]) or "none"
            raise ClipFileError(f"{self.path}: holds no {name}; it is a {self.kind} file with {have}")
        creation = dataset.id.get_create_plist()
        if creation.get_layout() == h5py.h5d.VIRTUAL or creation.get_external_count():
            raise ClipFileError(f"{self.path}: what {name} holds lies in another file. {REMAKE}")
        if _filters(dataset) not in _CODECS:
            raise ClipFileError(f"{self.path}: {name} is not compressed as clip files are. {REMAKE}")
        if creation.get_layout() == h5py.h5d.CHUNKED:
            self._check_index(name, dataset)
        self._datasets[name] = dataset
        return dataset

    def _check_index(self, name: str, dataset: h5py.Dataset) -> None:
        """Before HDF5 goes through the pieces: can there be so many?"""
        handle = os.open(self.path, os.O_RDONLY)
        try:
            count = pieces(handle, h5py.h5o.get_info(dataset.id).addr)
        finally:
            os.close(handle)
        if count is None or count > self._size // _SMALLEST_PIECE + 1:
            raise ClipFileError(f"{self.path}: {name} is not stored in the pieces of a clip file. {REMAKE}")

    def _typed(self, name: str, kind: type[_T]) -> _T:
        value = self._attribute(name)
        if not isinstance(value, kind):
            raise ClipFileError(f"{self.path}: attribute {name} is of another type than {kind.__name__}. {REMAKE}")
        return value

    def _attribute(self, name: str) -> str | int | float | np.ndarray:
        with self._plain_errors():
            value = self._stored_attribute(self._h5(), name)
        if value is None:
            raise ClipFileError(f"{self.path}: has no attribute {name}. {REMAKE}")
        if not isinstance(value, bytes):
            return value.item() if isinstance(value, np.generic) else value
        try:
            text = value.decode("utf-8")
        except UnicodeDecodeError:
            text = None
        if text is None or not is_plain(text):
            raise ClipFileError(f"{self.path}: attribute {name} is not text. {REMAKE}")
        return text

    def _stored_attribute(self, owner: h5py.Group | h5py.Dataset, name: str) -> bytes | np.generic | np.ndarray | None:
        """Numbers or one text of fixed length; None if there is none. Others are not read: their values may lie
        anywhere in the file, each any number of times, or be references."""
        raw_name = name.encode("utf-8")
        if not h5py.h5a.exists(owner.id, raw_name):
            return None
        stored = h5py.h5a.open(owner.id, raw_name)
        dtype, shape = stored.dtype, stored.shape
        readable = dtype.kind in "iufb" or (dtype.kind == "S" and shape == ())
        if shape is None or not readable or math.prod(shape) * dtype.itemsize > _LONGEST_ATTRIBUTE:
            raise ClipFileError(f"{self.path}: attribute {name} is neither numbers nor a short text. {REMAKE}")
        values = np.zeros(shape, dtype)
        stored.read(values, mtype=h5py.h5t.py_create(dtype))
        return values if shape else values[()]

    def _checksum(self, dataset: h5py.Dataset) -> str:
        """SHA-256 that a dataset was written with; "" where it says none."""
        value = self._stored_attribute(dataset, "sha256")
        return value.decode("ascii", "replace") if isinstance(value, bytes) else ""

    def _check_size(self, name: str, dataset: h5py.Dataset) -> None:
        """Before memory is taken: is there so much on disk? Of what is compressed see :meth:`_in_one_piece`."""
        if dataset.dtype.str not in DTYPES or not dataset.shape:
            raise ClipFileError(f"{self.path}: {name} is of type {dataset.dtype} {dataset.shape}. {REMAKE}")
        size, stored = dataset.dtype.itemsize * math.prod(dataset.shape), dataset.id.get_storage_size()
        if not _filters(dataset) and size > min(stored, self._size):
            raise ClipFileError(f"{self.path}: {name} claims {size} bytes, {stored} are stored. {REMAKE}")

    def _in_one_piece(self, name: str, dataset: h5py.Dataset) -> np.ndarray:
        """A compressed dataset, decompressed here."""
        if dataset.chunks != dataset.shape or dataset.id.get_num_chunks() != 1:
            raise ClipFileError(f"{self.path}: {name} is not stored in one piece. {REMAKE}")
        piece = dataset.id.get_chunk_info(0)
        entry = (dataset.dtype.str, dataset.shape, _CODECS[_filters(dataset)], piece.byte_offset, piece.size, 0)
        stored = checked_array(name, entry, self._size)
        _, raw = dataset.id.read_direct_chunk((0,) * dataset.ndim)
        try:
            return decoded(raw, stored, own_decompressor())
        except ClipFileError as error:
            raise ClipFileError(f"{self.path}: {name}: {error}") from None

    @contextmanager
    def _plain_errors(self) -> Iterator[None]:
        """Turn what h5py raises for a damaged file into one plain sentence."""
        try:
            yield
        except ClipFileError:
            raise
        except _FOREIGN as error:
            raise ClipFileError(f"{self.path}: cannot be read as HDF5. {REMAKE}") from error


def _are_plain(names: Iterable[str | bytes]) -> bool:
    """Whether names can be printed; h5py has those that are not UTF-8 as bytes."""
    return all(isinstance(name, str) and is_plain(name) for name in names)


def _filters(dataset: h5py.Dataset) -> tuple[int, ...]:
    """HDF5's numbers of the filters through which a dataset went."""
    creation = dataset.id.get_create_plist()
    return tuple(creation.get_filter(i)[0] for i in range(creation.get_nfilters()))
