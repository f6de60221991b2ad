"""``han cache`` as a person types it."""

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from han_core.cache import housekeeping
from han_core.cache.store import ClipCache
from han_core.cache.verify import verify_clip_file
from han_core.cli.main import main
from han_core.clipfile.writer import ClipFileWriter


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Two frames files (one of them an output of this workspace), one flow file and a net."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HAN_CACHE", raising=False)
    cache = ClipCache(".han_cache")
    for kind, digits in (("frames", "0a"), ("frames", "0b"), ("flow", "0c")):
        name = digits * 32
        with (
            cache.create(kind, name) as path,
            ClipFileWriter(path, kind=kind, clip=f"clip {digits}", fingerprint=name) as w,
        ):
            w.array("a", np.zeros(5000, np.uint8))
    with cache.create("nets", "0d" * 32, ".safetensors") as path:
        path.write_bytes(b"weights")
    cache.link("frames", "0a" * 32, "data/set/frames/class/clip.h5")
    return cache


def han(*arguments: str, code: int = 0, typed: str | None = None) -> str:
    result = CliRunner().invoke(main, ["cache", *arguments], input=typed)
    assert result.exit_code == code, (result.output, result.exception)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.stdout


def han_says(*arguments: str, code: int = 0) -> str:
    """Errors included."""
    result = CliRunner().invoke(main, ["cache", *arguments])
    assert result.exit_code == code, (result.output, result.exception)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.output


def damage(path: Path) -> None:
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(2500)
        file.write(b"x")


class TestLs:
    def test_sums(self, cache):
        lines = [line.split() for line in han("ls").splitlines()]
        assert [(line[0], line[1]) for line in lines] == [("flow", "1"), ("frames", "2"), ("nets", "1"), ("all", "4")]

    def test_files(self, cache):
        assert str(cache.find("flow", "0c" * 32)) in han("ls", "--files", "flow")
        assert "frames" not in han("ls", "--files", "flow")

    def test_json(self, cache):
        report = json.loads(han("ls", "--json", "--files"))
        assert report["kinds"]["frames"]["files"] == 2
        assert report["kinds"]["frames"]["bytes"] == sum(f["bytes"] for f in report["files"] if f["kind"] == "frames")
        assert [f["names"] for f in report["files"]] == [1, 2, 1, 1]

    def test_another_root(self, cache, monkeypatch):
        os.rename(".han_cache", "elsewhere")
        assert "4 files" in han("ls", "--root", "elsewhere")
        monkeypatch.setenv("HAN_CACHE", "elsewhere")
        assert "in elsewhere" in han("ls")

    def test_no_cache(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        monkeypatch.delenv("HAN_CACHE", raising=False)
        result = CliRunner().invoke(main, ["cache", "ls"])
        assert result.exit_code == 1
        assert "there is no cache at .han_cache" in result.output

    def test_a_folder_of_other_things_is_no_cache(self, tmp_path, monkeypatch):
        """Some are laid out alike: in git's and in DVC's, prune would find nothing but files that nobody refers to."""
        monkeypatch.chdir(tmp_path)
        for path in ("etc/conf/ab", "git/objects/ab/c1d2", "dvc/md5/ab/c1d2", "han/frames/ab/about.txt"):
            Path(path).parent.mkdir(parents=True)
            Path(path).write_text("something else")
            root = path.partition("/")[0]
            for command in (["ls"], ["verify"], ["prune", "--older-than", "0", "--yes"]):
                result = CliRunner().invoke(main, ["cache", *command, "--root", root])
                assert isinstance(result.exception, SystemExit), result.exception
                assert f"{root} is not a cache: it holds other things" in result.output
            assert Path(path).exists()

    def test_files_where_folders_are_expected_are_not_the_caches(self, cache):
        Path(".han_cache/frames/ff").touch()
        Path(".han_cache/frames/0a/0a.txt").touch()
        assert "4 files" in han("ls")
        assert "4 files checked, 0 bad" in han("verify")

    def test_an_empty_folder_may_become_a_cache(self, tmp_path):
        assert "0 files" in han("ls", "--root", str(tmp_path))

    def test_a_cache_that_cannot_be_read_is_a_plain_error(self, cache, monkeypatch):
        def refused(*_):
            raise PermissionError(13, "Permission denied", ".han_cache/flow/0c")

        monkeypatch.setattr(housekeeping, "_finished_in", refused)
        assert ".han_cache/flow/0c: cannot be read (Permission denied): ask its owner" in han_says("ls", code=1)


class TestKinds:
    @pytest.mark.parametrize("command", ["ls", "verify"])
    def test_a_mistyped_one_is_an_error_that_lists_those_there_are(self, cache, command):
        said = han_says(command, "frames", "nosuchkind", code=2)
        assert "nosuchkind: no kind of file that a cache has; there are frames, flow, cubes, shard, scores," in said
        assert "files checked" not in said

    def test_one_of_which_the_cache_has_none_is_none(self, cache):
        assert "0 files" in han("ls", "fisher")
        assert "0 files checked, 0 bad" in han("verify", "inner-scores")

    def test_one_that_only_the_cache_knows_is_a_kind(self, cache):
        with cache.create("ours", "0e" * 32, ".json") as path:
            path.write_text("{}")
        assert "1 files checked, 0 bad" in han("verify", "ours")
        assert "inner-scores, ours" in han_says("ls", "theirs", code=2)

    def test_all_that_the_project_makes_are_known(self, repository):
        """By how the code that makes them names them."""
        names = r"^_?KIND\b.*? = \"([\w-]+)\"|\.create\(\"([\w-]+)\"|^ +kind=\"(\w+)\",$"
        writers = r"ClipFileWriter\([^)]*kind=\"([\w-]+)\"|\"kind\": \"(\w+)\", \"clip\""
        files = [path for room in ("han_core", "pipeline") for path in sorted((repository / room).rglob("*.py"))]
        found = set()
        for path in files:
            text = re.sub(r"^ *(>>>|\.\.\.).*", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
            for groups in re.findall(f"{names}|{writers}", text, flags=re.MULTILINE):
                found |= {name for name in groups if name}
        assert found == set(housekeeping.KINDS)


class TestVerify:
    def test_of_files_that_dvc_pulled_where_there_is_no_cache(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        monkeypatch.delenv("HAN_CACHE", raising=False)
        content = b"a model"
        name = hashlib.md5(content).hexdigest()
        held = Path(".dvc/cache/files/md5", name[:2], name[2:])
        held.parent.mkdir(parents=True)
        held.write_bytes(content)
        assert "1 files checked, 0 bad" in han("verify")
        held.write_bytes(b"a madel")
        assert "does not have the checksum in its name" in han("verify", code=1)

    def test_all_good(self, cache):
        assert "4 files checked, 0 bad" in han("verify")

    def test_names_the_bad_one(self, cache):
        bad = cache.find("frames", "0a" * 32)
        damage(bad)
        text = han("verify", "--workers", "2", code=1)
        assert str(bad) in text
        assert "clip 0a" in text
        assert "4 files checked, 1 bad" in text
        assert "1 files checked, 0 bad" in han("verify", "flow")
        report = json.loads(han("verify", "--json", code=1))
        assert [Path(entry["path"]).stem for entry in report["bad"]] == ["0a" * 32]
        assert report["removed"] == []
        assert bad.exists()

    def test_remove_takes_every_name(self, cache):
        """The output is the same damaged file; were it left, nothing would ever recompute it."""
        bad = cache.find("frames", "0a" * 32)
        damage(bad)
        assert "removed data/set/frames/class/clip.h5" in han("verify", "--remove", code=1)
        assert not bad.exists()
        assert not Path("data/set/frames/class/clip.h5").exists()
        assert "3 files checked, 0 bad" in han("verify")


NOW = ("--older-than", "0")


class TestPrune:
    def test_keeps_what_is_young(self, cache):
        """A stage that runs links its files a moment after they are in the cache."""
        assert "0 files and 0 left-over temporaries" in han("prune", "--yes")
        assert len(list(housekeeping.entries(cache))) == 4

    def test_dry_run_deletes_nothing(self, cache):
        text = han("prune", *NOW, "--dry-run")
        assert "3 files and 0 left-over temporaries" in text
        assert "deleted" not in text
        assert len(list(housekeeping.entries(cache))) == 4

    @pytest.mark.parametrize(("typed", "left"), [("n\n", 4), ("y\n", 1)])
    def test_asks(self, cache, typed, left):
        han("prune", *NOW, typed=typed)
        assert len(list(housekeeping.entries(cache))) == left

    def test_without_an_answer_nothing_is_deleted(self, cache):
        han("prune", *NOW, typed="", code=1)
        assert len(list(housekeeping.entries(cache))) == 4

    def test_yes_keeps_what_is_in_use(self, cache):
        assert "deleted 3 files" in han("prune", *NOW, "--yes")
        verify_clip_file(cache.find("frames", "0a" * 32))
        assert "0 files and 0 left-over" in han("prune", *NOW, "--yes")

    def test_copies_in_a_named_workspace_are_in_use(self, cache, tmp_path):
        copy = tmp_path / "other" / "data" / "x.h5"
        copy.parent.mkdir(parents=True)
        copy.write_bytes(cache.find("flow", "0c" * 32).read_bytes())
        han("prune", *NOW, "--yes", "--workspace", ".", "--workspace", "other")
        assert {entry.kind for entry in housekeeping.entries(cache)} == {"frames", "flow"}

    def test_older_than(self, cache):
        assert "0 files" in han("prune", "--yes", "--older-than", "1")

    def test_json(self, cache):
        report = json.loads(han("prune", *NOW, "--json"))
        assert (len(report["files"]), report["deleted"]) == (3, False)
        assert len(list(housekeeping.entries(cache))) == 4
        assert json.loads(han("prune", *NOW, "--json", "--yes"))["deleted"] is True
        assert len(list(housekeeping.entries(cache))) == 1

    def test_left_over_temporaries(self, cache):
        code = (
            "import os; from han_core.cache.store import ClipCache\n"
            "with ClipCache('.han_cache').create('frames', 'ee' * 32) as path:\n"
            "    path.write_bytes(b'half'); os._exit(1)"
        )
        subprocess.run([sys.executable, "-c", code], check=False)
        assert len(list(Path(".han_cache/tmp").iterdir())) == 1
        assert "1 left-over temporaries" in han("prune", *NOW, "--yes")
        assert list(Path(".han_cache/tmp").iterdir()) == []


def test_unknown_command():
    result = CliRunner().invoke(main, ["cahce"])
    assert result.exit_code == 2
    assert "No such command" in result.output


def test_help_lists_the_commands():
    text = CliRunner().invoke(main, ["--help"]).output
    assert "cache" in text
    assert "flow" in text


def test_installed_command():
    done = subprocess.run([Path(sys.executable).with_name("han"), "cache", "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    assert "prune" in done.stdout
