"""Trajectories of a clip, frame by frame (Wang & Schmid 2013)."""

import hashlib
from collections.abc import Iterable

import cv2
import numpy as np

from han_core.baselines.trajectories import judging, kernels
from han_core.baselines.trajectories.draw import Draw
from han_core.baselines.trajectories.params import LARGEST, TIME, TrajectoryParams
from han_core.baselines.trajectories.pyramid import Level, filtered, pyramid_sizes
from han_core.baselines.trajectories.tracks import Finished, Tracks
from han_core.baselines.trajectories.trajectories import HISTOGRAMS, Counts, Trajectories, rounded
from han_core.camera.motion import homography

_FARTHEST = 500.0  # pixels of a warped displacement: no camera moves so far, but a bad homography may


def extract(
    frames: Iterable[np.ndarray],
    fields: Iterable[np.ndarray],
    params: TrajectoryParams,
    *,
    name: str = "",
    seed: int = 0,
) -> Trajectories:
    """All trajectories of a clip, or ``params.most`` of them.

    Args:
        frames: (H, W) uint8 grey each, of the flow's size.
        fields: (2, H, W) float32 flow in pixels each, from a frame to the next one; one fewer than frames.
        params: how.
        name: of the clip, which with the seed decides which part of them is drawn.
        seed: for all clips alike.

    Returns:
        The trajectories, with points and displacements rounded as they would be stored.

    Raises:
        ValueError: frames and fields do not fit together.
    """
    extractor, fields = None, iter(fields)
    for frame in frames:
        if extractor is None:
            extractor = Extractor(*frame.shape, params, name=name, seed=seed)
            extractor.add(frame)
        elif (field := next(fields, None)) is None:
            raise ValueError("there are fewer fields than pairs of frames")
        else:
            extractor.add(frame, field)
    if next(fields, None) is not None:
        raise ValueError("there are more fields than pairs of frames")
    return Trajectories.empty(params.length) if extractor is None else extractor.trajectories()


class Extractor:
    """Takes the frames and flow of a clip one by one.

    In memory are one frame's pyramid, the tracks that are alive, and what is kept: at most 1.25 ``params.most``
    trajectories and those of a frame, if that is not 0.

    Args:
        height, width: of the frames.
        params, name, seed: as in :func:`extract`.
        count: frames that will come, if that is known: no track is started then that cannot finish, which saves time
            and changes no result.

    Raises:
        ValueError: the frames are too large.
    """

    def __init__(
        self,
        height: int,
        width: int,
        params: TrajectoryParams,
        *,
        name: str = "",
        seed: int = 0,
        count: int | None = None,
    ) -> None:
        if not (0 < height <= LARGEST and 0 < width <= LARGEST):
            raise ValueError(f"frames of {width}x{height} pixels: a side has 1 to {LARGEST}")
        self.params, self.size = params, (height, width)
        self.frames = 0
        self._last_start = np.inf if count is None else count - 1 - params.length
        self._levels = [Level(size, self.size) for size in pyramid_sizes(height, width, params)]
        self._tracks = [Tracks(level, params) for level in self._levels]
        self._greys: list[np.ndarray] = []
        self._tally = np.zeros(4, np.int64)
        digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()
        self._drawn = Draw[Trajectories](params.most, [seed, *digest], Trajectories.select, Trajectories.concatenate)

    def add(self, frame: np.ndarray, field: np.ndarray | None = None) -> None:
        """The next frame (H, W) uint8, with the flow (2, H, W) float32 from the last one to it; the first has none.

        Raises:
            ValueError: shapes or types are wrong, or the flow is not finite.
        """
        if frame.shape != self.size or frame.dtype != np.uint8:
            raise ValueError(f"frame {self.frames} is {frame.dtype} {frame.shape}, not uint8 {self.size}")
        if (field is None) != (self.frames == 0):
            raise ValueError("each frame but the first comes with the flow to it")
        if field is not None:
            if field.shape != (2, *self.size) or field.dtype != np.float32:
                raise ValueError(
                    f"flow {self.frames - 1} is {field.dtype} {field.shape}, not float32 {(2, *self.size)}"
                )
            if not np.isfinite(field).all():
                raise ValueError(f"flow {self.frames - 1} is not finite")
            self._step(np.ascontiguousarray(field))
        self._greys, above = [], np.ascontiguousarray(frame)
        for level, tracks in zip(self._levels, self._tracks, strict=True):
            above = level.grey(above)
            self._greys.append(above)
            if self.frames <= self._last_start:
                tracks.start(cv2.cornerMinEigenVal(above, 3, ksize=3), self._drawn.numbers)
        self.frames += 1

    def trajectories(self) -> Trajectories:
        """Those of the frames so far, or the part of them that was drawn."""
        found = self._drawn.items()
        return Trajectories.empty(self.params.length) if found is None else found

    @property
    def counts(self) -> Counts:
        """What became of the tracks so far."""
        kept, static, erratic, camera = self._tally.tolist()
        return Counts(kept + static + erratic + camera, kept, static, erratic, camera)

    def _step(self, field: np.ndarray) -> None:
        if not any(map(len, self._tracks)):
            return
        params = self.params
        motion = homography(field, params.camera, self._greys[0])
        interleaved = cv2.merge(list(field))
        moves = not np.array_equal(motion, np.eye(3))
        finished = []
        for level, tracks, grey in zip(self._levels, self._tracks, self._greys, strict=True):
            if not len(tracks):
                finished.append(tracks.none())
                continue
            raw = level.flow(field, interleaved)
            flow = filtered(raw, params.median)
            warped = filtered(level.warp(raw, motion), params.median) if moves else flow
            tracks.describe(grey, warped, self._drawn.limit)
            finished.append(tracks.step(flow, warped))
        self._finish(finished)

    def _finish(self, finished: list[Finished]) -> None:
        """Test the tracks that have finished at each scale, and keep those that pass and may be drawn."""
        points, warped, numbers = (
            np.concatenate([getattr(tracks, name) for tracks in finished]) for name in ("points", "warped", "numbers")
        )
        verdict = judging.judge(points, warped, self.params.camera != "none")
        self._tally += np.bincount(verdict, minlength=4)
        kept = (verdict == judging.KEPT) & (numbers < self._drawn.limit)
        if not kept.any():
            return
        counts = [len(tracks.slots) for tracks in finished]
        parts = zip(self._tracks, finished, np.split(kept, np.cumsum(counts)[:-1]), strict=True)
        described = np.concatenate([tracks.described(done.slots[chosen]) for tracks, done, chosen in parts])
        self._drawn.add(
            Trajectories(
                points=rounded(points[kept]),
                start=np.full(len(described), self.frames - self.params.length, np.int32),
                scale=np.repeat(np.arange(len(counts), dtype=np.uint8), counts)[kept],
                warped=rounded(np.clip(warped[kept], -_FARTHEST, _FARTHEST)),
                **dict(zip(HISTOGRAMS, quantized(described), strict=True)),
            ),
            numbers[kept],
        )


def quantized(described: np.ndarray) -> list[np.ndarray]:
    """hog, hof, mbhx, mbhy, each (n, 3 x 4 x bins) uint8, of (n, 3, 132) float32 in [0, 1]."""
    levels = np.rint(described * np.float32(255)).astype(np.uint8)
    return [part.reshape(len(described), TIME * part.shape[2]) for part in np.split(levels, kernels.STARTS, axis=2)]
