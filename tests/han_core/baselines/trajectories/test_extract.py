"""Trajectories of made-up clips whose flow is known, and of the whole extractor against a plain reference."""

import subprocess
import sys
from dataclasses import replace
from itertools import pairwise

import cv2
import numpy as np
import pytest

from han_core.baselines.trajectories.extract import Extractor, extract
from han_core.baselines.trajectories.params import TrajectoryParams
from han_core.baselines.trajectories.pyramid import Level
from han_core.baselines.trajectories.tracks import Tracks
from han_core.baselines.trajectories.trajectories import HISTOGRAMS, Trajectories
from han_core.camera.motion import homography
from tests.han_core.baselines.trajectories import reference
from tests.han_core.baselines.trajectories.scenes import constant, pan, pan_with_square, texture, wobbling

ALL = TrajectoryParams(most=0)
STILL_CAMERA = replace(ALL, camera="none")


def run(frames, fields, params, portion=0):
    """An extractor that has seen a clip; with ``portion`` it is asked for what it has after every so many frames."""
    extractor = Extractor(*frames[0].shape, params, name="clip", seed=3)
    for t, frame in enumerate(frames):
        extractor.add(frame, fields[t - 1] if t else None)
        if portion and t % portion == 0:
            extractor.trajectories()
    return extractor


def same(one: Trajectories, other: Trajectories) -> bool:
    return all(values.tobytes() == getattr(other, name).tobytes() for name, values in vars(one).items())


# --- what comes out of known flow


def test_exact_flow_gives_straight_trajectories_and_all_are_kept():
    extractor = run(*pan(20, 120, 160), STILL_CAMERA)
    found, counts = extractor.trajectories(), extractor.counts
    assert len(found) == counts.kept == counts.finished > 500
    assert np.bincount(found.scale).tolist()[3] > 0, "all scales"
    steps = np.diff(found.points, axis=1)
    assert np.abs(steps[found.scale == 0] - [-2, -1]).max() < 1e-4
    assert np.abs(steps - [-2, -1]).max() <= 1 / 64 + 1e-4  # points are stored in 64ths
    assert np.abs(found.warped - [-2, -1]).max() < 1e-4
    expected = np.tile(np.array([-2, -1]) / (15 * np.sqrt(5)), 15)
    np.testing.assert_allclose(found.channel("trajectory"), np.tile(expected, (len(found), 1)), atol=1e-6)


def test_trajectories_start_in_every_frame_that_leaves_enough_and_follow_each_other():
    found = extract(*pan(20, 120, 160), STILL_CAMERA)
    starts = np.unique(found.start).tolist()
    assert starts[0] == 0
    assert starts[-1] == 4
    assert len(starts) > 3
    assert (np.diff(found.start) >= 0).all()


@pytest.mark.parametrize("camera", ["grid", "corners"])
def test_what_moves_as_the_camera_does_is_dropped(camera):
    counts = run(*pan(20, 120, 160), replace(ALL, camera=camera)).counts
    assert counts.kept == 0
    assert counts.camera == counts.finished > 500


def test_what_moves_by_itself_is_kept_without_the_cameras_motion():
    frames, fields, places = pan_with_square(18, 180, 240)
    params = replace(ALL, scales=1)
    extractor = run(frames, fields, params)
    found, counts = extractor.trajectories(), extractor.counts
    assert 20 < counts.kept < counts.finished / 2
    corners = np.array(places)[found.start[:, None] + np.arange(16)]  # of the square at each point
    within = found.points - corners
    touched = ((within > -3) & (within < 43)).all(2).any(1)
    assert touched.all(), "on the square, or passed by it"
    inside = ((within[:, 0] > 8) & (within[:, 0] < 32)).all(1)
    assert inside.sum() > 10
    np.testing.assert_allclose(found.warped[inside], np.broadcast_to([6, 1], found.warped[inside].shape), atol=0.02)
    np.testing.assert_allclose(np.diff(found.points[inside], axis=1)[..., 0], 4, atol=1e-4)


# --- what gives none


def test_nothing_moves_nothing_is_kept():
    still = [texture(80, 100)] * 18
    for params in (ALL, STILL_CAMERA):
        counts = run(still, [constant((0, 0), 80, 100)] * 17, params).counts
        assert counts.finished == counts.static > 0


@pytest.mark.parametrize("value", [0, 128, 255])
def test_flat_frames_have_no_points(value):
    flat = [np.full((80, 100), value, np.uint8)] * 18
    extractor = run(flat, [constant((2, 1), 80, 100)] * 17, ALL)
    assert extractor.counts.finished == 0
    found = extractor.trajectories()
    assert len(found) == 0
    assert found.channel("trajectory").shape == (0, 30)
    assert found.channel("hof").shape == (0, 108)


def test_a_clip_needs_sixteen_frames():
    frames, fields = pan(16, 80, 100)
    assert len(extract(frames[:15], fields[:14], STILL_CAMERA)) == 0
    found = extract(frames, fields, STILL_CAMERA)
    assert len(found) > 0
    assert set(found.start.tolist()) == {0}
    assert len(extract(frames[:1], [], STILL_CAMERA)) == len(extract([], [], STILL_CAMERA)) == 0


def test_a_jump_is_erratic():
    frames, fields = pan(16, 80, 400, (0, 0))
    fields = list(fields)
    fields[7] = constant((25, 0), 80, 400)
    counts = run(frames, fields, STILL_CAMERA).counts
    assert counts.erratic == counts.finished > 0
    fields[7] = constant((19, 0), 80, 400)  # as long a share of its path, but below 20 pixels
    counts = run(frames, fields, STILL_CAMERA).counts
    assert counts.kept == counts.finished > 0


def test_what_strays_too_far_is_erratic():
    frames, _ = pan(16, 80, 600, (0, 0))
    counts = run(frames, [constant((12, 0), 80, 600)] * 15, STILL_CAMERA).counts  # deviation 55 pixels
    assert counts.erratic == counts.finished > 0
    counts = run(frames, [constant((10, 0), 80, 600)] * 15, STILL_CAMERA).counts  # 46
    assert counts.kept == counts.finished > 0


def test_small_motion_is_the_cameras_only_where_that_is_tested():
    """0.9 pixels a step, by what moves while most of the picture stands still."""
    frames, fields, _ = pan_with_square(17, 180, 240)
    for field in fields:
        moves = field[0] == 4
        field[:] = 0
        field[0, moves] = 0.9
    assert run(frames, fields, replace(ALL, scales=1)).counts.camera > 20
    counts = run(frames, fields, replace(STILL_CAMERA, scales=1)).counts
    assert (counts.camera, counts.kept > 20) == (0, True)


# --- against the reference


@pytest.mark.parametrize("camera", ["grid", "none"])
def test_all_is_as_in_the_plain_reference(camera):
    """Every scale, every test, every number of every trajectory, to the rounding of what is stored."""
    frames, fields = wobbling(8, 68, 84)
    params = TrajectoryParams(length=6, patch=16, most=0, camera=camera, quality=0.05, stride=6)
    motions = [homography(field, camera) for field in fields]
    assert camera == "none" or not any(np.array_equal(motion, np.eye(3)) for motion in motions)
    expected = reference.extract(frames, fields, motions, params)
    found = run(frames, fields, params).trajectories()
    assert len(found) == len(expected) > 30
    assert len(set(found.scale.tolist())) >= 3
    # The reference resizes what is warped, the extractor warps what is resized. In perspective that is not the same,
    # and then a pixel may fall on the other side of the 0.4 pixels of the ninth bin.
    far, least, most = (4e-3, 2e-3, 0.02) if camera == "grid" else (1e-5, 1e-5, 1e-5)
    for i, track in enumerate(expected):
        assert (found.start[i], found.scale[i]) == (track["start"], track["scale"])
        np.testing.assert_allclose(found.points[i], track["points"], atol=1 / 128 + 1e-5)
        np.testing.assert_allclose(found.warped[i], track["warped"], atol=1 / 128 + far)
        for name in HISTOGRAMS:
            difference = np.abs(found.channel(name)[i] - track[name].ravel()) - 0.5 / 255
            assert np.quantile(difference, 0.95) < least, name
            assert difference.max() < most, name


# --- mirrored


BACK = (np.arange(4, -4, -1)) % 8
"""Bin that a direction becomes when x changes its sign."""
DOWN = (-np.arange(8)) % 8
"""When y does."""


def test_a_mirrored_clip_has_mirrored_trajectories():
    _, fields = wobbling(17, 80, 120, seed=4)
    frames = [texture(80, 120, smooth=3)] * 17
    flipped = [np.stack([-field[0, :, ::-1], field[1, :, ::-1]]) for field in fields]
    params = replace(STILL_CAMERA, scales=1)
    found = extract(frames, fields, params)
    mirrored = extract([np.ascontiguousarray(frame[:, ::-1]) for frame in frames], flipped, params)
    assert len(found) > 100

    turned = found.points * [-1, 1] + [119, 0]
    # A track is lost where it leaves the frame, whose sides are at 0 and at the width: one pixel from mirrored.
    here, there = (
        {tuple(p[0]): i for i, p in enumerate(turned)},
        {tuple(p[0]): i for i, p in enumerate(mirrored.points)},
    )
    both = sorted(here.keys() & there.keys())
    assert len(both) > 0.95 * len(found)
    i, j = np.array([here[p] for p in both]), np.array([there[p] for p in both])
    close = np.abs(turned[i] - mirrored.points[j]).max((1, 2)) < 0.05
    assert close.mean() > 0.9  # the others sit half-way between two pixels, which rounding treats differently
    i, j = i[close], j[close]
    bins = {"hog": BACK, "hof": np.append(BACK, 8), "mbhx": DOWN, "mbhy": BACK}
    for name, order in bins.items():
        shape = (-1, *reference.SHAPES[name])
        one, other = found.channel(name)[i].reshape(shape), mirrored.channel(name)[j].reshape(shape)
        # Patches reach from 16 pixels left of the point to 15 right of it, so they are mirrored but for a column.
        assert np.abs(one[:, :, ::-1][..., order] - other).mean() < 0.3 * np.abs(one - other).mean(), name


# --- streams, bytes


def test_a_stream_gives_the_same_bytes_however_it_is_fed():
    frames, fields = wobbling(24, 80, 100)
    params = replace(ALL, most=120)
    whole = run(frames, fields, params)
    assert len(whole.trajectories()) == 120 < whole.counts.kept
    assert same(whole.trajectories(), whole.trajectories())
    for portion in (1, 7):
        assert same(run(frames, fields, params, portion).trajectories(), whole.trajectories())
    stream = extract((f for f in frames), (f for f in fields), params, name="clip", seed=3)
    assert same(stream, whole.trajectories())


def test_to_know_how_many_frames_will_come_changes_no_result():
    frames, fields = wobbling(26, 80, 100)
    params = replace(ALL, most=100)
    whole = run(frames, fields, params)
    knowing = Extractor(80, 100, params, name="clip", seed=3, count=26)
    alive = []
    for t, frame in enumerate(frames):
        knowing.add(frame, fields[t - 1] if t else None)
        alive.append(sum(map(len, knowing._tracks)))
    assert same(knowing.trajectories(), whole.trajectories())
    assert knowing.counts == whole.counts
    assert alive[9] > 0 == alive[-1]
    few = Extractor(80, 100, params, count=15)
    few.add(frames[0])
    assert sum(map(len, few._tracks)) == 0


def test_memory_does_not_grow_with_the_clip():
    frames, fields = wobbling(40, 64, 80)
    extractor = Extractor(64, 80, replace(ALL, most=20))
    rooms, held = [], []
    for t in range(160):
        extractor.add(frames[t % 40], fields[t % 39] if t else None)
        rooms.append(sum(len(tracks._ages) for tracks in extractor._tracks))
        held.append(len(extractor._drawn.items() or []))
    assert rooms[-1] == rooms[40]
    assert max(held) == 20


PROGRAM = """
import hashlib
from han_core.baselines.trajectories.extract import extract
from han_core.baselines.trajectories.params import TrajectoryParams
from tests.han_core.baselines.trajectories.scenes import wobbling
found = extract(*wobbling(24, 80, 100), TrajectoryParams(most=100), name="clip", seed=1)
print(hashlib.sha256(b"".join(values.tobytes() for values in vars(found).values())).hexdigest(), len(found))
"""


def test_two_processes_give_the_same_bytes(repository):
    def digest(seed: str) -> str:
        environment = {"PYTHONHASHSEED": seed, "PATH": "/usr/bin:/bin", "HOME": "/tmp"}
        command = [sys.executable, "-c", PROGRAM]
        return subprocess.run(
            command, cwd=repository, env=environment, capture_output=True, text=True, check=True
        ).stdout

    one, other = digest("1"), digest("2")
    assert one == other
    assert one.endswith(" 100\n")


def test_a_part_is_drawn_by_name_and_seed_in_the_order_of_all():
    frames, fields = wobbling(24, 80, 100)
    whole = extract(frames, fields, ALL)
    params = replace(ALL, most=len(whole) // 4)
    parts = [extract(frames, fields, params, name=name, seed=seed) for name, seed in (("a", 0), ("b", 0), ("a", 1))]
    places = {whole.points[i].tobytes() + bytes([whole.scale[i]]): i for i in range(len(whole))}
    chosen = [[places[p.points[i].tobytes() + bytes([p.scale[i]])] for i in range(len(p))] for p in parts]
    for part, index in zip(parts, chosen, strict=True):
        assert len(part) == params.most
        assert all(a < b for a, b in pairwise(index)), "in the order of all"
        assert same(part, whole.select(np.array(index)))
    assert chosen[0] != chosen[1]
    assert chosen[0] != chosen[2]


# --- the grid


def test_no_cell_of_the_grid_gets_a_second_track():
    frames, fields = wobbling(12, 64, 80)
    extractor = Extractor(64, 80, replace(ALL, scales=1))
    tracks = extractor._tracks[0]
    for t, frame in enumerate(frames):
        if t:
            extractor._step(fields[t - 1])
            extractor.frames += 1
        before = {tuple((tracks.current()[i] // 5).astype(int)) for i in range(len(tracks))}
        count = len(tracks)
        extractor._greys = [frame]
        tracks.start(cv2.cornerMinEigenVal(frame, 3, ksize=3), np.zeros)
        new = [tuple((point // 5).astype(int)) for point in tracks.current()[count:]]
        assert len(new) == len(set(new))
        assert not set(new) & before
        assert (tracks.current()[count:] % 5 == 2).all()
        if t == 0:
            extractor.frames = 1
    assert len(before) > 50


# --- what is refused


def test_what_does_not_fit_is_refused():
    frames, fields = pan(4, 64, 80)
    with pytest.raises(ValueError, match="fewer fields"):
        extract(frames, fields[:2], ALL)
    with pytest.raises(ValueError, match="more fields"):
        extract(frames, [*fields, fields[0]], ALL)
    for wrong in (frames[0].astype(np.float32), frames[0][:, :60]):
        with pytest.raises(ValueError, match="frame 1 is"):
            extract([frames[0], wrong], fields[:1], ALL)
    for wrong in (fields[0][:, :, :60], fields[0].astype(np.float64)):
        with pytest.raises(ValueError, match="flow 0 is"):
            extract(frames[:2], [wrong], ALL)
    with pytest.raises(ValueError, match="not finite"):
        extract(frames[:2], [np.where(fields[0] == -1, np.nan, fields[0])], ALL)
    with pytest.raises(ValueError, match="a side has"):
        Extractor(20, 20_000, ALL)
    with pytest.raises(ValueError, match="comes with"):
        Extractor(64, 80, ALL).add(frames[0], fields[0])


@pytest.mark.parametrize("stride", [5, 1])
@pytest.mark.parametrize("size", [(1, 1), (1, 300), (2, 300), (3, 300), (24, 30), (31, 200)])
def test_frames_smaller_than_a_patch_have_one_scale(size, stride):
    params = replace(STILL_CAMERA, stride=stride)
    extractor = run([texture(*size)] * 17, [constant((0.5, 0), *size)] * 16, params)
    found = extractor.trajectories()
    for name in HISTOGRAMS:
        assert np.isfinite(found.channel(name)).all()
    assert (found.scale == 0).all()
    assert (len(found) > 0) == (min(size) > max(2, stride))


@pytest.mark.parametrize("size", [(1, 40), (40, 1), (2, 2)])
def test_no_track_starts_where_a_patch_has_no_room_for_two_cells(size):
    tracks = Tracks(Level(size, size), replace(ALL, stride=1))
    tracks.start(np.random.default_rng(0).random(size, np.float32), np.zeros)
    assert (len(tracks) > 0) == (min(size) == 2)
