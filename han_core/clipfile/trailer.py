"""The last kilobyte of a clip file: who it is and where its arrays lie, readable without HDF5.

One line of JSON, padded to :data:`TRAILER_BYTES`, which HDF5 ignores, with its own checksum before it. What a file is
(its fingerprint) is known from one small read, which makes listing and reusing thousands of files cheap; and because it
says where the stored piece of each array begins, many threads can read arrays at once past HDF5's global lock
(:mod:`han_core.clipfile.arrays`).
"""

import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal, get_args

from han_core.errors import HanError

SCHEMA = 2
TRAILER_BYTES = 1024

Codec = Literal["none", "zstd", "shuffle-zstd"]
CODECS: tuple[str, ...] = get_args(Codec)
SPARSE = "sparse"
"""In place of a codec: the array's parts lie under its name (see :mod:`han_core.cubes.cubefile`); it has no bytes."""

RESERVED = ("schema", "kind", "clip", "fingerprint", "tools")
"""Attributes of a clip file that its writer sets itself."""

REMAKE = "It is damaged: remove it (`han cache verify --remove`) and run the stage again."


class ClipFileError(HanError, ValueError):
    """A clip file is damaged, unfinished or not what was asked for; the message names the file and the clip."""


@dataclass(frozen=True)
class StoredArray:
    """Where the one stored piece of an array lies."""

    dtype: str
    shape: tuple[int, ...]
    codec: str
    offset: int
    """Bytes from the start of the file."""
    size: int
    """Bytes as stored."""


@dataclass(frozen=True)
class Trailer:
    """What the last bytes of a clip file say about it."""

    schema: int
    kind: str
    clip: str
    fingerprint: str
    size: int
    """Bytes of the HDF5 part, that is of the file without the trailer."""
    sha256: str
    """Of the HDF5 part."""
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
    trailer = _decode(raw)
    if trailer is None:
        raise ClipFileError(f"{path}: is not a finished clip file (its trailer is missing or damaged). {REMAKE}")
    if trailer.schema != SCHEMA:
        raise ClipFileError(f"{path}: clip {trailer.clip} has schema {trailer.schema}, this version reads {SCHEMA}")
    if trailer.size != length - TRAILER_BYTES:
        raise ClipFileError(
            f"{path}: clip {trailer.clip} has {length - TRAILER_BYTES} bytes, not {trailer.size}. {REMAKE}"
        )
    return trailer


def encode_trailer(trailer: Trailer) -> bytes:
    """The bytes to append to a finished HDF5 file; :data:`TRAILER_BYTES` of them:

    ======================  ==========================================================
    8                       CRC-32 of the JSON text, as hexadecimal digits
    as many as it takes     the JSON text, UTF-8; ``arrays`` as {name: [dtype, shape, codec, offset, size]}
    the rest but one        spaces, at least one
    1                       a line feed
    ======================  ==========================================================

    Raises:
        ValueError: the clip's name leaves no room.
    """
    values = asdict(trailer)
    values["arrays"] = {name: list(vars(array).values()) for name, array in sorted(trailer.arrays.items())}
    text = json.dumps(values, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    text = b"%08x%s" % (zlib.crc32(text), text)
    if len(text) >= TRAILER_BYTES - 1:
        raise ValueError(f"clip: the name {trailer.clip!r} is too long")
    return text.ljust(TRAILER_BYTES - 1) + b"\n"


def _decode(raw: bytes) -> Trailer | None:
    """The reverse of :func:`encode_trailer`; None for bytes that it did not make."""
    text = raw[8:].rstrip()
    if len(raw) != TRAILER_BYTES or raw[:8] != b"%08x" % zlib.crc32(text) or not raw.endswith(b" \n"):
        return None
    try:
        values = json.loads(text)
        arrays = {
            name: StoredArray(dtype, tuple(shape), codec, offset, size)
            for name, (dtype, shape, codec, offset, size) in values.pop("arrays").items()
        }
        return Trailer(**values, arrays=arrays)
    except (ValueError, TypeError, AttributeError, KeyError):
        return None
