"""Workers on GPUs: what becomes of a clip and of a worker when a GPU fails, and how many workers there are."""

import ctypes
import logging
import os
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import click
import numpy as np
import pytest

from han_core import devices
from han_core.cache.store import ClipCache
from han_core.clipfile.writer import ClipFileWriter
from han_core.devices import cores
from pipeline.execution import workers
from pipeline.execution.jobs import ClipTask
from pipeline.execution.launch import relaunched, too_many_processes
from pipeline.execution.local import threaded_pool
from pipeline.execution.opened import Opened, one_task
from pipeline.execution.runner import map_clips
from pipeline.execution.told import told_plainly
from pipeline.execution.work import ClipWork
from pipeline.execution.workers import Crew, crew, worker_count
from pipeline.params import Run
from tests.pipeline.execution.inline import InlineExecutor
from tests.pipeline.execution.test_runner import hashes, ledger, tasks_of

ILLEGAL = "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be reported later"
FULL = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has 79.11 GiB, of which 12 MiB is free, process 4711"
BROKEN = False


def make(task: ClipTask, path: Path) -> None:
    """The first clip that is called ``breaks`` leaves its process with a GPU that fails whatever comes next."""
    global BROKEN
    name = task.clip.name
    if "breaks" in name and not Path("broken").exists():
        Path("broken").touch()
        BROKEN = True
    if BROKEN or "poison" in name:
        raise RuntimeError(ILLEGAL)
    if "huge" in name:
        raise RuntimeError(FULL)
    if "unseen" in name:
        raise devices.DeviceError("torch finds no CUDA device")
    time.sleep(0.02)
    with ClipFileWriter(path, kind="frames", clip=name, fingerprint=task.fingerprint) as file:
        file.array("a", np.arange(3))


@pytest.fixture
def go(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(f"{__name__}.BROKEN", False)
    monkeypatch.setattr("random.randrange", lambda end: 0)

    def go(tasks, *, workers=2, allowed=0, **options):
        work = ClipWork("test", "", "frames", make, tuple(tasks), Path("data/out"), **options)
        return map_clips(work, cache=ClipCache(".cache"), run=Run(workers=workers), allowed_failures=allowed)

    return go


KINDS = {"processes": {}, "processes with threads": {"gpus": 1, "net": True}}


@pytest.mark.parametrize("kind", KINDS)
def test_a_worker_whose_gpu_broke_takes_no_clips_from_the_others(go, kind, caplog):
    """It would fail each at once, and get most of what is waiting: all of that would be tried one by one."""
    names = [f"c{i:02d}" for i in range(30)]
    with caplog.at_level(logging.INFO):
        summary = go(tasks_of(*names, "breaks"), **KINDS[kind])
    assert (summary.computed, summary.failures) == (31, ())
    assert len(hashes()) == 32
    alone = [int(found[1]) for found in re.finditer(r"(\d+) clips that were in work are tried one by one", caplog.text)]
    assert len(alone) == 1
    assert alone[0] <= 6, "those that were handed out, three a worker"


def test_a_clip_that_breaks_the_gpu_alone_as_well_is_to_blame(go):
    summary = go(tasks_of("c1", "poison", "huge"), allowed=2)
    assert summary.computed == 1
    assert [row[::2] for row in ledger()[1:]] == [
        ["huge", "the GPU has no memory left for it; lower the batch, or end what else uses the GPU"],
        ["poison", "the GPU failed (CUDA error: an illegal memory access was encountered)"],
    ], "the same text on every run: no sizes, no numbers"


@pytest.mark.parametrize(
    ("name", "said"), [("poison", r"the GPU failed \(CUDA error"), ("unseen", r"the GPU is gone \(torch finds no")]
)
def test_when_every_worker_loses_its_gpu_it_gives_up_and_blames_nobody(go, monkeypatch, name, said):
    """Also a GPU that new worker processes do not even see, as one that fell off the bus."""
    monkeypatch.setattr("pipeline.execution.deaths._IN_A_ROW", 1)
    with pytest.raises(click.ClickException, match=rf"2 worker processes died .*{said}"):
        go(tasks_of(f"{name}1", f"{name}2", f"{name}3"), workers=1)
    assert not Path("data/out/failures.csv").exists()


@pytest.mark.parametrize("name", ["poison", "huge"])
def test_a_stage_whose_own_process_loses_the_gpu_ends_plainly_and_goes_on_when_run_again(go, name):
    tasks = tasks_of("c1", name, "c3")  # in the order of their classes: c1, c3, then the other
    with pytest.raises(click.ClickException, match=r"test: the GPU (failed|has no memory).*run the stage again"):
        go(tasks, executor=InlineExecutor())
    assert not Path("data/out/failures.csv").exists()
    again = go([task for task in tasks if task.clip.name != name], executor=InlineExecutor())
    assert (again.reused, again.computed) == (2, 0)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError(ILLEGAL), "the GPU failed (CUDA error: an illegal memory access was encountered)"),
        (
            RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm( handle )`"),
            "the GPU failed (CUDA error: CUBLAS_STATUS_EXECUTION_FAILED)",
        ),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), "the GPU failed (cuDNN error: CUDNN_STATUS_E"),
        (RuntimeError("Triton Error [CUDA]: an illegal memory access was encountered"), "the GPU failed (Triton Error"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `x`"), "the GPU has no memory"),
        (RuntimeError("Triton Error [CUDA]: out of memory"), "the GPU has no memory"),
        (RuntimeError("GET was unable to find an engine to execute this computation"), "the GPU has no memory"),
        (RuntimeError("cuDNN Frontend error: [cudnn_frontend] Error: x"), "the GPU failed (cuDNN Frontend error:"),
        (RuntimeError("shapes differ"), ""),
        (ValueError("CUDA error: in a text"), ""),
    ],
)
def test_errors_of_the_gpu_are_known(error, said):
    assert devices.gpu_fault(error).startswith(said)
    assert bool(devices.gpu_fault(error)) == bool(said)


@pytest.mark.parametrize(
    ("error", "raised"),
    [(RuntimeError(ILLEGAL), click.ClickException), (RuntimeError("shapes differ"), RuntimeError)],
)
def test_a_stage_that_trains_on_a_gpu_that_fails_ends_plainly(error, raised):
    told = r"finetune: the GPU failed \(CUDA.*run the stage again|shapes differ"
    with pytest.raises(raised, match=told), told_plainly("finetune"):
        raise error


def place() -> tuple[int, str, str]:
    time.sleep(0.2)  # so that each thread gets its share of the calls
    return os.getpid(), threading.current_thread().name, os.environ["CUDA_VISIBLE_DEVICES"]


def end() -> None:
    os._exit(1)


def refuse() -> None:
    raise KeyError("this")


def test_processes_with_threads_share_the_gpus(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    with threaded_pool(2, gpus=2, threads=2) as pool:
        seen = {future.result() for future in [pool.submit(place) for _ in range(8)]}
        with pytest.raises(KeyError, match="this"):
            pool.submit(refuse).result()
        broken = pool.submit(end)
        with pytest.raises(BrokenProcessPool):
            broken.result()
        with pytest.raises(BrokenProcessPool):
            pool.submit(place)
    assert len(seen) == 4
    assert len({(pid, gpu) for pid, _, gpu in seen}) == len({pid for pid, _, _ in seen}) == 2
    assert {gpu for _, _, gpu in seen} == {"3", "5"}


@pytest.fixture
def opened():
    """What opens nets, and the list of what it did."""
    events = []

    class Net:
        def __init__(self, key):
            time.sleep(0.01)
            self.key = key

        def __enter__(self):
            events.append(f"open {self.key}")
            return self

        def __exit__(self, *_):
            events.append(f"close {self.key}")

    return Opened(Net), events


def test_a_process_opens_its_net_once(opened):
    nets, events = opened
    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(nets.get, "aaaa"))) == 1, "threads that start at once share it"
    assert [nets.get(key).key for key in "babcb"] == list("babcb"), "clips of two stages, in turns"
    assert events == ["open a", "open b", "close a", "open c"]
    nets.close()
    assert events[4:] == ["close c", "close b"]


def test_a_net_that_a_clip_is_computed_with_is_not_closed_by_clips_of_other_stages(opened):
    """Workers of a cluster may have clips of several."""
    nets, events = opened
    with one_task():
        nets.get("a")
        with ThreadPoolExecutor(1) as pool:
            pool.submit(lambda: [nets.get(key) for key in "bcd"]).result()
        assert events == ["open a", "open b", "close b", "open c", "close c", "open d"]
    nets.get("e")
    assert events[6:] == ["close a", "open e"]


def test_number_of_workers_on_gpus(monkeypatch):
    monkeypatch.setattr(workers, "exclusive_gpus", lambda: False)
    assert crew(Run()) == Crew(cores())
    assert crew(Run(), gpus=2) == Crew(6, gpus=2)
    assert crew(Run(workers=4), gpus=2) == Crew(4, gpus=2)
    monkeypatch.setattr(workers, "cores", lambda: 16)
    assert crew(Run(), gpus=4, net=True) == Crew(4, threads=4, gpus=4)
    assert crew(Run(), gpus=1, net=True) == Crew(4, threads=4, gpus=1)
    assert crew(Run(workers=5), gpus=1, net=True) == Crew(2, threads=3, gpus=1)
    assert crew(Run(workers=1), gpus=2, net=True) == Crew(1, threads=1, gpus=1)
    assert crew(Run(workers=7), gpus=2, net=True) == Crew(2, threads=4, gpus=2)
    monkeypatch.setattr(workers, "cores", lambda: 128)
    assert crew(Run(), gpus=1, net=True) == Crew(4, threads=4, gpus=1), "each process takes memory of the GPU"
    assert crew(Run(workers=32), gpus=1, net=True) == Crew(4, threads=8, gpus=1)
    monkeypatch.setattr(workers, "cores", lambda: 1)
    assert crew(Run(), gpus=2, net=True) == Crew(2, threads=3, gpus=2), "one clip read, one computed, one written"


def test_gpus_that_let_one_process_in_get_one_and_it_is_said(go, monkeypatch, capsys):
    monkeypatch.setattr(workers, "exclusive_gpus", lambda: True)
    assert worker_count(Run(), gpus=2) == 2
    assert worker_count(Run(workers=1), gpus=2) == 1
    assert crew(Run(workers=4), gpus=1, net=True).told == ""
    assert crew(Run(workers=16), gpus=1, net=True) == Crew(
        1, 16, 1, "the GPUs are in exclusive compute mode and let one process in: one process a GPU in place of 4"
    )
    go(tasks_of("c1"), workers=2, gpus=1)
    assert (
        "test: the GPUs are in exclusive compute mode and let one process in: one process a GPU"
        in capsys.readouterr().err
    )


class Driver:
    """As much of libcuda.so.1 as is asked."""

    def __init__(self, *modes: int) -> None:
        self.modes = modes

    def cuInit(self, flags):
        return 0

    def cuDeviceGetCount(self, count):
        count._obj.value = len(self.modes)
        return 0

    def cuDeviceGet(self, device, number):
        device._obj.value = number
        return 0

    def cuDeviceGetAttribute(self, value, attribute, device):
        value._obj.value = self.modes[device.value] if attribute == 20 else -1
        return 0


@pytest.mark.parametrize(("modes", "exclusive"), [((), False), ((0, 0), False), ((0, 3), True), ((2,), False)])
def test_the_compute_mode_is_asked_of_the_driver(monkeypatch, modes, exclusive):
    monkeypatch.setattr(devices, "_gpu_driver", lambda: True)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Driver(*modes))
    assert devices.exclusive_gpus() is exclusive


@pytest.mark.parametrize(("wanted", "gpus", "wrong"), [(3, 2, True), (2, 2, False), (0, 2, False), (3, 0, False)])
def test_more_processes_than_gpus_are_refused(monkeypatch, wanted, gpus, wrong):
    assert bool(too_many_processes(Run(processes=wanted), gpus)) is wrong


def test_training_is_not_started_with_more_processes_than_gpus(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setattr("pipeline.execution.launch.gpus", lambda: 2)
    monkeypatch.setattr("subprocess.run", lambda *a, **k: pytest.fail("started"))
    with pytest.raises(click.ClickException, match="3 processes cannot train on 2 GPUs, of which each takes one"):
        relaunched(Run(processes=3), "pipeline.train", [])
