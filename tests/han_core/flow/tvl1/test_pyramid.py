"""Resizing, warping and filtering in torch against OpenCV's."""

import cv2
import numpy as np
import pytest
import torch

from han_core.flow.tvl1.pyramid import gradient, median_filter, resize, warp


@pytest.fixture
def image():
    return (np.random.default_rng(5).random((37, 52)) * 255).astype(np.float32)


@pytest.mark.parametrize("step", [0.8, 0.5, 0.73])
def test_shrinking_equals_opencv(image, step):
    expected = cv2.resize(image, (0, 0), fx=step, fy=step, interpolation=cv2.INTER_LINEAR)
    found = resize(torch.from_numpy(image)[None], expected.shape, step)[0].numpy()
    assert np.abs(found - expected).max() < 1e-3


@pytest.mark.parametrize("size", [(47, 65), (37, 52), (100, 53)])
def test_enlarging_equals_opencv(image, size):
    expected = cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)
    # OpenCV takes the offsets in float32, which moves a value by up to 255 * 52 * 2^-24.
    assert np.abs(resize(torch.from_numpy(image)[None], size)[0].numpy() - expected).max() < 5e-3


def test_resizing_does_not_depend_on_the_precision_of_matrix_products(image):
    before = torch.get_float32_matmul_precision()
    expected = resize(torch.from_numpy(image)[None], (30, 42), 0.8)
    try:
        torch.set_float32_matmul_precision("medium")
        assert torch.equal(resize(torch.from_numpy(image)[None], (30, 42), 0.8), expected)
    finally:
        torch.set_float32_matmul_precision(before)


def test_warping_equals_opencv_inside_at_the_border_and_far_out(image):
    rng = np.random.default_rng(6)
    flow = rng.normal(0, 6, (2, *image.shape)).astype(np.float32)
    flow[:, :5] *= 100
    flow[:, 5] = np.round(flow[:, 5])
    y, x = np.mgrid[: image.shape[0], : image.shape[1]].astype(np.float32)
    expected = cv2.remap(image, x + flow[0], y + flow[1], cv2.INTER_CUBIC)
    found = warp(torch.from_numpy(image)[None, None], torch.from_numpy(flow)[None])[0, 0].numpy()
    assert np.abs(found - expected).max() < 5e-3


def test_gradient_of_a_ramp():
    y, x = torch.meshgrid(torch.arange(5.0), torch.arange(6.0), indexing="ij")
    dx, dy = gradient((3 * x - 2 * y)[None])
    assert (dx[0, :, 1:-1] == 3).all()
    assert (dx[0, :, [0, -1]] == 1.5).all()
    assert (dy[0, 1:-1] == -2).all()
    assert (dy[0, [0, -1]] == -1).all()


@pytest.mark.parametrize("side", [3, 5])
def test_median_equals_opencv(image, side):
    found = median_filter(torch.from_numpy(image)[None, None], side)[0, 0].numpy()
    assert np.array_equal(found, cv2.medianBlur(image, side))
