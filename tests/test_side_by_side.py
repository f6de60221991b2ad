"""Stages side by side: the order, who gets what, and with the real DVC the same ``dvc.lock`` as one after another."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from pipeline import side_by_side
from pipeline.side_by_side import Share, shares, together, visible_gpus
from tests.checkout import Checkout

# Two branches of two stages each between a first and a last one; each notes when it runs, and where.
COMMAND = (
    "echo {name} begins $CUDA_VISIBLE_DEVICES >> ../told; sleep {seconds}; {more} cat {deps} > {name}; "
    "echo {name} ends >> ../told"
)
NEEDS = {"first": [], "a1": ["first"], "a2": ["a1"], "b1": ["first"], "b2": ["b1"], "last": ["a2", "b2"]}


def until(name):
    """Wait for another stage to begin; fail where it does not."""
    begun = f"grep -q '{name} begins' ../told"
    return f"for i in $(seq 600); do {begun} && break; sleep 0.1; done; {begun} || exit 1;"


def write_graph(folder, seconds=0.3, **more):
    stages = {}
    for name, needs in NEEDS.items():
        deps = needs or ["start"]
        cmd = COMMAND.format(name=name, seconds=seconds, more=more.get(name, ""), deps=" ".join(deps))
        stages[name] = {"cmd": cmd, "deps": deps, "outs": [name]}
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}, sort_keys=False))


@pytest.fixture
def project(tmp_path):
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "start").write_text("s\n")
    write_graph(folder)
    call(folder, "dvc", "init", "-q", "--no-scm")
    return folder


def start(folder, *command, **environment):
    return subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=folder,
        env={**os.environ, "DVC_NO_ANALYTICS": "1", "PYTHONPATH": str(side_by_side_root()), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def side_by_side_root() -> Path:
    return Path(side_by_side.__file__).parents[1]


def call(folder, *command, code=0, **environment):
    process = start(folder, *command, **environment)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == code, said
    return said


def told(folder):
    return (folder.parent / "told").read_text().splitlines()


def times(folder):
    """Stage -> places in what was told at which it began and ended."""
    places = {}
    for place, line in enumerate(told(folder)):
        places.setdefault(line.split()[0], []).append(place)
    return places


def test_branches_run_at_once_and_the_lock_is_that_of_a_serial_run(project):
    write_graph(project, a1=until("b1"), b1=until("a1"))
    said = call(project, "pipeline.side_by_side")
    seen = times(project)
    for name, needs in NEEDS.items():
        assert all(seen[need][1] < seen[name][0] for need in needs), "before what it depends on was done"
    for name in NEEDS:
        assert f"[{name}] done after" in said
    found = yaml.safe_load((project / "dvc.lock").read_text())
    assert set(found["stages"]) == set(NEEDS)

    assert "0 stages to run" in call(project, "pipeline.side_by_side")
    assert "up to date" in call(project, "dvc", "repro"), "DVC must have nothing left to do"
    (project / "dvc.lock").unlink()
    call(project, "dvc", "repro", "-f")
    assert yaml.safe_load((project / "dvc.lock").read_text()) == found


@pytest.mark.long
def test_where_a_stage_fails_the_others_finish_and_it_is_named(project):
    write_graph(project, a1="echo a1 is broken; exit 3;")
    said = call(project, "pipeline.side_by_side", code=1)
    assert "Traceback" not in said
    assert "[a1] a1 is broken" in said
    assert "Error: failed: a1 (see above); left out, because they depend on it: a2, last" in said
    assert "b2 ends" in told(project), "what does not depend on it"
    assert not {"a2", "last"} & times(project).keys()
    assert set(yaml.safe_load((project / "dvc.lock").read_text())["stages"]) == {"first", "b1", "b2"}

    write_graph(project)
    said = call(project, "pipeline.side_by_side")
    assert "3 stages to run" in said, "the rest, and nothing else"


@pytest.mark.long
@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_all(project, sign):
    write_graph(project, seconds=0.2, a1="sleep 100;", b1="sleep 100;")
    running = start(project, "pipeline.side_by_side")
    deadline = time.monotonic() + 60
    while not ((project.parent / "told").exists() and len(told(project)) >= 4):
        assert running.poll() is None, running.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(0.5)
    running.send_signal(sign)
    said, _ = running.communicate(timeout=30)
    assert running.returncode == 1
    assert "interrupted; ending a1, b1" in said
    assert "Traceback" not in said
    assert subprocess.run(["pgrep", "-f", f"{project}|sleep 100"], capture_output=True).stdout == b"", "still running"

    write_graph(project)
    call(project, "pipeline.side_by_side")
    assert "up to date" in call(project, "dvc", "repro")


@pytest.mark.long
def test_targets_bring_what_they_depend_on_and_an_unknown_one_is_named(project):
    call(project, "pipeline.side_by_side", "a1")
    assert list(times(project)) == ["first", "a1"]
    said = call(project, "pipeline.side_by_side", "nobody", code=1)
    assert re.search("Error: .*nobody", said)
    assert "Traceback" not in said


def test_gpus_and_cores_are_dealt():
    assert shares(2, ["0", "1", "2"], [0, 1, 2, 3]) == [
        Share(frozenset({0, 2}), ("0", "2")),
        Share(frozenset({1, 3}), ("1",)),
    ]
    assert shares(3, ["7"], [4, 5]) == [
        Share(frozenset({4}), ("7",)),
        Share(frozenset({5}), ("7",)),
        Share(frozenset({4}), ("7",)),
    ]
    assert shares(2, [], []) == [Share(frozenset(), ())] * 2
    assert together(shares(2, ["0", "1", "2"], [0, 1, 2, 3])) == Share(frozenset(range(4)), ("0", "1", "2"))
    assert visible_gpus({}, 2) == ["0", "1"]
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "3, 5"}, 2) == ["3", "5"]
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": ""}, 0) == []


def test_a_stage_sees_its_own_gpu_and_cores_and_alone_it_sees_all(project, monkeypatch):
    write_graph(project, seconds=0.5)
    monkeypatch.chdir(project)
    cores = side_by_side.cores()
    slots = [Share(frozenset(cores[:1]), ("0",)), Share(frozenset(cores[-1:]), ("1",))]
    side_by_side.run(side_by_side.plan(["a1", "b1"]), slots)
    began = dict(line.split(" begins ") for line in told(project) if " begins " in line)
    assert began["first"] == "0,1"
    assert {began["a1"], began["b1"]} == {"0", "1"}


@pytest.mark.slow
def test_the_real_graph_gives_the_bytes_and_the_lock_of_a_serial_run(repository, tmp_path, shared_tmp_path):
    serial = Checkout.after_first_run(repository, shared_tmp_path, tmp_path / "serial")
    other = Checkout.make(repository, tmp_path / "side_by_side")
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.side_by_side"],
        cwd=other.path,
        env=other.environment(PYTHONPATH=str(other.path)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    began, ended = (re.findall(rf"^\[(\S+)\] {what}", done.stdout, re.MULTILINE) for what in ("starts", "done"))
    assert sorted(began) == sorted(ended)
    lines = done.stdout.splitlines()
    place = {
        (kind, n): i
        for i, line in enumerate(lines)
        for kind in ("starts", "done")
        for n in began
        if line.startswith(f"[{n}] {kind}")
    }
    assert place["starts", "cubes-temporal@1"] < place["done", "cubes-spatial@1"] or (
        place["starts", "cubes-spatial@1"] < place["done", "cubes-temporal@1"]
    ), "the streams ran one after another"
    assert yaml.safe_load((other.path / "dvc.lock").read_text()) == yaml.safe_load(serial.first_lock)
    for folder in ("data", "models", "metrics", "plots", "report"):
        assert other.hashes(folder) == serial.hashes(folder)
    assert other.repro()[0] == set()
