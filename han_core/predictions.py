"""The predictions of one system on the test clips of one split, as files: all that evaluation knows of a system.

``<row>.csv`` (UTF-8) has one line per clip: its name, then the probability of each class under the class's name. A test
clip without a line could not be predicted (it failed in an earlier stage) and counts as wrong. Probabilities are
written so that they read back as they were. Any program can write such a file.

A system that attends leaves its maps beside them, ``<row>.attention.safetensors``: ``maps`` float32 (N, T, R) and
``frames`` int32 (N, T), the frame of the clip that each map lies over; the clips' names are in the metadata.

Where a row could not be made at all, ``left_out.csv`` says which and why.
"""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from han_core.errors import HanError

LEFT_OUT = "left_out.csv"


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
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["clip", *classes])
        # The shortest text that reads back as the same number of this type.
        writer.writerows([clip, *map(str, row)] for clip, row in zip(clips, probabilities, strict=True))


def read_predictions(path: Path, classes: Sequence[str]) -> dict[str, np.ndarray]:
    """{clip: probabilities (C,) float64, in the order of ``classes``}.

    Raises:
        PredictionsError: the file is missing, of other classes, or holds what is not a probability.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            header, *lines = csv.reader(file, strict=True)
    except OSError as error:
        raise PredictionsError(f"{path}: cannot be read ({error.strerror}); run the stage that makes it") from None
    except (ValueError, csv.Error) as error:  # no line at all, not UTF-8, not CSV
        raise PredictionsError(f"{path}: is not a file of predictions ({error})") from None
    if header[:1] != ["clip"] or sorted(header[1:]) != sorted(classes):
        raise PredictionsError(f"{path}: its classes are not those of the dataset; run the stage that makes it again")
    order = [header.index(name, 1) for name in classes]
    found: dict[str, np.ndarray] = {}
    for number, line in enumerate(lines, start=2):
        try:
            values = np.array([float(line[place]) for place in order])
        except (IndexError, ValueError):
            raise PredictionsError(f"{path}: line {number} does not hold a number for each class") from None
        if not (np.isfinite(values).all() and len(line) == len(header)):
            raise PredictionsError(f"{path}: line {number} does not hold a number for each class")
        if line[0] in found:
            raise PredictionsError(f"{path}: line {number}: clip {line[0]} occurs twice")
        found[line[0]] = values
    return found


def write_attention(path: Path, clips: Sequence[str], maps: np.ndarray, frames: np.ndarray) -> None:
    """Write the maps (N, T, R) of N clips, which lie over their frames (N, T)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {"maps": np.ascontiguousarray(maps, np.float32), "frames": np.ascontiguousarray(frames, np.int32)}
    path.write_bytes(save(arrays, metadata={"clips": json.dumps(list(clips), ensure_ascii=False)}))


def read_attention(path: Path) -> Attention:
    """The maps that :func:`write_attention` wrote.

    Raises:
        PredictionsError: the file is missing or damaged.
    """
    try:
        with safe_open(path, framework="np") as file:
            clips = json.loads((file.metadata() or {})["clips"])
            maps, frames = file.get_tensor("maps"), file.get_tensor("frames")
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise PredictionsError(f"{path}: cannot be read as attention maps ({error})") from None
    return Attention(dict(zip(clips, maps, strict=True)), dict(zip(clips, frames, strict=True)))


def write_left_out(folder: Path, reasons: Mapping[str, str]) -> None:
    """Note which rows could not be made, {row: reason}; no file where all were."""
    if reasons:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / LEFT_OUT).open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([("row", "reason"), *reasons.items()])


def read_left_out(folder: Path) -> dict[str, str]:
    """{row: why it could not be made}."""
    path = folder / LEFT_OUT
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        return {row["row"]: row["reason"] for row in csv.DictReader(file)}
