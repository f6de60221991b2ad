import numpy as np
import pytest

from han_core.clipfile.trailer import read_trailer
from han_core.clipfile.writer import ClipFileWriter
from han_core.cubes.cubefile import write_cube
from han_core.cubes.statistics import read_statistics, store_statistics, write_statistics
from han_core.errors import HanError


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
    found = store_statistics(map(read_trailer, paths))
    assert (found.clips, found.shape) == (2, (3, 6, 2, 2))
    assert found.zeros == pytest.approx(0.75)
    assert found.raw_bytes == 2 * 2 * 72
    assert found.file_bytes == sum(len(path.read_bytes()) for path in paths)
    assert 0 < found.stored_bytes < found.file_bytes


def test_a_fuller_cube_takes_more_room(tmp_path):
    rng = np.random.default_rng(0)
    values = rng.random((4, 16, 8, 8))
    tenth = np.where(rng.random(values.shape) < 0.1, values, 0)
    sparse = store_statistics([read_trailer(write(tmp_path / "a.h5", tenth))])
    full = store_statistics([read_trailer(write(tmp_path / "b.h5", values))])
    assert sparse.stored_bytes < full.stored_bytes / 3
    assert full.zeros < 0.01 < 0.85 < sparse.zeros < 0.95


def test_written_and_read(tmp_path):
    found = store_statistics([read_trailer(write(tmp_path / "a.h5", np.ones((3, 6, 2, 2))))])
    write_statistics(found, tmp_path / "store/a.json")
    assert read_statistics(tmp_path / "store/a.json") == found


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"clips": 3}', "3"])
def test_something_else(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(HanError, match=r"a\.json: does not hold the figures of a store; run the cubes stage again"):
        read_statistics(tmp_path / "a.json")


def test_nothing_to_measure():
    with pytest.raises(ValueError, match="no cube files"):
        store_statistics([])
