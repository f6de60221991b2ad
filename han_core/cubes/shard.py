"""Many clip files in one: a shard, for stores whose number of files is what costs.

A shard is a clip file of kind ``shard`` of its own: ``files`` (N,) uint8 holds the clip files one after the other, byte
for byte, and ``index`` (JSON) says of each what its trailer says. So a clip is read out of a shard as out of its own
file, by the places of its arrays, and nothing is unpacked. Without this library, with h5py::

    import h5py, hdf5plugin, io, json
    shard = h5py.File(path)
    entry = json.loads(shard["index"][()].tobytes())[name]
    clip = h5py.File(io.BytesIO(shard["files"][entry["start"] : entry["start"] + entry["length"]].tobytes()))
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from han_core.clipfile.arrays import read_parts
from han_core.clipfile.trailer import (
    REMAKE,
    SCHEMA,
    SPARSE,
    TRAILER_BYTES,
    ClipFileError,
    StoredArray,
    Trailer,
    checked_array,
    is_plain,
    read_trailer,
)
from han_core.clipfile.writer import ClipFileWriter
from han_core.clips import LONGEST_NAME

KIND = "shard"
_TEXTS = ("kind", "clip", "fingerprint", "sha256", "content")


@dataclass(frozen=True, slots=True)
class Part:
    """A clip in a shard."""

    start: int
    """Byte of the shard where its file begins."""
    trailer: Trailer
    """Of its file; but the places of its arrays are those in the shard."""

    @property
    def length(self) -> int:
        """Bytes of its file."""
        return self.trailer.size + TRAILER_BYTES


@dataclass(frozen=True)
class Shard:
    """What a shard says of itself and of its clips."""

    trailer: Trailer
    parts: Mapping[str, Part]
    """By the names of the clips."""


def write_shard(path: Path, *, name: str, fingerprint: str, files: Mapping[str, Path]) -> None:
    """Write clip files into one. The same files give the same bytes.

    Args:
        path: must not exist.
        name: of the shard.
        files: name of each clip -> its file; verified as they are read.

    Raises:
        ClipFileError: a file is damaged.
        OSError: the disk does not take it.
    """
    start, bodies, index = 0, [], {}
    for clip, file in sorted(files.items()):
        trailer, body = read_trailer(file), file.read_bytes()
        if hashlib.sha256(memoryview(body)[: trailer.size]).hexdigest() != trailer.sha256:
            raise ClipFileError(f"{file}: clip {clip} does not have the checksum it was written with. {REMAKE}")
        arrays = {key: array.entry() for key, array in sorted(trailer.arrays.items())}
        index[clip] = {**asdict(trailer), "arrays": arrays, "start": start, "length": len(body)}
        bodies.append(body)
        start += len(body)
    text = json.dumps(index, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    with ClipFileWriter(path, kind=KIND, clip=name, fingerprint=fingerprint) as writer:
        writer.array("files", np.frombuffer(b"".join(bodies), np.uint8))
        writer.array("index", np.frombuffer(text, np.uint8), codec="zstd")


def read_shard(path: Path) -> Shard:
    """What is in a shard, by two small reads. Nothing that it declares is believed.

    Raises:
        ClipFileError: it is missing, damaged or no shard.
    """
    whole = read_trailer(path)
    if whole.kind != KIND:
        raise ClipFileError(f"{path}: is a file of kind {whole.kind}, not a {KIND}. Is its folder in a store of cubes?")
    (raw,) = read_parts(path, whole, ("index",))
    files = whole.arrays.get("files")
    try:
        if files is None or (files.dtype, files.codec, len(files.shape)) != ("|u1", "none", 1):
            raise ValueError("it holds no files")
        index = json.loads(raw.tobytes())
        parts = {name: _part(name, entry, files) for name, entry in index.items()}
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise ClipFileError(f"{path}: shard {whole.clip}: its index is wrong ({error}). {REMAKE}") from None
    return Shard(whole, parts)


def read_file(path: Path, part: Part) -> bytes:
    """The file of a clip out of a shard, as it was put in.

    Raises:
        ClipFileError: the shard is shorter than that.
        OSError: it cannot be read.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        body = os.pread(handle, part.length, part.start)
    finally:
        os.close(handle)
    if len(body) != part.length:
        raise ClipFileError(f"{path}: clip {part.trailer.clip}: it ends too early. {REMAKE}")
    return body


def _is_a_name(name: str) -> bool:
    """Whether a clip can be called so: files are named after clips."""
    return bool(name) and len(name.encode("utf-8")) <= LONGEST_NAME and Path(f"{name}.h5").name == f"{name}.h5"


def _part(name: str, entry: Mapping, files: StoredArray) -> Part:
    """
    Raises:
        ValueError: an entry of the index contradicts the shard, or itself.
    """
    start, length, size = (entry[key] for key in ("start", "length", "size"))
    if not all(isinstance(value, int) and value >= 0 for value in (start, length, size)):
        raise ValueError("a place that is no number")
    if entry["schema"] != SCHEMA or length != size + TRAILER_BYTES or start + length > files.size:
        raise ValueError(f"clip {name!r} lies beyond the end")
    texts = {key: entry[key] for key in _TEXTS}
    if not all(isinstance(text, str) for text in texts.values()):
        raise ValueError(f"clip {name!r} has a value of the wrong type")
    if (
        not is_plain("".join([name, *texts.values(), *entry["arrays"]]))
        or texts["clip"] != name
        or not _is_a_name(name)
    ):
        raise ValueError("a name that is none")
    offset = files.offset + start
    checked = {key: checked_array(key, value, size) for key, value in entry["arrays"].items()}
    arrays = {
        key: array if array.codec == SPARSE else replace(array, offset=array.offset + offset)
        for key, array in checked.items()
    }
    return Part(offset, Trailer(schema=SCHEMA, size=size, arrays=arrays, **texts))
