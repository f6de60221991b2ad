"""The size of the pictures in a video, as the encoded packets announce it.

OpenCV sets up its colour conversion for a video's first picture and keeps it: when the size changes midway, the
pictures that follow come out as garbage of the old size, without an error. Only the packets tell. Each codec repeats
its headers wherever the size may change; the functions here read width and height out of them and skip all else.

Sources: ISO/IEC 14496-2 6.2.3 (MPEG-4 part 2), 14496-10 7.3.2.1 (H.264), 23008-2 7.3.2.2 (HEVC), 11172-2 and
13818-2 (MPEG-1, 2), 10918-1 B.2.2 (JPEG), RFC 6386 9.1 (VP8), the VP9 bitstream specification 6.2.
"""

from collections.abc import Callable, Iterator

Size = tuple[int, int]
"""Width and height in pixels."""


def size_reader(codec: str) -> Callable[[bytes], Size | None] | None:
    """The function that finds the size in a packet of a codec.

    Args:
        codec: four characters, as OpenCV's ``CAP_PROP_FOURCC`` gives them; case does not matter.

    Returns:
        A function from a packet's bytes to the size it announces, or None if it announces none (most do not); or None
        for codecs that are not known here.
    """
    return _READERS.get(codec.lower())


class _Bits:
    """Bits from the most significant on; past the end they are zero."""

    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data, "big")
        self._left = 8 * len(data)

    def u(self, count: int) -> int:
        """Unsigned integer of ``count`` bits."""
        self._left -= count
        shifted = self._value >> self._left if self._left >= 0 else self._value << -self._left
        return shifted & ((1 << count) - 1)

    def ue(self) -> int:
        """Unsigned Exp-Golomb code."""
        zeros = 0
        while not self.u(1):
            zeros += 1
            if zeros > 32:
                raise ValueError("not an Exp-Golomb code")
        return (1 << zeros) - 1 + self.u(zeros)

    def se(self) -> int:
        """Signed Exp-Golomb code."""
        code = self.ue()
        return (code + 1) // 2 if code % 2 else -(code // 2)


def _start_codes(packet: bytes) -> Iterator[tuple[int, int]]:
    """Each start code's last byte, and the offset of what follows it."""
    at = packet.find(b"\x00\x00\x01")
    while 0 <= at < len(packet) - 3:
        yield packet[at + 3], at + 4
        at = packet.find(b"\x00\x00\x01", at + 3)


def _unescape(data: bytes) -> bytes:
    """Remove the bytes that keep start codes out of H.264 and HEVC headers."""
    return data.replace(b"\x00\x00\x03", b"\x00\x00")


def _mpeg4(packet: bytes) -> Size | None:
    for code, at in _start_codes(packet):
        if code == 0xB6:  # the picture itself; headers come before it
            return None
        if 0x20 <= code <= 0x2F:
            return _video_object_layer(_Bits(packet[at : at + 64]))
    return None


def _video_object_layer(bits: _Bits) -> Size | None:
    bits.u(1 + 8)
    version = 1
    if bits.u(1):
        version = bits.u(4)
        bits.u(3)
    if bits.u(4) == 15:
        bits.u(16)
    if bits.u(1):
        bits.u(3)
        if bits.u(1):
            bits.u(79)
    shape = bits.u(2)
    if shape == 3 and version != 1:
        bits.u(4)
    bits.u(1)
    resolution = bits.u(16)
    bits.u(1)
    if bits.u(1):
        bits.u(max(1, (resolution - 1).bit_length()))
    if shape != 0:
        return None
    bits.u(1)
    width = bits.u(13)
    bits.u(1)
    return width, bits.u(13)


_H264_HIGH = {44, 83, 86, 100, 110, 118, 122, 128, 134, 135, 138, 139, 244}


def _h264(packet: bytes) -> Size | None:
    for code, at in _start_codes(packet):
        if code & 31 in (1, 5):
            return None
        if code & 31 == 7:
            return _h264_sequence(_Bits(_unescape(packet[at : at + 512])))
    return None


def _h264_sequence(bits: _Bits) -> Size:
    profile = bits.u(8)
    bits.u(16)
    bits.ue()
    chroma = 1
    if profile in _H264_HIGH:
        chroma = bits.ue()
        if chroma == 3:
            bits.u(1)
        bits.ue()
        bits.ue()
        bits.u(1)
        if bits.u(1):
            for i in range(12 if chroma == 3 else 8):
                if bits.u(1):
                    _skip_scaling_list(bits, 16 if i < 6 else 64)
    bits.ue()
    order = bits.ue()
    if order == 0:
        bits.ue()
    elif order == 1:
        bits.u(1)
        bits.se()
        bits.se()
        for _ in range(bits.ue()):
            bits.se()
    bits.ue()
    bits.u(1)
    width, height = 16 * (bits.ue() + 1), bits.ue() + 1
    frames_only = bits.u(1)
    height *= 16 * (2 - frames_only)
    if not frames_only:
        bits.u(1)
    bits.u(1)
    if bits.u(1):
        left, right, top, bottom = (bits.ue() for _ in range(4))
        width -= (left + right) * (2 if chroma in (1, 2) else 1)
        height -= (top + bottom) * (2 if chroma == 1 else 1) * (2 - frames_only)
    return width, height


def _skip_scaling_list(bits: _Bits, length: int) -> None:
    last = following = 8
    for _ in range(length):
        if following:
            following = (last + bits.se()) % 256
        last = following or last


def _hevc(packet: bytes) -> Size | None:
    for code, at in _start_codes(packet):
        unit = code >> 1 & 63
        if unit < 32:
            return None
        if unit == 33:
            return _hevc_sequence(_Bits(_unescape(packet[at + 1 : at + 512])))
    return None


def _hevc_sequence(bits: _Bits) -> Size:
    bits.u(4)
    layers = bits.u(3)
    bits.u(1)
    bits.u(96)
    present = [(bits.u(1), bits.u(1)) for _ in range(layers)]
    if layers:
        bits.u(2 * (8 - layers))
    for profile, level in present:
        bits.u(88 * profile + 8 * level)
    bits.ue()
    chroma = bits.ue()
    if chroma == 3:
        bits.u(1)
    width, height = bits.ue(), bits.ue()
    if bits.u(1):
        left, right, top, bottom = (bits.ue() for _ in range(4))
        width -= (left + right) * (2 if chroma in (1, 2) else 1)
        height -= (top + bottom) * (2 if chroma == 1 else 1)
    return width, height


def _mpeg12(packet: bytes) -> Size | None:
    for code, at in _start_codes(packet):
        if code == 0:
            return None
        if code == 0xB3:
            bits = _Bits(packet[at : at + 3])
            return bits.u(12), bits.u(12)
    return None


def _jpeg(packet: bytes) -> Size | None:
    at = 2
    while at + 9 <= len(packet) and packet[at] == 0xFF:
        marker = packet[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = (int.from_bytes(packet[i : i + 2], "big") for i in (at + 5, at + 7))
            return width, height
        at += 1 if marker == 0xFF else 2 + int.from_bytes(packet[at + 2 : at + 4], "big")
    return None


def _vp8(packet: bytes) -> Size | None:
    if len(packet) < 10 or packet[0] & 1 or packet[3:6] != b"\x9d\x01\x2a":
        return None
    width, height = (int.from_bytes(packet[i : i + 2], "little") & 0x3FFF for i in (6, 8))
    return width, height


def _vp9(packet: bytes) -> Size | None:
    bits = _Bits(packet[:16])
    if bits.u(2) != 2:
        return None
    profile = bits.u(1) + 2 * bits.u(1)
    if profile == 3:
        bits.u(1)
    if bits.u(1) or bits.u(1):  # shows an earlier picture, or is not a key picture
        return None
    bits.u(2)
    if bits.u(24) != 0x498342:
        return None
    if profile >= 2:
        bits.u(1)
    if bits.u(3) != 7:
        bits.u(1)
        if profile % 2:
            bits.u(3)
    elif profile % 2:
        bits.u(1)
    return bits.u(16) + 1, bits.u(16) + 1


_READERS: dict[str, Callable[[bytes], Size | None]] = {
    **dict.fromkeys(("fmp4", "mp4v", "xvid", "divx", "dx50", "mpg4"), _mpeg4),
    **dict.fromkeys(("h264", "avc1", "x264"), _h264),
    **dict.fromkeys(("hevc", "hvc1", "hev1", "h265"), _hevc),
    **dict.fromkeys(("mpg1", "mpg2", "mpeg", "mp2v"), _mpeg12),
    **dict.fromkeys(("mjpg", "jpeg", "mjpa"), _jpeg),
    **dict.fromkeys(("vp80", "vp8 "), _vp8),
    **dict.fromkeys(("vp90", "vp9 "), _vp9),
}
