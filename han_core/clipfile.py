"""The HDF5 file of one clip: frames, flow or cubes. Written once, verified, then only read.

A clip file is an ordinary HDF5 file (``h5ls`` shows it) followed by one trailer (:mod:`han_core.trailer`), which HDF5
ignores: schema, kind, clip, fingerprint, the size of the HDF5 part and its SHA-256, and where each array lies. A
flipped bit anywhere, file headers included, is found before the HDF5 library sees the file, and a file that was never
finished has no trailer.

Inside, every dataset carries the SHA-256 of its raw (uncompressed) content as attribute ``sha256``, and the root
carries ``schema``, ``kind``, ``clip``, ``fingerprint``, ``tools`` (versions, as JSON) and the attributes of the kind.
Nothing in the file depends on the time, the path, the process or the order of a dictionary: the same content gives
the same bytes.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Self

import cv2
import h5py
import hdf5plugin
import numpy as np

from han_core.trailer import (
    CODECS,
    REMAKE,
    SCHEMA,
    SPARSE,
    ClipFileError,
    Codec,
    StoredArray,
    Trailer,
    encode_trailer,
    read_trailer,
)

_BLOCK = 1 << 16  # bytes of one chunk of an image dataset; the last chunk is padded, so a larger one wastes disk
_RESERVED = ("schema", "kind", "clip", "fingerprint", "tools")
_ZSTD = {"clevel": 3}  # higher levels gain a few percent at a third of the speed (docs/results.md)


class ClipFileWriter:
    """Writes one clip file; a context manager.

    Args:
        path: the file to write; it must not exist. Normally the temporary name that ``ClipCache.create`` hands out.
        kind: ``frames``, ``flow``, ``cubes``, ...
        clip: the clip's name.
        fingerprint: identity of the content, from ``cache.fingerprint``.
        attributes: further attributes of the file (str, int, float or sequences of numbers). More can be
            added to the writer's ``attributes`` until it is closed, e.g. a count that is known only at the end.

    The file is complete once the ``with`` block ends without an exception; otherwise it has no trailer, and every
    reader refuses it.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        kind: str,
        clip: str,
        fingerprint: str,
        attributes: Mapping[str, str | int | float | Sequence] | None = None,
    ) -> None:
        self.path = Path(path)
        self.kind, self.clip, self.fingerprint = kind, clip, fingerprint
        self.attributes = dict(attributes or {})
        self._appenders: list[Appender] = []
        self._codecs: dict[str, Codec] = {}
        self._declared: dict[str, StoredArray] = {}
        self._file: h5py.File | None = h5py.File(_create(self.path))

    def array(self, name: str, values: np.ndarray, *, codec: Codec = "none") -> None:
        """Write a whole array, in one piece: clips are read whole.

        Args:
            name: of the dataset; ``a/b`` lies in group ``a``.
            values: any shape of at least one axis and any numeric dtype.
            codec: ``zstd`` (level 3), ``shuffle-zstd`` (the bytes of all numbers by significance first), or ``none``.
        """
        if codec not in CODECS:
            raise ValueError(f"codec: {codec!r} is not one of {', '.join(CODECS)}")
        values = np.ascontiguousarray(values)
        if not values.ndim:
            raise ValueError(f"{name}: a scalar is an attribute, not an array")
        options: dict = {}
        if values.size and codec != "none":
            options = {"chunks": values.shape, "fillvalue": values.dtype.type(0), "shuffle": codec == "shuffle-zstd"}
            options |= hdf5plugin.Zstd(**_ZSTD)
        group, _, own_name = name.rpartition("/")
        dataset = self._group(group).create_dataset(own_name, data=values, track_times=False, **options)
        _set_text(dataset, "sha256", hashlib.sha256(_raw(values)).hexdigest())
        self._codecs[name] = codec

    def declare(self, name: str, dtype: np.dtype, shape: tuple[int, ...]) -> None:
        """Say what the arrays ``<name>/..`` make up together; nothing is stored but attributes of the group."""
        group = self._group(name)
        _set_attribute(group, "dtype", dtype.str)
        _set_attribute(group, "shape", shape)
        self._declared[name] = StoredArray(dtype.str, shape, SPARSE, 0, 0)

    def images(self, name: str) -> "Appender":
        """Start a row of encoded images: dataset ``name`` (all bytes, one after the other) and ``<name>_offsets``."""
        appender = Appender(self._open_file(), name)
        self._appenders.append(appender)
        return appender

    def close(self) -> None:
        """Write what is buffered, the attributes and the trailer."""
        if self._file is None:
            return
        for appender in self._appenders:
            appender.finish()
        clash = sorted(set(self.attributes) & set(_RESERVED))
        if clash:
            raise ValueError(f"attributes: {', '.join(clash)} are set by the writer itself")
        root = self._file.attrs
        root["schema"] = np.int64(SCHEMA)
        for name, value in (
            ("kind", self.kind),
            ("clip", self.clip),
            ("fingerprint", self.fingerprint),
            ("tools", json.dumps(tool_versions(), sort_keys=True)),
            *sorted(self.attributes.items()),
        ):
            _set_attribute(self._file, name, value)
        self._file.flush()  # pieces have their place only once they are written
        arrays = self._declared | {name: _stored(self._file[name], codec) for name, codec in self._codecs.items()}
        self._abandon()
        size = self.path.stat().st_size
        checksum = _sha256_of_file(self.path, size)
        trailer = Trailer(SCHEMA, self.kind, self.clip, self.fingerprint, size, checksum, arrays)
        with self.path.open("ab") as file:
            file.write(encode_trailer(trailer))

    def _group(self, name: str) -> h5py.Group:
        file = self._open_file()
        if name and name not in file:
            file.create_group(name, track_times=False)
        return file[name] if name else file

    def _open_file(self) -> h5py.File:
        if self._file is None:
            raise ValueError(f"{self.path}: is already closed")
        return self._file

    def _abandon(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.close()
        finally:
            self._abandon()


class Appender:
    """Encoded images, appended one by one; holds at most a few blocks of 64 KiB in memory, however many there are."""

    def __init__(self, file: h5py.File, name: str) -> None:
        self.name = name
        self._file = file
        self._data = file.create_dataset(
            name, shape=(0,), maxshape=(None,), chunks=(_BLOCK,), dtype=np.uint8, fillvalue=0, track_times=False
        )
        self._digest = hashlib.sha256()
        self._buffer = bytearray()
        self._offsets = [0]
        self._finished = False

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def append(self, encoded: bytes | np.ndarray) -> None:
        """Add one encoded image (its bytes, or the uint8 array that ``cv2.imencode`` returns)."""
        encoded = bytes(encoded)
        if not encoded:
            raise ValueError(f"{self.name}: an encoded image cannot be empty")
        self._digest.update(encoded)
        self._buffer += encoded
        self._offsets.append(self._offsets[-1] + len(encoded))
        whole = len(self._buffer) // _BLOCK * _BLOCK
        if whole:
            self._write(whole)

    def finish(self) -> None:
        """Write the rest; called by the writer."""
        if self._finished:
            return
        self._finished = True
        self._write(len(self._buffer))
        _set_text(self._data, "sha256", self._digest.hexdigest())
        offsets = np.asarray(self._offsets, dtype=np.int64)
        dataset = self._file.create_dataset(f"{self.name}_offsets", data=offsets, track_times=False)
        _set_text(dataset, "sha256", hashlib.sha256(_raw(offsets)).hexdigest())

    def _write(self, count: int) -> None:
        if not count:
            return
        start = self._data.shape[0]
        self._data.resize((start + count,))
        self._data[start:] = np.frombuffer(bytes(self._buffer[:count]), dtype=np.uint8)
        del self._buffer[:count]


class ClipFile:
    """Reads one clip file; a context manager.

    The file is opened at the first use, without file locking, so that an object can be made in one process and
    used in another (it can be pickled) and so that a published store on a shared or read-only disk can be read.

    Raises:
        ClipFileError: from any method, if the file is missing, unfinished, damaged or lacks what is asked for.
            Reading does not recompute checksums; :func:`verify_clip_file` does.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._file: h5py.File | None = None
        self._offsets: dict[str, np.ndarray] = {}

    def __getstate__(self) -> dict:
        return {"path": self.path, "_file": None, "_offsets": {}}

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
            names = [name for name in self._h5().attrs if name not in _RESERVED]
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

    def array(self, name: str, index: object = None) -> np.ndarray:
        """Read a dataset, or what ``index`` selects of it (as h5py indexes)."""
        with self._plain_errors():
            dataset = self._dataset(name)
            return dataset[()] if index is None else dataset[index]

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a dataset, without reading it."""
        with self._plain_errors():
            return self._dataset(name).shape

    def image_count(self, name: str) -> int:
        """Number of images appended under ``name``."""
        return len(self._image_offsets(name)) - 1

    def image_bytes(self, name: str, i: int) -> bytes:
        """Encoded bytes of image i (from 0)."""
        offsets = self._image_offsets(name)
        if not 0 <= i < len(offsets) - 1:
            raise IndexError(f"{self.path}: {name} has images 0 to {len(offsets) - 2}, not {i}")
        with self._plain_errors():
            return self._dataset(name)[int(offsets[i]) : int(offsets[i + 1])].tobytes()

    def image(self, name: str, i: int) -> np.ndarray:
        """Image i decoded: (H, W, 3) uint8 RGB for colour images, (H, W) uint8 for grey ones."""
        try:
            decoded = cv2.imdecode(np.frombuffer(self.image_bytes(name, i), np.uint8), cv2.IMREAD_UNCHANGED)
        except cv2.error:
            decoded = None
        if decoded is None:
            raise ClipFileError(f"{self.path}: image {i} of {name} cannot be decoded. {REMAKE}")
        return cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB) if decoded.ndim == 3 else decoded

    def close(self) -> None:
        """Close the file; it opens again at the next use."""
        self._offsets = {}
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
                raise ClipFileError(f"{self.path}: attribute {name} is no text. {REMAKE}") from None
        return value.item() if isinstance(value, np.generic) else value

    def _image_offsets(self, name: str) -> np.ndarray:
        if name not in self._offsets:
            self._offsets[name] = self.array(f"{name}_offsets")
        return self._offsets[name]

    @contextmanager
    def _plain_errors(self) -> Iterator[None]:
        """Turn what h5py raises for a damaged file into one plain sentence."""
        try:
            yield
        except ClipFileError:
            raise
        except (OSError, RuntimeError, KeyError, ValueError, TypeError, MemoryError) as error:
            if isinstance(error, (TypeError, ValueError)) and self._file is not None and self._file:
                raise  # a wrong index of the caller, not a damaged file
            raise ClipFileError(f"{self.path}: cannot be read as HDF5. {REMAKE}") from error


def verify_clip_file(path: str | Path) -> None:
    """Recompute every checksum of a clip file.

    First the SHA-256 of the whole HDF5 part, read as plain bytes (so that HDF5 never sees a damaged file); then,
    inside, that identity and trailer agree and that each dataset has its checksum.

    Raises:
        ClipFileError: anything differs; the message names file and clip.
    """
    path = Path(path)
    trailer = read_trailer(path)
    who = f"{path}: clip {trailer.clip} ({trailer.kind})"
    if _sha256_of_file(path, trailer.size) != trailer.sha256:
        raise ClipFileError(f"{who} does not have the checksum it was written with. {REMAKE}")
    with ClipFile(path) as file:
        for key in ("schema", "kind", "clip", "fingerprint"):
            if file._attribute(key) != getattr(trailer, key):
                raise ClipFileError(f"{who}: attribute and trailer differ in {key}. {REMAKE}")
        for name in file.names():
            with file._plain_errors():
                dataset = file._dataset(name)
                expected = dataset.attrs.get("sha256", b"")
                actual = _sha256_of_dataset(dataset)
            if expected != actual.encode():
                raise ClipFileError(f"{who}: dataset {name} does not have the checksum it was written with. {REMAKE}")


@cache
def tool_versions() -> dict[str, str]:
    """Versions of what shapes the bytes of a clip file."""
    versions = {"h5py": h5py.__version__, "hdf5": h5py.version.hdf5_version, "numpy": np.__version__}
    versions |= {"opencv": cv2.__version__, "hdf5plugin": hdf5plugin.version}
    try:
        versions["han-video"] = version("han-video")
    except PackageNotFoundError:  # used from a source tree that was not installed
        versions["han-video"] = "unknown"
    return versions


def _create(path: Path) -> h5py.h5f.FileID:
    """A new HDF5 file whose bytes depend on nothing but what is written into it."""
    creation = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    creation.set_obj_track_times(False)
    creation.set_attr_phase_change(255, 128)  # attributes stay in the object header: no heap of half-used blocks
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_libver_bounds(h5py.h5f.LIBVER_V110, h5py.h5f.LIBVER_V110)
    access.set_fclose_degree(h5py.h5f.CLOSE_STRONG)
    try:
        return h5py.h5f.create(os.fsencode(path), h5py.h5f.ACC_EXCL, fapl=access, fcpl=creation)
    except OSError as error:
        raise ClipFileError(f"{path}: cannot be created ({error})") from None


def _set_attribute(target: h5py.Group, name: str, value: str | int | float | Sequence) -> None:
    if isinstance(value, str):
        _set_text(target, name, value)
    elif isinstance(value, (bool, int, np.integer)):
        target.attrs[name] = np.int64(value)
    elif isinstance(value, (float, np.floating)):
        target.attrs[name] = np.float64(value)
    elif isinstance(value, (Sequence, np.ndarray)) and np.asarray(value).dtype.kind in "iufb":
        target.attrs[name] = np.asarray(value)
    else:
        raise TypeError(f"attribute {name}: {value!r} is neither text, a number nor a sequence of numbers")


def _set_text(target: h5py.Group | h5py.Dataset, name: str, text: str) -> None:
    """A fixed-length string: variable-length ones live in a heap outside the object header, in blocks of 4 KiB."""
    raw = text.encode("utf-8")
    target.attrs.create(name, raw, dtype=h5py.string_dtype("utf-8", max(1, len(raw))))


def _stored(dataset: h5py.Dataset, codec: Codec) -> StoredArray:
    """Where the one piece of a dataset lies in its file."""
    if dataset.chunks:
        piece = dataset.id.get_chunk_info(0)
        offset, size = piece.byte_offset, piece.size
    else:
        offset, size = dataset.id.get_offset() or 0, dataset.id.get_storage_size()
    return StoredArray(dataset.dtype.str, dataset.shape, codec, offset, size)


def _sha256_of_file(path: Path, size: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while size > 0:
            block = file.read(min(size, 1 << 20))
            if not block:
                break
            digest.update(block)
            size -= len(block)
    return digest.hexdigest()


def _sha256_of_dataset(dataset: h5py.Dataset) -> str:
    """Of the raw content in C order, read in pieces along the first axis so that memory stays bounded."""
    digest = hashlib.sha256()
    if dataset.size:
        row_bytes = dataset.dtype.itemsize * (dataset.size // dataset.shape[0])
        step = max(1, (1 << 22) // row_bytes)
        if dataset.chunks:
            step = -(-step // dataset.chunks[0]) * dataset.chunks[0]
        for start in range(0, dataset.shape[0], step):
            digest.update(_raw(np.ascontiguousarray(dataset[start : start + step])))
    return digest.hexdigest()


def _raw(values: np.ndarray) -> memoryview:
    return memoryview(values.reshape(-1).view(np.uint8)) if values.size else memoryview(b"")
