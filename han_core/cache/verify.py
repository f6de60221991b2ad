"""Is a finished file what it claims to be? Checks by its trailer or its name, and in full."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from han_core.cache.fingerprint import without_code
from han_core.clipfile.checksums import sha256_of_file
from han_core.clipfile.reader import ClipFile
from han_core.clipfile.trailer import REMAKE, ClipFileError, Trailer, read_trailer


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


def check_identity(path: Path, kind: str, fingerprint: str) -> None:
    """Check by one small read that an entry is of the kind and fingerprint under which it lies.

    Raises:
        ClipFileError: it is not, or it is not finished.
    """
    if path.suffix != ".h5":
        if not path.stat().st_size:
            raise ClipFileError(f"{path}: is empty")
        return
    _check_trailer(path, read_trailer(path), kind, fingerprint)


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
    inside, that identity and trailer agree and that each dataset has its checksum.

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
        for name in file.names():
            written, found = file.checksums(name)
            if written != found:
                raise ClipFileError(f"{who}: dataset {name} does not have the checksum it was written with. {REMAKE}")


def _verified_bytes(path: Path) -> Trailer:
    trailer = read_trailer(path)
    if sha256_of_file(path, trailer.size) != trailer.sha256:
        raise ClipFileError(f"{_who(path, trailer)} does not have the checksum it was written with. {REMAKE}")
    return trailer


def _who(path: Path, trailer: Trailer) -> str:
    return f"{path}: clip {trailer.clip} ({trailer.kind})"
