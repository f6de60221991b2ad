"""``han store`` as a person types it."""

import json

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

from han_core.cli.main import main
from han_core.clipfile import writer as writer_module
from han_core.clipfile.writer import ClipFileWriter
from han_core.cubes.cubefile import write_cube
from han_core.cubes.shard import write_shard

SHAPE = (3, 8, 4, 4)
CLIPS = {"clap": ["a", "b"], "wave": ["c"]}


def cube(name):
    rng = np.random.default_rng(ord(name))
    return np.where(rng.random(SHAPE) < 0.25, rng.normal(size=SHAPE), 0).astype(np.float16)


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "data/toy/cubes/spatial-1"
    for class_name, names in CLIPS.items():
        (folder / class_name).mkdir(parents=True)
        for name in names:
            path = folder / class_name / f"{name}.h5"
            facts = {"layer": "conv5_3", "net": "n" if name != "c" else "other", "stream": "spatial", "stack": 0}
            with ClipFileWriter(path, kind="cubes", clip=name, fingerprint="ab" * 32, attributes=facts) as writer:
                write_cube(writer, cube(name))
                writer.array("fc7", cube(name)[:, :, 0, 0], codec="shuffle-zstd")
    return folder


def han(*arguments, code=0):
    result = CliRunner().invoke(main, ["store", *map(str, arguments)])
    assert result.exit_code == code, (result.output, result.exception)
    return result.stdout


def test_ls_finds_the_stores_of_a_project(store):
    (report,) = json.loads(han("ls", "--json"))
    assert report["store"] == "data/toy/cubes/spatial-1"
    assert (report["clips"], report["shape"]) == (3, list(SHAPE))
    numbers = np.stack([cube(name) for name in "abc"])
    assert report["zeros"] == pytest.approx((numbers == 0).mean())
    assert report["raw_bytes"] == numbers.nbytes
    assert report["smaller"] == pytest.approx(numbers.nbytes / report["stored_bytes"])
    text = han("ls")
    assert "3 clips" in text
    assert f"{100 * (numbers == 0).mean():.1f} % zeros" in text
    assert han("ls", store) == han("ls").replace("data/toy/cubes/spatial-1", str(store))


def test_ls_of_nothing_is_a_plain_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["store", "ls"])
    assert result.exit_code == 1
    assert "run the cubes stage" in result.output


def test_stat_tells_which_nets_made_it(store):
    report = json.loads(han("stat", store, "--json"))
    assert report["classes"] == {"clap": 2, "wave": 1}
    assert report["made_by"]["net"] == {"n": 2, "other": 1}
    assert report["made_by"]["layer"] == {"conv5_3": 3}
    text = han("stat", store)
    assert "other  (1 clips)" in text
    assert "3 x 8 x 4 x 4" in text


def test_stat_tells_where_files_were_made_with_different_things(store, monkeypatch):
    assert "mixed" not in han("stat", store)
    monkeypatch.setattr(writer_module, "made_with", lambda **_: {"numpy": "1.0", "cpu": "x86_64 avx2"})
    path = store / "wave" / "c.h5"
    path.unlink()
    with ClipFileWriter(path, kind="cubes", clip="c", fingerprint="ab" * 32) as writer:
        write_cube(writer, cube("c"))
    report = json.loads(han("stat", store, "--json"))
    assert report["made_with"]["numpy"] == {np.__version__: 2, "1.0": 1}
    text = han("stat", store)
    assert "1.0  (1 clips)" in text
    assert "mixed: files differ in" in text
    assert "cpu" in text.split("mixed:")[1]


def test_stat_of_frames(tmp_path):
    path = tmp_path / "frames" / "clap" / "a.h5"
    path.parent.mkdir(parents=True)
    with ClipFileWriter(path, kind="frames", clip="a", fingerprint="ab" * 32, attributes={"codec": "jpeg"}) as writer:
        writer.images("frames").append(b"a picture")
    text = han("stat", tmp_path / "frames")
    assert "1 clips, frames" in text
    assert "jpeg" in text
    assert f"numpy {np.__version__}" in text


def test_verify_finds_a_flipped_bit_and_names_the_clip(store):
    assert json.loads(han("verify", store, "--json", "--workers", 1)) == {"store": str(store), "checked": 3, "bad": []}
    path = store / "clap/b.h5"
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 4
    path.write_bytes(raw)
    report = json.loads(han("verify", store, "--json", code=1))
    assert len(report["bad"]) == 1
    assert "clip b" in report["bad"][0]
    assert "3 clips checked, 1 bad" in han("verify", store, code=1)


@pytest.mark.parametrize("form", ["npy", "hdf5"])
def test_export_writes_what_other_tools_read(store, tmp_path, form):
    han("export", store, tmp_path / "out", "--format", form)
    for class_name, names in CLIPS.items():
        for name in names:
            if form == "npy":
                values = np.load(tmp_path / f"out/{class_name}/{name}.npy", allow_pickle=False)
            else:
                with h5py.File(tmp_path / f"out/{class_name}/{name}.h5") as file:
                    values = file["cubes"][()]
            assert values.dtype == np.float16
            np.testing.assert_array_equal(values, cube(name))


def test_export_of_another_layer_or_of_none(store, tmp_path):
    report = json.loads(han("export", store, tmp_path / "out", "--array", "fc7", "--json"))
    assert report["clips"] == 3
    np.testing.assert_array_equal(np.load(tmp_path / "out/wave/c.npy"), cube("c")[:, :, 0, 0])
    result = CliRunner().invoke(main, ["store", "export", str(store), str(tmp_path / "x"), "--array", "fc9"])
    assert result.exit_code == 1
    assert "holds no fc9; its arrays: cubes" in result.output


@pytest.fixture
def shards(store):
    """The same clips in shards."""
    folder = store.with_name("temporal-1")
    for class_name in CLIPS:
        files = {path.stem: path for path in (store / class_name).glob("*.h5")}
        shard = folder / class_name / "shards/first.h5"
        shard.parent.mkdir(parents=True)
        write_shard(shard, name="first", fingerprint="cd" * 32, files=files)
    return folder


def test_of_shards_the_same_is_told_as_of_their_files(store, shards):
    def told(folder, command):
        found = json.loads(han(command, folder, "--json"))
        found = found[0] if isinstance(found, list) else found
        return {name: value for name, value in found.items() if name != "store"}

    for command in ("ls", "stat"):
        assert told(shards, command) == told(store, command)
    assert len(json.loads(han("ls", "--json"))) == 2
    han("export", shards, "dense")
    assert np.array_equal(np.load("dense/clap/b.npy"), cube("b"))
    assert "2 shards checked, 0 bad" in han("verify", shards)


def test_a_flipped_bit_in_a_shard_is_found(shards):
    path = shards / "clap/shards/first.h5"
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)
    said = han("verify", shards, code=1)
    assert "clap/shards/first.h5: clip first (shard) does not have the checksum it was written with" in said
    assert "2 shards checked, 1 bad" in said


def test_a_shard_of_a_clip_that_lies_is_found(shards, store):
    """Sealed as it should be, but what is in it was never sound."""
    path = shards / "wave/shards/first.h5"
    path.unlink()
    with ClipFileWriter(store / "wave/x.h5", kind="cubes", clip="x", fingerprint="ab" * 32) as writer:
        writer.array("fc7", np.ones((3, 8), np.float16))
    write_shard(path, name="first", fingerprint="cd" * 32, files={"x": store / "wave/x.h5"})
    assert "clip x is a file of kind cubes and holds no cube" in han("verify", shards, code=1)
