"""Clips on a Dask cluster: who is refused before any work, and that a net's stages make the bytes that they make here.

The clusters are threads of this process; ``test_runner.py`` has one of processes, one of which dies.
"""

import sys
from pathlib import Path

import click
import pytest

from pipeline.execution import cluster as module
from pipeline.execution.cluster import dask_executor, look, versions
from pipeline.params import Run

distributed = pytest.importorskip("distributed")


@pytest.fixture
def scheduler():
    """Address of a cluster of one worker with two threads."""
    with made(1) as cluster:
        yield cluster.scheduler_address


def made(workers):
    options = {"n_workers": workers, "threads_per_worker": 2, "processes": False, "dashboard_address": None}
    return distributed.LocalCluster(**options)


def opened(address, cache):
    with dask_executor(Run(executor="dask", scheduler=address), cache) as (executor, hands):
        return executor.submit(abs, -3).result(), hands


def refused(address, cache):
    with pytest.raises(click.ClickException) as caught:
        opened(address, cache)
    return str(caught.value)


def test_a_cluster_that_fits_works_on_as_many_clips_as_it_has_threads(scheduler, tmp_path):
    assert opened(scheduler, tmp_path) == (3, 2)
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_scheduler_without_workers_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_WORKERS", 0.2)
    with made(0) as cluster:
        said = refused(cluster.scheduler_address, tmp_path)
    assert "has had no worker for 0.2 s; start some with: dask worker inproc://" in said


def test_a_worker_that_does_not_see_the_cache_is_named_before_any_work(scheduler, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "look", lambda note, written: look(note + "-elsewhere", written))
    said = refused(scheduler, tmp_path)
    assert "1 of 1 workers cannot do this:\n  inproc://" in said
    assert f"does not see {tmp_path} as this machine does (No such file or directory); the cache must be" in said


def test_a_disk_of_the_same_name_is_not_the_same_disk(scheduler, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "look", lambda note, written: look(note, "of another"))
    assert "it is another file there" in refused(scheduler, tmp_path)


def test_other_versions_are_refused(scheduler, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "look", lambda note, written: (versions() | {"numpy": "1.0"}, ""))
    assert f"numpy is 1.0 there and {versions()['numpy']} here; install the same" in refused(scheduler, tmp_path)


def lacking(note, written):
    raise ModuleNotFoundError("No module named 'pipeline'")


def test_a_worker_without_the_project_is_told(scheduler, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "look", lacking)
    assert "has not got this project (No module named 'pipeline'); start it in" in refused(scheduler, tmp_path)


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


@pytest.mark.parametrize(("stage", "clips"), [("cubes", 6), ("scores", 5)])
def test_stages_with_a_net_make_on_a_cluster_what_they_make_here(
    nets_project, small_nets, small_training_images, scheduler, monkeypatch, stage, clips
):
    project = nets_project
    if stage == "scores":  # a last layer that was drawn at random gives none
        project.params["finetune"]["temporal"] |= {"iterations": 1, "learning_rate": 0.01}
    project.ok("finetune", "temporal")
    assert f"{clips} computed" in project.ok(stage, "temporal")
    here = files(project, stage)
    assert len(here) == clips
    monkeypatch.setenv("HAN_CACHE", "another")
    project.params["run"] |= {"executor": "dask", "scheduler": scheduler}
    monkeypatch.setattr("pipeline.execution.clip_tasks.clip_threads", None)  # what does it in this process
    assert f"{clips} computed" in project.ok(stage, "temporal")
    assert files(project, stage) == here


def files(project, stage):
    return {path.name: path.read_bytes() for path in Path(project.folder, f"data/toy/{stage}").rglob("*.h5")}
