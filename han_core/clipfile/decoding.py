"""Decoding one encoded image of a clip file, which may come from anywhere."""

import struct

import cv2
import numpy as np

from han_core.clipfile.trailer import ClipFileError

_MOST_PIXELS = 1 << 26  # 8192 x 8192; beyond any video, and OpenCV takes memory for what a header claims


def decode_image(encoded: bytes | np.ndarray, flag: int) -> np.ndarray:
    """An encoded image as OpenCV's ``flag`` (``IMREAD_..``) has it: (H, W) uint8 grey, or (H, W, 3) uint8 BGR.

    Raises:
        ClipFileError: the bytes are not a JPEG or PNG image of 8 bits a colour, or one of more than 67 million pixels;
            the message goes on after the name of the image.
    """
    data = np.frombuffer(encoded, np.uint8)
    size = image_size(bytes(data[:_HEADER]))
    if size is None or size[0] * size[1] > _MOST_PIXELS:
        raise ClipFileError("cannot be decoded as an image" if size is None else f"claims {size[0]}x{size[1]} pixels")
    try:
        image = cv2.imdecode(data, flag)
    except cv2.error:
        image = None
    if image is None or image.dtype != np.uint8 or image.shape[2:] not in ((), (3,)):
        raise ClipFileError("cannot be decoded")
    return image


_HEADER = 4096  # bytes in which the size stands; nothing written here has more before it


_SEGMENTS = frozenset({*range(0xC0, 0xD0), 0xDB, 0xDD, *range(0xE0, 0xF0), 0xFE}) - {0xC8}
"""Markers: frame headers and Huffman tables, quantisation tables, restart interval, applications', comment."""


def image_size(head: bytes) -> tuple[int, int] | None:
    """Width and height that the beginning of a JPEG or PNG claims; None where it is neither."""
    if head[:8] == b"\x89PNG\r\n\x1a\n" and head[12:16] == b"IHDR" and len(head) >= 24:
        return struct.unpack(">II", head[16:24])
    place = 2 if head[:2] == b"\xff\xd8" else len(head)
    # Segments with a length, and no others, which a decoder would skip in its own way: it must find the same size.
    while place + 9 <= len(head) and head[place] == 0xFF and head[place + 1] in _SEGMENTS:
        marker, length = head[place + 1], int.from_bytes(head[place + 2 : place + 4])
        if length < 2:
            return None
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # a frame header
            height, width = struct.unpack(">HH", head[place + 5 : place + 9])
            return width, height
        place += 2 + length
    return None
