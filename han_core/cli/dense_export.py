"""Dense arrays out of a store as files of their own, never over a clip file.

Clip files are hard links: an output, the clip cache and DVC's cache are one file on disk, which writing into any of
them would damage. So nothing is written where clip files lie, and no existing file is opened for writing: each is
written beside its final name and renamed.
"""

import errno
import os
import secrets
from collections.abc import Iterable
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import h5py
import numpy as np

from han_core.clipfile.trailer import ClipFileError, read_trailer
from han_core.cubes.folder import StoredClip
from han_core.errors import HanError


class ExportError(HanError, ValueError):
    """An export may not or cannot be written; the message says where, why and what to do."""


_ADVICE = {
    errno.ENOSPC: "make room on that disk, or name a DESTINATION on another",
    errno.EDQUOT: "your quota there is used up: make room, or name a DESTINATION elsewhere",
    errno.EROFS: "that file system is read-only; name a DESTINATION on one that can be written",
    errno.ENOTDIR: "a file is where a folder is needed; name another DESTINATION",
    errno.EEXIST: "a file is where a folder is needed; name another DESTINATION",
    errno.EISDIR: "a folder has that name; remove it, or name another DESTINATION",
    errno.ENOENT: "no folder can be made there; name another DESTINATION",
    errno.EFBIG: "files may not grow so large here (`ulimit -f`)",
}


def check_destination(folder: Path, clips: Iterable[StoredClip], destination: Path) -> None:
    """Make sure that an export can harm no clip file, before anything is written.

    Args:
        folder: the store.
        clips: all that are exported.
        destination: need not exist. Links are followed, its own, those of its classes and those of the store.

    Raises:
        ExportError: it is the store, lies in it or holds it, or there are clip files in it.
    """
    clips = list(clips)
    sources = {_real(folder), *(_real(path) for path in {clip.path.parent for clip in clips})}
    targets = {_real(destination), *(_real(destination / name) for name in {clip.class_name for clip in clips})}
    for target in targets:
        if any(target.is_relative_to(source) for source in sources):
            raise ExportError(_refusal(destination, f"is the store {folder} that is exported, or lies in it"))
    if any(source.is_relative_to(_real(destination)) for source in sources):
        raise ExportError(_refusal(destination, f"holds the store {folder} that is exported"))
    for pattern in ("*.h5", "*/*.h5", "*/*/*.h5"):  # a class of a store, a store (or a kind's files), a dataset
        for path in destination.glob(pattern):
            if _is_clip_file(path):
                raise ExportError(_refusal(destination, f"holds clip files, such as {path}"))


def write_dense(path: Path, array: str, values: np.ndarray) -> None:
    """Write an array into a file of its own: whole under its name, or not at all.

    Args:
        path: ends with ``.npy`` or, for HDF5, ``.h5``. Its folder is made; what has its name is replaced.
        array: name of the dataset in HDF5.
        values: of any shape.

    Raises:
        ExportError: it cannot be written.
    """
    content = BytesIO()  # in memory first: NumPy and HDF5 tell a full disk in ways of their own, or not at all
    if path.suffix == ".npy":
        np.save(content, values)
    else:
        with h5py.File(content, "w") as file:
            file.create_dataset(array, data=values, track_times=False)
    beside = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with beside.open("xb") as file:
                file.write(content.getbuffer())
            os.replace(beside, path)
        finally:
            with suppress(OSError):  # the error that led here is what is told
                beside.unlink(missing_ok=True)
    except OSError as error:
        what = _ADVICE.get(error.errno or 0, "mend that, or name another DESTINATION")
        raise ExportError(f"{path}: cannot be written ({error.strerror or error}): {what}") from None


def _refusal(destination: Path, reason: str) -> str:
    return (
        f"{destination}: {reason}. Nothing was written, for clip files must stay as they are; name a DESTINATION of "
        "its own, such as dense/spatial-1"
    )


def _is_clip_file(path: Path) -> bool:
    try:
        read_trailer(path)
    except (ClipFileError, OSError):  # such as what an earlier export wrote, which is replaced
        return False
    return True


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))  # Path.resolve fails where links go round in a circle
