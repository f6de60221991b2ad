"""Pictures that are not in a file whose container has no index to tell: by what its packets leave out.

A container that is read past a hole goes on behind it, and one that is cut off just ends. Both leave traces: time
stamps that jump beside a packet that is damaged, a duration in the header that no track reaches, a part of the file
that nothing was read from. A transport or program stream, DV or Ogg that ends too early leaves none.
"""

import mmap
from itertools import pairwise
from pathlib import Path
from statistics import median

import av

from han_core.video.times import ROUNDING

_COUNTED = {"mov", "avi", "mxf"}
"""Containers that say themselves how many pictures they have."""
_TELL_DURATION = {"matroska", "webm", "flv", "asf"}
"""Containers whose header has the duration; of others FFmpeg takes it from what is there."""
_NO_MORE = {"dv", "gif", "mpeg", "mpegts", "ogg"}
"""Containers with nothing behind the last packet."""
_UNREAD, _PADDING = 0.1, 1 << 14
"""Share of a file behind the last packet that is no index, and bytes that are no padding of a last block."""
_BLANK = bytes(1 << 14)
"""More zeros than an ASF file pads a packet with; FFmpeg passes over them without a word."""
_NEAR = 1.0
"""Seconds between a damaged packet and a jump of the time stamps that it explains."""
_REGULAR = 0.8
"""Share of equal steps from which on the time stamps are those of an even video with gaps."""


class Traces:
    """What is noted while a file is read, from its first packet to its last."""

    def __init__(self, container: av.container.InputContainer, path: Path) -> None:
        self._names = set(container.format.name.split(","))
        told = container.duration if self._names & _TELL_DURATION else None
        self._duration = told / av.time_base if told else 0.0
        self._size = path.stat().st_size
        self._cut_off = self._blank = False
        if "asf" in self._names:
            told = _told_size(path)
            self._cut_off, self._size = told > self._size, max(told, self._size)
            self._blank = _has_blank(path)
        self._gif_end = _gif_end(path) if "gif" in self._names else None
        self._stamps: list[float] = []
        self._hurt: list[float] = []
        self._others = self._end = 0.0
        self._packets = 0
        self.stopped = False
        """Whether reading ended with an error."""

    def note(self, packet: av.Packet, *, ours: bool) -> None:
        """A packet of the video track, or of another."""
        if not packet.size:
            return
        if packet.pos is not None:
            self._end = max(self._end, packet.pos + packet.size)
        stamp = packet.pts if packet.pts is not None else packet.dts
        seconds = float(stamp * packet.time_base) if stamp is not None and packet.time_base else None
        if not ours:
            self._others = max(self._others, seconds or 0.0)
            return
        self._packets += 1
        if seconds is not None:
            self._stamps.append(seconds)

    def hurt(self) -> None:
        """The packet noted last is damaged."""
        self._hurt.append(self._stamps[-1] if self._stamps else 0.0)

    def missing(self) -> int:
        """Pictures that are not in the file, as far as can be told."""
        if self._names & _COUNTED or not self._packets:
            return 0
        stamps = sorted(self._stamps)
        steps = [after - before for before, after in pairwise(stamps) if after > before]
        step = median(steps) if steps else 0.0
        behind = 0
        if self._hurt or self.stopped or self._cut_off or self._blank:
            behind = self._behind(stamps, step)
            if step and sum(abs(one - step) <= max(step / 4, ROUNDING) for one in steps) >= _REGULAR * len(steps):
                behind += sum(self._in_gap(before, after, step) for before, after in pairwise(stamps))
        return behind or self._unread()

    def _behind(self, stamps: list[float], step: float) -> int:
        """Pictures between the last packet of all tracks and the end that the header tells."""
        if not self._duration or not step:
            return 0
        left = self._duration - max(stamps[-1] + step, self._others)
        return round(left / step) if left > max(1.5 * step, 0.02 * self._duration) else 0

    def _in_gap(self, before: float, after: float, step: float) -> int:
        """Pictures between two time stamps, if something is damaged there; a clock that was set anew is no gap."""
        gap = after - before
        if gap < 1.5 * step or gap > 10 * step * self._packets:
            return 0
        explained = self._blank or any(before - _NEAR <= stamp <= after + _NEAR for stamp in self._hurt)
        return round(gap / step) - 1 if explained else 0

    def _unread(self) -> int:
        """Pictures in the part of the file that nothing was read from, if they are as large as those that were."""
        end = self._end if self._gif_end is None else self._gif_end
        unread = self._size - end
        ended = self.stopped or self._cut_off or self._hurt or self._names & _NO_MORE
        if not end or unread < max(_UNREAD * self._size, _PADDING) or not ended:
            return 0
        return round(self._packets * unread / end)


def _has_blank(path: Path) -> bool:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return data.find(_BLANK) >= 0


def _told_size(path: Path) -> int:
    """Bytes that an ASF file (WMV) says it has; 0 if it does not."""
    with path.open("rb") as file:
        head = file.read(1 << 16)
    at = head.find(bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365"))  # the file properties
    if at < 0 or len(head) < at + 92 or head[at + 88] & 1:  # bit 0: a broadcast, whose header says nothing
        return 0
    return int.from_bytes(head[at + 40 : at + 48], "little")


def _gif_end(path: Path) -> int:
    """Where a GIF's last whole block ends, or the file where the trailer is there: what follows it is no GIF."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        at = 13 + _colours(data[10:11])
        while at < len(data):
            kind = data[at : at + 1]
            if kind == b";":
                return len(data)
            if kind == b"!":
                body = at + 2
            elif kind == b",":
                body = at + 11 + _colours(data[at + 9 : at + 10])
            else:
                return at
            while data[body : body + 1] not in (b"", b"\0"):
                body += 1 + data[body]
            if body >= len(data):
                return at
            at = body + 1
        return len(data)


def _colours(flags: bytes) -> int:
    """Bytes of a colour table."""
    return 3 << ((flags[0] & 7) + 1) if flags and flags[0] & 0x80 else 0
