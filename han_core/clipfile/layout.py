"""How the pieces of a dataset are found, read from HDF5's headers without HDF5.

The index of a dataset that grows says how many pieces it knows of, and HDF5 tries every one of them: a file that says
2^62 would keep it busy for centuries, in a loop that nothing ends. So the number is looked at first. Formats: HDF5 File
Format Specification 3.0, IV.A.1.b (object header 2), IV.A.2.i (layout message 4), III.E (extensible array).
"""

import os

SINGLE, GROWING = 1, 4
"""Kinds of index: of one piece, and the extensible array of a dataset with one axis that grows."""

_MOST = 1 << 16  # bytes of an object header that are looked at; the layout is among the first of its messages

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
        message = _layout(os.pread(file, _MOST, address))
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


def _layout(header: bytes) -> bytes | None:
    """The first layout message of an object header."""
    if header[:5] != b"OHDR\x02":
        return None
    flags, place = header[5], 6
    place += 16 * bool(flags & 0x20) + 4 * bool(flags & 0x10)
    width = 1 << (flags & 3)
    end = place + width + _number(header, place, width)
    place += width
    prefix = 6 if flags & 4 else 4
    while place + prefix <= min(end, len(header)):
        kind, length = header[place], _number(header, place + 1, 2)
        place += prefix
        if kind == 8:
            return header[place : place + length]
        place += length
    return None


def _number(raw: bytes, place: int, width: int = 8) -> int:
    if place + width > len(raw):
        raise IndexError
    return int.from_bytes(raw[place : place + width], "little")
