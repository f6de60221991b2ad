"""The HDF5 file of one clip: frames, flow or cubes. Written once, verified, then only read.

A clip file is an ordinary HDF5 file (``h5ls`` shows it) followed by one trailer (:mod:`han_core.clipfile.trailer`),
which HDF5 ignores: schema, kind, clip, fingerprint, the size of the HDF5 part and its SHA-256, the SHA-256 of the
content, and where each array lies. A file that was never finished has no trailer.

What is read is checked as it is read: a compressed array is a zstd frame with a checksum, the others have one in the
trailer, and each encoded image has its CRC-32 in ``<name>_crc32``. Besides, every dataset carries the SHA-256 of its
raw (uncompressed) content as attribute ``sha256``. The root carries ``schema``, ``kind``, ``clip``, ``fingerprint``,
``tools`` (:mod:`han_core.clipfile.provenance`, as JSON) and the attributes of the kind. Nothing in the file depends on
the time, the path, the process, the code or the order of a dictionary: the same content gives the same bytes.
"""

import errno
import hashlib
import json
import os
import re
import shutil
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import h5py
import numpy as np

from han_core.clipfile.arrays import LEVEL, compressed
from han_core.clipfile.checksums import raw_bytes, sha256_of_file
from han_core.clipfile.content import array_content, content_digest, images_content
from han_core.clipfile.provenance import made_with
from han_core.clipfile.trailer import (
    CODECS,
    DTYPES,
    RESERVED,
    SCHEMA,
    SPARSE,
    Codec,
    StoredArray,
    Trailer,
    encode_trailer,
    is_plain,
)

with suppress(ImportError):  # not needed to write; where it is installed, HDF5 names the filter in the file
    import hdf5plugin  # noqa: F401

_ZSTD = {"compression": 32015, "compression_opts": (LEVEL,), "allow_unknown_filter": True}
"""HDF5's registered filter (https://github.com/HDFGroup/hdf5_plugins), for whoever reads by HDF5."""
_BLOCK = 1 << 16  # bytes of one chunk of an image dataset; the last chunk is padded, so a larger one wastes disk


class ClipFileWriter:
    """Writes one clip file; a context manager.

    Args:
        path: the file to write; it must not exist. Normally the temporary name that ``ClipCache.create`` hands out.
        kind: ``frames``, ``flow``, ``cubes``, ...
        clip: the clip's name.
        fingerprint: what the file is made from (:mod:`han_core.cache.fingerprint`); of one that names the code, too,
            only what is before the code is written, so that code which gives the same bytes gives the same file.
        attributes: further attributes of the file (str, int, float or sequences of numbers). More can be
            added to the writer's ``attributes`` until it is closed, e.g. a count that is known only at the end.
        torch_threads: for files that hold what torch computed: its threads.

    Raises:
        OSError: from any method, if the disk does not take it (full, not writable, ..).

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
        torch_threads: int | None = None,
    ) -> None:
        self.path = Path(path)
        self.kind, self.clip, self.fingerprint = kind, clip, fingerprint.partition("-")[0]
        self.attributes = dict(attributes or {})
        self._tools = made_with(torch_threads=torch_threads)
        self._appenders: list[Appender] = []
        self._arrays: dict[str, tuple[Codec, int]] = {}  # name -> codec and CRC-32
        self._declared: dict[str, StoredArray] = {}
        self._content: dict[str, str] = {}  # name of each dataset -> what is in it
        with disk_errors(self.path):
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
        if values.dtype.str not in DTYPES:
            raise ValueError(f"{name}: type {values.dtype} is not one of {', '.join(sorted(DTYPES))}")
        group, _, own_name = name.rpartition("/")
        checksum = hashlib.sha256(raw_bytes(values)).hexdigest()
        with disk_errors(self.path):
            if values.size and codec != "none":
                # Compressed here and not by HDF5's filter, which leaves the checksum out; HDF5 reads it all the same.
                dataset = self._group(group).create_dataset(
                    own_name,
                    shape=values.shape,
                    dtype=values.dtype,
                    chunks=values.shape,
                    fillvalue=values.dtype.type(0),
                    track_times=False,
                    shuffle=codec == "shuffle-zstd",
                    **_ZSTD,
                )
                dataset.id.write_direct_chunk((0,) * values.ndim, compressed(values, codec))
            else:
                dataset = self._group(group).create_dataset(own_name, data=values, track_times=False)
            _set_text(dataset, "sha256", checksum)
        self._arrays[name] = codec, 0 if dataset.chunks else zlib.crc32(raw_bytes(values))
        self._content[name] = array_content(values.dtype, values.shape, checksum)

    def declare(self, name: str, dtype: np.dtype, shape: tuple[int, ...]) -> None:
        """Say what the arrays ``<name>/..`` make up together; nothing is stored but attributes of the group."""
        group = self._group(name)
        _set_attribute(group, "dtype", dtype.str)
        _set_attribute(group, "shape", shape)
        self._declared[name] = StoredArray(dtype.str, shape, SPARSE, 0, 0)

    def images(self, name: str) -> "Appender":
        """Start a row of encoded images: dataset ``name`` (all bytes, one after the other) and ``<name>_offsets``."""
        with disk_errors(self.path):
            appender = Appender(self._open_file(), name)
        self._appenders.append(appender)
        return appender

    def close(self) -> None:
        """Write what is buffered, the attributes and the trailer."""
        if self._file is None:
            return
        clash = sorted(set(self.attributes) & set(RESERVED))
        if clash:
            raise ValueError(f"attributes: {', '.join(clash)} are set by the writer itself")
        with disk_errors(self.path):
            for appender in self._appenders:
                self._content |= appender.finish()
            root = self._file.attrs
            root["schema"] = np.int64(SCHEMA)
            for name, value in (
                ("kind", self.kind),
                ("clip", self.clip),
                ("fingerprint", self.fingerprint),
                ("tools", json.dumps(self._tools, sort_keys=True)),
                *sorted(self.attributes.items()),
            ):
                _set_attribute(self._file, name, value)
            self._file.flush()  # pieces have their place only once they are written
            arrays = self._declared | {name: _stored(self._file[name], *how) for name, how in self._arrays.items()}
            self._abandon()
            size = self.path.stat().st_size
            checksum = sha256_of_file(self.path, size)
            whose = (SCHEMA, self.kind, self.clip, self.fingerprint)
            content = content_digest(self.kind, self.clip, self.attributes, self._declared, self._content)
            trailer = encode_trailer(Trailer(*whose, size, checksum, content, arrays))
            with self.path.open("ab") as file:
                file.write(trailer)

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
            file, self._file = self._file, None
            file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.close()
        finally:
            with suppress(OSError, RuntimeError):  # a full disk: what went wrong first is what is told
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
        self._crcs: list[int] = []

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def append(self, encoded: bytes | np.ndarray) -> None:
        """Add one encoded image (its bytes, or the uint8 array that ``cv2.imencode`` returns)."""
        encoded = bytes(encoded)
        if not encoded:
            raise ValueError(f"{self.name}: an encoded image cannot be empty")
        self._digest.update(encoded)
        self._crcs.append(zlib.crc32(encoded))
        self._buffer += encoded
        self._offsets.append(self._offsets[-1] + len(encoded))
        whole = len(self._buffer) // _BLOCK * _BLOCK
        if whole:
            self._write(whole)

    def finish(self) -> dict[str, str]:
        """Write the rest; called by the writer. {name: what is in it}."""
        self._write(len(self._buffer))
        _set_text(self._data, "sha256", self._digest.hexdigest())
        offsets = np.asarray(self._offsets, dtype=np.int64)
        for name, values in (("offsets", offsets), ("crc32", np.asarray(self._crcs, dtype=np.uint32))):
            dataset = self._file.create_dataset(f"{self.name}_{name}", data=values, track_times=False)
            _set_text(dataset, "sha256", hashlib.sha256(raw_bytes(values)).hexdigest())
        return {self.name: images_content(self._digest.hexdigest(), hashlib.sha256(raw_bytes(offsets)).hexdigest())}

    def _write(self, count: int) -> None:
        if not count:
            return
        start = self._data.shape[0]
        with disk_errors(self._file.filename):
            self._data.resize((start + count,))
            self._data[start:] = np.frombuffer(bytes(self._buffer[:count]), dtype=np.uint8)
        del self._buffer[:count]


@contextmanager
def disk_errors(path: str | Path) -> Iterator[None]:
    """What HDF5 raises when the disk does not take what is written, as the OSError that it is.

    HDF5 tells of a full disk by RuntimeError, the number of the error somewhere in its text, or not at all.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        number = error.errno if isinstance(error, OSError) and error.errno else _error_number(str(error))
        if number is None and shutil.disk_usage(Path(path).parent).free < _FULL:
            number = errno.ENOSPC
        if number is None:
            raise
        raise OSError(number, os.strerror(number), str(path)) from None


_FULL = 1 << 20  # bytes free on a disk that counts as full after an error


def _error_number(text: str) -> int | None:
    found = re.search(r"errno = (\d+)", text)
    return int(found[1]) if found else None


def _create(path: Path) -> h5py.h5f.FileID:
    """A new HDF5 file whose bytes depend on nothing but what is written into it."""
    creation = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    creation.set_obj_track_times(False)
    creation.set_attr_phase_change(255, 128)  # attributes stay in the object header: no heap of half-used blocks
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_libver_bounds(h5py.h5f.LIBVER_V110, h5py.h5f.LIBVER_V110)
    access.set_fclose_degree(h5py.h5f.CLOSE_STRONG)
    access.set_file_locking(False, True)  # a network disk may have no locks; nobody else knows this new name
    return h5py.h5f.create(os.fsencode(path), h5py.h5f.ACC_EXCL, fapl=access, fcpl=creation)


def _set_attribute(target: h5py.Group, name: str, value: str | int | float | Sequence) -> None:
    if isinstance(value, str):
        if not is_plain(value):
            raise ValueError(f"attribute {name}: {value!r} holds a control character")
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


def _stored(dataset: h5py.Dataset, codec: Codec, crc32: int) -> StoredArray:
    """Where the one piece of a dataset lies in its file."""
    if dataset.chunks:
        piece = dataset.id.get_chunk_info(0)
        offset, size = piece.byte_offset, piece.size
    else:
        offset, size = dataset.id.get_offset() or 0, dataset.id.get_storage_size()
    return StoredArray(dataset.dtype.str, dataset.shape, codec, offset, size, crc32)
