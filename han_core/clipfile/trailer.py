"""The last kilobyte of a clip file: who it is and where its arrays lie, readable without HDF5.

One line of JSON, padded to :data:`TRAILER_BYTES`, which HDF5 ignores, with its own checksum before it. What a file is
(its fingerprint) is known from one small read, which makes listing and reusing thousands of files cheap; and because it
says where the stored piece of each array begins, many threads can read arrays at once past HDF5's global lock
(:mod:`han_core.clipfile.arrays`).
"""

import json
import math
import os
import re
import sys
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal, get_args

from han_core.errors import REPAIR, HanError

SCHEMA = 3
TRAILER_BYTES = 1024

Codec = Literal["none", "zstd", "shuffle-zstd"]
CODECS: tuple[str, ...] = get_args(Codec)
SPARSE = "sparse"
"""In place of a codec: the array's parts lie under its name (see :mod:`han_core.cubes.cubefile`); it has no bytes."""

RESERVED = ("schema", "kind", "clip", "fingerprint", "tools")
"""Attributes of a clip file that its writer sets itself."""

REMAKE = f"It is damaged: run {REPAIR}."

DTYPES = frozenset({"|u1", "|i1", "<u2", "<i2", "<u4", "<i4", "<u8", "<i8", "<f2", "<f4", "<f8"})
"""Of arrays. Anything else is refused: an object type, for one, would make NumPy run code."""

_FREELY = 1 << 26
_EXPANDING = 256
"""An array may take ``_FREELY`` bytes of memory, or ``_EXPANDING`` times what is stored of it: a file of a few bytes
cannot ask for a machine's memory."""


_MOST_NUMBERS = 1 << 48  # of an array, and of an empty one along its other axes, which NumPy multiplies all the same
_NEVER = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


class ClipFileError(HanError, ValueError):
    """A clip file is damaged, unfinished or not what was asked for; the message names the file and the clip."""


@dataclass(frozen=True, slots=True)  # a store holds hundreds of thousands of them
class StoredArray:
    """Where the one stored piece of an array lies."""

    dtype: str
    shape: tuple[int, ...]
    codec: str
    offset: int
    """Bytes from the start of the file."""
    size: int
    """Bytes as stored."""
    crc32: int = 0
    """Of the bytes as stored, for codec ``none``. Compressed arrays are zstd frames, which carry a checksum."""

    @property
    def memory(self) -> int:
        """Bytes of the array as it is read."""
        return int(self.dtype[2:]) * math.prod(self.shape)

    def entry(self) -> list:
        """As a trailer has it; :func:`checked_array` reads it."""
        return [self.dtype, self.shape, self.codec, self.offset, self.size, self.crc32]


@dataclass(frozen=True, slots=True)
class Trailer:
    """What the last bytes of a clip file say about it."""

    schema: int
    kind: str
    clip: str
    fingerprint: str
    """What the file was made from, without the code that made it (:mod:`han_core.cache.fingerprint`)."""
    size: int
    """Bytes of the HDF5 part, that is of the file without the trailer."""
    sha256: str
    """Of the HDF5 part."""
    content: str
    """SHA-256 of what is in the file for whoever reads it: arrays, images, attributes, but not how it came about.
    Equal content of other settings, code or library versions has the same, so what is made of it is made once."""
    arrays: Mapping[str, StoredArray] = field(default_factory=dict)
    """Those stored in one piece, by name."""


def read_trailer(path: str | Path) -> Trailer:
    """Read who a clip file is, without HDF5, and check that it has the size it was finished with.

    Raises:
        ClipFileError: the file is missing, too short, not a clip file, of another schema, or cut off.
    """
    try:
        with open(path, "rb", buffering=0) as file:
            length = file.seek(0, os.SEEK_END)
            file.seek(max(0, length - TRAILER_BYTES))
            raw = file.read(TRAILER_BYTES)
    except OSError as error:
        raise ClipFileError(f"{path}: cannot be opened ({error.strerror})") from None
    values = _decode(raw)
    if values is None:
        raise ClipFileError(f"{path}: is not a finished clip file (its trailer is missing or damaged). {REMAKE}")
    schema, clip = values.get("schema"), values.get("clip")
    if not _is_count(schema) or schema != SCHEMA:
        raise ClipFileError(f"{path}: clip {clip!r} has schema {schema!r}, this version reads {SCHEMA}")
    try:
        return _checked(values, length - TRAILER_BYTES)
    except ValueError as error:
        raise ClipFileError(f"{path}: clip {clip!r}: {error}. {REMAKE}") from None


def encode_trailer(trailer: Trailer) -> bytes:
    """The bytes to append to a finished HDF5 file; :data:`TRAILER_BYTES` of them:

    ======================  ==========================================================
    8                       CRC-32 of the JSON text, as hexadecimal digits
    as many as it takes     the JSON text, UTF-8; ``arrays`` as {name: [dtype, shape, codec, offset, size, crc32]}
    the rest but one        spaces, at least one
    1                       a line feed
    ======================  ==========================================================

    Raises:
        ValueError: the clip's name leaves no room.
    """
    values = asdict(trailer)
    values["arrays"] = {name: array.entry() for name, array in sorted(trailer.arrays.items())}
    text = json.dumps(values, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    text = b"%08x%s" % (zlib.crc32(text), text)
    if len(text) >= TRAILER_BYTES - 1:
        raise ValueError(f"clip: the name {trailer.clip!r} is too long")
    return text.ljust(TRAILER_BYTES - 1) + b"\n"


def _decode(raw: bytes) -> dict | None:
    """The reverse of :func:`encode_trailer`, as JSON values; None for bytes that it did not make."""
    text = raw[8:].rstrip()
    if len(raw) != TRAILER_BYTES or raw[:8] != b"%08x" % zlib.crc32(text) or not raw.endswith(b" \n"):
        return None
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return values if isinstance(values, dict) else None


def _checked(values: dict, size: int) -> Trailer:
    """The trailer of a file whose HDF5 part has ``size`` bytes. Nothing that it declares is believed: a file may come
    from anywhere.

    Raises:
        ValueError: it contradicts the file, or itself.
    """
    texts = ("kind", "clip", "fingerprint", "sha256", "content")
    if values.keys() != {"schema", "size", "arrays", *texts}:
        raise ValueError("its trailer lacks an entry, or has one too many")
    if not all(isinstance(values[name], str) for name in texts) or not isinstance(values["arrays"], dict):
        raise ValueError("its trailer holds a value of the wrong type")
    if not is_plain("".join([*(values[name] for name in texts), *values["arrays"]])):
        raise ValueError("its trailer holds a control character")
    if not _is_count(values["size"]) or values["size"] != size:
        raise ValueError(f"it has {size} bytes, not {values['size']!r}")
    arrays = {sys.intern(name): checked_array(name, entry, size) for name, entry in values["arrays"].items()}
    return Trailer(**{name: values[name] for name in ("schema", "size", *texts)}, arrays=arrays)


def checked_array(name: str, entry: object, size: int) -> StoredArray:
    """An array as a file declares it, [dtype, shape, codec, offset, size, crc32].

    Args:
        size: bytes of the file in which it lies.

    Raises:
        ValueError: it contradicts the file, or itself, or would take far more memory than the file is long.
    """
    try:
        dtype, shape, codec, *numbers = entry
        shape = tuple(shape)
        offset, length, crc32 = numbers
    except (TypeError, ValueError):
        raise ValueError(f"the entry of array {name} is not one") from None
    places = all(_is_count(number) for number in (*shape, offset, length, crc32)) and 1 <= len(shape) <= 8
    if not places or math.prod(max(1, axis) for axis in shape) > _MOST_NUMBERS:
        raise ValueError(f"array {name} has an impossible shape or place")
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ValueError(f"array {name} is of type {dtype!r}")
    if not isinstance(codec, str):
        raise ValueError(f"array {name} has the unknown codec {codec!r}")
    stored = StoredArray(sys.intern(dtype), shape, sys.intern(codec), offset, length, crc32)
    if codec == SPARSE:
        return stored
    if codec not in CODECS:
        raise ValueError(f"array {name} has the unknown codec {codec!r}")
    if offset + length > size:
        raise ValueError(f"array {name} lies beyond the end of the file")
    if codec == "none" and length != stored.memory:
        raise ValueError(f"array {name} takes {length} bytes, but its shape {stored.memory}")
    if stored.memory > (max(_FREELY, _EXPANDING * length) if length else 0):
        raise ValueError(f"array {name} would expand from {length} to {stored.memory} bytes")
    return stored


def is_plain(text: str) -> bool:
    """Whether a text can be printed and encoded: without control characters, which would steer a terminal."""
    return not _NEVER.search(text)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 62
