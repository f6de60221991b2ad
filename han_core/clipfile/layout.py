"""How the pieces of a dataset are found, read from HDF5's headers without HDF5.

The index of a dataset that grows says how many pieces it knows of, and HDF5 tries every one of them: a file that says
2^62 would keep it busy for centuries, in a loop that nothing ends. So the number is looked at first. Formats: HDF5 File
Format Specification 3.0, IV.A.1.b (object header 2), IV.A.2.i (layout message 4), IV.A.2.q (continuation), III.E
(extensible array).
"""

import os

SINGLE, GROWING = 1, 4
"""Kinds of index: of one piece, and the extensible array of a dataset with one axis that grows."""

_LAYOUT, _CONTINUED = 0x08, 0x10
"""Kinds of message."""

_MOST = 1 << 16  # bytes of a block of an object header that are looked at
_BLOCKS = 8  # of an object header

_ARRAY = b"EAHD" + bytes([0, 0, 8, 32, 4, 16, 4, 10])
"""How an array begins: how it grows, as HDF5 always has it, which divides by these numbers."""
_NOWHERE = (1 << 64) - 1


def pieces(file: int, address: int) -> int | None:
    """How many pieces HDF5 would go through for a dataset that is stored in pieces.

    Args:
        file: descriptor of the open file.
        address: of the dataset's object header.

    Returns:
        The number; None where the index is of another kind than this project writes, or no such header is there.
    """
    if os.pread(file, 8, 0) != b"\x89HDF\r\n\x1a\n":  # HDF5 would look further on, and count addresses from there
        return None
    try:
        message = _layout(file, address)
        if message is None or message[:2] != b"\x04\x02":
            return None
        place = 5 + message[3] * message[4]
        kind = message[place]
        if kind != GROWING:
            return 1 if kind == SINGLE else None
        index = _number(message, place + 6)
        if index == _NOWHERE:  # nothing was written
            return 0
        header = os.pread(file, 72, index)
    except (IndexError, OSError, OverflowError):
        return None
    return _number(header, 44) if len(header) == 72 and header.startswith(_ARRAY) else None


def _layout(file: int, address: int) -> bytes | None:
    """The first layout message of an object header, which may go on elsewhere in the file, in blocks of their own."""
    header = os.pread(file, _MOST, address)
    if header[:5] != b"OHDR\x02":
        return None
    flags, place = header[5], 6
    place += 16 * bool(flags & 0x20) + 4 * bool(flags & 0x10)
    width = 1 << (flags & 3)
    prefix = 6 if flags & 4 else 4
    block = header[place + width : place + width + _number(header, place, width)]
    following: list[tuple[int, int]] = []
    for _ in range(_BLOCKS):
        place = 0
        while place + prefix <= len(block):
            kind, length = block[place], _number(block, place + 1, 2)
            place += prefix
            if kind == _LAYOUT:
                return block[place : place + length]
            if kind == _CONTINUED:
                following.append((_number(block, place), _number(block, place + 8)))
            place += length
        if not following:
            return None
        start, length = following.pop(0)
        found = os.pread(file, min(length, _MOST), start)
        if not found.startswith(b"OCHK"):
            return None
        block = found[4:-4]  # between the signature and a checksum
    return None


def _number(raw: bytes, place: int, width: int = 8) -> int:
    if place + width > len(raw):
        raise IndexError
    return int.from_bytes(raw[place : place + width], "little")
