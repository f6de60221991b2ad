"""The predictions of one system on the test clips of one split, as files: all that evaluation knows of a system.

``<row>.csv`` (UTF-8) has one line per clip: its name, then the probability of each class under the class's name. A test
clip without a line could not be predicted (it failed in an earlier stage) and counts as wrong. Probabilities are
written so that they read back as they were. Any program can write such a file. Here a last column ``crc32`` is added,
a checksum of each line (:mod:`han_core.tables.checked`), which is verified where it is there.

A system that attends leaves its maps beside them, ``<row>.attention.safetensors``: ``maps`` float32 (N, T, R) and
``frames`` int32 (N, T), the frame of the clip that each map lies over; the clips' names are in the metadata. The file
is sealed (:mod:`han_core.tensorfile.seal`).

Where a row could not be made at all, ``left_out.csv`` says which and why.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from han_core.errors import REPAIR, HanError
from han_core.tables.checked import CRC, TableError, read_lines, read_table, verified, write_table

LEFT_OUT = "left_out.csv"
_RUN = "run the stage that makes it"
_AGAIN = f"{_RUN} again ({REPAIR})"
_LEFT_OUT_COLUMNS = ["row", "reason"]


class PredictionsError(HanError, ValueError):
    """A file of predictions is missing or damaged; the message says which and what to do."""


@dataclass(frozen=True)
class Attention:
    """Attention maps of some clips, by name."""

    maps: Mapping[str, np.ndarray]
    """(T, R) float32 each."""
    frames: Mapping[str, np.ndarray]
    """(T,) int32 each: frame of the clip."""


def probabilities_file(folder: Path, row: str) -> Path:
    """Where the predictions of a row are in its folder."""
    return folder / f"{row}.csv"


def attention_file(folder: Path, row: str) -> Path:
    """Where the attention maps of a row are in its folder; absent for systems that do not attend."""
    return folder / f"{row}.attention.safetensors"


def write_predictions(path: Path, clips: Sequence[str], classes: Sequence[str], probabilities: np.ndarray) -> None:
    """Write predictions.

    Args:
        clips: N names.
        classes: C names, by label.
        probabilities: (N, C) float32 or float64.

    Raises:
        ValueError: the shape is another, or a probability is not finite.

    Example:
        >>> write_predictions(Path("mine.csv"), ["clip_1"], ["kick", "wave"], np.array([[0.25, 0.75]]))
        >>> read_predictions(Path("mine.csv"), ["kick", "wave"])["clip_1"].tolist()
        [0.25, 0.75]
    """
    if probabilities.shape != (len(clips), len(classes)):
        raise ValueError(f"probabilities {probabilities.shape} of {len(clips)} clips and {len(classes)} classes")
    if not np.isfinite(probabilities).all():
        raise ValueError("probabilities must be finite; leave out a clip that has none")
    path.parent.mkdir(parents=True, exist_ok=True)
    # str() is the shortest text that reads back as the same number of this type.
    write_table(path, ["clip", *classes], ([clip, *row] for clip, row in zip(clips, probabilities, strict=True)))


def read_predictions(path: Path, classes: Sequence[str]) -> dict[str, np.ndarray]:
    """{clip: probabilities (C,) float64, in the order of ``classes``}.

    Raises:
        PredictionsError: the file is missing, of other classes, or holds what is not a probability.
    """
    if not path.exists():
        raise PredictionsError(f"{path}: cannot be read (No such file or directory); {_RUN}")
    try:
        header, *lines = read_lines(path)
        # A class may have the column's name, so it is the count that tells whether there is the column.
        if header[-1] == CRC and len(header) == len(classes) + 2:
            header, lines = verified(path, header, lines)
    except TableError as error:
        raise PredictionsError(f"{error}, so it is not a file of predictions; {_AGAIN}") from None
    if header[:1] != ["clip"] or sorted(header[1:]) != sorted(classes):
        raise PredictionsError(f"{path}: line 1: its classes are not those of the dataset; {_AGAIN}")
    order = [header.index(name, 1) for name in classes]
    found: dict[str, np.ndarray] = {}
    for number, line in enumerate(lines, start=2):
        try:
            values = np.array([float(line[place]) for place in order])
        except (IndexError, ValueError):
            raise PredictionsError(f"{path}: line {number} does not hold a number for each class; {_AGAIN}") from None
        if not (np.isfinite(values).all() and len(line) == len(header)):
            raise PredictionsError(f"{path}: line {number} does not hold a number for each class; {_AGAIN}")
        if line[0] in found:
            raise PredictionsError(f"{path}: line {number}: clip {line[0]} occurs twice; {_AGAIN}")
        found[line[0]] = values
    return found


def write_attention(path: Path, clips: Sequence[str], maps: np.ndarray, frames: np.ndarray) -> None:
    """Write the maps (N, T, R) of N clips, which lie over their frames (N, T).

    Raises:
        ValueError: the shapes are others, or a clip is named twice.
    """
    from han_core.tensorfile.file import write_tensors  # it loads torch, which takes seconds

    if fault := _unfit_maps(clips, maps, frames):
        raise ValueError(fault)
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {"maps": np.ascontiguousarray(maps, np.float32), "frames": np.ascontiguousarray(frames, np.int32)}
    write_tensors(path, arrays, {"clips": json.dumps(list(clips), ensure_ascii=False)})


def read_attention(path: Path) -> Attention:
    """The maps that :func:`write_attention` wrote.

    Raises:
        PredictionsError: the file is missing or damaged.
    """
    from han_core.tensorfile.file import TensorFileError, read_arrays

    try:
        arrays, metadata = read_arrays(path)
        clips = json.loads(metadata["clips"])
        maps, frames = arrays["maps"], arrays["frames"]
        if maps.dtype != np.float32 or frames.dtype != np.int32:
            raise ValueError(f"maps of {maps.dtype} and frames of {frames.dtype}")
        if fault := _unfit_maps(clips, maps, frames):
            raise ValueError(fault)
    except TensorFileError as error:
        raise PredictionsError(f"{path}: cannot be read as attention maps: {error}; {_AGAIN}") from None
    except (KeyError, TypeError, ValueError) as error:
        raise PredictionsError(f"{path}: cannot be read as attention maps ({error}); {_AGAIN}") from None
    return Attention(dict(zip(clips, maps, strict=True)), dict(zip(clips, frames, strict=True)))


def _unfit_maps(clips: object, maps: np.ndarray, frames: np.ndarray) -> str:
    """Why these are no attention maps of these clips; "" if they are."""
    if not isinstance(clips, Sequence) or isinstance(clips, str) or not all(isinstance(name, str) for name in clips):
        return "clips are not a list of names"
    if len(set(clips)) < len(clips):
        return "a clip is named twice"
    if maps.ndim != 3 or frames.shape != maps.shape[:2] or len(clips) != len(maps):
        return f"maps {maps.shape} over frames {frames.shape} of {len(clips)} clips"
    return ""


def write_left_out(folder: Path, reasons: Mapping[str, str]) -> None:
    """Note which rows could not be made, {row: reason}; no file where all were."""
    if reasons:
        folder.mkdir(parents=True, exist_ok=True)
        write_table(folder / LEFT_OUT, _LEFT_OUT_COLUMNS, reasons.items())


def read_left_out(folder: Path) -> dict[str, str]:
    """{row: why it could not be made}.

    Raises:
        PredictionsError: the file is damaged.
    """
    path = folder / LEFT_OUT
    if not path.is_file():
        return {}
    try:
        header, rows = read_table(path)
    except TableError as error:
        raise PredictionsError(f"{error}; {_AGAIN}") from None
    if header != _LEFT_OUT_COLUMNS:
        raise PredictionsError(f"{path}: line 1: the columns must be {', '.join(_LEFT_OUT_COLUMNS)}; {_AGAIN}")
    return dict(rows)
