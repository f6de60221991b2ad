"""Clips filmed again by a hand that shakes."""

import cv2
import numpy as np
import pytest

from han_core.camera.shake import Hand, shake_frames, shake_levels, shaken_field
from han_core.camera.storedflow import field_of_levels
from han_core.flow.levels import FlowFormat, quantize

WIDTH, HEIGHT = 160, 120
FORM = FlowFormat(bound=20.0)
INSIDE = (slice(16, -16), slice(16, -16))


def texture():
    noise = np.random.default_rng(0).uniform(0, 255, (HEIGHT, WIDTH, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 3)
    return cv2.normalize(smooth, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


def positions():
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    return np.stack([x, y])


def at(picture, places):
    """A picture (H, W, 3) at places (2, H, W)."""
    return cv2.remap(picture.astype(np.float32), *places, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)


def still_levels(count):
    return quantize(np.zeros((count, 2, HEIGHT, WIDTH)), FORM.bound)


def test_a_hand_shifts_turns_and_zooms_by_as_much_as_it_says():
    motions = np.stack([Hand(2, f"clip {n}").motion(t, WIDTH, HEIGHT) for n in range(40) for t in range(0, 300, 7)])
    centre = np.array([(WIDTH - 1) / 2, (HEIGHT - 1) / 2, 1])
    shifts = (motions @ centre)[:, :2] - centre[:2]
    assert np.sqrt((shifts**2).mean(axis=0)) == pytest.approx(2 / 100 * HEIGHT, rel=0.1)
    turns = np.degrees(np.arctan2(motions[:, 0, 1], motions[:, 0, 0]))
    assert np.sqrt((turns**2).mean()) == pytest.approx(0.4, rel=0.1)
    zooms = np.sqrt(np.linalg.det(motions)) - 1
    assert np.sqrt((zooms**2).mean()) == pytest.approx(0.01, rel=0.1)


def test_a_hand_moves_by_its_name_smoothly_and_the_same_way_every_time():
    hand = Hand(1, "clip")
    assert np.array_equal(hand.motion(7, WIDTH, HEIGHT), Hand(1, "clip").motion(7, WIDTH, HEIGHT))
    assert not np.allclose(hand.motion(7, WIDTH, HEIGHT), Hand(1, "another").motion(7, WIDTH, HEIGHT), atol=0.05)
    weak, strong = (Hand(strength, "clip").motion(7, WIDTH, HEIGHT)[:2, 2] for strength in (1, 2))
    assert strong == pytest.approx(2 * weak, rel=0.05)
    steps = np.diff([hand.motion(t, WIDTH, HEIGHT)[:2, 2] for t in range(200)], axis=0)
    assert np.abs(steps).max() < 3 * HEIGHT / 100


def test_flow_of_what_stands_still_is_the_motion_of_the_camera():
    before, after = Hand(2, "clip").motion(3, WIDTH, HEIGHT), Hand(2, "clip").motion(4, WIDTH, HEIGHT)
    here = np.concatenate([positions(), np.ones((1, HEIGHT, WIDTH))]).reshape(3, -1)
    wanted = (after @ np.linalg.inv(before) @ here - here)[:2].reshape(2, HEIGHT, WIDTH)
    assert np.abs(wanted).max() > 0.3
    np.testing.assert_allclose(shaken_field(np.zeros((2, HEIGHT, WIDTH), np.float32), before, after), wanted, atol=1e-4)


def test_shaken_flow_leads_from_each_shaken_frame_to_the_next():
    """Of frames between which the scene turns and moves: the second at z + g(z) looks as the first does at z."""
    scene, hand = texture(), Hand(2, "clip")
    moved = cv2.getRotationMatrix2D((80, 60), 2, 1.01) + np.array([[0, 0, 2.0], [0, 0, -1.0]])
    frames = np.stack([scene, cv2.warpAffine(scene, moved, (WIDTH, HEIGHT), borderMode=cv2.BORDER_REFLECT_101)])
    here = np.concatenate([positions(), np.ones((1, HEIGHT, WIDTH), np.float32)])
    flow = (np.tensordot(moved, here, axes=1) - positions()).astype(np.float32)
    levels = quantize(flow[None], FORM.bound)
    shake_frames(frames, [11, 12], hand)
    shake_levels(levels, [11], hand, FORM)
    found = field_of_levels(levels[0], FORM.bound, "nearest")

    def difference(field):
        return np.abs(at(frames[1], positions() + field) - frames[0])[INSIDE].mean()

    assert difference(found) < 2.5  # of grey levels; half a level of flow is 0.08 pixels
    assert difference(flow) > 3 * difference(found)  # the shake is no small thing
    inverse = shaken_field(flow, hand.motion(12, WIDTH, HEIGHT), hand.motion(11, WIDTH, HEIGHT))
    assert difference(inverse) > 3 * difference(found)


def test_frames_that_are_not_neighbours_move_by_their_numbers():
    scene, hand = texture(), Hand(2, "clip")
    frames = np.stack([scene, scene])
    shake_frames(frames, [5, 90], hand)
    for frame, number in zip(frames, (5, 90), strict=True):
        back = cv2.warpAffine(
            frame,
            hand.motion(number, WIDTH, HEIGHT)[:2],
            (WIDTH, HEIGHT),
            flags=cv2.WARP_INVERSE_MAP | cv2.INTER_LINEAR,
        )
        assert np.abs(back[INSIDE].astype(int) - scene[INSIDE]).mean() < 4
    assert np.abs(frames[0].astype(int) - frames[1])[INSIDE].mean() > 8


@pytest.mark.parametrize("camera", ["mean", "homography", "homography-still0.5"])
def test_the_motion_of_the_camera_is_taken_out_again_as_of_every_clip(camera):
    numbers, hand = range(20, 26), Hand(2, "clip")
    shaken = still_levels(6)
    shake_levels(shaken, numbers, hand, FORM)
    pixels = field_of_levels(shaken, FORM.bound, "nearest")
    assert np.abs(pixels).mean() > 0.3
    steadied = still_levels(6)
    shake_levels(steadied, numbers, hand, FORM, camera)
    rest = np.abs(field_of_levels(steadied, FORM.bound, "nearest")).mean()
    assert rest < (0.5 * np.abs(pixels).mean() if camera == "mean" else 0.12)
    grain = (steadied != 128).mean()
    assert grain == 0 if "still" in camera else grain > 0.1


def test_an_unknown_camera_is_an_error():
    with pytest.raises(ValueError, match="must be none, mean, homography"):
        shake_levels(still_levels(1), [0], Hand(1, "clip"), FORM, "steady")
