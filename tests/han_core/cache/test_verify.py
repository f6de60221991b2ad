"""A file that was made to pass for another is no chance error: its checksums are all right."""

import json
from dataclasses import asdict

import h5py
import numpy as np
import pytest

from han_core.cache.verify import verify_clip_file
from han_core.clipfile.checksums import sha256_of_file
from han_core.clipfile.reader import ClipFile
from han_core.clipfile.trailer import ClipFileError, read_trailer
from han_core.clipfile.writer import ClipFileWriter
from tests.clip_samples import WRITERS, seal, trailer_bytes, trailer_values, write_sample


@pytest.mark.parametrize("kind", WRITERS)
def test_what_the_writers_wrote_is_sound(tmp_path, kind):
    verify_clip_file(write_sample(kind, tmp_path))


def test_attributes_of_all_types_are_found_again_as_they_were_written(tmp_path):
    attributes = {
        "text": "ü",
        "whole": np.int16(3),
        "share": np.float32(0.1),
        "yes": True,
        "row": (1, 2),
    }
    with ClipFileWriter(tmp_path / "a.h5", kind="demo", clip="a", fingerprint="0" * 64, attributes=attributes) as file:
        file.array("none", np.zeros((0, 3), np.float32), codec="zstd")
        file.array("a_offsets", np.arange(3))
        file.images("i")
    verify_clip_file(tmp_path / "a.h5")


@pytest.mark.parametrize("kind", WRITERS)
def test_claiming_the_content_of_another_file_is_found(tmp_path, kind):
    path = write_sample(kind, tmp_path)
    body = path.read_bytes()[: read_trailer(path).size]
    seal(path, body, trailer_values(path) | {"content": "c" * 64})
    assert read_trailer(path).content == "c" * 64
    with pytest.raises(ClipFileError, match="claims another content than it has"):
        verify_clip_file(path)


def test_an_attribute_changed_with_all_checksums_is_found(tmp_path):
    path = write_sample("flow-png", tmp_path)
    values, size = trailer_values(path), read_trailer(path).size
    inner = tmp_path / "inner.h5"
    inner.write_bytes(path.read_bytes()[:size])
    with h5py.File(inner, "r+") as file:
        file.attrs.modify("bound", np.float64(40))
    body = inner.read_bytes()
    seal(path, body, values | {"size": len(body), "sha256": sha256_of_file(inner, len(body))})
    assert ClipFile(path).attributes["bound"] == 40
    with pytest.raises(ClipFileError, match="claims another content than it has"):
        verify_clip_file(path)


@pytest.mark.parametrize(
    "change", [{"offset": 8}, {"size": 1, "shape": (1,)}, {"codec": "zstd"}, {"shape": (2, 2)}, {"crc32": 1}]
)
def test_a_trailer_that_leads_elsewhere_than_hdf5_is_found(tmp_path, change):
    path = tmp_path / "a.h5"
    with ClipFileWriter(path, kind="demo", clip="a", fingerprint="0" * 64) as file:
        file.array("numbers", np.arange(4, dtype=np.uint8))
    values, body = trailer_values(path), path.read_bytes()[: read_trailer(path).size]
    entry = asdict(read_trailer(path).arrays["numbers"]) | change
    values["arrays"] = {"numbers": [entry[key] for key in ("dtype", "shape", "codec", "offset", "size", "crc32")]}
    path.write_bytes(body + trailer_bytes(json.dumps(values, separators=(",", ":"))))
    with pytest.raises(ClipFileError, match="trailer and HDF5 differ in array numbers"):
        verify_clip_file(path)


def test_a_dataset_that_the_trailer_does_not_know_is_found(tmp_path):
    path = tmp_path / "a.h5"
    with ClipFileWriter(path, kind="demo", clip="a", fingerprint="0" * 64) as file:
        file.array("numbers", np.arange(4))
    values, body = trailer_values(path), path.read_bytes()[: read_trailer(path).size]
    seal(path, body, values | {"arrays": {}})
    with pytest.raises(ClipFileError, match="does not know dataset numbers"):
        verify_clip_file(path)


def test_arrays_whose_header_goes_on_elsewhere_are_found(tmp_path):
    """HDF5 puts the end of a header wherever there is room, its layout message perhaps in it."""
    path = tmp_path / "a.h5"
    with ClipFileWriter(path, kind="demo", clip="a", fingerprint="0" * 64) as file:
        for name in ("start", "scale", "origin", "steps", "warped", "hog"):
            file.array(name, np.arange(60, dtype=np.int16).reshape(2, 15, 2), codec="shuffle-zstd")
    assert any(_begins_elsewhere(path, name) for name in ("steps", "warped")), "the case that this is about"
    verify_clip_file(path)
    with ClipFile(path) as file:
        assert all(file.array(name).size == 60 for name in file.names())


def _begins_elsewhere(path, name):
    """Whether the layout message of a dataset (type 8, 29 bytes for three axes) is not in the header's first block."""
    with h5py.File(path) as file:
        address = h5py.h5o.get_info(file[name].id).addr
    header = path.read_bytes()[address:]
    assert header[:6] == b"OHDR\x02\x01"
    return b"\x04\x02\x02\x04" not in header[: int.from_bytes(header[6:8], "little") + 8]
