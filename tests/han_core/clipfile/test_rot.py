"""One bit flipped anywhere in a clip file: the readers that the next stage uses say so, or read what was written."""

import errno
import os
import shutil
from contextlib import suppress
from functools import partial

import cv2
import numpy as np
import pytest

from han_core.clipfile.reader import ClipFile
from han_core.clipfile.trailer import TRAILER_BYTES, ClipFileError, read_trailer
from han_core.clipfile.writer import ClipFileWriter
from han_core.cubes.cubefile import read_cube, read_sparse, write_cube
from han_core.cubes.store import CubeStore, CubeStoreError
from han_core.images.frames import read_frames, write_frames
from han_core.images.reader import ImageReader
from tests.clip_samples import CLIP, FINGERPRINT, WRITERS, cube, read_sample, same, write_sample
from tests.flips import check_told

TOLD = (ClipFileError, CubeStoreError)
PLACES = ("anywhere", "headers", "trailer")


def check(path, kind, where, count):
    """Share of ``count`` flips that were told; no other was silent."""
    size = path.stat().st_size
    within = {
        "anywhere": range(size),
        "headers": range(min(2048, size - TRAILER_BYTES)),
        "trailer": range(size - TRAILER_BYTES, size - TRAILER_BYTES + len(path.read_bytes()[-TRAILER_BYTES:].rstrip())),
    }[where]
    expected = read_sample(kind, path)
    return check_told(
        path, lambda: read_sample(kind, path), TOLD, lambda found: same(found, expected), count=count, within=within
    )


@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize("kind", WRITERS)
def test_a_flipped_bit_is_told_or_changes_nothing(tmp_path, record_property, kind, where):
    told = check(write_sample(kind, tmp_path), kind, where, {"anywhere": 120, "headers": 150, "trailer": 60}[where])
    record_property("told", told)
    # Elsewhere there is padding: most of a small file of images.
    assert told == 1 if where == "trailer" else told > 0.05


@pytest.mark.slow
@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize("kind", WRITERS)
def test_thousands_of_flipped_bits(tmp_path, record_property, kind, where):
    record_property("told", check(write_sample(kind, tmp_path), kind, where, 3000))


def test_every_bit_of_an_image_and_of_the_arrays_of_a_cube_is_told(tmp_path):
    """Where content lies nothing goes unnoticed."""
    path = write_sample("cubes", tmp_path)
    for array in read_trailer(path).arrays.values():
        if array.size:
            within = range(array.offset, array.offset + array.size)
            read = partial(read_sample, "cubes", path)
            assert check_told(path, read, TOLD, lambda _: True, count=60, within=within) == 1
    path = write_sample("frames", tmp_path)
    with ClipFile(path) as file:
        _, (start, *_) = file.blocks("frames")
        length = int(file.images("frames").offsets[-1])
    within = range(int(start), int(start) + length)
    for read in (lambda: read_frames(path), lambda: ImageReader().decode(path, "frames", 0, 4, grey=False)):
        words = "does not have its checksum"
        assert check_told(path, read, ClipFileError, lambda _: True, words, count=200, within=within) == 1


def test_an_attribute_that_rotted_is_told(tmp_path):
    """A width or a bound, for one, lies in HDF5's headers; these carry checksums because of the version written."""
    path = write_sample("flow-jpeg", tmp_path)
    with ClipFile(path) as file:
        bound = np.float64(file.attributes["bound"]).tobytes()
    start = path.read_bytes().index(bound)
    read = lambda: read_sample("flow-jpeg", path)["attributes"]  # noqa: E731
    assert check_told(path, read, ClipFileError, lambda _: True, within=range(start, start + 8)) == 1


def test_a_disk_that_cannot_read_is_told(tmp_path, monkeypatch):
    """EIO is how a disk says that a block is lost."""
    frames, cubes = write_sample("frames", tmp_path), write_sample("cubes", tmp_path)
    store, trailer, reader = CubeStore({"s": cubes.parent.parent}, [CLIP]), read_trailer(cubes), ImageReader()
    reader.count(frames, "frames")

    def broken(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "pread", broken)
    for path, read in (
        (cubes, lambda: store.batch([0])),
        (cubes, lambda: read_sparse(cubes, trailer)),
        (cubes, store.frames),
        (frames, lambda: reader.decode(frames, "frames", 0, 0, grey=False)),
    ):
        with pytest.raises(TOLD, match="Input/output error") as error:
            read()
        assert str(path) in str(error.value)


class TestReplacedUnderAnOpenReader:
    def other_frames(self, path):
        random = np.random.default_rng(9)
        write_frames(random.integers(0, 256, (5, 24, 32, 3), np.uint8), path, clip="o", fingerprint="f", quality=90)
        return path

    @pytest.mark.parametrize("how", [os.replace, shutil.copyfile])
    def test_images(self, tmp_path, how):
        """By a rename, or byte for byte in place."""
        path = write_sample("frames", tmp_path)
        expected = read_frames(path)
        reader = ImageReader()
        reader.decode(path, "frames", 0, 0, grey=False)
        with ClipFile(path) as file:
            file.image("frames", 0)
            how(self.other_frames(tmp_path / "other.h5"), path)
            with pytest.raises(ClipFileError, match="image 1 of frames does not have its checksum") as error:
                reader.decode(path, "frames", 1, 3, grey=False)
            assert str(path) in str(error.value)
            # The file that was opened is still there; or HDF5 still has this part of it in memory, or it is told.
            with suppress(*[ClipFileError] * (how is shutil.copyfile)):
                np.testing.assert_array_equal(file.image("frames", 1), expected[1])
        with ClipFile(path) as file:
            assert file.clip == "o"

    def test_images_of_another_size(self, tmp_path):
        path = write_sample("frames", tmp_path)
        reader = ImageReader()
        reader.decode(path, "frames", 0, 0, grey=False)
        write_frames(np.zeros((1, 8, 8, 3), np.uint8), tmp_path / "o.h5", clip="o", fingerprint="f", quality=90)
        os.replace(tmp_path / "o.h5", path)
        with pytest.raises(ClipFileError, match=r"clip\.h5"):
            reader.decode(path, "frames", 1, 3, grey=False)

    def test_cubes_while_they_are_read(self, tmp_path, monkeypatch):
        """Between the look at the file and the reading of it."""
        path = write_sample("cubes", tmp_path)
        store = CubeStore({"s": path.parent.parent}, [CLIP])
        new = tmp_path / "new.h5"
        shutil.copyfile(path, new)

        def swapped(*arguments):
            os.replace(self.other_cubes(tmp_path), path)
            return read_sparse(new, arguments[1])  # a file in which everything fits, but not the one indexed

        monkeypatch.setattr("han_core.cubes.store.read_sparse", swapped)
        with pytest.raises(CubeStoreError, match="changed while it was in use"):
            store.batch([0])

    def test_cubes_while_they_are_indexed(self, tmp_path, monkeypatch):
        path = write_sample("cubes", tmp_path)

        def swapped(of):
            trailer = read_trailer(of)
            monkeypatch.undo()
            os.replace(self.other_cubes(tmp_path), path)
            return trailer

        monkeypatch.setattr("han_core.cubes.folder.read_trailer", swapped)
        store = CubeStore({"s": path.parent.parent}, [CLIP])
        with pytest.raises(CubeStoreError, match="changed while it was in use"):
            store.batch([0])

    def other_cubes(self, folder):
        path = folder / "other.h5"
        with ClipFileWriter(path, kind="cubes", clip="other", fingerprint=FINGERPRINT) as writer:
            write_cube(writer, cube()[::-1])
        return path


def test_images_are_read_by_their_bytes_not_by_what_opencv_makes_of_them(tmp_path):
    """A JPEG with a flipped bit mostly decodes, to another picture; so the checksum must come first."""
    path = write_sample("frames", tmp_path)
    with ClipFile(path) as file:
        (encoded, _, (start, *_)) = file.image_bytes("frames", 0), *file.blocks("frames")
    place = int(start) + len(encoded) // 2
    raw = bytearray(path.read_bytes())
    raw[place] ^= 1
    bad = bytes(raw[int(start) : int(start) + len(encoded)])
    assert cv2.imdecode(np.frombuffer(bad, np.uint8), cv2.IMREAD_COLOR) is not None
    path.write_bytes(raw)
    with pytest.raises(ClipFileError, match="image 0 of frames does not have its checksum"):
        read_frames(path)


def test_a_cut_file_is_told(tmp_path):
    path = write_sample("cubes", tmp_path)
    whole = path.read_bytes()
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        with pytest.raises(TOLD, match=r"clip\.h5"):
            read_cube(path)
