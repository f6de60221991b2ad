"""Is a finished file what it claims to be? Checks by its trailer or its name, and in full."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from han_core.cache.fingerprint import without_code
from han_core.clipfile.checksums import sha256_of_file
from han_core.clipfile.content import array_content, content_digest, images_content
from han_core.clipfile.reader import ClipFile
from han_core.clipfile.trailer import REMAKE, SPARSE, ClipFileError, Trailer, read_trailer


def verify_entry(path: Path) -> None:
    """Recompute the checksums of one entry.

    Raises:
        ClipFileError: it is damaged, or lies under another fingerprint or kind than its own.
    """
    if path.suffix == ".h5":
        check_identity(path, path.parent.parent.name, path.name.split(".")[0])
        verify_clip_file(path)
    elif sha256_of(path) != claimed_checksum(path):
        raise ClipFileError(
            f"{path}: does not have the checksum in its name. It is damaged: remove it and run the stage again."
        )


def problems(paths: Sequence[Path], check: Callable[[Path], None] = verify_entry, *, workers: int = 1) -> Iterator[str]:
    """What ``check`` finds wrong with each file, in order; "" for a sound one.

    Args:
        check: raises ClipFileError or OSError; picklable.
        workers: processes that read in parallel.
    """
    look = partial(_problem, check)
    if workers == 1 or len(paths) < 2 * workers:
        yield from map(look, paths)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(look, paths, chunksize=16)


def _problem(check: Callable[[Path], None], path: Path) -> str:
    try:
        check(path)
    except (ClipFileError, OSError) as error:
        return str(error)
    return ""


def check_identity(path: Path, kind: str, fingerprint: str) -> Trailer | None:
    """Check by one small read that an entry is of the kind and fingerprint under which it lies.

    Returns:
        What was read: the trailer of a clip file.

    Raises:
        ClipFileError: it is not, or it is not finished.
    """
    if path.suffix != ".h5":
        if not path.stat().st_size:
            raise ClipFileError(f"{path}: is empty")
        return None
    trailer = read_trailer(path)
    _check_trailer(path, trailer, kind, fingerprint)
    return trailer


def verify_written(path: Path, kind: str, fingerprint: str) -> Trailer:
    """Read a clip file back that was just written: its bytes, and whose it is.

    What is in it was digested as it was written; that HDF5 reads the same is for :func:`verify_clip_file`.

    Raises:
        ClipFileError: it is damaged, unfinished, or of another kind or fingerprint.
    """
    trailer = _verified_bytes(path)
    _check_trailer(path, trailer, kind, fingerprint)
    return trailer


def _check_trailer(path: Path, trailer: Trailer, kind: str, fingerprint: str) -> None:
    if (trailer.kind, trailer.fingerprint) != (kind, without_code(fingerprint)):
        raise ClipFileError(
            f"{path}: holds the {trailer.kind} file {trailer.fingerprint} of clip {trailer.clip}, "
            f"not the {kind} file {fingerprint}"
        )


def claimed_checksum(path: Path) -> str:
    """SHA-256 that a file claims to have: clip files in the trailer, others in their name."""
    return read_trailer(path).sha256 if path.suffix == ".h5" else path.name.split(".")[1]


def sha256_of(path: Path) -> str:
    """Of a whole file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def verify_clip_file(path: str | Path) -> None:
    """Recompute every checksum of a clip file.

    First the SHA-256 of the whole HDF5 part, read as plain bytes (so that HDF5 never sees a damaged file); then,
    inside, that each dataset has its checksum and that the trailer tells the truth: whose file it is, where its arrays
    lie, and what is in it, by which everything that is made of the file is known. No chance error makes a trailer lie;
    a file made to pass for another does.

    Raises:
        ClipFileError: anything differs; the message names file and clip.
    """
    path = Path(path)
    trailer = _verified_bytes(path)
    who = _who(path, trailer)
    with ClipFile(path) as file:
        for key in ("schema", "kind", "clip", "fingerprint"):
            if getattr(file, key) != getattr(trailer, key):
                raise ClipFileError(f"{who}: attribute and trailer differ in {key}. {REMAKE}")
        found = {}
        for name in file.names():
            written, found[name] = file.checksums(name)
            if written != found[name]:
                raise ClipFileError(f"{who}: dataset {name} does not have the checksum it was written with. {REMAKE}")
        _check_places(file, trailer, who)
        if _content(file, trailer, found) != trailer.content:
            raise ClipFileError(f"{who}: its trailer claims another content than it has. {REMAKE}")


def _check_places(file: ClipFile, trailer: Trailer, who: str) -> None:
    """Are the arrays that are read by the trailer those that HDF5 reads?"""
    for name, told in trailer.arrays.items():
        if told.codec == SPARSE:
            continue
        stored = file.stored(name)
        same = stored == told if stored.memory else (stored.dtype, stored.shape) == (told.dtype, told.shape)
        if not same:
            raise ClipFileError(f"{who}: trailer and HDF5 differ in array {name}. {REMAKE}")


def _content(file: ClipFile, trailer: Trailer, checksums: Mapping[str, str]) -> str:
    """The identity of what is in a file, given the checksum of each of its datasets. What is no array is a row of
    images, with its offsets; their checksums, ``<name>_crc32``, add nothing to it."""
    declared = {name: array for name, array in trailer.arrays.items() if array.codec == SPARSE}
    datasets = {}
    for name, checksum in checksums.items():
        if name in trailer.arrays:
            array = trailer.arrays[name]
            datasets[name] = array_content(np.dtype(array.dtype), array.shape, checksum)
        elif f"{name}_offsets" in checksums and f"{name}_crc32" in checksums:
            datasets[name] = images_content(checksum, checksums[f"{name}_offsets"])
        elif not (name.endswith(("_offsets", "_crc32")) and name.rpartition("_")[0] in checksums):
            raise ClipFileError(f"{file.path}: its trailer does not know dataset {name}. {REMAKE}")
    return content_digest(file.kind, file.clip, file.attributes, declared, datasets)


def _verified_bytes(path: Path) -> Trailer:
    trailer = read_trailer(path)
    if sha256_of_file(path, trailer.size) != trailer.sha256:
        raise ClipFileError(f"{_who(path, trailer)} does not have the checksum it was written with. {REMAKE}")
    return trailer


def _who(path: Path, trailer: Trailer) -> str:
    return f"{path}: clip {trailer.clip} ({trailer.kind})"
