"""Flow fields as ``.flo`` files."""

from pathlib import Path

import cv2
import numpy as np


def write_flo(path: str | Path, flow: np.ndarray) -> None:
    """Write one flow field in the Middlebury format (``.flo``).

    Args:
        flow: (2, H, W) float32 pixels, x first.

    Raises:
        ValueError: wrong shape, a name that does not end in .flo, or the file cannot be written.
    """
    flow = np.asarray(flow)
    if flow.ndim != 3 or flow.shape[0] != 2:
        raise ValueError(f"flow must have the shape (2, H, W), not {flow.shape}")
    path = Path(path)
    if path.suffix != ".flo":
        raise ValueError(f"{path}: the name of a flow file must end in .flo")
    if not cv2.writeOpticalFlow(str(path), np.ascontiguousarray(flow.transpose(1, 2, 0), np.float32)):
        raise ValueError(f"{path}: cannot be written; does its folder exist?")


def read_flo(path: str | Path) -> np.ndarray:
    """Read a ``.flo`` file: (2, H, W) float32 pixels, x first. Unknown flow is larger than 1e9 by convention.

    Raises:
        ValueError: the file is missing or is no .flo file.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    flow = cv2.readOpticalFlow(str(path))
    if flow is None or flow.size == 0:
        raise ValueError(f"{path}: is not a complete .flo file")
    return np.ascontiguousarray(flow.transpose(2, 0, 1))
