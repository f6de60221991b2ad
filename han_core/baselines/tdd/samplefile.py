"""Descriptors drawn from one clip, for a codebook: a clip file with an array for each channel."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from han_core.clipfile.arrays import read_parts
from han_core.clipfile.trailer import REMAKE, ClipFileError, read_trailer
from han_core.clipfile.writer import ClipFileWriter

KIND = "tdd_samples"


def write_samples(
    path: str | Path,
    *,
    clip: str,
    fingerprint: str,
    samples: Mapping[str, np.ndarray],
    attributes: Mapping[str, str | int],
    torch_threads: int | None = None,
) -> None:
    """Write a clip file of kind tdd_samples.

    Args:
        samples: channel -> (n, C) descriptors, which lie between 0 and the root of a track's length; stored as float16,
            whose error is 2^-11 of a number.
    """
    identity = {"kind": KIND, "clip": clip, "fingerprint": fingerprint}
    with ClipFileWriter(path, **identity, attributes=attributes, torch_threads=torch_threads) as file:
        for channel, values in samples.items():
            file.array(channel, values.astype(np.float16), codec="shuffle-zstd")


def read_samples(path: str | Path) -> dict[str, np.ndarray]:
    """Channel -> (n, C) float16, channels by name.

    Raises:
        ClipFileError: the file is missing or damaged, or holds no samples.
    """
    trailer = read_trailer(path)
    if trailer.kind != KIND:
        raise ClipFileError(f"{path}: clip {trailer.clip} is a file of kind {trailer.kind} and holds no samples")
    channels = tuple(sorted(trailer.arrays))
    shapes = [trailer.arrays[channel].shape for channel in channels]
    types = {trailer.arrays[channel].dtype for channel in channels}
    if types != {"<f2"} or any(len(shape) != 2 or not shape[1] for shape in shapes) or len({s[0] for s in shapes}) > 1:
        raise ClipFileError(f"{path}: clip {trailer.clip}: its arrays are not descriptors of one sample. {REMAKE}")
    samples = dict(zip(channels, read_parts(path, trailer, channels), strict=True))
    if not all(np.isfinite(values).all() for values in samples.values()):
        raise ClipFileError(f"{path}: clip {trailer.clip}: holds numbers that are not finite. {REMAKE}")
    return samples
