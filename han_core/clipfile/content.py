"""The identity of what is in a clip file, by which whatever is made of it is known.

It is the same for equal arrays, images and attributes, however they came about, and it can be computed from the file
itself: what a file claims can be checked (:func:`han_core.cache.verify.verify_clip_file`).
"""

import hashlib
import json
from collections.abc import Mapping, Sequence

import numpy as np

from han_core.clipfile.trailer import StoredArray


def array_content(dtype: np.dtype, shape: Sequence[int], sha256: str) -> str:
    """What an array is, given the checksum of its raw content."""
    return f"{dtype.str} {tuple(shape)} {sha256}"


def images_content(sha256: str, sha256_of_offsets: str) -> str:
    """What a row of encoded images is, given the checksums of their bytes and of their offsets."""
    return f"{sha256} {sha256_of_offsets}"


def content_digest(
    kind: str,
    clip: str,
    attributes: Mapping[str, object],
    declared: Mapping[str, StoredArray],
    datasets: Mapping[str, str],
) -> str:
    """SHA-256 of the content of a clip file, hexadecimal.

    Args:
        attributes: those given to the writer.
        declared: arrays that are made up of others.
        datasets: name of each array and of each row of images -> :func:`array_content`, :func:`images_content`.
    """
    plain = {name: int(v) if isinstance(v, bool) else np.asarray(v).tolist() for name, v in attributes.items()}
    shapes = {name: [array.dtype, array.shape] for name, array in declared.items()}
    parts = [kind, clip, plain, shapes, dict(datasets)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode("utf-8")).hexdigest()
