"""The Fisher vectors of one clip as a file, an array for each channel."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from han_core.baselines.fisher.stored import CodebookError
from han_core.clipfile.arrays import read_parts
from han_core.clipfile.trailer import REMAKE, ClipFileError, Trailer, read_trailer
from han_core.clipfile.writer import ClipFileWriter
from han_core.errors import REPAIR

KIND = "fisher"
_LONGEST = 1 << 24  # numbers of a vector: 32 MiB


def write_vectors(
    path: str | Path,
    *,
    clip: str,
    fingerprint: str,
    vectors: Mapping[str, np.ndarray],
    attributes: Mapping[str, str | int],
) -> None:
    """Write a clip file of kind fisher.

    Args:
        vectors: channel -> (n,) improved Fisher vector; stored as float16, whose error is 2^-11 of a number or 2^-25.

    Raises:
        CodebookError: a vector is not one, is empty, or holds numbers that float16 cannot, so what made it is to blame.
    """
    with ClipFileWriter(path, kind=KIND, clip=clip, fingerprint=fingerprint, attributes=attributes) as file:
        for channel, vector in vectors.items():
            with np.errstate(over="ignore"):
                half = np.asarray(vector).astype(np.float16)
            if half.ndim != 1 or not half.size or not np.isfinite(half).all():
                raise CodebookError(
                    f"clip {clip}: {channel}: not a vector of finite numbers: its codebook is not usable. "
                    f"Make it again ({REPAIR})"
                )
            file.array(channel, half, codec="shuffle-zstd")


def read_vector(path: str | Path, channel: str) -> np.ndarray:
    """The vector (n,) float32 of a channel, read without HDF5: any number of threads read at once.

    Raises:
        ClipFileError: the file is missing or damaged, or holds no such vector.
    """
    return read_half(path, channel).astype(np.float32)


def read_half(path: str | Path, channel: str) -> np.ndarray:
    """The vector (n,) float16 of a channel as it is stored; else as :func:`read_vector`."""
    trailer = read_trailer(path)
    if trailer.kind != KIND:
        raise ClipFileError(f"{path}: clip {trailer.clip} is a file of kind {trailer.kind} and holds no Fisher vectors")
    _check(path, trailer, channel)
    (vector,) = read_parts(path, trailer, (channel,))
    if not np.isfinite(vector).all():
        raise ClipFileError(f"{path}: clip {trailer.clip}: {channel} holds numbers that are not finite. {REMAKE}")
    return vector


def _check(path: str | Path, trailer: Trailer, channel: str) -> None:
    """Before memory is taken: can the array be a vector? That there is one :func:`read_parts` checks."""
    stored = trailer.arrays.get(channel)
    if stored is not None and (stored.dtype != "<f2" or len(stored.shape) != 1 or not 1 <= stored.shape[0] <= _LONGEST):
        raise ClipFileError(f"{path}: clip {trailer.clip}: {channel} is not a Fisher vector. {REMAKE}")
