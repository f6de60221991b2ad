"""Clips that share files: the same clips, listed as ever, in a few files that change as little as they must."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import click
import pytest

from han_core.cache import housekeeping
from han_core.cache.store import ClipCache
from han_core.clipfile.trailer import read_trailer
from han_core.cubes.folder import CubeFolder, shard_files
from han_core.cubes.shard import read_file
from pipeline.execution import sharding
from pipeline.execution.runner import map_clips
from pipeline.execution.sharding import grouped
from pipeline.params import Run
from tests.pipeline.execution.inline import InlineExecutor
from tests.pipeline.execution.test_runner import contents, hashes, tasks_of, work_of

CACHE = ClipCache(".cache")
NAMES = [f"v{number:02d}" for number in range(40)]


@pytest.fixture
def go(tmp_path, monkeypatch):
    """Run a map in a temporary folder, in this process."""
    monkeypatch.chdir(tmp_path)

    def go(tasks, *, allowed=0, **options):
        work = work_of(tasks, executor=InlineExecutor(), **options)
        return map_clips(work, cache=CACHE, run=Run(workers=1), allowed_failures=allowed)

    return go


def groups(names, size):
    return [tuple(task.clip.name for task in group.tasks) for group in grouped(tasks_of(*names), size)]


def test_groups_are_of_one_class_and_of_about_the_size_asked_for():
    names = [f"v_{number:05d}" for number in range(4000)]
    found = grouped(tasks_of(*names), 50)
    assert {len({task.clip.class_name for task in group.tasks}) for group in found} == {1}
    assert sorted(task.clip.name for group in found for task in group.tasks) == names
    assert 60 <= len(found) <= 100
    assert max(len(group.tasks) for group in found) <= 200
    assert [len(group) for group in groups(NAMES, 1)] == [1] * 40


def test_a_group_ends_at_the_latest_at_four_times_the_size(monkeypatch):
    monkeypatch.setattr(sharding, "_ends", lambda name, size: False)
    assert [len(group) for group in groups(NAMES, 2)] == [8, 8, 4, 8, 8, 4]


def test_a_clip_more_or_less_changes_a_shard_or_two():
    names = [f"v_{number:04d}" for number in range(0, 2000, 2)]  # one class each for odd and even places
    before = {*groups(names, 20)}
    for number in range(1, 200, 8):
        tasks = tasks_of(*names)
        (new,) = tasks_of(f"v_{number:04d}")
        after = {tuple(task.clip.name for task in group.tasks) for group in grouped([*tasks, new], 20)}
        assert 1 <= len(after - before) <= 2


def test_the_same_clips_are_listed_and_noticed_and_lie_in_shards(go):
    tasks = tasks_of(*NAMES)
    go(tasks)
    plain, files = contents(), hashes()
    noticed = []
    summary = go(tasks, shard=5, noticed=noticed.append)
    assert (summary.reused, summary.computed) == (40, 0)
    assert contents() == plain
    assert sorted(trailer.clip for trailer in noticed) == NAMES
    output = Path("data/out")
    assert not list(output.glob("*/*.h5")), "no file of their own is left"
    folder = CubeFolder(output)
    assert [name for _, name in folder.names()] == sorted(NAMES[::2]) + sorted(NAMES[1::2])
    for class_name, name in folder.names():
        clip = folder.find(class_name, name)
        assert read_file(clip.path, clip.part) == CACHE.find("frames", fingerprint(name)).read_bytes()
    shards = hashes()
    assert 1 < len(shard_files(output)) < 20
    again = go(tasks, shard=5)
    assert (again.reused, hashes()) == (40, shards)
    go(tasks)
    assert hashes() == files, "and back"


def fingerprint(name):
    (task,) = tasks_of(name)
    return task.fingerprint


def prune():
    housekeeping.prune(housekeeping.prunable(CACHE, [], older_than=0))


def test_shards_are_found_without_the_files_of_their_clips(go):
    tasks = tasks_of(*NAMES)
    go(tasks, shard=5)
    before, listed = hashes(), contents()
    prune()
    assert {entry.kind for entry in housekeeping.entries(CACHE)} == {"shard"}
    for path in Path("data/out").rglob("*.h5"):
        path.unlink()
    summary = go(tasks, shard=5)
    assert (summary.reused, summary.computed) == (40, 0)
    assert (hashes(), contents()) == (before, listed)
    assert housekeeping.verify_entries(CACHE) == []


def test_what_is_new_is_packed_and_the_rest_stays(go):
    tasks = tasks_of(*NAMES)
    go(tasks[:-2], shard=5)
    before = hashes()
    prune()
    summary = go(tasks, shard=5)
    assert 2 <= summary.computed < 20, "the clips of the shards that changed"
    changed = {name for name, value in hashes().items() if before.get(name) != value}
    assert 1 <= len(changed) <= 4
    assert len(contents()) == 40


def test_a_clip_that_is_another_now_is_packed_anew(go):
    tasks = tasks_of(*NAMES)
    go(tasks, shard=5)
    before = hashes()
    other = replace(tasks[6], fingerprint=fingerprint("another"))
    summary = go([*tasks[:6], other, *tasks[7:]], shard=5)
    assert (summary.reused, summary.computed) == (39, 1)
    (changed,) = (name for name, value in hashes().items() if before[name] != value)
    assert changed.startswith(f"{tasks[6].clip.class_name}/shards/")


def test_clips_that_fail_are_in_no_shard(go):
    tasks = tasks_of(*NAMES, "refuse", "c2")
    go(tasks, shard=5, allowed=1)
    assert contents()["a/refuse"] == ("", "the clip is too odd")
    assert ("a", "refuse") not in CubeFolder(Path("data/out")).names()
    before = hashes()
    summary = go(tasks, shard=5, allowed=1)
    assert (summary.reused, summary.computed, hashes()) == (41, 0, before)


def test_where_something_is_at_fault_nothing_is_packed(go):
    with pytest.raises(click.ClickException, match="through no fault of theirs"):
        go(tasks_of(*NAMES, "rotten"), shard=5)
    assert shard_files(Path("data/out")) == []
    go(tasks_of(*NAMES), shard=5)
    with pytest.raises(click.ClickException, match="through no fault of theirs"):
        go(tasks_of(*NAMES, "x", "rotten"), shard=5)
    assert len(CubeFolder(Path("data/out")).names()) == 41, "what is done is kept"


@pytest.mark.parametrize("what", ["cut off", "index"])
def test_a_damaged_shard_is_packed_again(go, what):
    tasks = tasks_of(*NAMES)
    go(tasks, shard=5)
    before = hashes()
    path = shard_files(Path("data/out"))[0]
    raw, stamp = bytearray(path.read_bytes()), path.stat()
    if what == "cut off":
        del raw[-100:]
    else:
        raw[read_trailer(path).arrays["index"].offset + 20] ^= 0xFF
    path.chmod(0o644)
    path.write_bytes(raw)
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    summary = go(tasks, shard=5)
    assert (summary.reused, hashes()) == (40, before)
    assert housekeeping.verify_entries(CACHE) == []


def test_a_damaged_clip_ends_the_stage_plainly(go):
    tasks = tasks_of(*NAMES)
    go(tasks)
    path = Path("data/out/a/v00.h5")
    raw, stamp = bytearray(path.read_bytes()), path.stat()
    raw[3000] ^= 1
    path.chmod(0o644)
    path.write_bytes(raw)
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    with pytest.raises(click.ClickException, match=r"v00\.h5: clip v00 does not have the checksum.*han cache verify"):
        go(tasks, shard=5)


def test_a_stage_that_is_killed_while_it_packs_goes_on(go, repository):
    tasks = tasks_of(*NAMES)
    go(tasks, shard=5)
    before = hashes()
    for path in Path(".cache").rglob("*.h5"):
        path.unlink()
    code = (
        "import os, signal\n"
        "from pipeline.execution import sharding\n"
        "from tests.pipeline.execution.test_sharding import *\n"
        "write, count = sharding.write_shard, []\n"
        "def killed(path, **options):\n"
        "    write(path, **options)\n"
        "    count.append(path)\n"
        "    if len(count) == 3: os.kill(os.getpid(), signal.SIGKILL)\n"
        "sharding.write_shard = killed\n"
        "work = work_of(tasks_of(*NAMES), executor=InlineExecutor(), shard=5)\n"
        "map_clips(work, cache=ClipCache('.cache'), run=Run(workers=1), allowed_failures=0)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(repository)}
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == -signal.SIGKILL
    assert len(list(housekeeping.entries(CACHE, ["shard"]))) == 2
    summary = go(tasks, shard=5)
    assert (summary.reused, summary.computed) == (40, 0)
    assert hashes() == before
    assert list(Path(".cache/tmp").iterdir()) == []
