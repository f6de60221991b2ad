import numpy as np
import pytest

from han_core.clipfile.writer import ClipFileWriter
from han_core.cubes.cubefile import write_cube
from han_core.cubes.statistics import store_statistics


def write(path, cubes):
    with ClipFileWriter(path, kind="cubes", clip=path.stem, fingerprint="f" * 64) as file:
        write_cube(file, cubes.astype(np.float16))
        file.array("fc7", np.ones((len(cubes), 5), np.float16))
        file.array("frames", np.arange(len(cubes), dtype=np.int32))
    return path


def test_figures_of_two_clips(tmp_path):
    empty, half = np.zeros((3, 6, 2, 2)), np.zeros((3, 6, 2, 2))
    half[:, :3] = 1
    paths = [write(tmp_path / "a.h5", empty), write(tmp_path / "b.h5", half)]
    found = store_statistics(paths)
    assert (found.clips, found.shape) == (2, (3, 6, 2, 2))
    assert found.zeros == pytest.approx(0.75)
    assert found.raw_bytes == 2 * 2 * 72
    assert found.file_bytes == sum(len(path.read_bytes()) for path in paths)
    assert 0 < found.stored_bytes < found.file_bytes


def test_a_fuller_cube_takes_more_room(tmp_path):
    rng = np.random.default_rng(0)
    values = rng.random((4, 16, 8, 8))
    sparse = store_statistics([write(tmp_path / "a.h5", np.where(rng.random(values.shape) < 0.1, values, 0))])
    full = store_statistics([write(tmp_path / "b.h5", values)])
    assert sparse.stored_bytes < full.stored_bytes / 3
    assert full.zeros < 0.01 < 0.85 < sparse.zeros < 0.95


def test_nothing_to_measure():
    with pytest.raises(ValueError, match="no cube files"):
        store_statistics([])
