"""How many pictures a video file says it has, where its word can be taken."""

from pathlib import Path

import av

_HAS_INDEX = 0x10  # AVIF_HASINDEX, of an AVI's main header


def promised(container: av.container.InputContainer, stream: av.VideoStream, path: Path) -> int:
    """Pictures that a file promises; 0 where nothing says so that can be trusted.

    By its index: of an MP4 those that its edit list needs, of an AVI. By its header: of an AVI that has lost the index
    that it should have, and of an MXF. What other headers say is a guess of their writer, and in a trimmed MP4 the
    pictures that are hidden count.

    To be asked before packets are read, as reading adds to the index of some.
    """
    names = set(container.format.name.split(","))
    if "mxf" in names and stream.duration and stream.time_base and stream.average_rate:
        return round(stream.duration * stream.time_base * stream.average_rate)
    if not {"mov", "avi"} & names:
        return 0
    indexed = sum(1 for entry in stream.index_entries if entry.size > 0)  # empty: the frame before is shown on
    return max(indexed, stream.frames) if "avi" in names and _index_is_lost(path) else indexed


def _index_is_lost(path: Path) -> bool:
    """Whether the place of an AVI's index, which its header says it has, holds something else."""
    with path.open("rb") as file:
        file.seek(12)
        while len(head := file.read(8)) == 8:
            kind, size = head[:4], int.from_bytes(head[4:], "little")
            if kind == b"idx1":
                return False
            start = file.tell()
            if kind == b"LIST" and file.read(4) == b"hdrl":
                header = file.read(min(size, 1 << 20))
                at = header.find(b"avih")
                flags = int.from_bytes(header[at + 20 : at + 24], "little") if at >= 0 else 0
                if not flags & _HAS_INDEX or b"indx" in header:  # an index in the header, of an OpenDML file
                    return False
            elif not kind.isalnum():
                return True
            file.seek(start + size + size % 2)
    return True
