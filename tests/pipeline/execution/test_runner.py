"""The map over clips: every clip accounted for, whatever fails, dies or is killed, and the same bytes after all."""

import csv
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import pytest

from han_core.cache import housekeeping
from han_core.cache.claims import Claims
from han_core.cache.fingerprint import fingerprint
from han_core.cache.folders import CacheUnusable
from han_core.cache.store import ClipCache
from han_core.clipfile.trailer import ClipFileError, read_trailer
from han_core.clipfile.writer import ClipFileWriter
from han_core.clips import Clip
from han_core.devices import cores
from han_core.errors import ClipError
from han_core.tables.checked import read_table
from pipeline.execution import accesses, jobs, runner
from pipeline.execution.contents import CONTENTS
from pipeline.execution.jobs import DIED, ClipTask
from pipeline.execution.ledger import Failure, describe, read_failures, write_failures
from pipeline.execution.local import local_pool
from pipeline.execution.runner import map_clips
from pipeline.execution.work import ClipWork
from pipeline.execution.workers import worker_count
from pipeline.params import Run
from tests.pipeline.execution.inline import InlineExecutor


def make(task: ClipTask, path: Path) -> None:
    """The function that is mapped; what it does to a clip is in the clip's name and the task's argument."""
    name = task.clip.name
    if "sleep" in name:
        time.sleep(0.2)
    if "refuse" in name:
        raise ClipError("the clip is too odd")
    if "bug" in name:
        raise KeyError(f"{path} at {object()!r}")
    if "die" in name:
        os._exit(1)
    if "segfault" in name:
        os.kill(os.getpid(), signal.SIGSEGV)
    if "full" in name:
        raise OSError(28, "No space left on device")
    if "denied" in name:
        raise PermissionError(13, "Permission denied", "/videos/denied.avi")
    if "rotten" in name:
        raise ClipFileError("frames/a/rotten.h5: is damaged")
    with ClipFileWriter(path, kind="frames", clip=name, fingerprint=task.fingerprint) as writer:
        images = writer.images("frames")
        for i in range(3):
            images.append(hashlib.sha256(f"{name}{i}".encode()).digest() * 3000)
            if task.arguments:
                time.sleep(task.arguments)
        writer.array("threads", np.array([int(os.environ.get("OMP_NUM_THREADS", 0))]))
        if "half" in name:
            raise RuntimeError("stopped halfway")


def tasks_of(*names: str, argument: object = None) -> list[ClipTask]:
    return [
        ClipTask(
            Clip(name, f"{name}.avi", "ab"[i % 2], i % 2, name, {1: "train"}, name),
            fingerprint("test", "c0de", {}, {"clip": name}),
            argument,
        )
        for i, name in enumerate(names)
    ]


@pytest.fixture
def go(tmp_path, monkeypatch):
    """Run a map in a temporary folder: with so many worker processes, or (quicker) in this process."""
    monkeypatch.chdir(tmp_path)

    def go(tasks, *, workers=None, allowed=0, **options):
        options = options if workers else {"executor": InlineExecutor()} | options
        work, run = work_of(tasks, **options), Run(workers=workers or 1)
        return map_clips(work, cache=ClipCache(".cache"), run=run, allowed_failures=allowed)

    return go


def work_of(tasks: list[ClipTask], **options: object) -> ClipWork:
    return ClipWork("test", "", "frames", make, tuple(tasks), Path("data/out"), **options)


def hashes(folder: Path = Path("data/out")) -> dict[str, str]:
    """Of all files but the list of the contents, which goes by them."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != CONTENTS)
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def contents() -> dict[str, tuple[str, str]]:
    """Clip's key -> (identity of the content, reason), as the list has them."""
    header, rows = read_table(Path("data/out", CONTENTS))
    assert header == ["clip", "class", "content", "reason"]
    return {f"{class_name}/{clip}": (content, reason) for clip, class_name, content, reason in rows}


def ledger() -> list[list[str]]:
    """Rows without their checksums."""
    with Path("data/out/failures.csv").open(newline="") as file:
        return [row[:3] for row in csv.reader(file)]


def test_computes_then_reuses(go, capsys):
    tasks = tasks_of("c1", "c2", "c3")
    summary = go(tasks, workers=2)
    assert (summary.reused, summary.computed, summary.failures) == (0, 3, ())
    assert "test: 3 clips: 0 reused, 3 computed, 0 failed" in capsys.readouterr().out
    first = hashes()
    assert sorted(first) == ["a/c1.h5", "a/c3.h5", "b/c2.h5", "failures.csv"]
    assert ledger()[0][:3] == ["clip", "class", "reason"]
    assert len(ledger()) == 1
    again = go([*tasks, *tasks_of("x", "y")[1:]])
    assert (again.reused, again.computed) == (3, 1)
    assert {name: value for name, value in hashes().items() if "y" not in name} == first
    log = Path("logs/test.log").read_text()
    assert "3 reused, 1 computed, 0 failed" in log
    assert "clips/s" in log


def test_what_is_to_be_done_before_the_first_clip_is_done_only_where_one_is_made(go):
    """Such as to read a net."""
    done = []
    go(tasks_of("c1", "c2"), before=lambda: done.append("net"))
    go(tasks_of("c1", "c2"), before=lambda: done.append("in vain"))
    go(tasks_of("c1", "c2", "c3"), before=lambda: done.append("again"))
    assert done == ["net", "again"]


def test_the_outputs_are_the_cache(go):
    go(tasks_of("c1"))
    (entry,) = housekeeping.entries(ClipCache(".cache"))
    assert entry.path.samefile("data/out/a/c1.h5")


def test_workers_compute_with_one_thread(go):
    from han_core.clipfile.reader import ClipFile

    before = os.environ.get("OMP_NUM_THREADS")
    go(tasks_of("c1"), workers=1)
    with ClipFile("data/out/a/c1.h5") as file:
        assert file.array("threads").tolist() == [1]
    assert os.environ.get("OMP_NUM_THREADS") == before


def test_failures_are_told_and_stop_nobody(go, capsys):
    names = ["c1", "refuse1", "c3", "c2", "c4", "refuse2"]
    summary = go(tasks_of(*names), allowed=2, workers=2)
    assert (summary.computed, len(summary.failures)) == (4, 2)
    first = hashes()
    assert ledger() == [
        ["clip", "class", "reason"],
        ["refuse1", "b", "the clip is too odd"],
        ["refuse2", "b", "the clip is too odd"],
    ]
    assert "2 clips: the clip is too odd (b/refuse1, b/refuse2)" in capsys.readouterr().err
    assert list(Path(".cache/tmp").iterdir()) == []
    go(tasks_of(*names), allowed=2)
    assert hashes() == first


def test_a_bug_is_noted_against_no_clip(go):
    """However many failures are allowed: a stage that is broken must not pass for one whose clips are."""
    names = ["c1", "refuse", "bug", "c2", "half"]
    with pytest.raises(click.ClickException, match="2 of 5 clips could not be done, through no fault") as told:
        go(tasks_of(*names), allowed=5, workers=2)
    assert "internal error: KeyError: 'the file being written at <object object at 0x...>'" in told.value.message
    assert "internal error: RuntimeError: stopped halfway (a/half)" in told.value.message
    assert sorted(hashes()) == ["a/c1.h5", "b/c2.h5"], "the others are done; there is no ledger"
    log = Path("logs/test.log").read_text()
    assert "Traceback" in log
    assert "in make" in log
    assert list(Path(".cache/tmp").iterdir()) == []


def test_a_damaged_file_of_an_earlier_stage_is_noted_against_no_clip(go):
    with pytest.raises(click.ClickException, match=r"(?s)2 of 3 clips could not be done.*a/c1.h5: is damaged.*rotten"):
        go(tasks_of("c1", "c2", "rotten"), allowed=5, faults={"a/c1": "frames/a/c1.h5: is damaged"})
    assert sorted(hashes()) == ["b/c2.h5"]


def test_too_many_failures_fail_the_stage_after_the_others_are_done(go):
    with pytest.raises(click.ClickException, match=r"(?s)2 of \d+ clips failed, 1 allowed.*too odd") as error:
        go(tasks_of("refuse1", "c1", "refuse2", "c2"), allowed=1)
    assert error.value.exit_code == 1
    assert sorted(hashes()) == ["b/c1.h5", "b/c2.h5", "failures.csv"]
    assert len(list(housekeeping.entries(ClipCache(".cache")))) == 2


@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_that_dies_is_one_failure(go, workers):
    names = [f"c{i}" for i in range(5)] + ["die", "segfault"] + [f"d{i}" for i in range(8)]
    summary = go(tasks_of(*names), workers=workers, allowed=2)
    assert summary.computed == 13
    assert sorted((failure.clip, failure.reason) for failure in summary.failures) == [("die", DIED), ("segfault", DIED)]
    assert list(Path(".cache/tmp").glob("*")) == []


def test_when_no_worker_survives_it_gives_up(go, monkeypatch):
    monkeypatch.setattr("pipeline.execution.deaths._IN_A_ROW", 1)
    with pytest.raises(click.ClickException, match="worker processes died one after the other"):
        go(tasks_of(*(f"die{i}" for i in range(8))), allowed=8, workers=2)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("full", "No space left on device.*make room"),
        ("denied", r"/videos/denied.avi: Permission denied.*ask its owner"),
    ],
)
def test_a_fault_of_the_machine_stops_everything_and_is_noted_against_no_clip(go, monkeypatch, name, told):
    monkeypatch.setattr(runner, "_from_anywhere", list)  # so that some clips come after it
    with pytest.raises(click.ClickException, match=rf"(?s){told}.*What is done is kept; run the stage again"):
        go(tasks_of(name, *(f"c{i}" for i in range(30))), allowed=5, workers=1)
    assert len(hashes()) < 30
    assert not Path("data/out/failures.csv").exists()
    assert go(tasks_of(*(f"c{i}" for i in range(30)))).clips == 30, "and goes on afterwards"


def test_a_cache_that_cannot_be_written_is_told_before_any_work(go):
    Path(".cache").write_text("a file")
    with pytest.raises(click.ClickException, match=r"the cache at .*cache cannot be written .*must be a folder"):
        go(tasks_of("c1"), allowed=1)
    assert not Path("data").exists()


def test_a_crash_on_a_full_disk_is_the_disk_s(go, monkeypatch):
    """HDF5 may bring the process down when it cannot write."""

    def full(root: Path, calls: list = []) -> None:  # noqa: B006 - counts the calls
        calls.append(root)
        if len(calls) > 1:
            raise CacheUnusable("the cache at .cache cannot be written (No space left on device)")

    monkeypatch.setattr(runner, "probe", full)
    with pytest.raises(click.ClickException, match="No space left on device"):
        go(tasks_of("die"), allowed=1, workers=1)
    assert not Path("data/out/failures.csv").exists()


def test_what_someone_else_made_meanwhile_is_not_made_again(go):
    tasks = tasks_of("c1", "c2", "c3")

    def at_once(task: ClipTask, path: Path) -> None:
        """While the first clip is made, someone else makes the others."""
        for other in tasks:
            if other is not task:
                with ClipCache(".cache").create("frames", other.fingerprint) as theirs:
                    make(other, theirs)
        make(task, path)

    work = replace(work_of(tasks, executor=InlineExecutor()), function=at_once)
    summary = map_clips(work, cache=ClipCache(".cache"), run=Run(), allowed_failures=0)
    assert (summary.reused, summary.computed) == (2, 1)


def test_what_someone_else_is_making_is_left_for_last(go, monkeypatch):
    tasks = tasks_of("c1", "c2", "c3", "c4")
    order = []
    busy = {tasks[1].fingerprint}
    monkeypatch.setattr(Claims, "held_by_another", lambda self, kind, fingerprint: fingerprint in busy)

    def noted(task: ClipTask, path: Path) -> None:
        order.append(task.clip.name)
        make(task, path)

    work = replace(work_of(tasks, executor=InlineExecutor()), function=noted)
    summary = map_clips(work, cache=ClipCache(".cache"), run=Run(), allowed_failures=0)
    assert summary.computed == 4, "who claims a file and never makes it blocks nobody"
    assert order[-1] == "c2"


def test_files_that_are_pruned_at_once_are_made_again(go, monkeypatch):
    def pruned(self: ClipCache, kind: str, fingerprint: str, destination: Path, suffix: str = ".h5") -> str:
        for path in self.root.glob(f"*/*/{fingerprint}.h5"):
            if destination.stem in lost:
                lost.remove(destination.stem)
                path.unlink()
        return link(self, kind, fingerprint, destination, suffix)

    link, lost = ClipCache.link, []
    monkeypatch.setattr(ClipCache, "link", pruned)
    go(tasks_of("c1"))
    lost.append("c2")
    assert go(tasks_of("c1", "c2")).clips == 2
    assert sorted(hashes()) == ["a/c1.h5", "b/c2.h5", "failures.csv"]


def test_a_worker_of_other_code_makes_nothing(go, monkeypatch):
    work = replace(work_of(tasks_of("c1"), executor=InlineExecutor()), stage="decode")
    monkeypatch.setattr(jobs, "stage_code", lambda stage: "another")
    with pytest.raises(click.ClickException, match="a worker has other code than the stage was started with"):
        map_clips(work, cache=ClipCache(".cache"), run=Run(), allowed_failures=0)
    assert list(housekeeping.entries(ClipCache(".cache"))) == []


def test_earlier_failures_are_carried_and_counted(go):
    tasks = [*tasks_of("c1", "c2"), ClipTask(tasks_of("lost")[0].clip, "")]
    with pytest.raises(click.ClickException, match=r"1 of \d+ clips failed, 0 allowed"):
        go(tasks, failed={"a/lost": "no frames: the video is empty"})
    assert ledger()[1:] == [["lost", "a", "no frames: the video is empty"]]
    summary = go(tasks, failed={"a/lost": "no frames: the video is empty"}, allowed=1)
    assert (summary.reused, summary.computed, len(summary.failures)) == (2, 0, 1)


def test_what_no_task_wants_is_removed(go):
    go(tasks_of("c1", "c2", "c3"))
    wanted = hashes()
    extra = Path("data/out/old class/x.h5")
    extra.parent.mkdir()
    extra.touch()
    Path("data/out/a/.0123.tmp").touch()
    go(tasks_of("c1", "c2", "c3"))
    assert hashes() == wanted
    assert not extra.parent.exists()
    go(tasks_of("c1"))
    assert sorted(hashes()) == ["a/c1.h5", "failures.csv"]


def test_what_a_killed_run_left_in_the_cache_is_swept(go):
    go(tasks_of("c1"))
    code = "import os; from han_core.cache.store import ClipCache\n"
    code += "ClipCache('.cache').create('frames', 'e' * 64).__enter__().write_bytes(b'half'); os._exit(1)"
    subprocess.run([sys.executable, "-c", code], check=False)
    assert len(list(Path(".cache/tmp").iterdir())) == 1
    assert go(tasks_of("c1")).computed == 0
    assert list(Path(".cache/tmp").iterdir()) == []


def test_an_old_file_of_a_clip_that_fails_now_is_removed(go):
    go(tasks_of("refuse".upper()))
    Path("data/out/a/refuse.h5").write_bytes(Path("data/out/a/REFUSE.h5").read_bytes())
    go(tasks_of("refuse"), allowed=1)
    assert sorted(hashes()) == ["failures.csv"]


def test_the_ledger_is_replaced_not_written_through(go):
    """After `dvc repro` it is a read-only hard link into DVC's cache."""
    go(tasks_of("refuse"), allowed=1)
    kept = Path("kept")
    os.link("data/out/failures.csv", kept)
    kept.chmod(0o444)
    before = kept.read_bytes()
    go(tasks_of("c1"))
    assert kept.read_bytes() == before
    assert read_failures("data/out") == {}


@pytest.mark.parametrize("executor", [InlineExecutor(), ThreadPoolExecutor(2)])
def test_any_executor(go, executor):
    summary = go(tasks_of("c1", "refuse", "c2"), executor=executor, allowed=1)
    assert (summary.computed, len(summary.failures)) == (2, 1)


def test_few_tasks_are_in_flight():
    """13,000 tasks must not be queued at once."""
    started = []

    class Slow(ThreadPoolExecutor):
        def submit(self, function, task):
            started.append(task)
            return super().submit(function, task)

    outcomes = jobs.windowed(Slow(1), lambda task: task, iter(range(1000)), 4)
    for _ in range(10):
        next(outcomes)
    assert 10 <= len(started) <= 14


def test_two_tasks_of_one_fingerprint_are_an_error(go):
    one, two = tasks_of("c1", "c2")
    with pytest.raises(ValueError, match="fingerprint occurs twice"):
        go([one, ClipTask(two.clip, one.fingerprint)])


def test_damaged_cache_entry_is_made_anew(go):
    go(tasks_of("c1", "c2"))
    good = hashes()
    path = Path("data/out/a/c1.h5")
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(3000)
        file.write(b"damage")
    summary = go(tasks_of("c1", "c2"))
    assert (summary.reused, summary.computed) == (1, 1)
    assert hashes() == good


CLIPS = 100  # at 0.03 s each on two workers: enough to be interrupted in the middle, however busy the machine is

SCRIPT = f"""
import signal
import sys
from pathlib import Path
from han_core.cache.store import ClipCache
from pipeline.params import Run
from pipeline.execution.runner import map_clips
from tests.pipeline.execution.test_runner import tasks_of, work_of

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job of a shell ignores it
    print("started", flush=True)
    work = work_of(tasks_of(*(f"c{{i}}" for i in range({CLIPS})), argument=0.03))
    map_clips(work, cache=ClipCache(".cache"), run=Run(workers=2), allowed_failures=0)
"""


def start(folder: Path, repository: Path) -> subprocess.Popen:
    (folder / "script.py").write_text(SCRIPT)
    return subprocess.Popen(
        [sys.executable, "script.py"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(repository)},
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_entries(cache: ClipCache, count: int) -> None:
    deadline = time.monotonic() + 60
    while len(list(housekeeping.entries(cache))) < count:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def group_is_gone(group: int, seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def test_kill_in_the_middle_loses_only_what_is_in_flight(tmp_path, repository):
    for name in ("killed", "undisturbed"):
        (tmp_path / name).mkdir()
    cache = ClipCache(tmp_path / "killed" / ".cache")
    process = start(tmp_path / "killed", repository)
    wait_for_entries(cache, 8)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert group_is_gone(process.pid)
    done = len(list(housekeeping.entries(cache)))
    assert 8 <= done < CLIPS
    assert housekeeping.verify_entries(cache) == []
    again = start(tmp_path / "killed", repository)
    out, err = again.communicate(timeout=60)
    assert again.returncode == 0, err
    assert f"{CLIPS} clips: {done} reused, {CLIPS - done} computed, 0 failed" in out
    undisturbed = start(tmp_path / "undisturbed", repository)
    assert undisturbed.wait(60) == 0
    assert hashes(tmp_path / "killed" / "data") == hashes(tmp_path / "undisturbed" / "data")
    assert list((tmp_path / "killed" / ".cache" / "tmp").iterdir()) == []


def test_ctrl_c_leaves_a_clean_state(tmp_path, repository):
    cache = ClipCache(tmp_path / ".cache")
    process = start(tmp_path, repository)
    wait_for_entries(cache, 4)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(30) != 0
    assert group_is_gone(process.pid)
    assert housekeeping.verify_entries(cache) == []
    assert list((tmp_path / ".cache" / "tmp").iterdir()) == []


def test_workers_do_not_outlive_their_parent(tmp_path, repository):
    process = start(tmp_path, repository)
    wait_for_entries(ClipCache(tmp_path / ".cache"), 2)
    process.kill()
    process.wait()
    assert group_is_gone(process.pid)


def test_dask_without_dask_is_a_plain_error(go, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(click.ClickException, match=r"pip install 'han-video\[cluster\]'"):
        map_clips(
            work_of(tasks_of("c1")),
            cache=ClipCache(".cache"),
            run=Run(executor="dask", scheduler="tcp://127.0.0.1:1"),
            allowed_failures=0,
        )


def test_on_a_dask_cluster(tmp_path, monkeypatch):
    """Needs the extra [cluster]."""
    distributed = pytest.importorskip("distributed")
    monkeypatch.chdir(tmp_path)
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with distributed.LocalCluster(**options) as cluster:
        summary = map_clips(
            work_of(tasks_of("c1", "refuse", "c2", "die", "c3")),
            cache=ClipCache(".cache"),
            run=Run(executor="dask", scheduler=cluster.scheduler_address),
            allowed_failures=2,
        )
    assert summary.reused + summary.computed == 3, "one that was done when its worker was lost is found again"
    reasons = {failure.clip: failure.reason for failure in summary.failures}
    assert reasons["refuse"] == "the clip is too odd"
    assert reasons["die"] == DIED


def test_number_of_workers():
    assert worker_count(Run(workers=4)) == worker_count(Run(workers=4), gpus=2) == 4
    assert worker_count(Run()) == cores() <= os.cpu_count()
    assert worker_count(Run(), gpus=2) == 6


def visible_gpu() -> str:
    time.sleep(0.3)  # so that each worker gets its share of the calls
    return os.environ.get("CUDA_VISIBLE_DEVICES", "")


def test_workers_share_the_gpus(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    with local_pool(3, gpus=2) as pool:
        seen = [future.result() for future in [pool.submit(visible_gpu) for _ in range(9)]]
    assert set(seen) == {"3", "5"}


def test_ledger_with_odd_names(tmp_path):
    failures = [Failure("b", 'x, "y"', "a, b"), Failure("a", "ü#;", "a, b"), Failure("a", "k", "c")]
    write_failures(tmp_path, failures)
    assert (tmp_path / "failures.csv").read_bytes().count(b"\r") == 0
    assert list(read_failures(tmp_path).items()) == [("a/k", "c"), ("a/ü#;", "a, b"), ('b/x, "y"', "a, b")]
    assert describe(failures).splitlines() == ['  2 clips: a, b (a/ü#;, b/x, "y")', "  1 clip: c (a/k)"]
    assert read_failures(tmp_path / "nowhere") == {}
    many = [Failure("a", f"c{i:02}", "same") for i in range(12)]
    assert describe(many) == "  12 clips: same (a/c00, a/c01, a/c02, a/c03, a/c04 and 7 more)"
    counts = [Failure("a", f"c{i}", f"{i} of 60 pictures are damaged") for i in (3, 4)]
    assert describe(counts) == "  2 clips: e.g. 3 of 60 pictures are damaged (a/c3, a/c4)", "one kind, other numbers"


def test_the_list_of_the_contents_says_what_each_clip_is(go):
    tasks = tasks_of("c1", "c2", "refuse", "early")
    go(tasks, allowed=2, failed={tasks[3].clip.key: "no frames: odd"})
    paths = {key: Path("data/out", f"{key}.h5") for key in ("a/c1", "b/c2")}
    made = {key: (read_trailer(path).content, "") for key, path in paths.items()}
    assert contents() == {**made, "a/refuse": ("", "the clip is too odd"), "b/early": ("", "no frames: odd")}
    assert list(contents()) == sorted(contents()), "in order, so that equal folders have equal lists"


def test_the_list_is_the_same_whether_files_were_made_or_reused(go):
    tasks = tasks_of("c1", "c2", "c3")
    go(tasks)
    first = Path("data/out", CONTENTS).read_bytes()
    go(tasks[::-1])
    assert Path("data/out", CONTENTS).read_bytes() == first
    go(tasks[:2])
    assert Path("data/out", CONTENTS).read_bytes() != first


def test_where_a_clip_could_not_be_done_there_is_no_list_that_could_pass_for_whole(go):
    go(tasks_of("c1"))
    kept = Path("kept.csv")
    os.link(Path("data/out", CONTENTS), kept)
    before = kept.read_bytes()
    with pytest.raises(click.ClickException, match="through no fault of theirs"):
        go(tasks_of("c1", "rotten"))
    assert not Path("data/out", CONTENTS).exists()
    assert kept.read_bytes() == before, "DVC's copy is left alone"


def test_thousands_of_files_are_linked_by_several_threads_where_they_wait_and_all_of_them_are(go, monkeypatch):
    monkeypatch.setattr(accesses, "AT_A_TIME", 2)
    names = [f"c{i:02}" for i in range(15)]
    go(tasks_of(*names[::2]))
    threads = set()
    link = ClipCache.link

    def watched(*arguments):
        threads.add(threading.get_ident())
        time.sleep(0.005)
        return link(*arguments)

    monkeypatch.setattr(ClipCache, "link", watched)
    shutil.rmtree("data/out")
    summary = go(tasks_of(*names))
    assert (summary.reused, summary.computed) == (8, 7)
    threads.clear()
    shutil.rmtree("data/out")
    summary = go(tasks_of(*names))
    assert (summary.reused, summary.computed) == (15, 0)
    assert len(threads) > 2
    assert sorted(contents()) == sorted(f"{'ab'[i % 2]}/{name}" for i, name in enumerate(names))


def test_an_error_while_files_are_linked_ends_the_stage_at_once(go, monkeypatch):
    tasks = tasks_of(*(f"c{i:02}" for i in range(40)))
    go(tasks)
    shutil.rmtree("data/out")
    monkeypatch.setattr(accesses, "AT_A_TIME", 1)
    monkeypatch.setattr(accesses, "MOST_THREADS", 2)
    tried = []

    def full(*_):
        tried.append(1)
        time.sleep(0.002)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ClipCache, "link", full)
    with pytest.raises(click.ClickException, match="No space left on device"):
        go(tasks)
    assert len(tried) < 20


def test_nobody_waits_for_the_other_links_when_a_stage_is_stopped_among_them(go, monkeypatch):
    tasks = tasks_of(*(f"c{i:02}" for i in range(40)))
    monkeypatch.setattr(accesses, "AT_A_TIME", 1)
    monkeypatch.setattr(accesses, "MOST_THREADS", 2)
    tried = []

    def slow(*_):
        tried.append(1)
        time.sleep(0.01)
        return ""

    monkeypatch.setattr(ClipCache, "link", slow)
    links = runner._linked(tasks, ClipCache(".cache"), "frames", Path("data/out"))
    next(links)
    links.close()  # as Ctrl-C does
    assert len(tried) < 20


def test_very_many_failures_are_told_by_kind_and_class_and_not_one_by_one():
    failures = [Failure(f"c{i % 101}", f"v{i}", "the file is empty") for i in range(9000)]
    failures += [Failure("c1", f"w{i}", f"odd {chr(97 + i % 26)}{chr(97 + i // 26)}") for i in range(500)]
    lines = describe(failures).splitlines()
    assert lines[0].startswith("  9000 clips of 101 classes: the file is empty (c0/v0, ")
    assert lines[0].endswith(" and 8995 more)")
    assert len(lines) == 21
    assert lines[-1] == "  481 clips for 481 other reasons"


def test_links_and_folders_that_others_left_are_removed(go):
    outside = Path("outside")
    outside.mkdir()
    (outside / "kept").touch()
    go(tasks_of("c1"))
    Path("data/out/link").symlink_to(outside.absolute())
    Path("data/out/old/older").mkdir(parents=True)
    Path("data/out/old/older/x.h5").touch()
    go(tasks_of("c1"))
    assert sorted(path.name for path in Path("data/out").iterdir()) == ["a", "contents.csv", "failures.csv"]
    assert (outside / "kept").exists()
