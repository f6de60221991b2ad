"""Cubes that are on disk, pooled at the frames that a track crosses."""

import numpy as np
import pytest

from han_core.baselines.tdd.from_cubes import (
    crossed_frames,
    crossing_tracks,
    cube_descriptors,
    pool_cube,
    read_frame_numbers,
)
from han_core.baselines.tdd.tracks import Tracks, TracksError
from han_core.baselines.trajectories.params import TrajectoryParams
from han_core.baselines.trajectories.trajectories import DIMENSIONS, Counts, Trajectories, rounded
from han_core.baselines.trajectories.trajectoryfile import write_trajectories
from han_core.clipfile.trailer import ClipFileError
from han_core.clipfile.writer import ClipFileWriter
from han_core.cubes.cubefile import write_cube, write_cubes

CHANNELS, SIDE, FRAMES = 6, 4, np.array([0, 6, 12, 18, 24, 30], np.int32)


def made_up(count=40, seed=1) -> tuple[np.ndarray, Tracks]:
    random = np.random.default_rng(seed)
    cube = np.maximum(random.standard_normal((len(FRAMES), CHANNELS, SIDE, SIDE)), 0).astype(np.float16)
    points = random.uniform(0, (79, 59), (count, 15, 2)).astype(np.float32)
    return cube, Tracks(points, random.integers(0, 16, count), 80, 60)


def by_loop(cube: np.ndarray, frames: np.ndarray, tracks: Tracks) -> dict[str, np.ndarray]:
    cube = cube.astype(np.float64)
    found = {}
    for name, axes in (("st", (0, 2, 3)), ("ch", 1)):
        largest = cube.max(axes, keepdims=True)
        values = cube / np.where(largest > 0, largest, 1)
        rows = []
        for points, start in zip(tracks.points, tracks.start, strict=True):
            crossed = [(t, f - start) for t, f in enumerate(frames) if start <= f < start + 15]
            cells = [(t, *np.floor((points[step] + 0.5) * (SIDE / 80, SIDE / 60)).astype(int)) for t, step in crossed]
            rows.append(15 * np.mean([values[t, :, y, x] for t, x, y in cells], axis=0))
        found[name] = np.sqrt(rows)
    return found


def test_descriptors_are_15_times_the_mean_over_the_frames_that_are_crossed():
    cube, tracks = made_up()
    assert set(crossed_frames(FRAMES, tracks).tolist()) == {2, 3}
    found, expected = pool_cube(cube, FRAMES, tracks), by_loop(cube, FRAMES, tracks)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert found[name].dtype == np.float32
        np.testing.assert_allclose(found[name], values, rtol=1e-5, atol=1e-6)


def test_a_frame_that_a_short_clip_repeats_counts_once():
    cube, tracks = made_up()
    often = np.array([0, 0, 1, 2, 2, 2, 3, 4, 5])
    assert crossed_frames(FRAMES[often], tracks).tolist() == crossed_frames(FRAMES, tracks).tolist()
    found, expected = pool_cube(cube[often], FRAMES[often], tracks), pool_cube(cube, FRAMES, tracks)
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)


def test_tracks_between_two_frames_cross_none():
    cube, _ = made_up()
    frames = np.array([0, 20, 40, 60, 80, 100], np.int32)
    tracks = Tracks(np.zeros((4, 15, 2), np.float32), np.array([0, 1, 6, 86]), 80, 60)
    assert crossed_frames(frames, tracks).tolist() == [1, 0, 1, 1]
    with pytest.raises(ValueError, match="crosses no frame"):
        pool_cube(cube, frames, tracks)
    assert pool_cube(cube, frames, tracks.take(np.array([0, 2])))["st"].shape == (2, CHANNELS)
    assert pool_cube(cube, frames, tracks.take(np.array([], int)))["ch"].shape == (0, CHANNELS)


def write(folder, cubes: dict[str, np.ndarray], tracks: Tracks, frames: dict[str, np.ndarray], length=31) -> tuple:
    """A clip's trajectory file and cube files. The tracks get a last point, and every one has a twin of scale 1."""
    n = len(tracks)
    points = np.concatenate([tracks.points, tracks.points[:, -1:]], axis=1).clip(0, (79, 59)).astype(np.float32)
    found = Trajectories(
        points=rounded(np.repeat(points, 2, axis=0)),
        start=np.repeat(tracks.start, 2).astype(np.int32),
        scale=np.tile([0, 1], n).astype(np.uint8),
        warped=np.ones((2 * n, 15, 2), np.float32),
        **{name: np.zeros((2 * n, DIMENSIONS[name]), np.uint8) for name in ("hog", "hof", "mbhx", "mbhy")},
    )
    identity = {"clip": "a", "fingerprint": "f" * 64}
    facts = {"counts": Counts(), "params": TrajectoryParams(), "size": (80, 60), "length": length}
    write_trajectories(folder / "trajectories.h5", **identity, trajectories=found, **facts)
    for stream, cube in cubes.items():
        values = {"conv5_3": cube, "fc7": cube[:, :, 0, 0]}
        facts = {"layer": "conv5_3", "fc": "fc7", "values": values, "attributes": {}}
        write_cubes(folder / f"{stream}.h5", **identity, frames=frames[stream], **facts)
    return folder / "trajectories.h5", {stream: folder / f"{stream}.h5" for stream in cubes}


def test_a_clip_is_described_by_both_streams_cubes(tmp_path):
    cubes = {"spatial": made_up(seed=1)[0], "temporal": made_up(seed=2)[0]}
    _, tracks = made_up()
    tracks = Tracks(rounded(tracks.points), tracks.start, 80, 60)
    trajectories, paths = write(tmp_path, cubes, tracks, dict.fromkeys(cubes, FRAMES))
    found = crossing_tracks(trajectories, paths)
    np.testing.assert_array_equal(found.points, tracks.points)
    np.testing.assert_array_equal(found.start, tracks.start)
    descriptors = cube_descriptors(paths, found)
    assert list(descriptors) == ["spatial_st", "spatial_ch", "temporal_st", "temporal_ch"]
    for stream, cube in cubes.items():
        for name, values in by_loop(cube, FRAMES, tracks).items():
            np.testing.assert_allclose(descriptors[f"{stream}_{name}"], values, rtol=1e-5, atol=1e-6)


def test_tracks_that_cross_no_frame_are_left_out(tmp_path):
    cube, tracks = made_up()
    frames = np.array([0, 1, 2, 28, 29, 30], np.int32)
    tracks = Tracks(tracks.points[:3], np.array([2, 5, 15]), 80, 60)
    assert crossing_tracks(*write(tmp_path, {"spatial": cube}, tracks, {"spatial": frames})).start.tolist() == [2, 15]


def test_cubes_of_different_frames_are_told(tmp_path):
    cube, tracks = made_up()
    frames = {"spatial": FRAMES, "temporal": np.array([0, 6, 12, 17, 24, 30], np.int32)}
    written = write(tmp_path, dict.fromkeys(frames, cube), tracks, frames)
    with pytest.raises(ClipFileError, match=r"temporal\.h5: are of different frames"):
        crossing_tracks(*written)


def test_a_track_beyond_the_clip_is_an_error(tmp_path):
    cube, _ = made_up()
    tracks = Tracks(np.zeros((1, 15, 2), np.float32), np.array([17]), 80, 60)
    written = write(tmp_path, {"spatial": cube}, tracks, {"spatial": FRAMES}, length=40)
    with pytest.raises(TracksError, match="frames 17 to 31, but the clip has frames 0 to 30"):
        crossing_tracks(*written)
    middle = np.array([20], np.int32)  # of a cube of one frame nobody knows where the clip ends
    (tmp_path / "b").mkdir()
    written = write(tmp_path / "b", {"spatial": cube[:1]}, tracks, {"spatial": middle}, length=40)
    assert len(crossing_tracks(*written)) == 1


@pytest.mark.parametrize(
    "frames",
    [FRAMES[:-1], FRAMES.astype(np.int64), FRAMES[::-1].copy(), FRAMES - 1, FRAMES[:, None]],
    ids=["too few", "type", "order", "negative", "shape"],
)
def test_frames_that_cannot_be_the_cubes_are_refused(tmp_path, frames):
    cube, _ = made_up()
    with ClipFileWriter(tmp_path / "a.h5", kind="cubes", clip="a", fingerprint="f" * 64) as file:
        write_cube(file, cube)
        file.array("frames", frames)
    with pytest.raises(ClipFileError, match="which frames its cube is of"):
        read_frame_numbers(tmp_path / "a.h5")
