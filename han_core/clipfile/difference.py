"""Where two clip files first differ, for a person."""

from pathlib import Path

import numpy as np

from han_core.clipfile.reader import ClipFile


def first_difference(one: str | Path, other: str | Path) -> str:
    """What differs between the content of two clip files, in words; "" if they hold the same.

    Not compared is how they came about: the versions of libraries, and the processor.

    Raises:
        ClipFileError: one of them is damaged.
    """
    with ClipFile(one) as first, ClipFile(other) as second:
        for what in ("kind", "clip", "fingerprint"):
            if getattr(first, what) != getattr(second, what):
                return f"{what} is {getattr(first, what)} and {getattr(second, what)}"
        names = first.names()
        if names != second.names():
            return f"one holds {', '.join(names)}, the other {', '.join(second.names())}"
        for name in names:
            if f"{name}_offsets" in names:
                difference = _of_images(name, first, second)
            else:
                difference = _of_arrays(name, first.array(name), second.array(name))
            if difference:
                return difference
        mine, yours = first.attributes, second.attributes
        for name in sorted(mine.keys() | yours.keys()):
            if not np.array_equal(mine.get(name), yours.get(name)):
                return f"attribute {name} is {mine.get(name)} and {yours.get(name)}"
    return ""


def _of_images(name: str, first: ClipFile, second: ClipFile) -> str:
    if first.image_count(name) != second.image_count(name):
        return f"{name} has {first.image_count(name)} and {second.image_count(name)} images"
    for number in range(first.image_count(name)):
        if first.image_bytes(name, number) != second.image_bytes(name, number):
            return f"image {number} of {name}"
    return ""


def _of_arrays(name: str, first: np.ndarray, second: np.ndarray) -> str:
    if (first.shape, first.dtype) != (second.shape, second.dtype):
        return f"{name} is {first.dtype} {first.shape} and {second.dtype} {second.shape}"
    bits = [np.ascontiguousarray(a).reshape(-1).view(np.uint8).reshape(a.size, -1) for a in (first, second) if a.size]
    if not bits:
        return ""
    differ = (bits[0] != bits[1]).any(axis=1)  # bit by bit: a zero and its negative, or two NaNs, are not equal here
    if not differ.any():
        return ""
    place = tuple(int(i) for i in np.unravel_index(int(differ.argmax()), first.shape))
    return f"{name}{list(place)} is {first[place]} and {second[place]} ({int(differ.sum())} of {first.size} differ)"
