"""The one way in: grey frames to flow, by whichever back end there is."""

import functools
import importlib.util
import logging
import os
import sys
from types import ModuleType
from typing import Literal

import cv2
import numpy as np

from han_core.devices import DeviceError, gpus
from han_core.flow.levels import QuantizedFlow
from han_core.flow.tvl1.params import TVL1Params

Backend = Literal["auto", "reference", "cpu", "cuda", "opencv"]
BACKENDS = ("reference", "cpu", "cuda", "opencv")
SMALLEST_SIDE = 3
"""Pixels: central differences need three of them."""

log = logging.getLogger(__name__)


def resolve_backend(backend: str = "auto") -> str:
    """The back end that ``backend`` stands for: ``reference``, ``cpu``, ``cuda`` or ``opencv``.

    ``auto`` is ``cuda`` where torch finds a GPU, Triton is installed and one small solve succeeds, else ``cpu`` where
    Numba is installed, else ``opencv``. The choice is logged, and a GPU that cannot be used is a warning. The small
    solve is done once in a process. Where there is no GPU nothing is imported.

    Raises:
        ValueError: no such back end, or what it needs is not here; the message says what.
    """
    if backend == "auto":
        chosen = next((name for name in ("cuda", "cpu", "opencv") if _usable(name, warn=name == "cuda")), None)
        if chosen is None:
            raise ValueError("no back end for optical flow: install numba or opencv-contrib-python")
        log.info("optical flow: back end auto is %s", chosen)
        return chosen
    _check_backend(backend)
    reason = _failure(backend)
    if reason:
        raise ValueError(f"back end {backend!r} of optical flow cannot run here: {reason}")
    return backend


def pairs_at_once(backend: str, height: int, width: int) -> int:
    """How many pairs of this size a call of :func:`tvl1_flow` should bring: with more, no back end is faster, and they
    take memory. Never changes a result.

    Args:
        backend: a resolved one, not ``auto``.
        height, width: of the frames, pixels.
    """
    if backend != "cuda":
        return 16
    from han_core.flow.tvl1 import cuda

    return cuda.pairs_at_once(height, width)


def tvl1_quantized(
    first: np.ndarray,
    second: np.ndarray,
    *,
    params: TVL1Params,
    bound: float,
    rounding: Literal["nearest", "floor"] = "nearest",
) -> QuantizedFlow:
    """:func:`tvl1_flow` by back end ``cuda``, quantised on the GPU: the same levels as of its result, to the bit.

    Args:
        first, second: (N, H, W) grey frames, uint8, or float with values 0..255; at least one.
        bound, rounding: as of :func:`han_core.flow.levels.quantize`.

    Raises:
        ValueError, GPUMemoryError: as of :func:`tvl1_flow`, but
        DeviceError: the back end cannot run here, or no longer: no fault of the frames.
    """
    reason = _missing("cuda")
    if reason:
        raise DeviceError(f"optical flow cannot be computed on a GPU: {reason}")
    _check(first, second)
    import torch

    from han_core.flow.tvl1 import cuda

    tensors = (torch.from_numpy(_native(x)) for x in (first, second))
    return cuda.solve_quantized(*(x.to(cuda.device_for(x)) for x in tensors), params, bound, rounding)


def _check_backend(backend: str) -> None:
    """That the back end exists and what it needs is installed; cheap enough for every call."""
    if backend not in BACKENDS:
        raise ValueError(f"optical flow has no back end {backend!r}; there are auto, {', '.join(BACKENDS)}")
    reason = _missing(backend)
    if reason:
        raise ValueError(f"back end {backend!r} of optical flow cannot run here: {reason}")


def _usable(backend: str, *, warn: bool) -> bool:
    if _missing(backend):
        return False
    reason = _failure(backend)
    if reason and warn:
        log.warning("optical flow: there is a GPU, but back end %s cannot run here: %s", backend, reason)
    return reason is None


def _failure(backend: str) -> str | None:
    """What keeps a back end, of which nothing is missing, from computing, or None."""
    return _failure_on_gpu() if backend == "cuda" else None


@functools.lru_cache(maxsize=1)
def _failure_on_gpu() -> str | None:
    """What goes wrong in one small solve on the GPU, or None.

    Triton compiles C code when it launches a kernel for the first time, so a machine may have all packages and a GPU
    and yet be unable to start anything.
    """
    from han_core.flow.tvl1 import cuda

    return cuda.trial()


def tvl1_flow(
    first: np.ndarray,
    second: np.ndarray,
    *,
    backend: str = "auto",
    params: TVL1Params | None = None,
    threads: int | None = None,
) -> np.ndarray:
    """TV-L1 optical flow from each frame of ``first`` to the frame of ``second`` at the same index.

    Args:
        first, second: (N, H, W) grey frames, uint8, or float with values 0..255. numpy arrays or torch tensors, both
            of one kind.
        backend: ``auto``, ``reference``, ``cpu``, ``cuda`` or ``opencv``; see :func:`resolve_backend`.
        params: Parameters; OpenCV-CUDA's defaults when None.
        threads: Pairs solved at once by the back end ``cpu``; OpenCV's own number of threads
            (``cv2.getNumThreads()``) when None. The others ignore it, and it never changes a result.

    Returns:
        (N, 2, H, W) float32 flow in pixels, x first: the pixel (x, y) of ``first`` is found at
        (x + flow[0], y + flow[1]) in ``second``. An array of the kind given; a tensor on its device. N = 0 gives an
        empty result.

    Raises:
        ValueError: shapes differ or are not (N, H, W), a side is under 3 pixels, values are not finite or outside
            0..255, or the back end cannot run here.
        GPUMemoryError: the GPU has no memory for even one pair of this size.
        DeviceError: the GPU can be used no more by this process.

    Frames too small for all of the pyramid's levels are solved with those that fit (at least 16 pixels per side), as
    OpenCV does.

    Example:
        >>> first = np.zeros((1, 32, 32), np.uint8)
        >>> first[0, 8:20, 8:20] = 200
        >>> second = np.roll(first, 2, axis=2)  # two pixels to the right
        >>> flow = tvl1_flow(first, second, backend="cpu")
        >>> flow.shape, round(float(flow[0, 0, 8:20, 8:20].mean()))
        ((1, 2, 32, 32), 2)
    """
    params = params or TVL1Params()
    if backend == "auto":
        backend = resolve_backend(backend)
    else:
        _check_backend(backend)
    _check(first, second)
    if threads is not None and threads < 1:
        raise ValueError(f"threads must be at least 1, not {threads}")
    torch = _torch_of(first)
    if len(first) == 0:
        shape = (0, 2, *first.shape[1:])
        return torch.zeros(shape, device=first.device) if torch else np.zeros(shape, np.float32)
    if backend in ("cpu", "opencv"):
        if torch:
            arrays = [x.detach().cpu().numpy() for x in (first, second)]
            return torch.from_numpy(tvl1_flow(*arrays, backend=backend, params=params, threads=threads)).to(
                first.device
            )
        first, second = (_native(x) for x in (first, second))
        if backend == "opencv":
            from han_core.flow.tvl1 import opencv

            return opencv.solve(first, second, params)
        from han_core.flow.tvl1 import cpu

        return cpu.solve(first, second, params, threads or max(1, cv2.getNumThreads()))
    import torch as torch_

    tensors = [x if torch else torch_.from_numpy(_native(x)) for x in (first, second)]
    if backend == "reference":
        from han_core.flow.tvl1 import reference

        flow = reference.solve(*tensors, params)
    else:
        from han_core.flow.tvl1 import cuda

        flow = cuda.solve(*(x.to(cuda.device_for(x)) for x in tensors), params)
    return flow.to(first.device) if torch else flow.cpu().numpy()


def _missing(backend: str) -> str | None:
    """What keeps a back end from running here, or None."""
    if backend == "cpu":
        return None if importlib.util.find_spec("numba") else "numba is not installed"
    if backend == "opencv":
        from han_core.flow.tvl1 import opencv

        return None if opencv.available() else "this cv2 has no optflow; install opencv-contrib-python"
    if importlib.util.find_spec("torch") is None:
        return "torch is not installed"
    if backend == "reference":
        return None
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed; it comes with torch's builds for Linux with CUDA"
    if gpus():
        return None
    if "TRITON_INTERPRET" in os.environ:  # else loading torch and Triton, which takes seconds, can be left out
        from han_core.flow.tvl1 import cuda

        if cuda.interpreted():
            return None
    return "torch finds no CUDA device"


def _torch_of(frames: object) -> ModuleType | None:
    """The module torch if ``frames`` is a tensor; never imports it."""
    torch = sys.modules.get("torch")
    return torch if torch is not None and isinstance(frames, torch.Tensor) else None


def _native(frames: np.ndarray) -> np.ndarray:
    """Contiguous uint8 or float32 in the machine's byte order."""
    return np.ascontiguousarray(frames, np.uint8 if frames.dtype == np.uint8 else np.float32)


def _check(first: object, second: object) -> None:
    for name, frames in (("first", first), ("second", second)):
        torch = _torch_of(frames)
        if not torch and not isinstance(frames, np.ndarray):
            raise ValueError(f"{name} must be a numpy array or a torch tensor, not {type(frames).__name__}")
        if frames.ndim != 3:
            raise ValueError(f"{name} must have the shape (N, H, W) of grey frames, not {tuple(frames.shape)}")
    if tuple(first.shape) != tuple(second.shape):
        raise ValueError(
            f"first and second must have one shape; they have {tuple(first.shape)} and {tuple(second.shape)}"
        )
    if bool(_torch_of(first)) != bool(_torch_of(second)):
        raise ValueError("first and second must both be numpy arrays or both be torch tensors")
    if min(first.shape[1:]) < SMALLEST_SIDE:
        raise ValueError(f"frames must have at least {SMALLEST_SIDE} pixels per side, not {tuple(first.shape[1:])}")
    for name, frames in (("first", first), ("second", second)):
        _check_values(name, frames)


def _check_values(name: str, frames: object) -> None:
    torch = _torch_of(frames)
    if torch:
        if frames.dtype == torch.uint8:
            return
        real = frames.dtype.is_floating_point
    else:
        if frames.dtype == np.uint8:
            return
        real = np.issubdtype(frames.dtype, np.floating)
    if not real:
        raise ValueError(f"{name} must hold uint8 or floating point values, not {frames.dtype}")
    if len(frames) == 0:
        return
    lowest, highest = float(frames.min()), float(frames.max())
    if not (lowest >= 0 and highest <= 255):  # also true for NaN, which min and max hand on
        raise ValueError(f"{name} must hold finite grey values 0..255; it holds {lowest} to {highest}")
