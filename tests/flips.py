"""Files with one bit changed: whatever reads one must say so, or read what was written."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any


def flipped(path: Path, count: int | None = None, within: range | None = None) -> Iterator[int]:
    """Change one bit of a file after the other, each put back before the next; yields its number.

    Args:
        count: how many bits, drawn with a fixed seed; None takes all.
        within: bytes of the file that are drawn from; None is all of them.
    """
    places = within or range(path.stat().st_size)
    bits = range(8 * places.start, 8 * places.stop)
    for bit in bits if count is None else sorted(random.Random(0).sample(bits, min(count, len(bits)))):
        with path.open("r+b") as file:
            file.seek(bit // 8)
            (byte,) = file.read(1)
            file.seek(bit // 8)
            file.write(bytes([byte ^ 1 << bit % 8]))
        yield bit
        with path.open("r+b") as file:
            file.seek(bit // 8)
            file.write(bytes([byte]))


def check_told(
    path: Path,
    read: Callable[[], Any],
    error: type[Exception] | tuple[type[Exception], ...],
    same: Callable[[Any], bool],
    *words: str,
    count: int | None = None,
    within: range | None = None,
) -> float:
    """Check that each flip makes ``read`` raise ``error`` naming the file and with all ``words``, or changes nothing.

    Returns:
        Share of the flips that were told.
    """
    told = flips = 0
    for bit in flipped(path, count, within):
        flips += 1
        try:
            found, message = read(), None
        except error as raised:
            found, message = None, str(raised)
        if message is None:
            assert same(found), f"bit {bit} changed what was read, and nobody said so"
        else:
            told += 1
            assert all(word in message for word in (str(path), *words)), f"bit {bit}: {message}"
    assert same(read())
    return told / flips
