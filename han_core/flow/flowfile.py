"""The flow file of a clip: a writer that streams, and reading back."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np

from han_core.clipfile.reader import ClipFile
from han_core.clipfile.trailer import REMAKE, ClipFileError
from han_core.clipfile.writer import Appender, ClipFileWriter
from han_core.errors import ClipError
from han_core.flow.levels import FlowFormat, QuantizedFlow, quantize
from han_core.images.codec import decode_grey, encode_image

Solver = Callable[[np.ndarray, np.ndarray], np.ndarray | QuantizedFlow]
"""(N, H, W) uint8 first and second frames -> (N, 2, H, W) float32 flow in pixels, x first, or its levels."""


def write_flow(
    frames_path: str | Path,
    path: str | Path,
    *,
    clip: str,
    fingerprint: str,
    solver: Solver,
    form: FlowFormat,
    batch: int | Callable[[int, int], int],
    threads: int = 1,
    attributes: Mapping[str, str | int | float] | None = None,
) -> int:
    """Compute the flow of a clip from its frames file into a flow file.

    Reading and decoding the next batch, solving this one, and quantising, encoding and writing the last one
    overlap. In memory are the frames and flow of at most three batches, however long the clip is.

    The file's attributes: ``width``, ``height`` (pixels), ``count`` (flows), ``bound``, ``rounding``, ``codec``,
    ``quality`` (0 for png), ``clipped`` (share of pixels whose flow lies beyond the bound in x or y), and those given.

    Args:
        frames_path: frames file of N frames; N - 1 flows come out, flow i from frame i to frame i + 1.
        path: the clip file to write.
        clip, fingerprint: who it is.
        solver: computes the flow.
        form: how it is stored.
        batch: pairs solved at once, or how many for a height and width in pixels.
        threads: that decode and encode beside the solver.
        attributes: of the solver, to be stored in the file.

    Returns:
        The number of flows.

    Raises:
        ClipError: the clip has fewer than two frames, the solver refuses the frames, or a flow is not finite.
        ClipFileError: the frames file is damaged.
    """
    with ClipFile(frames_path) as source:
        count = source.image_count("frames") - 1
        if count < 1:
            raise ClipError("the clip has one frame; flow needs two")
        with (
            ClipFileWriter(path, kind="flow", clip=clip, fingerprint=fingerprint, attributes=attributes) as writer,
            ThreadPoolExecutor(1) as solving,
            ThreadPoolExecutor(threads) as pool,
        ):
            x, y = writer.images("x"), writer.images("y")
            if not isinstance(batch, int):
                batch = batch(*grey_frame(source.image_bytes("frames", 0), form.size).shape)
            batches = [range(start, min(start + batch, count)) for start in range(0, count, batch)]
            frames = _prefetch(source, pool, range(batches[0].stop + 1), form.size)
            encoding: list[Future[tuple[bytes, bytes, int]]] = []
            clipped = 0
            for pairs, following in zip(batches, [*batches[1:], range(0)], strict=True):
                grey = [frame.result() for frame in frames]
                if len({frame.shape for frame in grey}) > 1:
                    raise ClipFileError(f"{frames_path}: its frames have different sizes. {REMAKE}")
                flow = solving.submit(_solve, solver, np.stack(grey[:-1]), np.stack(grey[1:]))
                # While the solver works: fetch the frames of the next batch, write the flow of the last.
                ahead = range(following.start + 1, following.stop + 1) if following else following
                frames = [frames[-1], *_prefetch(source, pool, ahead, form.size)]
                clipped += _write(encoding, x, y)
                encoding = _encode(pool, pairs, flow.result(), form)
            clipped += _write(encoding, x, y)
            height, width = grey[0].shape
            writer.attributes |= {"width": width, "height": height, "count": count}
            writer.attributes |= {"bound": float(form.bound), "rounding": form.rounding, "codec": form.codec}
            writer.attributes |= {"quality": form.quality if form.codec == "jpeg" else 0}
            writer.attributes |= {"clipped": clipped / (count * width * height)}
    return count


def read_flow_levels(path: str | Path, indices: Iterable[int] | None = None) -> np.ndarray:
    """Quantised flow of a clip; :func:`dequantize` with the file's ``bound`` gives pixels.

    Args:
        path: a flow file.
        indices: which, from 0, in the order wanted; None is all.

    Returns:
        (n, 2, H, W) uint8, x first.

    Raises:
        ClipFileError: the file is not a flow file, or damaged.
        IndexError: there is no such flow.
    """
    with ClipFile(path) as file:
        wanted: Sequence[int] = range(file.image_count("x")) if indices is None else [int(i) for i in indices]
        if not wanted:
            return np.empty((0, 2, *_declared_size(file)), np.uint8)
        levels = np.stack([np.stack([file.image("x", i), file.image("y", i)]) for i in wanted])
    if levels.ndim != 4:
        raise ClipFileError(f"{path}: its images are in colour, which flow is not. {REMAKE}")
    return levels


def _declared_size(file: ClipFile) -> tuple[int, int]:
    """Height and width of the flow as the attributes say."""
    attributes = file.attributes
    height, width = attributes.get("height"), attributes.get("width")
    if not all(isinstance(side, int) and 0 < side < 1 << 20 for side in (height, width)):
        raise ClipFileError(f"{file.path}: does not say how large its flow is. {REMAKE}")
    return height, width


def _prefetch(
    source: ClipFile, pool: ThreadPoolExecutor, indices: range, size: tuple[int, int] | None
) -> list[Future[np.ndarray]]:
    """Read frames here (HDF5 lets one thread in at a time) and decode them in the pool."""
    return [pool.submit(grey_frame, source.image_bytes("frames", i), size) for i in indices]


def grey_frame(encoded: bytes, size: tuple[int, int] | None) -> np.ndarray:
    """An encoded frame as the solver sees it: (H, W) uint8 grey of the given width and height (None: its own)."""
    grey = decode_grey(encoded)
    if size is None or size == (grey.shape[1], grey.shape[0]):
        return grey
    shrinks = size[0] * size[1] < grey.size
    return cv2.resize(grey, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def _solve(solver: Solver, first: np.ndarray, second: np.ndarray) -> np.ndarray | QuantizedFlow:
    try:
        return solver(first, second)
    except ValueError as error:
        raise ClipError(f"flow cannot be computed: {error}") from error


def _encode(
    pool: ThreadPoolExecutor, pairs: range, flow: np.ndarray | QuantizedFlow, form: FlowFormat
) -> list[Future[tuple[bytes, bytes, int]]]:
    if not isinstance(flow, QuantizedFlow):
        return [pool.submit(encode_field, *item, form) for item in zip(pairs, flow, strict=True)]
    items = zip(pairs, flow.levels, flow.finite, flow.beyond, strict=True)
    return [pool.submit(_encode_levels, *item, form) for item in items]


def encode_field(index: int, flow: np.ndarray, form: FlowFormat) -> tuple[bytes, bytes, int]:
    """x and y of one (2, H, W) field as images, and how many pixels lie beyond the bound.

    Raises:
        ClipError: the field, named by its index, is not finite.
    """
    finite = bool(np.isfinite(flow).all())
    levels = quantize(flow, form.bound, form.rounding) if finite else flow
    beyond = int((np.abs(flow) > form.bound).any(axis=0).sum())
    return _encode_levels(index, levels, finite, beyond, form)


def _encode_levels(
    index: int, levels: np.ndarray, finite: bool, beyond: int, form: FlowFormat
) -> tuple[bytes, bytes, int]:
    if not finite:
        raise ClipError(f"flow {index} is not finite")
    x, y = (encode_image(component, form.codec, form.quality) for component in levels)
    return x, y, int(beyond)


def _write(encoded: list[Future[tuple[bytes, bytes, int]]], x: Appender, y: Appender) -> int:
    beyond = 0
    for future in encoded:
        x_image, y_image, pixels = future.result()
        x.append(x_image)
        y.append(y_image)
        beyond += pixels
    return beyond
