"""Crops and flips: where they lie, what they do to flow, and that they come from the seed alone."""

from collections import Counter

import cv2
import numpy as np
import pytest
import torch

from han_core.finetune.augment import Augmentation
from han_core.nets import crops
from han_core.nets.crops import (
    View,
    apply_views,
    crop_positions,
    cut,
    pack,
    resample,
    rescale_at_once,
    rescale_each,
    views_for_testing,
)
from han_core.nets.preprocess import spatial_input, temporal_input


def noise(channels: int, height: int = 60, width: int = 80, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (channels, height, width), dtype=np.uint8)


def draws(augmentation: Augmentation, count: int = 400, size: tuple[int, int] = (60, 80)) -> list[View]:
    return [augmentation.draw(np.random.default_rng(i), *size) for i in range(count)]


def test_crops_lie_in_the_corners_and_the_centre():
    assert crop_positions(240, 340, 200, 100) == ((0, 0), (0, 240), (40, 0), (40, 240), (20, 120))
    found = {(view.top, view.left) for view in draws(Augmentation(scales=(0.5,)))}
    assert found == {(0, 0), (0, 50), (30, 0), (30, 50), (15, 25)}


def test_scales_are_shares_of_the_shorter_side_drawn_independently():
    views = draws(Augmentation(scales=(1.0, 0.875, 0.75, 0.66)))
    sides = {60, 52, 45, 40}
    assert {(view.height, view.width) for view in views} == {(h, w) for h in sides for w in sides}
    assert all(view.top + view.height <= 60 and view.left + view.width <= 80 for view in views)


def test_scales_of_width_and_height_are_at_most_so_many_places_apart():
    sides = [60, 52, 45, 40]
    for most in (0, 1, 2):
        views = draws(Augmentation(max_distort=most))
        found = Counter((sides.index(view.height), sides.index(view.width)) for view in views)
        assert set(found) == {(i, j) for i in range(4) for j in range(4) if abs(i - j) <= most}
        assert min(found.values()) > 0.5 * len(views) / len(found)  # all equally often


def test_the_centre_is_a_square_of_the_shorter_side():
    assert Augmentation().centre(240, 320) == View(0, 40, 240, 240)
    assert Augmentation().centre(320, 241) == View(39, 0, 241, 241)
    assert Augmentation(corner_crops=False).centre(240, 320) == View(0, 0, 240, 320)


def test_ten_crops_are_corners_centre_and_their_mirrors():
    """Of a frame of 256x340, as the two-stream ConvNets cut them: 224x224."""
    places = [(0, 0), (0, 116), (32, 0), (32, 116), (16, 58)]
    five = [View(top, left, 224, 224) for top, left in places]
    mirrored = [View(top, left, 224, 224, flip=True) for top, left in places]
    assert views_for_testing(256, 340, 1) == [View(16, 58, 224, 224)]
    assert views_for_testing(256, 340, 5) == five
    assert views_for_testing(256, 340, 10) == five + mirrored
    assert views_for_testing(256, 340, "whole") == [View(0, 0, 256, 340)]
    assert {view.height for view in views_for_testing(512, 340, 10)} == {round(340 * 0.875)}


def test_half_are_mirrored_unless_switched_off():
    assert 0.4 < np.mean([view.flip for view in draws(Augmentation())]) < 0.6
    assert not any(view.flip for view in draws(Augmentation(flip=False)))


def test_switching_flips_off_does_not_move_the_crops():
    pairs = zip(draws(Augmentation()), draws(Augmentation(flip=False)), strict=True)
    assert all((a.top, a.left, a.height, a.width) == (b.top, b.left, b.height, b.width) for a, b in pairs)


def test_without_corner_crops_the_whole_image_is_taken():
    assert {(v.top, v.left, v.height, v.width) for v in draws(Augmentation(corner_crops=False))} == {(0, 0, 60, 80)}


def test_crops_without_scales_are_refused():
    with pytest.raises(ValueError, match="scales"):
        Augmentation(scales=())


def test_the_whole_image_equals_the_input_of_the_cubes():
    frame, stack = noise(3), noise(4)
    whole = View(0, 0, 60, 80)
    frames = apply_views([frame], [whole], kind="frames", convention="torchvision")
    expected = spatial_input(frame.transpose(1, 2, 0)[None].copy(), "torchvision")
    torch.testing.assert_close(frames, expected, rtol=0, atol=1e-4)  # the images are enlarged by another routine
    flow = apply_views([stack], [whole], kind="flow", convention="caffe")
    expected = temporal_input(stack.reshape(2, 2, 60, 80), np.array([[0, 1]]), "caffe")
    torch.testing.assert_close(flow, expected, rtol=0, atol=0.01)  # of values up to 470


def test_crops_are_cut_where_they_say():
    """Against OpenCV: enlarging, where its bilinear rescaling is the same function."""
    frame = noise(3)
    view = View(10, 20, 40, 50)
    ours = apply_views([frame], [view], kind="frames", convention="caffe")[0]
    cut = frame[:, 10:50, 20:70].transpose(1, 2, 0).astype(np.float32)
    expected = cv2.resize(cut, (224, 224), interpolation=cv2.INTER_LINEAR) - (123.68, 116.779, 103.939)
    np.testing.assert_allclose(ours.permute(1, 2, 0), expected, atol=0.02)


def test_images_of_different_sizes_share_a_batch():
    batch = apply_views(
        [noise(3), noise(3, 50, 30)], [View(0, 0, 60, 80), View(5, 5, 20, 20)], kind="frames", convention="caffe"
    )
    assert batch.shape == (2, 3, 224, 224)


def test_a_flip_mirrors_frames():
    frame = noise(3)
    view, mirrored = View(0, 0, 60, 60), View(0, 0, 60, 60, flip=True)
    plain = apply_views([frame], [view], kind="frames", convention="caffe")
    torch.testing.assert_close(apply_views([frame], [mirrored], kind="frames", convention="caffe"), plain.flip(3))


def test_a_flip_mirrors_flow_and_negates_x_alone():
    stack = noise(20)
    plain = apply_views([stack], [View(0, 0, 60, 60)], kind="flow", convention="caffe")
    flipped = apply_views([stack], [View(0, 0, 60, 60, flip=True)], kind="flow", convention="caffe")
    torch.testing.assert_close(flipped[:, 0::2], -plain[:, 0::2].flip(3))
    torch.testing.assert_close(flipped[:, 1::2], plain[:, 1::2].flip(3))
    assert plain.abs().mean() > 10


def test_flow_of_a_mirrored_video_equals_mirrored_flow():
    """Motion to the right by 3 levels, seen in a mirror, is motion to the left by 3 levels."""
    right = np.full((2, 60, 80), 127, np.uint8)
    right[0] += 4  # 3.5 levels to the right
    left = np.full((2, 60, 80), 127, np.uint8)
    left[0] -= 3  # 3.5 levels to the left
    left[1], right[1] = 140, 140
    flipped = apply_views([right], [View(0, 0, 60, 80, flip=True)], kind="flow", convention="caffe")
    torch.testing.assert_close(flipped, apply_views([left], [View(0, 0, 60, 80)], kind="flow", convention="caffe"))


def test_vectors_grow_with_the_crop():
    stack = np.full((2, 60, 80), 137, np.uint8)
    out = apply_views([stack], [View(0, 0, 28, 56)], kind="flow", convention="caffe")
    np.testing.assert_allclose(out[0, :, 0, 0], [9.5 * 224 / 56, 9.5 * 224 / 28])


def test_cutting_first_changes_nothing():
    """Readers cut, the device does the rest."""
    stack = noise(4)
    view = View(10, 20, 40, 50, flip=True)
    piece, rest = cut(stack, view)
    assert rest == View(0, 0, 40, 50, flip=True)
    assert piece.flags.c_contiguous
    assert not np.shares_memory(piece, stack)
    whole = apply_views([stack], [view], kind="flow", convention="caffe")
    assert torch.equal(apply_views([piece], [rest], kind="flow", convention="caffe"), whole)


@pytest.mark.parametrize("size", [32, 224])
def test_a_batch_at_once_equals_one_image_after_the_other(size):
    """The way of GPUs against the way of CPUs, for images that grow, shrink, do both, or are mirrored. Sums of a
    few products of numbers up to 255 differ in float32's last places: 1e-3 is far below one level."""
    sides = [(60, 80), (33, 31), (240, 210), (300, 20), (20, 300), (224, 224), (32, 32), (1, 1)]
    pieces = [noise(4, *side, seed=i) for i, side in enumerate(sides)]
    flips = [False, True, True, False, True, False, True, False]
    expected = rescale_each(pieces, flips, size)
    found = rescale_at_once(pieces, flips, size, torch.device("cpu"))
    assert found.shape == (8, 4, size, size)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)


@pytest.fixture
def batch():
    sides = [(200, 260), (256, 340), (240, 210), (300, 200), (224, 224), (60, 80)]
    pieces = [noise(4, *side, seed=i) for i, side in enumerate(sides)]
    return pieces, [False, True, True, False, True, False]


def test_a_gpus_divisions_change_nothing(batch, monkeypatch):
    """Divided by a number, what lies on a GPU is multiplied with its reciprocal in float32."""
    expected = rescale_each(*batch, 224)
    divide = torch.Tensor.__truediv__

    def as_on_a_gpu(tensor: torch.Tensor, by: object) -> torch.Tensor:
        return divide(tensor, by) if isinstance(by, torch.Tensor) else tensor * float(np.float32(1) / np.float32(by))

    monkeypatch.setattr(torch.Tensor, "__truediv__", as_on_a_gpu)
    found = rescale_at_once(*batch, 224, torch.device("cpu"))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize(("precision", "most"), [("float32", 1e-3), ("bfloat16", 0.25), ("float16", 0.25)])
def test_for_a_net_of_16_bits_a_gpu_rescales_with_as_many(batch, precision, most):
    """Bfloat16 itself would be off by half a level in every pixel, and by two in some."""
    products = crops._products(precision)
    expected = rescale_each(*batch, 224)
    found = rescale_at_once(*batch, 224, torch.device("cpu"), products)
    assert found.dtype == torch.float32
    difference = (found - expected).abs().max()
    assert difference < most
    assert (difference > 1e-3) == (precision != "float32")


def test_what_lies_beyond_a_packed_image_does_not_matter():
    pieces = [noise(2, 40, 50), noise(2, 30, 60, seed=1)]
    pixels, sides = pack(pieces, pinned=False)
    pixels[0, :, :, 50:], pixels[1, :, 30:] = 0, 0
    clean = resample(pixels, sides, [False, True], 32)
    pixels[0, :, :, 50:], pixels[1, :, 30:] = 255, 255
    assert torch.equal(resample(pixels, sides, [False, True], 32), clean)
