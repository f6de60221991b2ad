"""Clips on a Dask cluster: who is refused before any work, who comes, leaves and dies meanwhile, and that what is made
there has the bytes of what is made here.

Quick clusters are threads of this process; where a process dies, it is one of the commands ``dask scheduler`` and
``dask worker``.
"""

import logging
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import click
import pytest

from benchmarks.dask_processes import dask_processes, kill
from han_core.cache import housekeeping
from han_core.cache.store import ClipCache
from pipeline.execution import cluster as module
from pipeline.execution.cluster import connected
from pipeline.execution.fitness import Question
from pipeline.execution.jobs import DIED, GpuFailed
from pipeline.execution.on_cluster import with_cluster
from pipeline.execution.on_worker import OnWorker
from pipeline.execution.runner import map_clips
from pipeline.params import Run
from tests.pipeline.execution.test_runner import ledger, tasks_of, work_of

distributed = pytest.importorskip("distributed")


@pytest.fixture
def scheduler():
    """Address of a cluster of one worker with two threads."""
    with made(1) as cluster:
        yield cluster.scheduler_address


def made(workers):
    options = {"n_workers": workers, "threads_per_worker": 2, "processes": False, "dashboard_address": None}
    return distributed.LocalCluster(**options)


@contextmanager
def opened(address, cache, question=Question(), told=lambda line: None):  # noqa: B008
    with connected(Run(executor="dask", scheduler=address), cache=cache, question=question, told=told) as cluster:
        yield cluster


def refused(address, cache, question=Question()):  # noqa: B008
    with pytest.raises(click.ClickException) as caught, opened(address, cache, question):
        pass
    return str(caught.value)


def results(cluster, call, tasks):
    return sorted(future.result() for _, future in with_cluster(cluster, call, tasks))


def test_a_cluster_that_fits_gets_the_work(scheduler, tmp_path):
    with opened(scheduler, tmp_path) as cluster:
        assert list(cluster.threads.values()) == [2]
        assert results(cluster, abs, range(-20, 0)) == list(range(1, 21))
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_scheduler_without_workers_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_WORKERS", 0.2)
    with made(0) as cluster:
        said = refused(cluster.scheduler_address, tmp_path)
    assert "has had no worker for 0.2 s; start some with: dask worker inproc://" in said


def test_an_unfit_worker_is_named_before_any_work(scheduler, tmp_path):
    said = refused(scheduler, tmp_path, Question(files=((str(tmp_path / "a.avi"), 1),)))
    assert "1 of 1 workers cannot do this:\n  inproc://" in said
    assert f": it does not see {tmp_path}/a.avi (No such file or directory) as this machine does" in said


def lacking(question):
    raise ModuleNotFoundError("No module named 'pipeline'")


def test_a_worker_without_the_project_is_told(scheduler, tmp_path, monkeypatch):
    with opened(scheduler, tmp_path) as cluster:
        monkeypatch.setattr(module, "look", lacking)
        (reason,) = cluster._look_at(list(cluster.threads)).values()
    assert "has not got this project (No module named 'pipeline'); start it in" in reason


def test_a_worker_that_does_not_answer_is_told(scheduler, tmp_path, monkeypatch):
    with opened(scheduler, tmp_path) as cluster:
        monkeypatch.setattr(module, "_LOOK", 0.2)
        monkeypatch.setattr(module, "look", lambda question: time.sleep(1))
        (reason,) = cluster._look_at(list(cluster.threads)).values()
    assert "does not answer in 0.2 s" in reason


def test_dask_that_does_not_import_is_not_called_missing(tmp_path, monkeypatch):
    (tmp_path / "distributed").mkdir()
    (tmp_path / "distributed/__init__.py").write_text("raise ImportError('msgpack is too old')\n")
    for name in [name for name in sys.modules if name.split(".")[0] == "distributed"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    said = refused("tcp://127.0.0.1:1", tmp_path)
    assert "is installed and does not import: msgpack is too old" in said


def test_an_address_where_nobody_listens(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_ANSWER", 0.2)
    assert "no dask scheduler answers at tcp://127.0.0.1:1 (" in refused("tcp://127.0.0.1:1", tmp_path)


def where(number):
    time.sleep(0.05)
    return distributed.get_worker().name


def test_workers_that_join_late_are_looked_at_and_get_work_if_they_are_fit(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_TICK", 0.05)
    told = []

    with made(1) as cluster, opened(cluster.scheduler_address, tmp_path, told=told.append) as seen:
        tasks = iter(range(200))
        found = with_cluster(seen, where, tasks)
        names = {next(found)[1].result()}
        assert len(names) == 1
        cluster.scale(2)
        while len(names) < 2:
            names.add(next(found)[1].result())
        assert sum(seen.threads.values()) == 4
        in_work = []
        monkeypatch.setattr(module, "why_unfit", lambda answer, here, question: "it is odd")
        cluster.scale(4)
        for task, future in found:
            names.add(future.result())
            in_work.append(task)
        assert len(in_work) > 10
    assert len(names) == 2
    assert [line.partition(": ")[2] for line in told] == ["it is odd"], "two of them, for one reason"


def slowly(number):
    time.sleep(0.05)
    return number


def test_a_worker_that_leaves_hands_its_clips_on(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(module, "_TICK", 0.05)

    with made(2) as cluster, opened(cluster.scheduler_address, tmp_path) as seen:
        found = with_cluster(seen, slowly, range(60))
        done = [next(found)[1].result() for _ in range(4)]
        with caplog.at_level(logging.INFO, "pipeline.execution.on_cluster"):
            seen.client.retire_workers([next(iter(seen.threads))])
            done += [future.result() for _, future in found]
    assert sorted(done) == list(range(60)), "each once"
    assert "tried one by one" not in caplog.text


def on_gpu(number):
    time.sleep(0.01)
    if distributed.get_worker().name == 0:
        raise GpuFailed("the GPU failed (CUDA error)")
    return number


def test_a_worker_whose_gpu_fails_gets_no_more_and_its_clips_are_done_by_others(tmp_path, monkeypatch):
    """It is the process of the tests, which nobody starts again: it does not end."""
    told = []

    with made(2) as cluster, opened(cluster.scheduler_address, tmp_path, told=told.append) as seen:
        assert results(seen, on_gpu, range(30)) == list(range(30))
        assert len(seen.threads) == 1
    assert [line.partition(": ")[2] for line in told] == ["the GPU failed (CUDA error)"]


def wait(gate, number):
    while number and not gate.exists():
        time.sleep(0.01)


def test_nothing_is_left_on_the_cluster_by_a_map_that_ends_early(scheduler, tmp_path):
    gate = Path(tmp_path, "gate")

    with opened(scheduler, tmp_path) as cluster, distributed.Client(scheduler, set_as_default=False) as other:
        found = with_cluster(cluster, partial(wait, gate), range(50))
        next(found)
        wait_until(lambda: any(other.processing().values()))
        found.close()
        wait_until(lambda: not any(other.processing().values()))
        gate.touch()
        assert other.submit(abs, -3).result(timeout=10) == 3


def test_what_shares_a_gpu_s_memory_in_a_process_is_done_one_at_a_time(monkeypatch):
    now, most = [], []

    def call(task):
        now.append(task)
        most.append(len(now))
        time.sleep(0.01)
        now.remove(task)

    for alone in (True, False):
        most.clear()
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(OnWorker(call, net=False, alone=alone), range(12)))
        assert (max(most) == 1) is alone


def torch_threads(task):
    import torch

    with ThreadPoolExecutor(1) as pool:
        return torch.get_num_threads(), pool.submit(torch.get_num_threads).result()


def test_a_net_computes_with_the_threads_of_its_worker(scheduler, tmp_path):
    import torch

    before = torch.get_num_threads()
    try:
        with opened(scheduler, tmp_path) as cluster:
            found = {future.result() for _, future in with_cluster(cluster, torch_threads, range(8), net=True)}
    finally:
        torch.set_num_threads(before)
    assert found == {(2, 2)}


@pytest.fixture
def processes(tmp_path, monkeypatch, repository, free_port):
    """A scheduler of its own process; workers are to be added."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(repository))
    with dask_processes(tmp_path, free_port) as cluster:
        yield cluster


def mapped(cluster, *names, allowed=0, argument=None):
    return map_clips(
        work_of(tasks_of(*names, argument=argument)),
        cache=ClipCache(".cache"),
        run=Run(executor="dask", scheduler=cluster.address),
        allowed_failures=allowed,
    )


def in_a_process(cluster, *, argument):
    """The map as a stage, with what it says."""
    code = (
        "from tests.pipeline.execution.test_cluster import *\n"
        "class Here: address = sys.argv.pop()\n"
        f"click.command()(lambda: mapped(Here, *NAMES, argument={argument}))()\n"
    )
    command = [sys.executable, "-c", code, cluster.address]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def wait_for_files(count):
    wait_until(lambda: len(list(housekeeping.entries(ClipCache(".cache")))) >= count)


def wait_until(found):
    ends = time.monotonic() + 60
    while not found():
        assert time.monotonic() < ends
        time.sleep(0.02)


NAMES = [f"c{i:02d}" for i in range(24)]


def test_a_scheduler_that_dies_ends_the_stage_plainly_and_the_next_run_goes_on(processes):
    processes.worker("--no-nanny")
    processes.wait_for(1)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(in_a_process, processes, argument=0.05)
        wait_for_files(4)
        kill(processes.scheduler)
        ended = running.result(timeout=60)
    assert ended.returncode == 1
    (said,) = (line for line in ended.stderr.splitlines() if "clip/s" not in line)
    assert said.startswith(f"Error: test: the dask scheduler at {processes.address} was lost (")
    assert said.endswith("). What is done is kept; run the stage again")
    processes.start_scheduler()
    processes.worker("--no-nanny")
    summary = mapped(processes, *NAMES, argument=0.05)
    assert summary.reused >= 4
    assert summary.reused + summary.computed == len(NAMES)
    assert housekeeping.verify_entries(ClipCache(".cache")) == []
    assert list(Path(".cache/tmp").iterdir()) == []


@pytest.mark.long
def test_a_scheduler_that_hangs_ends_the_stage_too(processes, monkeypatch):
    monkeypatch.setattr(module, "_ANSWER", 2)
    processes.worker("--no-nanny")
    processes.wait_for(1)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(mapped, processes, *NAMES, argument=0.1)
        wait_for_files(2)
        os.killpg(processes.scheduler.pid, signal.SIGSTOP)
        with pytest.raises(click.ClickException, match=r"scheduler at .* was lost \(.*run the stage again"):
            running.result(timeout=60)


@pytest.mark.long
def test_a_worker_that_is_killed_costs_no_clip_and_blames_none(processes, caplog):
    first, _ = processes.worker("--no-nanny", threads=2), processes.worker("--no-nanny", threads=2)
    processes.wait_for(2)
    with ThreadPoolExecutor(1) as pool, caplog.at_level(logging.INFO):
        running = pool.submit(mapped, processes, *NAMES, argument=0.1)
        wait_for_files(4)
        kill(first)
        summary = running.result(timeout=60)
    assert (summary.reused + summary.computed, summary.failures) == (len(NAMES), ())
    assert "clips that were in work are tried one by one" in caplog.text
    assert housekeeping.verify_entries(ClipCache(".cache")) == []
    assert list(Path(".cache/tmp").iterdir()) == []


@pytest.mark.long
def test_a_clip_that_kills_is_blamed_and_none_that_was_beside_it(processes):
    """Dask itself would let it kill four workers, and blame what was there each time."""
    for _ in range(2):
        processes.worker(threads=2)
    processes.wait_for(2)
    summary = mapped(processes, "die", *NAMES, allowed=1)
    assert [failure.clip for failure in summary.failures] == ["die"]
    assert ledger()[1][2] == DIED

    def starts():
        return sum(path.read_text().count("Registered to") for path in Path().glob("dask-worker-*.txt"))

    processes.wait_for(2)  # the last to die may still be on its way back
    wait_until(lambda: starts() >= 4)
    assert starts() == 4, "two were started, and two died"


@pytest.mark.long
def test_workers_that_all_die_for_good_end_the_stage(processes, monkeypatch):
    monkeypatch.setattr(module, "_WORKERS", 3)
    processes.worker("--no-nanny")
    processes.wait_for(1)
    with pytest.raises(click.ClickException, match=r"has had no worker for 3 s; start some with.*run the stage again"):
        mapped(processes, "die", *NAMES)
    assert not Path("data/out/failures.csv").exists()


@pytest.mark.long
def test_ctrl_c_leaves_the_cluster_to_the_next(processes, tmp_path):
    processes.worker(threads=2)
    processes.wait_for(1)
    code = (
        "from tests.pipeline.execution.test_cluster import *\n"
        "class Here: address = sys.argv[1]\n"
        "mapped(Here, *NAMES, argument=0.3)\n"
    )
    stage = subprocess.Popen([sys.executable, "-c", code, processes.address], start_new_session=True)
    wait_for_files(2)
    os.killpg(stage.pid, signal.SIGINT)
    assert stage.wait(30) != 0
    with distributed.Client(processes.address, set_as_default=False) as client:
        wait_until(lambda: not any(client.processing().values()))
    summary = mapped(processes, *NAMES[:6])
    assert summary.reused + summary.computed == 6
    with distributed.Client(processes.address, set_as_default=False) as client:
        assert not any(client.processing().values())


@pytest.mark.parametrize(("stage", "clips"), [("cubes", 6), ("scores", 5)])
def test_stages_with_a_net_make_on_a_cluster_what_they_make_here(
    nets_project, small_nets, small_training_images, monkeypatch, stage, clips
):
    project = nets_project
    if stage == "scores":  # a last layer that was drawn at random gives none
        project.params["finetune"]["temporal"] |= {"iterations": 1, "learning_rate": 0.01}
    project.ok("finetune", "temporal")
    assert f"{clips} computed" in project.ok(stage, "temporal")
    here = files(project, stage)
    assert len(here) == clips
    monkeypatch.setenv("HAN_CACHE", "another")
    monkeypatch.setattr("pipeline.execution.clip_tasks.clip_threads", None)  # what does it in this process
    import torch

    options = {"n_workers": 1, "threads_per_worker": torch.get_num_threads(), "processes": False}
    with distributed.LocalCluster(**options, dashboard_address=None) as cluster:
        project.params["run"] |= {"executor": "dask", "scheduler": cluster.scheduler_address}
        assert f"{clips} computed" in project.ok(stage, "temporal")
    assert files(project, stage) == here


def files(project, stage):
    return {path.name: path.read_bytes() for path in Path(project.folder, f"data/toy/{stage}").rglob("*.h5")}
