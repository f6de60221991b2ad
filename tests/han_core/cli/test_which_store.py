"""What ``han store`` makes of folders that are not one store of cubes, and of classes with names of the project."""

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from han_core.cli import which_store
from han_core.cli.main import main
from han_core.cubes.shard import write_shard
from tests.clip_samples import WRITERS

DATASET = Path("data/toy")
CUBES = DATASET / "cubes/spatial-1"


@pytest.fixture(autouse=True)
def dataset(tmp_path, monkeypatch):
    """Frames, flow and cubes of two classes; one is called as the folders of shards are."""
    monkeypatch.chdir(tmp_path)
    for folder, kind in ((DATASET / "frames", "frames"), (DATASET / "flow", "flow-png"), (CUBES, "cubes")):
        for class_name in ("shards", "wave"):
            write(folder / class_name / "clip.h5", kind)
    (DATASET / "flow/wave/frames-png.h5").unlink()  # what the flow was made from
    (DATASET / "flow/shards/frames-png.h5").unlink()


def write(path, kind):
    path.parent.mkdir(parents=True)
    WRITERS[kind](path)


def han(*arguments, code=0):
    result = CliRunner().invoke(main, ["store", *map(str, arguments)])
    assert result.exit_code == code, (result.output, result.exception)
    return result.output


def classes(folder):
    result = CliRunner().invoke(main, ["store", "stat", str(folder), "--json"])
    return json.loads(result.stdout)["classes"]


def shards(folder, class_name="shards"):
    path = folder / class_name / "shards/first.h5"
    path.parent.mkdir(parents=True)
    write_shard(path, name="first", fingerprint="cd" * 32, files={"clip": CUBES / "wave/clip.h5"})


def test_a_class_called_shards_is_a_class_as_any_other():
    assert "2 clips checked, 0 bad" in han("verify", CUBES)
    assert classes(CUBES) == {"shards": 1, "wave": 1}
    assert "2 clips" in han("ls", CUBES)
    assert "2 clips" in han("export", CUBES, "out")


def test_a_class_called_shards_may_lie_in_shards():
    folder = DATASET / "cubes/spatial-2"
    shards(folder)
    shards(folder, "wave")
    assert "2 shards checked, 0 bad" in han("verify", folder)
    assert classes(folder) == {"shards": 1, "wave": 1}
    for class_name in ("shards", "wave"):
        assert "is it a folder of clip files?" in han("verify", folder / class_name, code=1)


@pytest.mark.parametrize("command", [("stat",), ("verify",), ("export", "out")])
@pytest.mark.parametrize("folder", [DATASET, DATASET / "cubes", Path("data"), Path()])
def test_of_a_folder_with_several_stores_their_names_are_told(command, folder):
    """Although flow/shards/clip.h5 lies in a dataset where shards lie in a store."""
    shutil.copytree(CUBES, CUBES.with_name("temporal-1"))
    said = han(command[0], folder, *command[1:], code=1)
    stores = [str(DATASET / name) for name in ("cubes/spatial-1", "cubes/temporal-1", "flow", "frames")]
    stores = stores[:2] if folder.name == "cubes" else stores
    assert f"{folder}: is not one store of clip files; name one of those in it: {', '.join(stores)}\n" in said
    assert "damaged" not in said


def test_hidden_folders_are_not_looked_into_nor_more_than_some(monkeypatch):
    shutil.copytree(CUBES, ".han_cache/cubes")
    assert "han_cache" not in han("stat", ".", code=1)
    monkeypatch.setattr(which_store, "_MOST_FOLDERS", 2)
    assert "is it a folder of clip files?" in han("stat", ".", code=1)


@pytest.mark.parametrize(("name", "kind"), [("frames", "frames"), ("flow", "flow")])
def test_other_clip_files_are_verified_as_what_they_are(name, kind):
    folder = DATASET / name
    assert f"2 {kind} files checked, 0 bad" in han("verify", folder)
    path = folder / "wave/clip.h5"
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 4
    path.write_bytes(raw)
    assert f"2 {kind} files checked, 1 bad" in han("verify", folder, code=1)


@pytest.mark.parametrize(("folder", "other"), [(CUBES, "frames"), (DATASET / "frames", "cubes")])
def test_a_file_of_another_kind_than_the_rest_is_bad(folder, other):
    write(folder / "clap/clip.h5", other)
    said = han("verify", folder, code=1)
    assert "3 " in said
    assert "1 bad" in said
    assert f"{folder}/clap/clip.h5: clip clip is a file of kind {other} " in said


def test_a_clip_file_where_a_shard_belongs_is_bad_but_not_called_damaged():
    folder = DATASET / "cubes/spatial-2"
    shards(folder, "wave")
    shutil.copy(CUBES / "wave/clip.h5", folder / "wave/shards/clip.h5")
    said = han("verify", folder, code=1)
    assert "wave/shards/clip.h5: is a file of kind cubes, not a shard" in said
    assert "2 shards checked, 1 bad" in said
    assert "damaged" not in said


def test_a_damaged_shard_is_still_a_shard():
    folder = DATASET / "cubes/spatial-2"
    shards(folder, "wave")
    (folder / "wave/shards/first.h5").write_bytes(b"nothing of a shard")
    assert "1 shards checked, 1 bad" in han("verify", folder, code=1)
