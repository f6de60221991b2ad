"""The camera's motion out of the flow, and flow without it."""

import cv2
import numpy as np
import pytest

from han_core.camera.motion import homography, warp_flow
from tests.han_core.baselines.trajectories.scenes import constant, texture

HEIGHT, WIDTH = 120, 160
CORNERS = np.array([[0, 0], [WIDTH, 0], [0, HEIGHT], [WIDTH, HEIGHT]], np.float64)


def turning(angle: float = 1.5, zoom: float = 1.02, shift: tuple = (3.0, -2.0), tilt: tuple = (2e-5, -3e-5)):
    """A camera that turns by degrees, zooms, shifts and tilts."""
    rotation = cv2.getRotationMatrix2D((WIDTH / 2, HEIGHT / 2), angle, zoom)
    rotation[:, 2] += shift
    return np.vstack([rotation, [*tilt, 1]])


def mapped(motion: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Positions (.., 2) after a homography, in float64."""
    to = points @ motion[:, :2].T + motion[:, 2]
    return to[..., :2] / to[..., 2:]


def grid(height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """(height, width, 2) positions of the pixels."""
    return np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1).astype(np.float64)


def field_of(motion: np.ndarray, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Hx - x as (2, height, width) float64."""
    places = grid(height, width)
    return (mapped(motion, places) - places).transpose(2, 0, 1)


@pytest.mark.parametrize(
    "motion",
    [turning(0, 1, tilt=(0, 0)), turning(tilt=(0, 0)), turning(), turning(-4, 0.93, (20, 11), (1e-4, 2e-4))],
    ids=["shift", "affine", "perspective", "strong"],
)
def test_what_is_all_camera_is_nothing(motion):
    warped = warp_flow(field_of(motion).astype(np.float32), motion)
    assert warped.dtype == np.float32
    assert np.abs(warped).max() < 1e-4


def test_large_frames_lose_no_digits():
    motion = np.array([[1.001, -0.002, 5], [0.002, 0.999, -3], [1e-7, -2e-7, 1]])
    assert np.abs(warp_flow(field_of(motion, 16, 16_384).astype(np.float32), motion)).max() < 1e-4


def test_no_motion_changes_no_bit():
    field = np.random.default_rng(0).normal(size=(2, 30, 40)).astype(np.float32)
    field[0, 0, 0] = -0.0
    warped = warp_flow(field, np.eye(3))
    assert warped.tobytes() == field.tobytes()
    assert warped is not field


def test_motion_of_its_own_is_left():
    motion, places = turning(), grid()
    own = np.stack([np.sin(places[..., 1] / 9) * 3, np.cos(places[..., 0] / 7)], -1)
    there = mapped(motion, places) + own
    expected = mapped(np.linalg.inv(motion), there) - places
    warped = warp_flow((there - places).transpose(2, 0, 1).astype(np.float32), motion)
    np.testing.assert_allclose(warped, expected.transpose(2, 0, 1), atol=1e-4)


def test_all_stays_finite_wherever_flow_leads():
    motion = np.array([[1, 0, 0], [0, 1, 0], [0.6 / WIDTH, 0, 1.0]])
    back = np.linalg.inv(motion)
    vanishing = constant((-(back[2, 2] / back[2, 0]) - 40, 0), HEIGHT, WIDTH)  # column 40 goes to the horizon
    assert np.abs(warp_flow(vanishing, motion)).max() < 1e4


def test_a_homography_without_inverse_is_refused():
    with pytest.raises(ValueError, match="inverted"):
        warp_flow(constant((1, 1), 10, 10), np.zeros((3, 3)))


@pytest.mark.parametrize("camera", ["grid", "corners"])
def test_the_camera_is_found_among_other_motion(camera):
    random = np.random.default_rng(1)
    motion = turning()
    field = field_of(motion) + random.normal(size=(2, HEIGHT, WIDTH)) * 0.1
    field[:, 30:110, 20:94] += np.array([7.0, -4.0])[:, None, None]  # 31 % of the picture
    field = field.astype(np.float32)
    grey = texture(HEIGHT, WIDTH)
    found = homography(field, camera, grey)
    assert found.dtype == np.float64
    assert np.abs(mapped(found, CORNERS) - mapped(motion, CORNERS)).max() < 0.2
    assert found[2, 2] == 1
    for _ in range(3):
        cv2.setRNGSeed(5)  # whatever was drawn before
        assert np.array_equal(homography(field, camera, grey), found)


def test_too_few_agree():
    rows, columns = np.mgrid[4:HEIGHT:8, 4:WIDTH:8].reshape(2, -1)
    random = np.random.default_rng(2)
    found = []
    for agree in (100, 18):
        field = random.uniform(-30, 30, (2, HEIGHT, WIDTH)).astype(np.float32)
        chosen = random.permutation(len(rows))[:agree]
        field[:, rows[chosen], columns[chosen]] = field_of(turning())[:, rows[chosen], columns[chosen]]
        found.append(homography(field))
    assert np.abs(mapped(found[0], CORNERS) - mapped(turning(), CORNERS)).max() < 0.2
    assert np.array_equal(found[1], np.eye(3))


@pytest.mark.parametrize("inliers", [25, 26])
def test_more_than_25_inliers(monkeypatch, inliers):
    mask = np.zeros((300, 1), np.uint8)
    mask[:inliers] = 1
    monkeypatch.setattr(cv2, "findHomography", lambda *_: (turning(), mask))
    assert np.array_equal(homography(constant((1, 0), HEIGHT, WIDTH)), np.eye(3)) == (inliers == 25)


def test_too_few_points():
    motion = np.array([[1, 0, 2], [0, 1, 1], [0, 0, 1.0]])
    assert np.array_equal(homography(constant((2, 1), 56, 56)), np.eye(3))  # 49 points
    np.testing.assert_allclose(homography(constant((2, 1), 56, 64)), motion, atol=1e-6)  # 56
    flat = np.zeros((HEIGHT, WIDTH), np.uint8)
    assert np.array_equal(homography(constant((2, 1), HEIGHT, WIDTH), "corners", flat), np.eye(3))
    assert np.array_equal(homography(constant((2, 1), 3, 3)), np.eye(3))


@pytest.mark.parametrize(
    "motion",
    [
        np.diag([-1.0, 1, 1]),
        np.array([[1, 0, 0], [0, 1, 0], [-1 / 80, 0, 1.0]]),
        np.full((3, 3), np.nan),
        np.zeros((3, 3)),
        np.array([[1, 0, 0], [0, 1, 0], [0, 0, 0.0]]),
    ],
    ids=["mirrored", "horizon within the frame", "nan", "zero", "no scale"],
)
def test_what_no_camera_does_is_no_motion(monkeypatch, motion):
    monkeypatch.setattr(cv2, "findHomography", lambda *_: (motion, np.ones((300, 1), np.uint8)))
    assert np.array_equal(homography(constant((1, 0), HEIGHT, WIDTH)), np.eye(3))


def test_without_a_camera():
    assert np.array_equal(homography(constant((2, 1), HEIGHT, WIDTH), "none"), np.eye(3))
    with pytest.raises(ValueError, match="needs the frame"):
        homography(constant((2, 1), HEIGHT, WIDTH), "corners")
    with pytest.raises(ValueError, match="not one of grid, corners, none"):
        homography(constant((2, 1), HEIGHT, WIDTH), "sift")
