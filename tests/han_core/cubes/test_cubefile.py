"""A cube comes back bit by bit, through this library and through h5py alone."""

import re

import h5py
import numpy as np
import pytest

from han_core.clipfile.trailer import ClipFileError, read_trailer
from han_core.clipfile.writer import ClipFileWriter
from han_core.cubes import cubefile
from han_core.cubes.cubefile import nonzeros, read_cube, read_sparse, stored_bytes, write_cube


@pytest.fixture
def cube():
    rng = np.random.default_rng(1)
    values = rng.normal(size=(5, 8, 14, 14)).astype(np.float16)
    return np.where(rng.random(values.shape) < 0.1, values, np.float16(0))


@pytest.fixture
def path(tmp_path, cube):
    with ClipFileWriter(tmp_path / "a.h5", kind="cubes", clip="a", fingerprint="ab" * 32) as writer:
        write_cube(writer, cube)
        writer.array("fc7", cube[:, :, 0, 0])
    return tmp_path / "a.h5"


def test_it_comes_back(path, cube):
    np.testing.assert_array_equal(read_cube(path), cube)
    trailer = read_trailer(path)
    assert nonzeros(trailer) == (cube != 0).sum()
    assert 0 < stored_bytes(trailer) < cube.nbytes / 3
    assert read_sparse(path, trailer).regions == 196


def test_the_recipe_for_others_in_the_docstring_works(path, cube):
    recipe = re.search(r"::\n\n(.*?)\n\n", cubefile.__doc__, re.DOTALL).group(1)
    names = {"path": path}
    exec("\n".join(line.strip() for line in recipe.splitlines()), names)
    np.testing.assert_array_equal(names["cubes"], cube)


def test_all_zeros(tmp_path):
    with ClipFileWriter(tmp_path / "z.h5", kind="cubes", clip="z", fingerprint="ab" * 32) as writer:
        write_cube(writer, np.zeros((2, 3, 2, 2), np.float16))
    np.testing.assert_array_equal(read_cube(tmp_path / "z.h5"), np.zeros((2, 3, 2, 2)))


def test_a_file_of_another_kind_is_a_plain_error(tmp_path):
    with ClipFileWriter(tmp_path / "f.h5", kind="frames", clip="f", fingerprint="ab" * 32) as writer:
        writer.array("index", np.arange(3))
    with pytest.raises(ClipFileError, match="clip f is a file of kind frames and holds no cube"):
        read_cube(tmp_path / "f.h5")


def test_parts_of_two_clips_are_refused(path, tmp_path, cube):
    """A reader with the trailer of one file and the bytes of another never gets wrong numbers."""
    other = tmp_path / "b.h5"
    with ClipFileWriter(other, kind="cubes", clip="b", fingerprint="cd" * 32) as writer:
        write_cube(writer, np.roll(cube, 1, axis=2) * (np.arange(14) < 9).astype(np.float16))
    with pytest.raises(ClipFileError, match=r"b\.h5: clip a"):
        read_sparse(other, read_trailer(path))


def test_hdf5_sees_the_same(path, cube):
    with h5py.File(path) as file:
        assert tuple(file["cubes"].attrs["shape"]) == cube.shape
        np.testing.assert_array_equal(file["cubes/values"][()], cube[cube != 0])
