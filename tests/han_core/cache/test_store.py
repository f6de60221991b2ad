"""The cache: complete or absent, whoever dies or hurries; linked, never written through."""

import errno
import os
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from han_core.cache import housekeeping
from han_core.cache import store as cache_module
from han_core.cache.fingerprint import code_of, fingerprint, without_code
from han_core.cache.store import ClipCache
from han_core.cache.verify import verify_clip_file
from han_core.clipfile.trailer import ClipFileError, read_trailer
from han_core.clipfile.writer import ClipFileWriter

F = "0f" * 32


def fill(cache: ClipCache, name: str = F, *, kind: str = "frames", value: int = 1) -> Path:
    with cache.create(kind, name) as path, ClipFileWriter(path, kind=kind, clip="c", fingerprint=name) as writer:
        writer.array("a", np.full(3000, value, np.uint8))
    return cache.find(kind, name)


def flip(path: Path, position: int = 3000) -> None:
    """Change a byte in place, through whatever name of the file."""
    mode = path.stat().st_mode
    path.chmod(0o644)
    raw = bytearray(path.read_bytes())
    raw[position] ^= 1
    with path.open("r+b") as file:
        file.write(raw)
    path.chmod(mode)


@pytest.fixture
def cache(tmp_path):
    return ClipCache(tmp_path / "cache")


class TestFingerprint:
    def test_order_and_number_type_do_not_matter(self):
        one = fingerprint("flow", "c0de", {"a": 20.0, "b": {"x": [1, 2.5], "y": None}}, {"v": "1", "w": "2"})
        two = fingerprint("flow", "c0de", {"b": {"y": None, "x": (1, 2.5)}, "a": 20}, {"w": "2", "v": "1"})
        assert one == two
        assert len(without_code(one)) == 64
        assert code_of(one) == "c0de"

    @pytest.mark.parametrize(
        "other",
        [
            ("decode", "1", {"a": 1}, {"v": "1"}),
            ("flow", "1", {"a": 1.5}, {"v": "1"}),
            ("flow", "1", {"a": True}, {"v": "1"}),
            ("flow", "1", {"a": "1"}, {"v": "1"}),
            ("flow", "1", {"a": 1, "b": None}, {"v": "1"}),
            ("flow", "1", {"a": 1}, {"v": "2"}),
            ("flow", "1", {"a": 1}, {"w": "1"}),
        ],
    )
    def test_everything_else_does(self, other):
        assert without_code(fingerprint(*other)) != without_code(fingerprint("flow", "1", {"a": 1}, {"v": "1"}))

    def test_the_code_does_but_not_to_what_stands_in_the_file(self):
        one, two = (fingerprint("flow", code, {"a": 1}, {"v": "1"}) for code in ("1", "2"))
        assert one != two
        assert without_code(one) == without_code(two)

    def test_it_never_changes(self):
        """A changed value would make every cache out there worthless."""
        known = "4fb426b6f6504afa17d4830835b53383c3c5342a350d015d8f3ca869ad516977-c0de"
        assert fingerprint("decode", "c0de", {"quality": 95, "short_side": None}, {"video": "ab"}) == known


class TestCreate:
    def test_publishes_read_only_under_the_fingerprint(self, cache):
        path = fill(cache)
        assert path == cache.root / "frames" / "0f" / f"{F}.h5"
        assert path.stat().st_mode & 0o777 == 0o444
        verify_clip_file(path)
        assert list((cache.root / "tmp").iterdir()) == []

    def test_an_error_publishes_nothing(self, cache):
        def stop_halfway():
            with cache.create("frames", F) as path:
                path.write_bytes(b"half a file")
                raise RuntimeError("stop")

        with pytest.raises(RuntimeError, match="stop"):
            stop_halfway()
        assert cache.find("frames", F) is None
        assert list((cache.root / "tmp").iterdir()) == []

    @pytest.mark.parametrize("what", ["nothing", "garbage", "other fingerprint", "other kind"])
    def test_only_the_right_file_is_published(self, cache, what):
        def publish():
            with cache.create("frames", F) as path:
                if what == "garbage":
                    path.write_bytes(b"no clip file")
                elif what.startswith("other"):
                    kind, name = ("frames", "ee" * 32) if what == "other fingerprint" else ("flow", F)
                    ClipFileWriter(path, kind=kind, clip="c", fingerprint=name).close()

        with pytest.raises(ClipFileError):
            publish()
        assert list(housekeeping.entries(cache)) == []

    def test_a_file_damaged_before_it_is_published_is_not_published(self, cache):
        """As by a bad disk: what was written is read back."""

        def publish():
            with cache.create("frames", F) as path:
                with ClipFileWriter(path, kind="frames", clip="c", fingerprint=F) as writer:
                    writer.array("a", np.ones(3000, np.uint8))
                flip(path)

        with pytest.raises(ClipFileError, match="checksum"):
            publish()
        assert list(housekeeping.entries(cache)) == []

    def test_the_first_to_publish_stays(self, cache):
        first = fill(cache).stat().st_ino
        assert fill(cache).stat().st_ino == first

    def test_a_damaged_entry_is_replaced(self, cache):
        flip(fill(cache))
        assert cache.find("frames", F) is None
        verify_clip_file(fill(cache))

    def test_where_there_are_no_hard_links(self, cache, monkeypatch):
        def refuse(*_):
            raise OSError(errno.EPERM, "not permitted")

        monkeypatch.setattr(os, "link", refuse)
        verify_clip_file(fill(cache))

    def test_other_formats(self, cache):
        with cache.create("nets", F, ".safetensors") as path:
            path.write_bytes(b"weights")
        found = cache.find("nets", F, ".safetensors")
        assert found.read_bytes() == b"weights"
        assert cache.find("nets", F, ".csv") is None
        flip(found, 2)
        assert cache.find("nets", F, ".safetensors") is None
        assert [entry.kind for entry, _ in housekeeping.verify_entries(cache)] == ["nets"]


class TestLink:
    def test_shares_one_copy(self, cache, tmp_path):
        source = fill(cache)
        cache.link("frames", F, tmp_path / "out" / "class" / "c.h5")
        assert source.samefile(tmp_path / "out" / "class" / "c.h5")
        assert sorted(path.name for path in (tmp_path / "out" / "class").iterdir()) == ["c.h5"]

    def test_says_what_is_in_the_file(self, cache, tmp_path):
        found = [cache.link("frames", F, tmp_path / "c.h5") for _ in (fill(cache), "linked already")]
        assert found == [read_trailer(tmp_path / "c.h5")] * 2
        with cache.create("net", F, ".safetensors") as path:
            path.write_bytes(b"a net")
        assert cache.link("net", F, tmp_path / "net.safetensors", ".safetensors") is None

    def test_by_many_threads_at_once_into_folders_that_are_not_there_yet(self, cache, tmp_path):
        names = [f"{number:02x}" * 32 for number in range(40)]
        sources = {name: fill(cache, name) for name in names}
        places = {name: tmp_path / "out" / name[:1] / f"{name}.h5" for name in names}
        for path in list(places.values())[::3]:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"an older version")
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda name: cache.link("frames", name, places[name]), names))
        assert found == [read_trailer(sources[name]) for name in names]
        assert all(places[name].samefile(sources[name]) for name in names)
        assert len(list((tmp_path / "out").rglob("*.tmp"))) == 0

    def test_again(self, cache, tmp_path):
        fill(cache)
        for _ in range(2):
            cache.link("frames", F, tmp_path / "c.h5")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["c.h5", "cache"]

    def test_replaces_and_never_writes_through(self, cache, tmp_path):
        """As after `dvc repro`: the destination is read-only and a hard link into DVC's cache."""
        source = fill(cache)
        theirs, destination = tmp_path / "theirs", tmp_path / "c.h5"
        theirs.write_bytes(b"an older version")
        theirs.chmod(0o444)
        os.link(theirs, destination)
        cache.link("frames", F, destination)
        assert theirs.read_bytes() == b"an older version"
        assert destination.samefile(source)

    def test_copies_across_devices_and_says_so_once(self, cache, tmp_path, monkeypatch, caplog):
        fill(cache)

        def refuse(*_):
            raise OSError(errno.EXDEV, "Invalid cross-device link")

        monkeypatch.setattr(os, "link", refuse)
        for name in ("a.h5", "b.h5"):
            cache.link("frames", F, tmp_path / name)
            verify_clip_file(tmp_path / name)
            assert (tmp_path / name).stat().st_mode & 0o222 == 0
        assert len(caplog.records) == 1
        assert "copied" in caplog.text
        before = (tmp_path / "a.h5").stat().st_ino
        cache.link("frames", F, tmp_path / "a.h5")
        assert (tmp_path / "a.h5").stat().st_ino == before  # not copied again

    def test_of_what_is_not_there(self, cache, tmp_path):
        with pytest.raises(FileNotFoundError, match=F):
            cache.link("frames", F, tmp_path / "c.h5")

    def test_other_errors_are_not_swallowed(self, cache, tmp_path, monkeypatch):
        fill(cache)

        def full(*_):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "link", full)
        with pytest.raises(OSError, match="No space"):
            cache.link("frames", F, tmp_path / "c.h5")


class TestReuse:
    def test_a_file_written_to_through_a_link_is_not_reused(self, cache, tmp_path):
        fill(cache)
        cache.link("frames", F, tmp_path / "c.h5")
        flip(tmp_path / "c.h5")
        assert cache.find("frames", F) is None

    def test_a_touched_but_sound_file_is(self, cache):
        path = fill(cache)
        os.utime(path)
        assert cache.find("frames", F) == path

    def test_a_truncated_file_is_not(self, cache):
        path = fill(cache)
        path.chmod(0o644)
        os.truncate(path, 2000)
        assert cache.find("frames", F) is None

    def test_silent_damage_is_found_on_demand(self, cache):
        """Bits that flip on the disk change no time."""
        path = fill(cache)
        before = path.stat().st_mtime_ns
        flip(path)
        os.utime(path, ns=(before, before))
        assert cache.find("frames", F) == path
        assert ClipCache(cache.root, verify="content").find("frames", F) is None

    def test_equal_size_does_not_mean_equal_time(self, cache):
        """DVC takes files of equal inode number, size and time for equal, and inode numbers are used again."""
        one, two = fill(cache, "aa" * 32, value=1), fill(cache, "bb" * 32, value=2)
        assert one.stat().st_size == two.stat().st_size
        assert one.stat().st_mtime_ns != two.stat().st_mtime_ns


WRITER = """
import sys, time
from pathlib import Path
import numpy as np
from han_core.cache.store import ClipCache
from han_core.clipfile.writer import ClipFileWriter

def fill(cache, name, slow=0.0):
    with cache.create("frames", name) as path, ClipFileWriter(path, kind="frames", clip="c", fingerprint=name) as w:
        images = w.images("frames")
        for i in range(20):
            images.append(bytes([i]) * 70_000)
            time.sleep(slow)
"""


def start(code: str, *arguments: str) -> subprocess.Popen:
    command = [sys.executable, "-c", WRITER + textwrap.dedent(code), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_two_processes_fill_one_cache(cache, tmp_path):
    code = """
    cache = ClipCache(sys.argv[1])
    print("ready", flush=True)
    while not Path(sys.argv[2]).exists(): time.sleep(0.001)
    for i in range(30): fill(cache, f"{i:064x}")
    """
    writers = [start(code, str(cache.root), str(tmp_path / "go")) for _ in range(2)]
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    (tmp_path / "go").touch()
    assert [writer.wait(60) for writer in writers] == [0, 0]
    assert len(list(housekeeping.entries(cache))) == 30
    assert housekeeping.verify_entries(cache) == []
    assert list((cache.root / "tmp").iterdir()) == []


def test_killed_writer_leaves_only_a_temporary(cache):
    writer = start('print("ready", flush=True); fill(ClipCache(sys.argv[1]), "0f" * 32, slow=0.05)', str(cache.root))
    assert writer.stdout.readline() == "ready\n"
    deadline = time.monotonic() + 20
    while not list((cache.root / "tmp").glob("*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    temporaries = list((cache.root / "tmp").iterdir())
    assert cache.left_over() == ()  # its process is alive
    writer.kill()
    writer.wait()
    assert cache.find("frames", F) is None
    assert list(housekeeping.entries(cache)) == []
    assert list(cache.left_over()) == temporaries != []
    cache.sweep()
    assert list((cache.root / "tmp").iterdir()) == []


def test_temporaries_of_other_machines_live_a_day(cache, monkeypatch):
    (cache.root / "tmp").mkdir(parents=True)
    theirs = cache.root / "tmp" / f"frames-{F[:16]}-00000000-1-abcd.h5"
    theirs.touch()
    assert cache.left_over() == ()
    os.utime(theirs, (0, 0))
    assert cache.left_over() == (theirs,)


class TestVerifyAndPrune:
    @pytest.mark.parametrize("workers", [1, 2])
    def test_verify_names_the_bad_ones(self, cache, workers):
        for i in range(6):
            fill(cache, f"{i:02x}" * 32)
        bad = cache.find("frames", "03" * 32)
        flip(bad)
        steps = []
        found = housekeeping.verify_entries(cache, workers=workers, advance=lambda: steps.append(1))
        assert [entry.path for entry, _ in found] == [bad]
        assert str(bad) in found[0][1]
        assert len(steps) == 6
        assert housekeeping.verify_entries(cache, ["flow"]) == []

    def test_verify_finds_a_file_under_a_wrong_name(self, cache):
        path = fill(cache)
        path.rename(path.with_name("0f" + "11" * 31 + ".h5"))
        assert "not the frames file" in housekeeping.verify_entries(cache)[0][1]

    def test_remove_takes_the_other_names_too(self, cache, tmp_path):
        fill(cache)
        cache.link("frames", F, tmp_path / "work" / "data" / "c.h5")
        cache.link("frames", F, tmp_path / "work" / ".dvc" / "cache" / "00")
        (entry,) = housekeeping.entries(cache)
        names = housekeeping.names_of([entry.path], [tmp_path])
        assert len(names) == 3
        housekeeping.remove(names)
        assert [path for path in tmp_path.rglob("*") if path.is_file()] == []

    def test_prune_keeps_what_is_linked_or_copied(self, cache, tmp_path):
        names = {what: f"{i:02x}" * 32 for i, what in enumerate(("linked", "copied", "unused", "net"))}
        for what in ("linked", "copied", "unused"):
            fill(cache, names[what])
        with cache.create("nets", names["net"], ".safetensors") as path:
            path.write_bytes(b"weights")
        with cache.create("nets", names["net"], ".csv") as path:  # in use while its net is, though nobody has a copy
            path.write_text("loss")
        with cache.create("cubes", names["net"], ".csv") as path:  # of another kind
            path.write_text("top1")
        with cache.create("frames", names["linked"], ".csv") as path:
            path.write_text("beside what is linked")
        cache.link("frames", names["linked"], tmp_path / "elsewhere.h5")
        copied = tmp_path / "work" / "data" / "set" / "frames" / "c.h5"
        copied.parent.mkdir(parents=True)
        copied.write_bytes(cache.find("frames", names["copied"]).read_bytes())
        net = tmp_path / "work" / "models" / "set" / "n.safetensors"
        net.parent.mkdir(parents=True)
        net.write_bytes(b"weights")
        unused = {
            (entry.kind, entry.fingerprint)
            for entry in housekeeping.prunable(cache, [tmp_path / "work"], older_than=0).entries
        }
        assert unused == {("frames", names["unused"]), ("cubes", names["net"])}
        assert housekeeping.prunable(cache, [tmp_path / "work"]).entries == (), "what is young may be in work"
        net.write_bytes(b"Weights")
        found = housekeeping.prunable(cache, [], older_than=0)
        assert {entry.fingerprint for entry in found.entries} == {names["copied"], names["unused"], names["net"]}
        housekeeping.prune(found)
        left = [(entry.fingerprint, entry.path.suffix) for entry in housekeeping.entries(cache)]
        assert sorted(left) == [(names["linked"], ".csv"), (names["linked"], ".h5")]


def test_default_place(monkeypatch, tmp_path):
    monkeypatch.delenv("HAN_CACHE", raising=False)
    assert ClipCache.from_environment().root == Path(".han_cache")
    monkeypatch.setenv("HAN_CACHE", str(tmp_path))
    assert ClipCache.from_environment().root == tmp_path
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HAN_CACHE", "~/cache")
    assert ClipCache.from_environment().root == tmp_path / "cache"


def test_content_time_spreads():
    times = {cache_module._content_time(fingerprint("x", "", {"i": i}, {})) for i in range(2000)}
    assert len(times) == 2000
    assert all(10**18 <= t < 1.3 * 10**18 for t in times)
