"""Features of frames of a video while it is being decoded: the stages decode, flow and cubes without their files.

Every number goes the way it goes in the stages (frames and flow as JPEGs of the same quality, the same resizing and
arithmetic), so that a model sees here what it sees there. Memory holds the encoded frames between the oldest frame that
is still needed and the newest that was read, whatever the length of the video.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from han_core.camera.steady import steady_images
from han_core.errors import ClipError
from han_core.flow.flowfile import encode_field, grey_frame
from han_core.flow.levels import FlowFormat
from han_core.flow.tvl1.params import TVL1Params
from han_core.flow.tvl1.solver import pairs_at_once, tvl1_flow
from han_core.han.feature_settings import FeatureSettings
from han_core.images.codec import encode_image
from han_core.nets.clip_inputs import ClipFrames
from han_core.nets.extract import CubeNet
from han_core.nets.sampling import stack_fields
from han_core.predict.flow_backend import flow_backend
from han_core.video.damage import Damage
from han_core.video.decode import VideoFrames, read_video


class FrameBuffer:
    """A video as encoded frames, of which a stretch is in memory."""

    def __init__(self, video: Path, recipe: FeatureSettings) -> None:
        self._video = read_video(video, short_side=recipe.short_side)
        self._frames = _encoded(self._video, recipe)
        self._kept: dict[int, bytes] = {}
        self._oldest = 0
        self.read = 0
        """Frames read so far."""
        self.ended = False
        """Whether the last frame was read; then ``read`` is the length of the video."""

    def read_to(self, index: int) -> bool:
        """Read on until frame ``index`` is here; False if the video ends before it."""
        while self.read <= index and not self.ended:
            frame = next(self._frames, None)
            if frame is None:
                self.ended = True
            else:
                self._kept[self.read] = frame
                self.read += 1
        return index < self.read

    @property
    def times(self) -> list[float]:
        """Seconds at which the frames read so far are shown."""
        return self._video.times

    @property
    def damage(self) -> Damage:
        """What was found wrong in what was read so far."""
        return self._video.damage

    def drop_before(self, index: int) -> None:
        """Forget the frames before ``index``."""
        while self._oldest < min(index, self.read):
            del self._kept[self._oldest]
            self._oldest += 1

    def __getitem__(self, index: int) -> bytes:
        return self._kept[index]


def _encoded(video: VideoFrames, recipe: FeatureSettings) -> Iterator[bytes]:
    for frame in video:
        yield encode_image(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), "jpeg", recipe.frame_quality)


class FeatureMaker:
    """Features of single frames of one video.

    Args:
        frames: the video.
        nets: stream -> its net.
        recipe: how.
        array: the layer wanted: ``cubes``, or the name of a fully connected one.

    Raises:
        PredictError: flow is needed, and no back end can compute it here.
    """

    def __init__(self, frames: FrameBuffer, nets: Mapping[str, CubeNet], recipe: FeatureSettings, array: str) -> None:
        self._frames, self._nets, self._recipe = frames, nets, recipe
        self._layer = recipe.layer if array == "cubes" else array
        self._form = FlowFormat(**recipe.flow)
        if "temporal" in nets:
            self._backend = flow_backend(recipe.backend)
            self._solve = partial(tvl1_flow, backend=self._backend, params=TVL1Params(**recipe.tvl1))
        self._fields: dict[int, np.ndarray] = {}

    @property
    def reach(self) -> int:
        """How many frames after a frame its features depend on."""
        return (self._recipe.stack + 1) // 2 if "temporal" in self._nets else 0

    def make(self, positions: Sequence[int], count: int | None) -> dict[str, np.ndarray]:
        """Features of some frames, all of which lie in the buffer with what is around them.

        Args:
            positions: frame indices, ascending, none twice.
            count: length of the video where the end is near, so that stacks are clamped there; None before.

        Returns:
            {stream: (n, D, K, K), or (n, units) for a fully connected layer}, float16.

        Raises:
            ClipError: the video has one frame and flow is needed, or an activation does not fit into float16.
        """
        order = np.arange(len(positions))
        found = {}
        for stream, net in self._nets.items():
            if stream == "spatial":
                pixels = np.stack([_decoded(self._frames[i]) for i in positions])
                clip = ClipFrames(np.array(positions, np.int32), order, pixels)
            else:
                clip = self._stacks(positions, order, count)
            found[stream] = net.compute(clip)[self._layer]
        return found

    def forget_before(self, position: int) -> None:
        """Drop what no frame from ``position`` on needs."""
        first = max(0, position - self._recipe.stack // 2) if "temporal" in self._nets else position
        self._frames.drop_before(first)
        for index in [index for index in self._fields if index < first]:
            del self._fields[index]

    def _stacks(self, positions: Sequence[int], order: np.ndarray, count: int | None) -> ClipFrames:
        if count == 1:
            raise ClipError("the video has one frame; flow needs two")
        fields = (count if count is not None else self._frames.read) - 1
        wanted, places = np.unique(stack_fields(positions, self._recipe.stack, fields), return_inverse=True)
        self._solve_missing([int(i) for i in wanted])
        levels = np.stack([self._fields[int(i)] for i in wanted])
        return ClipFrames(np.array(positions, np.int32), order, levels, places.reshape(len(positions), -1))

    def _solve_missing(self, wanted: Sequence[int]) -> None:
        missing = [index for index in wanted if index not in self._fields]
        if not missing:
            return
        size = pairs_at_once(self._backend, *grey_frame(self._frames[missing[0]], self._form.size).shape)
        for start in range(0, len(missing), size):
            indices = missing[start : start + size]
            grey = {i: grey_frame(self._frames[i], self._form.size) for i in {*indices, *(i + 1 for i in indices)}}
            try:
                flow = self._solve(np.stack([grey[i] for i in indices]), np.stack([grey[i + 1] for i in indices]))
            except ValueError as error:
                raise ClipError(f"flow cannot be computed: {error}") from error
            for index, one in zip(indices, flow, strict=True):
                levels = _levels(encode_field(index, one, self._form))
                if self._recipe.camera != "none":
                    levels = _levels(steady_images(index, levels, self._form, self._recipe.camera))
                self._fields[index] = levels


def _levels(encoded: tuple[bytes, bytes, int]) -> np.ndarray:
    """(2, H, W) uint8 of what :func:`encode_field` gives."""
    return np.stack([_decoded(component) for component in encoded[:2]])


def _decoded(encoded: bytes) -> np.ndarray:
    """As ``ClipFile.image`` decodes: (H, W, 3) RGB or (H, W) grey, uint8."""
    image = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_UNCHANGED)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB) if image.ndim == 3 else image
