"""Images read past HDF5: against the clip file's own reader, and what is said of files that are not right."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from han_core.clipfile.reader import ClipFile
from han_core.clipfile.trailer import ClipFileError
from han_core.clipfile.writer import ClipFileWriter
from han_core.images import reader as imagefile
from han_core.images.reader import ImageReader


def write(path: Path, **datasets: list[bytes]) -> Path:
    """A clip file with rows of encoded images, appended in turns, so that their blocks alternate in the file."""
    with ClipFileWriter(path, kind="flow", clip=path.stem, fingerprint="f" * 64) as file:
        rows = {name: file.images(name) for name in datasets}
        for images in zip(*datasets.values(), strict=True):
            for name, image in zip(datasets, images, strict=True):
                rows[name].append(image)
    return path


def encoded(count: int, seed: int, shape: tuple[int, ...] = (60, 80)) -> list[bytes]:
    random = np.random.default_rng(seed)
    return [cv2.imencode(".jpg", random.integers(0, 256, shape, np.uint8))[1].tobytes() for _ in range(count)]


@pytest.fixture
def flow(tmp_path) -> Path:
    """About 170 KiB a component: three blocks of 64 KiB each."""
    return write(tmp_path / "a.h5", x=encoded(40, 1), y=encoded(40, 2))


@pytest.mark.parametrize(("first", "last"), [(0, 0), (0, 39), (12, 21), (39, 39), (14, 16)])
def test_bytes_are_those_that_the_clip_file_reads(flow, first, last):
    reader = ImageReader()
    with ClipFile(flow) as file:
        for name in ("x", "y"):
            expected = [file.image_bytes(name, i) for i in range(first, last + 1)]
            assert [part.tobytes() for part in reader.encoded(flow, name, first, last)] == expected
            assert reader.count(flow, name) == 40


def test_images_are_those_that_the_clip_file_decodes(flow, tmp_path):
    colour = write(tmp_path / "c.h5", frames=encoded(3, 3, (40, 50, 3)))
    with ClipFile(flow) as grey, ClipFile(colour) as rgb:
        (found,) = ImageReader().decode(flow, "y", 7, 7, grey=True)
        np.testing.assert_array_equal(found, grey.image("y", 7))
        for i, found in enumerate(ImageReader().decode(colour, "frames", 0, 2, grey=False)):
            np.testing.assert_array_equal(found[..., ::-1], rgb.image("frames", i))


def test_hdf5_is_asked_once_a_file_and_dataset(flow, tmp_path, monkeypatch):
    asked = []
    read = imagefile.read_index
    monkeypatch.setattr(imagefile, "read_index", lambda *of: asked.append(of) or read(*of))
    reader = ImageReader(files=2)
    for _ in range(3):
        for name in ("x", "y"):
            reader.encoded(flow, name, 0, 3)
    assert asked == [(flow, "x"), (flow, "y")]
    for letter in "bc":
        reader.encoded(write(tmp_path / f"{letter}.h5", x=encoded(1, 4)), "x", 0, 0)
    reader.encoded(flow, "x", 0, 0)  # was dropped: only two files are kept
    assert len(asked) == 5


def test_many_threads_read_what_one_reads(flow):
    reader = ImageReader()
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda i: reader.encoded(flow, "xy"[i % 2], i % 40, i % 40)[0].tobytes(), range(400)))
    one = ImageReader()
    assert found == [one.encoded(flow, "xy"[i % 2], i % 40, i % 40)[0].tobytes() for i in range(400)]


def test_what_is_not_there(flow, tmp_path):
    reader = ImageReader()
    with pytest.raises(IndexError, match="x has images 0 to 39, not 38 to 40"):
        reader.encoded(flow, "x", 38, 40)
    with pytest.raises(ClipFileError, match="holds no frames_offsets"):
        reader.count(flow, "frames")
    with pytest.raises(ClipFileError, match="cannot be opened"):
        reader.count(tmp_path / "none.h5", "x")
    with pytest.raises(ClipFileError, match="x holds no images"):
        reader.count(write(tmp_path / "empty.h5", x=[]), "x")


def test_damage_is_told_by_file_and_image(tmp_path):
    broken = write(tmp_path / "broken.h5", x=[b"no image at all"])
    with pytest.raises(ClipFileError, match=r"broken\.h5: image 0 of x cannot be decoded"):
        ImageReader().decode(broken, "x", 0, 0, grey=True)
    path = write(tmp_path / "cut.h5", x=encoded(40, 1))
    reader = ImageReader()
    reader.count(path, "x")
    with path.open("r+b") as file:
        file.truncate(3000)  # after it was opened for the first time
    with pytest.raises(ClipFileError, match="ends too early"):
        reader.encoded(path, "x", 30, 39)
    with pytest.raises(ClipFileError, match="not a finished clip file"):
        ImageReader().count(path, "x")


@pytest.mark.parametrize("codec", ["zstd", "none"])
def test_images_that_lie_in_no_plain_blocks_are_refused_not_misread(tmp_path, codec):
    path = tmp_path / "z.h5"
    with ClipFileWriter(path, kind="flow", clip="z", fingerprint="f" * 64) as file:
        file.array("x", np.zeros(100, np.uint8), codec=codec)
        file.array("x_offsets", np.array([0, 100]))
        file.array("x_crc32", np.zeros(1, np.uint32))
    with pytest.raises(ClipFileError, match="not stored in plain blocks"):
        ImageReader().count(path, "x")
