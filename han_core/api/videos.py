"""Frames, flow and feature cubes of a video."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np

from han_core.api.arguments import chosen_backend, on_gpu, whole_number
from han_core.api.names import AnyPath, Device

_QUALITY = 95
_LAYER, _FC = "conv5_3", "fc7"


def frames(video: AnyPath, *, short_side: int | None = None) -> np.ndarray:
    """All frames of a video, turned and coloured as a player shows them.

    For long videos, which do not fit into memory, there is :func:`han_core.video.decode.read_video`.

    Args:
        video: any file that FFmpeg decodes.
        short_side: frames whose shorter side is longer, in pixels, are shrunk to it.

    Returns:
        (N, H, W, 3) uint8 RGB.

    Raises:
        VideoError: it cannot be decoded.
        ArgumentError: ``short_side`` is no number of pixels; it is a ValueError, too.

    Example:
        >>> import han_core as han
        >>> han.frames("clip.avi").shape
        (14, 48, 64, 3)
    """
    from han_core.video.decode import read_video

    if short_side is not None:
        short_side = whole_number("short_side", short_side, 1, "pixels")
    return np.stack(list(read_video(Path(video), short_side=short_side)))


def flow(
    video: AnyPath,
    *,
    short_side: int | None = None,
    backend: Literal["auto", "reference", "cpu", "cuda", "opencv"] = "auto",
    progress: Callable[[int], object] | None = None,
) -> np.ndarray:
    """TV-L1 flow between the adjacent frames of a video (Zach et al. 2007), as exact as it is solved.

    Args:
        video, short_side: as of :func:`frames`.
        backend: see docs/flow.md; ``auto`` is the GPU where there is one.
        progress: called with the number of pairs done, now and then.

    Returns:
        (N - 1, 2, H, W) float32 pixels, x first.

    Raises:
        VideoError: the video cannot be decoded.
        ClipError: it has one frame, or its frames have fewer than 3 pixels per side.
        ArgumentError: there is no such back end, or it cannot run here; it is a ValueError, too.

    Example:
        >>> import han_core as han
        >>> han.flow("clip.avi").shape
        (13, 2, 48, 64)
    """
    from han_core.errors import ClipError
    from han_core.flow.tvl1.solver import SMALLEST_SIDE, pairs_at_once, tvl1_flow

    chosen, pictures = chosen_backend(backend), frames(video, short_side=short_side)
    if len(pictures) < 2:
        raise ClipError(f"{video}: has one frame; flow needs two")
    height, width = pictures.shape[1:3]
    if min(height, width) < SMALLEST_SIDE:
        raise ClipError(f"{video}: has frames of {width}x{height}; flow needs {SMALLEST_SIDE} pixels per side")
    grey = _grey(pictures)
    found = []
    at_once = pairs_at_once(chosen, *grey.shape[1:])
    for start in range(0, len(grey) - 1, at_once):
        part = grey[start : start + at_once + 1]
        found.append(tvl1_flow(part[:-1], part[1:], backend=chosen))
        if progress is not None:
            progress(len(part) - 1)
    return np.concatenate(found)


def extract(
    video: AnyPath,
    net: AnyPath,
    *,
    frames: int = 25,
    layer: str | None = None,
    stack: int = 10,
    device: Device = "auto",
) -> np.ndarray:
    """The feature cube of a video by one net: eq. 1 of the paper for T equally spaced frames, or the flow around them.

    Flow is computed and stored as the pipeline's presets do, so the cube is that of stage ``cubes`` for a whole clip.

    Args:
        video: as of :func:`frames`.
        net: the file of a net that stage ``finetune`` wrote; it says which stream it is of.
        frames: T.
        layer: whose map is taken; None is conv5_3 of VGG-16.
        stack: L, flow fields in one input of a temporal net.
        device: ``auto`` (a GPU where there is one), ``cpu``, ``cuda``, or one of several GPUs, ``cuda:1``.

    Returns:
        (T, D, K, K) float16.

    Raises:
        WeightsError: the net's file is missing or damaged, or gives no such map.
        VideoError, ClipError: the video cannot be decoded, or has one frame where flow is needed.
        DeviceError: there is no device of this name, or a GPU is asked for and torch sees none.
        ArgumentError: ``frames`` or ``stack`` is less than 1; it is a ValueError, too.

    Example:
        >>> import han_core as han
        >>> han.extract("clip.avi", "spatial-1.safetensors", frames=3).shape
        (3, 512, 14, 14)
    """
    from han_core.devices import choose_device
    from han_core.flow.levels import FlowFormat
    from han_core.flow.tvl1.params import TVL1Params
    from han_core.han.feature_settings import FeatureSettings
    from han_core.nets.extract import CubeNet
    from han_core.nets.sampling import sample_frames
    from han_core.nets.sealed_net import read_metadata
    from han_core.nets.stream_net import open_net
    from han_core.predict.streaming import FeatureMaker, FrameBuffer

    frames, stack = whole_number("frames", frames, 1, "frames"), whole_number("stack", stack, 1, "flow fields")
    chosen = choose_device(device)
    path, layer = Path(net), layer or _LAYER
    told = read_metadata(path) if path.exists() else {}
    stream, camera = told.get("stream", "spatial"), told.get("camera", "none")
    opened = open_net(path, stream, stack=stack, camera=camera, architecture=None, layer=layer)
    settings = FeatureSettings(
        frames=frames,
        layer=layer,
        fc=_FC,
        batch=frames,
        precision="float32",
        stack=stack,
        short_side=None,
        frame_quality=_QUALITY,
        flow=vars(FlowFormat(bound=20.0, quality=_QUALITY)),
        tvl1=vars(TVL1Params()),
        backend="auto",
        clip_frames=frames,
        camera=camera,
    )
    running = CubeNet(opened.net, opened.scale, layer=layer, fc=_FC, batch=frames, device=chosen)
    buffer = FrameBuffer(Path(video), settings)
    with running, on_gpu(chosen):
        while buffer.read_to(buffer.read):  # to the end
            pass
        taken, order = np.unique(sample_frames(buffer.read, frames), return_inverse=True)
        made = FeatureMaker(buffer, {stream: running}, settings, "cubes").make(taken.tolist(), buffer.read)
    return made[stream][order]


def _grey(pictures: np.ndarray) -> np.ndarray:
    """(N, H, W, 3) RGB -> (N, H, W) uint8 grey, as OpenCV weighs the colours."""
    import cv2

    return np.stack([cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in pictures])
