"""A cache that several people fill: folders that the group can write, and plain words where it cannot be written."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from han_core.cache.folders import CacheUnusable, advice, make_folder, probe


@pytest.fixture
def team(tmp_path):
    """A root that a group may write, and a person whose umask lets nobody else in."""
    root = tmp_path / "team"
    root.mkdir()
    root.chmod(0o2775)
    before = os.umask(0o077)
    yield root
    os.umask(before)


def test_folders_inherit_the_mode_of_the_root_whatever_the_umask(team):
    make_folder(team, team / "frames" / "0f")
    for folder in (team / "frames", team / "frames" / "0f"):
        assert folder.stat().st_mode & 0o7777 == 0o2775
        assert folder.stat().st_gid == team.stat().st_gid


def test_a_folder_that_is_there_is_left_alone(team):
    (team / "tmp").mkdir(mode=0o700)
    make_folder(team, team / "tmp")
    assert (team / "tmp").stat().st_mode & 0o777 == 0o700


def test_probe_leaves_nothing_and_makes_the_root(tmp_path):
    probe(tmp_path / "a" / "cache")
    assert list((tmp_path / "a" / "cache" / "tmp").iterdir()) == []


@pytest.mark.parametrize("root", ["file", "file/cache", "/proc/cache"])
def test_where_no_cache_can_be_it_is_told(tmp_path, root):
    (tmp_path / "file").touch()
    with pytest.raises(CacheUnusable, match=r"the cache at .* cannot be written \(.*\): .+"):
        probe(tmp_path / root)


def test_a_full_disk_is_told_with_what_to_do(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(CacheUnusable, match=r"No space left on device\): make room on that disk"):
        probe(tmp_path)


def test_every_error_has_something_to_do():
    assert all(advice(OSError(number, "")) for number in (0, errno.EIO, errno.EMFILE, errno.EACCES))


TWO_PEOPLE = """
import logging, os, sys
import numpy as np
from han_core.cache.fingerprint import fingerprint
from han_core.cache.store import ClipCache
from han_core.clipfile.writer import ClipFileWriter

def work(user, names, root, folder):
    cache = ClipCache(root)
    for name in names:
        key = fingerprint("demo", "c0de", {}, {"clip": name})
        if cache.find("frames", key) is None:
            print(user, "makes", name, flush=True)
            with cache.create("frames", key) as path:
                with ClipFileWriter(path, kind="frames", clip=name, fingerprint=key) as file:
                    file.array("a", np.arange(9))
        cache.link("frames", key, f"{folder}/{name}.h5")

logging.basicConfig()
root, home = sys.argv[1:]
work("nobody", "z", f"{home}/first", f"{home}/first")  # so that all is imported: Python may lie where they may not look
for user, names in ((4001, "abc"), (4002, "abcdefgh")):
    child = os.fork()
    if not child:
        os.umask(0o022)
        os.setgroups([])
        os.setgid(5000)
        os.setuid(user)
        try:
            work(user, names, root, f"{home}/{user}")
        except BaseException as error:
            print(user, "failed:", repr(error), flush=True)
        os._exit(0)
    os.wait()
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to be two people")
def test_two_people_with_ordinary_umasks_share_a_cache(tmp_path, repository):
    root = tmp_path / "team"
    for folder in (root, tmp_path / "4001", tmp_path / "4002"):
        folder.mkdir()
    os.chown(root, 0, 5000)
    root.chmod(0o2775)
    for user in (4001, 4002):
        os.chown(tmp_path / str(user), user, 5000)
    for parent in (tmp_path, *tmp_path.parents):  # pytest's folders are for its own user
        if parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o055)
    done = subprocess.run(
        [sys.executable, "-c", TWO_PEOPLE, root, tmp_path],
        env={**os.environ, "PYTHONPATH": str(repository), "NUMBA_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "failed" not in done.stdout + done.stderr
    made = [line.split() for line in done.stdout.splitlines()]
    assert "".join(name for user, _, name in made if user == "4001") == "abc"
    assert "".join(name for user, _, name in made if user == "4002") == "defgh"
    assert len(list((tmp_path / "4002").iterdir())) == 8
    if Path("/proc/sys/fs/protected_hardlinks").read_text().strip() == "1":  # links to other people's files are refused
        assert "fs.protected_hardlinks forbids links to other people's files" in done.stderr
    folders = [path for path in root.rglob("*") if path.is_dir()]
    assert {(path.stat().st_mode & 0o7777, path.stat().st_gid) for path in folders} == {(0o2775, 5000)}
