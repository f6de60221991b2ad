"""Many clip files in one: what went in comes out, byte for byte, and nothing that a shard says is believed."""

import io
import json
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401  zstd, for the recipe
import numpy as np
import pytest

from han_core.cache.verify import verify_clip_file
from han_core.clipfile.arrays import read_parts
from han_core.clipfile.trailer import ClipFileError, read_trailer
from han_core.clipfile.writer import ClipFileWriter
from han_core.cubes import shard as module
from han_core.cubes.cubefile import read_cube, write_cubes
from han_core.cubes.shard import read_file, read_shard, write_shard

NAMES = ("a", "b", "ü c")


def cube(name):
    values = np.random.default_rng([*name.encode()]).standard_normal((2, 6, 3, 3))
    return np.maximum(values, 0).astype(np.float16)


@pytest.fixture
def files(tmp_path):
    found = {}
    for number, name in enumerate(NAMES):
        found[name] = tmp_path / f"{number}.h5"
        facts = {"layer": "conv5_3", "fc": "fc7", "values": {"conv5_3": cube(name), "fc7": cube(name)[:, :, 0, 0]}}
        frames = np.array([0, number], np.int32)
        write_cubes(found[name], clip=name, fingerprint=f"{number:064x}", frames=frames, attributes={}, **facts)
    return found


@pytest.fixture
def shard(files, tmp_path):
    write_shard(tmp_path / "shard.h5", name="a", fingerprint="5" * 64, files=files)
    return tmp_path / "shard.h5"


def test_clips_are_read_as_from_their_own_files(shard, files):
    found = read_shard(shard)
    assert list(found.parts) == sorted(NAMES)
    for name, part in found.parts.items():
        own = read_trailer(files[name])
        assert (part.trailer.content, part.trailer.sha256, part.trailer.clip) == (own.content, own.sha256, name)
        np.testing.assert_array_equal(read_cube(shard, part.trailer), cube(name))
        for array in ("fc7", "frames"):
            (here,), (there,) = read_parts(shard, part.trailer, (array,)), read_parts(files[name], own, (array,))
            np.testing.assert_array_equal(here, there)
        assert read_file(shard, part) == files[name].read_bytes()


def test_it_is_a_sound_clip_file_and_has_the_same_bytes_every_time(shard, files, tmp_path):
    verify_clip_file(shard)
    assert read_trailer(shard).kind == "shard"
    backwards = dict(reversed(files.items()))
    write_shard(tmp_path / "again.h5", name="a", fingerprint="5" * 64, files=backwards)
    assert (tmp_path / "again.h5").read_bytes() == shard.read_bytes()


def test_h5py_reads_it_as_the_module_says(shard):
    path, name = shard, "b"
    recipe = module.__doc__.split("with h5py::\n\n")[1]
    found = {"path": path, "name": name}
    exec("\n".join(line.strip() for line in recipe.strip().splitlines()), found)
    assert found["clip"]["frames"][()].tolist() == [0, 1]
    assert isinstance(found["clip"], h5py.File)
    assert io


def test_a_damaged_file_is_not_sealed_into_a_shard(files, tmp_path):
    raw = bytearray(files["b"].read_bytes())
    raw[len(raw) // 2] ^= 1
    files["b"].write_bytes(raw)
    with pytest.raises(ClipFileError, match=r"1\.h5: clip b does not have the checksum it was written with"):
        write_shard(tmp_path / "shard.h5", name="a", fingerprint="5" * 64, files=files)


def test_a_clip_file_is_no_shard(files):
    with pytest.raises(ClipFileError, match=r"0\.h5: is a file of kind cubes, not a shard"):
        read_shard(files["a"])


def test_a_shard_that_was_cut_off(shard):
    shard.write_bytes(shard.read_bytes()[:-10])
    with pytest.raises(ClipFileError, match="trailer"):
        read_shard(shard)


def changed(place, value):
    def change(index):
        index["a"][place] = value(index["a"][place]) if callable(value) else value

    return change


def renamed(name):
    def change(index):
        index[name] = index.pop("a") | {"clip": name}

    return change


HOSTILE = {
    "beyond the end": changed("start", 1 << 40),
    "a little beyond": changed("start", lambda start: start + 1 << 20),
    "before the beginning": changed("start", -8),
    "a place of text": changed("start", "0"),
    "another length": changed("length", lambda length: length + 1),
    "a size that wraps around": changed("size", -1024),
    "an array beyond its clip": changed("arrays", lambda a: a | {"frames": ["<i4", [2], "none", 1 << 20, 8, 0]}),
    "an array of objects": changed("arrays", lambda a: a | {"frames": ["|O", [2], "none", 0, 16, 0]}),
    "arrays in a list": changed("arrays", []),
    "another schema": changed("schema", 99),
    "content that is a number": changed("content", 3),
    "no checksum": lambda index: index["a"].pop("sha256"),
    "a clip elsewhere": renamed("../a"),
    "a clip at the root": renamed("/tmp/a"),
    "a clip without a name": renamed(""),
    "a name too long": renamed("a" * 300),
    "a name to steer a terminal": renamed("\x1b[2J"),
    "another clip's name": lambda index: index.update(x=index["a"]),
    "an entry of nothing": lambda index: index.update(a=None),
}


def with_index(path: Path, text: bytes) -> Path:
    with ClipFileWriter(path, kind="shard", clip="evil", fingerprint="5" * 64) as writer:
        writer.array("files", np.zeros(100_000, np.uint8))
        writer.array("index", np.frombuffer(text, np.uint8), codec="zstd")
    return path


@pytest.mark.parametrize("what", HOSTILE)
def test_an_index_that_lies_is_refused(shard, tmp_path, what):
    with h5py.File(shard) as file:
        index = json.loads(file["index"][()].tobytes())
    with_index(tmp_path / "sound.h5", json.dumps(index).encode())
    assert list(read_shard(tmp_path / "sound.h5").parts) == sorted(NAMES), "the test's own way of writing is right"
    HOSTILE[what](index)
    evil = with_index(tmp_path / "evil.h5", json.dumps(index).encode())
    with pytest.raises(ClipFileError, match=r"evil\.h5: shard evil: its index is wrong"):
        read_shard(evil)


@pytest.mark.parametrize("text", [b"\xff", b"[]", b"3", b"null", b"[" * 100_000])
def test_an_index_that_is_none_is_refused(tmp_path, text):
    with pytest.raises(ClipFileError, match="its index is wrong"):
        read_shard(with_index(tmp_path / "evil.h5", text))


def test_a_shard_without_files_is_refused(tmp_path):
    with ClipFileWriter(tmp_path / "evil.h5", kind="shard", clip="evil", fingerprint="5" * 64) as writer:
        writer.array("index", np.frombuffer(b"{}", np.uint8), codec="zstd")
        writer.array("files", np.zeros(8, np.uint16))
    with pytest.raises(ClipFileError, match="it holds no files"):
        read_shard(tmp_path / "evil.h5")
