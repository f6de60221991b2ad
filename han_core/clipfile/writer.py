"""The HDF5 file of one clip: frames, flow or cubes. Written once, verified, then only read.

A clip file is an ordinary HDF5 file (``h5ls`` shows it) followed by one trailer (:mod:`han_core.clipfile.trailer`),
which HDF5 ignores: schema, kind, clip, fingerprint, the size of the HDF5 part and its SHA-256, and where each array
lies. A flipped bit anywhere, file headers included, is found before the HDF5 library sees the file, and a file that was
never finished has no trailer.

Inside, every dataset carries the SHA-256 of its raw (uncompressed) content as attribute ``sha256``, and the root
carries ``schema``, ``kind``, ``clip``, ``fingerprint``, ``tools`` (versions, as JSON) and the attributes of the kind.
Nothing in the file depends on the time, the path, the process or the order of a dictionary: the same content gives
the same bytes.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Self

import cv2
import h5py
import hdf5plugin
import numpy as np

from han_core.clipfile.checksums import raw_bytes, sha256_of_file
from han_core.clipfile.trailer import (
    CODECS,
    RESERVED,
    SCHEMA,
    SPARSE,
    ClipFileError,
    Codec,
    StoredArray,
    Trailer,
    encode_trailer,
)

_BLOCK = 1 << 16  # bytes of one chunk of an image dataset; the last chunk is padded, so a larger one wastes disk
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

    Example:
        >>> from han_core.clipfile.reader import ClipFile
        >>> with ClipFileWriter("clip.h5", kind="demo", clip="clip", fingerprint="0" * 64) as file:
        ...     file.array("numbers", np.arange(6).reshape(2, 3), codec="zstd")
        >>> with ClipFile("clip.h5") as file:
        ...     file.kind, file.array("numbers").tolist()
        ('demo', [[0, 1, 2], [3, 4, 5]])
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
        _set_text(dataset, "sha256", hashlib.sha256(raw_bytes(values)).hexdigest())
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
        clash = sorted(set(self.attributes) & set(RESERVED))
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
        checksum = sha256_of_file(self.path, size)
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
        _set_text(dataset, "sha256", hashlib.sha256(raw_bytes(offsets)).hexdigest())

    def _write(self, count: int) -> None:
        if not count:
            return
        start = self._data.shape[0]
        self._data.resize((start + count,))
        self._data[start:] = np.frombuffer(bytes(self._buffer[:count]), dtype=np.uint8)
        del self._buffer[:count]


@cache
def tool_versions() -> dict[str, str]:
    """Versions of what shapes the bytes of a clip file."""
    versions = {"h5py": h5py.__version__, "hdf5": h5py.version.hdf5_version, "numpy": np.__version__}
    versions |= {"opencv": cv2.__version__, "hdf5plugin": hdf5plugin.version, "av": version("av")}
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
    access.set_file_locking(False, True)  # a network disk may have no locks; nobody else knows this new name
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
