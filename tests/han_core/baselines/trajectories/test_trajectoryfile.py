"""Trajectories come back from a file as they were, wholly or in part."""

import h5py
import numpy as np
import pytest

from han_core.baselines.trajectories.params import LARGEST, TrajectoryParams
from han_core.baselines.trajectories.trajectories import CHANNELS, HISTOGRAMS, Counts, Trajectories, rounded
from han_core.baselines.trajectories.trajectoryfile import (
    Facts,
    count_trajectories,
    read_facts,
    read_trajectories,
    write_trajectories,
)
from han_core.clipfile.reader import ClipFile
from han_core.clipfile.trailer import ClipFileError, read_trailer
from han_core.clipfile.writer import ClipFileWriter
from tests.han_core.baselines.trajectories.made_up import FRAMES, HEIGHT, WIDTH, made_up

COUNTS = Counts(finished=100, kept=60, static=25, erratic=5, camera=10)


def write(path, trajectories, **changed):
    facts = {"clip": "clip", "fingerprint": "ab" * 32, "counts": COUNTS, "params": TrajectoryParams()}
    facts |= {"size": (WIDTH, HEIGHT), "length": FRAMES, "attributes": {"seed": 4}}
    write_trajectories(path, trajectories=trajectories, **facts | changed)
    return path


def same(one: Trajectories, other: Trajectories) -> bool:
    names = [name for name, values in vars(one).items() if values is not None]
    assert names == [name for name, values in vars(other).items() if values is not None]
    pairs = [(getattr(one, name), getattr(other, name)) for name in names]
    return all((a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes()) for a, b in pairs)


@pytest.mark.parametrize("count", [0, 1, 200])
def test_what_was_written_is_read(tmp_path, count):
    found = made_up(count)
    path = write(tmp_path / "a.h5", found)
    assert same(read_trajectories(path), found)
    assert count_trajectories(path) == count
    assert read_facts(path) == Facts(count, FRAMES, WIDTH, HEIGHT, COUNTS)
    again = write(tmp_path / "b.h5", found)
    assert path.read_bytes() == again.read_bytes()


def test_other_lengths(tmp_path):
    found = made_up(5, length=9)
    assert same(read_trajectories(write(tmp_path / "a.h5", found, params=TrajectoryParams(length=9))), found)


def test_parts(tmp_path):
    found = made_up(50)
    path = write(tmp_path / "a.h5", found)
    hog = read_trajectories(path, ["hog"], points=False)
    assert same(hog, Trajectories(start=found.start, scale=found.scale, hog=found.hog))
    shapes = read_trajectories(path, ["trajectory", "mbhx"], points=False)
    assert np.array_equal(shapes.channel("trajectory"), found.channel("trajectory"))
    assert shapes.points is None
    places = read_trajectories(path, [])
    assert same(places, Trajectories(start=found.start, scale=found.scale, points=found.points))
    for rows in (np.array([7, 3, 49]), np.array([], np.int64)):
        assert same(read_trajectories(path, rows=rows), found.select(rows))
    with pytest.raises(IndexError):
        read_trajectories(path, rows=np.array([50]))
    with pytest.raises(ValueError, match="'sift'"):
        read_trajectories(path, ["sift"])


def test_only_what_is_wanted_is_read(tmp_path, monkeypatch):
    path = write(tmp_path / "a.h5", made_up(5))
    asked = []
    module = "han_core.baselines.trajectories.trajectoryfile"
    from han_core.clipfile.arrays import read_parts

    monkeypatch.setattr(f"{module}.read_parts", lambda p, t, names: (asked.append(names), read_parts(p, t, names))[1])
    read_trajectories(path, ["hof"], points=False)
    assert asked == [("start", "scale", "hof")]


def test_any_size_of_a_frame_keeps_the_resolution(tmp_path):
    points = rounded(np.random.default_rng(0).uniform(LARGEST - 300, LARGEST, (20, 16, 2)).astype(np.float32))
    warped = rounded(np.random.default_rng(1).uniform(-500, 500, (20, 15, 2)).astype(np.float32))
    found = made_up(20, points=points, warped=warped)
    path = write(tmp_path / "a.h5", found, size=(LARGEST, LARGEST))
    assert same(read_trajectories(path), found)
    assert np.abs(points * 64 - np.rint(points * 64)).max() == 0
    with pytest.raises(ValueError, match="longer than"):
        write(tmp_path / "b.h5", made_up(2, warped=np.full((2, 15, 2), 600, np.float32)))


def test_what_the_file_says(tmp_path):
    path = write(tmp_path / "a.h5", made_up(3))
    with ClipFile(path) as file:
        assert (file.kind, file.clip) == ("trajectories", "clip")
        said = file.attributes
    assert said == {
        **vars(TrajectoryParams()),
    } | {"count": 3, "frames": FRAMES, "width": WIDTH, "height": HEIGHT, "seed": 4} | {
        "kept": 60,
        "finished": 100,
        "static": 25,
        "erratic": 5,
        "camera_like": 10,
    }
    for name, array in read_trailer(path).arrays.items():
        assert array.codec == ("zstd" if array.dtype == "|u1" else "shuffle-zstd"), name


def test_hdf5_tools_read_it(tmp_path):
    import hdf5plugin  # noqa: F401 (its filters)

    found = made_up(6)
    with h5py.File(write(tmp_path / "a.h5", found)) as file:
        points = np.concatenate([file["origin"][()][:, None], file["steps"][()]], 1, dtype=np.int64).cumsum(1) / 64
        assert np.array_equal(points, found.points)
        for name in HISTOGRAMS:
            assert np.array_equal(file[name][()], getattr(found, name))


def test_the_longest_name_of_a_clip_leaves_room(tmp_path):
    """Of UCF-101 and HMDB-51; where arrays lie stands in a trailer of one kilobyte."""
    write(tmp_path / "a.h5", made_up(1), clip="x" * 150)


def test_files_of_another_kind_are_refused(tmp_path):
    with ClipFileWriter(tmp_path / "a.h5", kind="scores", clip="c", fingerprint="0" * 64) as file:
        file.array("start", np.zeros(3, np.int32))
    for read in (read_trajectories, count_trajectories, read_facts):
        with pytest.raises(ClipFileError, match=r"a\.h5: clip c is a file of kind scores and holds no trajectories"):
            read(tmp_path / "a.h5")
        with pytest.raises(ClipFileError, match="cannot be opened"):
            read(tmp_path / "none.h5")


def test_memory_and_disk_give_the_same_descriptors(tmp_path):
    found = made_up(30)
    stored = read_trajectories(write(tmp_path / "a.h5", found))
    for name in CHANNELS:
        assert np.array_equal(stored.channel(name), found.channel(name))
