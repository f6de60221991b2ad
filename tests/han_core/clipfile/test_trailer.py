"""Arrays read past HDF5 are those that HDF5 reads."""

import os

import h5py
import numpy as np
import pytest
import zstandard

from han_core.clipfile.arrays import read_arrays
from han_core.clipfile.trailer import CODECS, TRAILER_BYTES, ClipFileError, read_trailer
from han_core.clipfile.writer import ClipFileWriter

RNG = np.random.default_rng(3)
ARRAYS = {
    "index": RNG.integers(-5, 5, 7).astype(np.int32),
    "group/values": RNG.normal(size=(5, 3, 2)).astype(np.float16),
    "group/bytes": RNG.integers(0, 3, 1000).astype(np.uint8),
    "nothing": np.zeros((0, 4), np.float16),
}


@pytest.fixture(params=CODECS)
def path(request, tmp_path):
    path = tmp_path / "a.h5"
    with ClipFileWriter(path, kind="cubes", clip="c", fingerprint="ab" * 32) as writer:
        for name, values in ARRAYS.items():
            writer.array(name, values, codec=request.param)
    return path


def read(path, names=tuple(ARRAYS)):
    trailer = read_trailer(path)
    file = os.open(path, os.O_RDONLY)
    try:
        return read_arrays(file, [trailer.arrays[name] for name in names], zstandard.ZstdDecompressor())
    finally:
        os.close(file)


def test_arrays_are_those_that_hdf5_reads(path):
    with h5py.File(path) as file:
        for name, values in zip(ARRAYS, read(path), strict=True):
            assert values.dtype == ARRAYS[name].dtype
            np.testing.assert_array_equal(values, ARRAYS[name])
            np.testing.assert_array_equal(values, file[name][()])


def test_same_content_same_bytes(path, tmp_path):
    again = tmp_path / "b.h5"
    codec = read_trailer(path).arrays["index"].codec
    with ClipFileWriter(again, kind="cubes", clip="c", fingerprint="ab" * 32) as writer:
        for name, values in ARRAYS.items():
            writer.array(name, values, codec=codec)
    assert again.read_bytes() == path.read_bytes()


def test_what_is_no_longer_there_is_an_error(path):
    """The place is known, but something else lies there."""
    trailer = read_trailer(path)
    stored = trailer.arrays["group/bytes"]
    raw = bytearray(path.read_bytes())
    raw[stored.offset : stored.offset + stored.size] = bytes(stored.size)
    path.write_bytes(raw)
    with pytest.raises(ClipFileError, match=r"decompressed|expand|checksum"):
        read(path, ["group/bytes"])


def test_a_changed_trailer_is_refused(tmp_path):
    path = tmp_path / "a.h5"
    with ClipFileWriter(path, kind="cubes", clip="c", fingerprint="ab" * 32) as writer:
        writer.array("index", ARRAYS["index"])
    good = path.read_bytes()
    offset = str(read_trailer(path).arrays["index"].offset).encode()
    place = good.rindex(offset, len(good) - TRAILER_BYTES)
    path.write_bytes(good[:place] + b"7" + good[place + 1 :])
    with pytest.raises(ClipFileError, match="trailer is missing or damaged"):
        read_trailer(path)


def test_a_name_that_leaves_no_room_is_refused(tmp_path):
    with (
        pytest.raises(ValueError, match="too long"),
        ClipFileWriter(tmp_path / "a.h5", kind="cubes", clip="c" * 900, fingerprint="ab" * 32) as writer,
    ):
        writer.array("index", ARRAYS["index"])
