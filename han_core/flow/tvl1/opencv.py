"""TV-L1 by OpenCV's own classes, to compare with and to fall back on."""

import cv2
import numpy as np

from han_core.flow.tvl1.params import MEDIAN_PERIOD, TVL1Params


def available() -> bool:
    """True where cv2 was built with the contributed modules."""
    return hasattr(cv2, "optflow") and hasattr(cv2.optflow, "DualTVL1OpticalFlow_create")


def has_cuda() -> bool:
    """True where cv2 was built with CUDA and finds a GPU; the wheels on the package registry are not."""
    return hasattr(cv2, "cuda_OpticalFlowDual_TVL1") and cv2.cuda.getCudaEnabledDeviceCount() > 0


def solve(first: np.ndarray, second: np.ndarray, params: TVL1Params) -> np.ndarray:
    """Flow of each pair by ``cv2.optflow``, or by ``cv2.cuda`` where that is there and no median is asked for.

    OpenCV stops with its last warp: ``params.settle`` has no meaning here.

    Args:
        first, second: (N, H, W) uint8 or float32 grey values 0..255.

    Returns:
        (N, 2, H, W) float32 pixels, x first.

    Raises:
        ValueError: a median filter with a number of iterations that OpenCV's two nested loops cannot express.
    """
    cuda = params.median == 1 and has_cuda()
    calculate = _cuda_solver(params) if cuda else _cpu_solver(params)
    flow = np.empty((len(first), 2, *first.shape[1:]), np.float32)
    for i, pair in enumerate(zip(first, second, strict=True)):
        # OpenCV takes float images as 0..1 and multiplies them by 255.
        a, b = (np.ascontiguousarray(image if image.dtype == np.uint8 else image / np.float32(255)) for image in pair)
        flow[i] = calculate(a, b).transpose(2, 0, 1)
    return flow


def _cpu_solver(params: TVL1Params):  # noqa: ANN202 (a bound method of an OpenCV object)
    # One loop of all iterations equals OpenCV's inner x outer loops as long as no filter runs between them.
    inner, outer = params.iterations, 1
    if params.median > 1 and params.iterations > MEDIAN_PERIOD:
        inner, outer = MEDIAN_PERIOD, params.iterations // MEDIAN_PERIOD
        if inner * outer != params.iterations:
            raise ValueError(
                f"backend opencv with a median filter needs a multiple of {MEDIAN_PERIOD} iterations, "
                f"not {params.iterations}"
            )
    # Positional, because OpenCV's keyword for the inner iterations is misspelt and may be mended one day.
    solver = cv2.optflow.DualTVL1OpticalFlow_create(
        params.tau,
        params.lambda_,
        params.theta,
        params.scales,
        params.warps,
        params.epsilon,
        inner,
        outer,
        params.scale_step,
        0.0,
        params.median,
        False,
    )

    def calculate(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return solver.calc(first, second, None)

    return calculate


def _cuda_solver(params: TVL1Params):  # noqa: ANN202
    solver = cv2.cuda_OpticalFlowDual_TVL1.create(
        params.tau,
        params.lambda_,
        params.theta,
        params.scales,
        params.warps,
        params.epsilon,
        params.iterations,
        params.scale_step,
        0.0,
        False,
    )

    def calculate(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        a, b = cv2.cuda_GpuMat(), cv2.cuda_GpuMat()
        a.upload(first)
        b.upload(second)
        return solver.calc(a, b, None).download()

    return calculate
