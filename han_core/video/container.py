"""Whether a video file is complete, as far as its container says how long it should be.

A decoder simply stops where a cut-off file ends, so a truncated clip looks like a short one. AVI, MP4/MOV and
Matroska/WebM write their length down; MPEG program and transport streams and bare bit streams do not, and what
they lack cannot be known.
"""

import os
from pathlib import Path
from typing import BinaryIO


def missing_bytes(path: str | Path) -> int:
    """How many bytes the container announces beyond the end of the file.

    Returns:
        0 for a complete file, and for containers that do not say.

    Raises:
        OSError: the file cannot be read.
    """
    with Path(path).open("rb") as file:
        length = file.seek(0, os.SEEK_END)
        file.seek(0)
        head = file.read(12)
        if head[:4] == b"RIFF":
            end = _end_of_riff(file, length)
        elif head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
            end = _end_of_boxes(file, length)
        elif head[:4] == b"\x1a\x45\xdf\xa3":
            end = _end_of_matroska(file)
        else:
            end = 0
    return max(0, end - length)


def _end_of_riff(file: BinaryIO, length: int) -> int:
    """End of the last RIFF chunk: an AVI over 1 GiB has several."""
    at = 0
    while at + 8 <= length:
        file.seek(at)
        head = file.read(8)
        if head[:4] != b"RIFF":
            break
        size = int.from_bytes(head[4:], "little")
        if size in (0, 0xFFFFFFFF):  # written as a stream, length left open
            break
        at += 8 + size
    return at


def _end_of_boxes(file: BinaryIO, length: int) -> int:
    """End of the last box of an MP4 or MOV file."""
    at = 0
    while at + 8 <= length:
        file.seek(at)
        head = file.read(16)
        size = int.from_bytes(head[:4], "big")
        if size == 1:
            size = int.from_bytes(head[8:], "big")
        if size == 0 or not head[4:8].isascii():  # to the end of the file; or padding that is not a box
            break
        if size < 8:
            break
        at += size
    return at


def _end_of_matroska(file: BinaryIO) -> int:
    """End of the segment of a Matroska or WebM file; 0 if the length was left open."""
    file.seek(4)
    size = _element_size(file)
    if size is None:
        return 0
    file.seek(size, os.SEEK_CUR)
    if file.read(4) != b"\x18\x53\x80\x67":
        return 0
    size = _element_size(file)
    return 0 if size is None else file.tell() + size


def _element_size(file: BinaryIO) -> int | None:
    """EBML's integer of one to eight bytes; None stands for unknown."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    extra = 8 - first[0].bit_length()
    value = int.from_bytes(bytes([first[0] & (0x7F >> extra)]) + file.read(extra), "big")
    return None if value == (1 << 7 * (extra + 1)) - 1 else value
