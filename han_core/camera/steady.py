"""A clip's flow as a camera that stands still would have seen it."""

from pathlib import Path

import numpy as np

from han_core.camera.steady_field import steady_field
from han_core.camera.storedflow import StoredFlow, field_of_levels
from han_core.clipfile.reader import ClipFile
from han_core.clipfile.writer import ClipFileWriter
from han_core.flow.flowfile import encode_field
from han_core.flow.levels import FlowFormat


def steady_images(index: int, levels: np.ndarray, form: FlowFormat, camera: str) -> tuple[bytes, bytes, int]:
    """:func:`steady_field` of stored levels (2, H, W) uint8, encoded as :func:`encode_field` does."""
    return encode_field(index, steady_field(field_of_levels(levels, form.bound, form.rounding), camera), form)


def write_steady_flow(flow_path: str | Path, path: str | Path, *, clip: str, fingerprint: str, camera: str) -> int:
    """Take the camera's motion out of a flow file, into another one of the same form.

    Fields are read, warped, and quantised again, so that whatever reads flow files reads these. The file's attributes
    are those of the other, and ``camera``; ``clipped`` is counted anew. One field is in memory at a time.

    Args:
        flow_path: the clip's flow file.
        path: the clip file to write.
        clip, fingerprint: who it is.
        camera: what is taken out, as of :func:`steady_field`.

    Returns:
        The number of fields.

    Raises:
        ClipFileError: the flow file is damaged.
    """
    with ClipFile(flow_path) as source:
        stored = StoredFlow(source)
        attributes = {**source.attributes, "camera": camera}
        with ClipFileWriter(path, kind="flow", clip=clip, fingerprint=fingerprint, attributes=attributes) as writer:
            x, y = writer.images("x"), writer.images("y")
            clipped = 0
            for number in range(stored.count):
                field = steady_field(stored.field(number), camera)
                x_image, y_image, beyond = encode_field(number, field, stored.form)
                x.append(x_image)
                y.append(y_image)
                clipped += beyond
            writer.attributes |= {"clipped": clipped / (stored.count * stored.width * stored.height)}
    return stored.count
