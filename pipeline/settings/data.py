"""Settings of the data: videos, frames and flow."""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PositiveFloat

from pipeline.settings.kinds import (
    Batch,
    Count,
    Group,
    LocalPath,
    Name,
    Share,
    Text,
    UserPath,
    expanded,
    no_boolean,
)
from pipeline.settings.problems import shown


def _pattern(pattern: str) -> str:
    if len(pattern) > 1000:
        raise ValueError("is longer than 1000 characters")
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"is not a regular expression: {error}; it is {shown(pattern)}") from None
    return pattern


def _written_out(path: Path) -> Path:
    if path.parts[:1] and path.parts[0].startswith("~"):
        raise ValueError(f"must be written out, because DVC watches it and knows no ~: {expanded(path)}")
    return path


class Folder(Group):
    """How groups and splits of a class-folder dataset come about (``dataset.kind: folder`` or ``synthetic``), and
    splits of a list without a column ``split`` (``list``)."""

    group_pattern: Annotated[Text, AfterValidator(_pattern)] | None = None
    """Regular expression searched in a clip's file stem; its first group (or the whole match) is the clip's
    group, e.g. the person filmed. Without one every clip is a group of its own. The synthetic names bring theirs."""
    split_by: Literal["list", "fold", "fraction"] = "fraction"
    """``list``: trainlistNN.txt/testlistNN.txt in ``dataset.annotations``; ``fold``: groups dealt into ``folds``
    folds, fold i is the test set of split i; ``fraction``: ``test_share`` of the groups, drawn again for each split."""
    folds: Annotated[int, Field(ge=2, le=9999)] = 5
    test_share: Annotated[float, Field(gt=0, lt=1)] = 0.3


class Dataset(Group):
    """Where clips come from."""

    name: Name
    """Part of every path, so that several datasets live side by side."""
    kind: Literal["synthetic", "folder", "list", "ucf101", "hmdb51", "ut_interaction"]
    root: Annotated[LocalPath, AfterValidator(_written_out)]
    """Folder of the videos, or with ``kind: list`` the CSV that names them; DVC watches it. Generated videos lie in
    ``data/<name>/raw`` and nowhere else: DVC removes a stage's outputs before it runs, and must never remove videos of
    yours."""
    base: UserPath | None = None
    """Folder that the paths of a list start from and all its videos lie in (``kind: list``, ``docs/datasets.md``); null
    is the folder of the list."""
    generate: tuple[Literal["synthetic"], ...] = ()
    """``[synthetic]`` makes DVC generate the videos first."""
    annotations: UserPath | None = None
    """Folder of the split files (ucf101, hmdb51, folder with ``split_by: list``)."""
    validation_share: Share = 0.0
    """Share of the training GROUPS held out as a validation set."""
    allowed_failures: Count = 0
    """How many clips may fail in a stage before the stage itself fails."""
    folder: Folder = Folder()

    @property
    def videos(self) -> Path:
        """Folder that the paths in clips.csv are relative to."""
        return self.root if self.kind != "list" else self.base or self.root.parent


class Synthetic(Group):
    """The generated dataset; see ``han_core/datasets/synthetic/generate.py``."""

    groups: Annotated[int, Field(ge=2, le=10_000)] = 12
    """Background, figure, place and camera of a clip; whole groups are train or test (``dataset.folder``)."""
    clips_per_group: Annotated[int, Field(ge=1, le=1000)] = 1
    """Clips of each class in each group; each has distractors, jitter and phase of its own."""
    frames: Annotated[int, Field(ge=12, le=10_000)] = 36
    width: Annotated[int, Field(ge=64, le=4096)] = 160
    height: Annotated[int, Field(ge=64, le=4096)] = 120
    fps: Annotated[float, Field(ge=1, le=1000)] = 25.0
    shake: Annotated[float, Field(ge=0, le=100)] = 0.0
    """Root mean square, in pixels along x and along y, of the motion of a hand that holds the camera."""


class Decode(Group):
    short_side: Annotated[int, Field(ge=32, le=16_384)] | None = None
    """Frames whose shorter side is longer than this are shrunk to it; null keeps the size of the video."""
    quality: Annotated[int, Field(ge=1, le=100)] = 95
    """JPEG quality; below 95 is known to cost accuracy."""
    damaged_share: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Share of a video's pictures that may be damaged (not decodable, missing, or with errors that the decoder reports)
    while its frames are kept and the damage is counted. A video with more fails; 0 refuses any damage, 1 keeps all."""
    time_limit: Annotated[float, Field(gt=0, le=10**9)] = 3600.0
    """Seconds that the decoding of one video may take; never changes a result."""


class TVL1(Group):
    """TV-L1 under OpenCV's names, OpenCV-CUDA's defaults."""

    tau: PositiveFloat = 0.25
    lambda_: Annotated[float, Field(gt=0, alias="lambda")] = 0.15
    theta: PositiveFloat = 0.3
    scales: Annotated[int, Field(ge=1, le=100)] = 5
    scale_step: Annotated[float, Field(gt=0, lt=1)] = 0.8
    warps: Annotated[int, Field(ge=1, le=10_000)] = 5
    epsilon: PositiveFloat = 0.01
    iterations: Annotated[int, Field(ge=1, le=10**6)] = 300
    median: Annotated[Literal[1, 3, 5], BeforeValidator(no_boolean)] = 1
    """Side of the median filter between iterations; 1 is none."""
    settle: Annotated[int, Field(ge=0, le=10**6)] = 10
    """Further iterations when the last warp on the finest level has met the stopping rule; OpenCV has none."""


SMALLEST_SIDE = 3
"""Pixels per side that TV-L1 needs: that of ``han_core/flow/tvl1/solver.py``, which stages without flow do not load."""
FlowPixels = Annotated[int, Field(ge=SMALLEST_SIDE, le=16_384)]


class Flow(Group):
    backend: Literal["auto", "reference", "cpu", "cuda", "opencv"] = "auto"
    size: tuple[FlowPixels, FlowPixels] | None = None
    """Width and height at which flow is computed and stored, in pixels of that size; null is the frames' own."""
    bound: PositiveFloat = 20.0
    """Pixels mapped to the ends of the 0..255 scale; larger motion is clipped."""
    rounding: Literal["nearest", "floor"] = "nearest"
    codec: Literal["jpeg", "png"] = "jpeg"
    quality: Annotated[int, Field(ge=1, le=100)] = 95
    batch: Literal["auto"] | Batch = "auto"
    """Pairs of frames of a clip in memory at once; never changes a result. ``auto`` is 16, and on a GPU as many as keep
    it busy, fewer of larger frames (``pairs_at_once`` in ``han_core/flow/tvl1/solver.py``). How many of them a GPU
    solves at once is its own matter."""
    tvl1: TVL1 = TVL1()
