"""An export harms no clip file, whatever DESTINATION is named, and leaves no half file."""

import errno
import os
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

from han_core.cli import dense_export
from han_core.cli.main import main
from han_core.clipfile.trailer import read_trailer
from han_core.cubes.shard import write_shard
from tests.clip_samples import cube, write_cubes_file, write_frames_file

STORE = Path("data/toy/cubes/spatial-1")
FORMS = ("npy", "hdf5")


@pytest.fixture(autouse=True)
def files(tmp_path, monkeypatch):
    """A store of two classes, one of the other stream, and frames; each file has a second name, as in the cache."""
    monkeypatch.chdir(tmp_path)
    found = {}
    for n, folder in enumerate((STORE, STORE.with_name("temporal-1"), Path("data/toy/frames"))):
        for class_name in ("clap", "wave"):
            path = folder / class_name / "clip.h5"
            path.parent.mkdir(parents=True)
            (write_frames_file if folder.name == "frames" else write_cubes_file)(path)
            linked = tmp_path / f"cache/kind/0{n}/{class_name}.h5"
            linked.parent.mkdir(parents=True, exist_ok=True)
            os.link(path, linked)
            found[path] = path.read_bytes()
    return found


def export(destination, *options, store=STORE):
    result = CliRunner().invoke(main, ["store", "export", str(store), str(destination), *options])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def everything() -> set[Path]:
    return {path for path in Path().rglob("*") if not path.is_dir()}


def own(path: Path) -> None:
    """Folders that lead into the store by links: of a class, or as a whole."""
    path.mkdir()
    (path / "clap").symlink_to((STORE / "clap").absolute())


DESTINATIONS = {
    "the store": STORE,
    "in another spelling": STORE / "../spatial-1",
    "in the store": STORE / "dense",
    "in one of its classes": STORE / "wave",
    "what holds the store": STORE.parent,
    "what holds it, far above": Path("data"),
    "the project": Path(),
    "a link to it": Path("link"),
    "in a link to it": Path("link/dense"),
    "a class that is a link": Path("mine"),
    "another store": STORE.with_name("temporal-1"),
    "a class of another store": STORE.with_name("temporal-1") / "clap",
    "frames": Path("data/toy/frames"),
    "the cache": Path("cache"),
    "a kind's folder of the cache": Path("cache/kind"),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("where", DESTINATIONS)
def test_nothing_is_written_among_clip_files(files, where, form):
    Path("link").symlink_to(STORE.absolute())
    own(Path("mine"))
    before = everything()
    code, said = export(DESTINATIONS[where], "--format", form)
    assert code == 1, said
    assert f"Error: {DESTINATIONS[where]}: " in said
    assert "name a DESTINATION of its own" in said
    assert everything() == before
    assert {path: path.read_bytes() for path in files} == files


def test_nor_into_the_folder_that_a_class_of_the_store_is_a_link_to(files):
    linked = Path("of links")
    linked.mkdir()
    (linked / "clap").symlink_to((STORE / "clap").absolute())
    code, said = export(STORE, store=linked)
    assert (code, "that is exported" in said) == (1, True), said
    assert not list(STORE.rglob("*.npy"))


def test_nor_over_a_shard(files):
    shard = Path("data/toy/cubes/shards-1/clap/shards/first.h5")
    shard.parent.mkdir(parents=True)
    write_shard(shard, name="first", fingerprint="cd" * 32, files={"clip": STORE / "clap/clip.h5"})
    code, said = export(shard.parents[2], "--format", "hdf5")
    assert (code, "holds clip files, such as data/toy/cubes/shards-1/clap/shards/first.h5" in said) == (1, True)


@pytest.mark.parametrize("form", FORMS)
def test_what_has_the_name_is_replaced_and_not_written_into(form):
    """Another name of the same file keeps what it had: so the cache stays sound whatever is in the way."""
    suffix = {"npy": ".npy", "hdf5": ".h5"}[form]
    Path("out/clap").mkdir(parents=True)
    Path("other").write_bytes(b"someone else's")
    os.link("other", f"out/clap/clip{suffix}")
    Path("out/wave").mkdir()
    Path(f"out/wave/clip{suffix}").symlink_to(Path("other").absolute())
    for _ in range(2):  # the second replaces what the first wrote
        assert export("out", "--format", form)[0] == 0
    assert Path("other").read_bytes() == b"someone else's"
    assert sorted(path.name for path in Path("out").rglob("*.*")) == [f"clip{suffix}"] * 2
    for class_name in ("clap", "wave"):
        path = Path(f"out/{class_name}/clip{suffix}")
        assert not path.is_symlink()
        if form == "npy":
            values = np.load(path, allow_pickle=False)
        else:
            with h5py.File(path) as file:
                values = file["cubes"][()]
        np.testing.assert_array_equal(values, cube())


@pytest.mark.parametrize(
    ("destination", "said"),
    [
        ("file/out", "file/out/clap/clip.npy: cannot be written (Not a directory): a file is where a folder is needed"),
        ("taken", "taken/clap/clip.npy: cannot be written (File exists): a file is where a folder is needed"),
        ("folder", "folder/clap/clip.npy: cannot be written (Is a directory): a folder has that name"),
        ("/proc/dense", "/proc/dense/clap/clip.npy: cannot be written (No such file or directory): no folder can be"),
        ("round", "round/clap/clip.npy: cannot be written ("),
    ],
)
def test_what_is_in_the_way_is_told(destination, said):
    Path("file").touch()
    Path("taken").mkdir()
    Path("taken/clap").touch()
    Path("folder/clap/clip.npy").mkdir(parents=True)
    Path("round").symlink_to("round")
    code, output = export(destination)
    assert code == 1
    assert said in output
    assert "DESTINATION" in output
    assert not list(Path().rglob(".*.tmp"))


@pytest.mark.parametrize("form", FORMS)
def test_on_a_full_disk_there_is_no_half_file(form, monkeypatch):
    class Full:
        """A disk that takes one file and a half."""

        left = 1.5

        def __init__(self, file):
            self.file = file

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def write(self, content):
            share, Full.left = min(1, Full.left), Full.left - 1
            self.file.write(content[: int(share * len(content))])
            if share < 1:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    opened = Path.open

    def open_new(path, mode="r", *others, **options):
        file = opened(path, mode, *others, **options)
        return Full(file) if "x" in mode else file

    with monkeypatch.context() as patched:
        patched.setattr(dense_export.Path, "open", open_new)
        code, said = export("out", "--format", form)
    suffix = {"npy": "npy", "hdf5": "h5"}[form]
    assert code == 1
    assert f"out/wave/clip.{suffix}: cannot be written (No space left on device): make room on that disk" in said
    assert [path for path in Path("out").rglob("*") if path.is_file()] == [Path(f"out/clap/clip.{suffix}")]


def test_the_samples_are_linked(files):
    assert all(path.stat().st_nlink == 2 and read_trailer(path) for path in files)
