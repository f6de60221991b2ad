"""One model trained by two machines: two ``torchrun`` on this one, each in a working folder of its own."""

import os
import re
import shutil
import subprocess
import sys
import time

import psutil
import pytest
import yaml

from tests.pipeline.toy_store import write_store

EPOCHS = 30
HAN = ("pipeline.train", "--model", "han", "--split", "1", "--seed", "1")
NET = ("pipeline.finetune", "--stream", "spatial", "--split", "1")
MODELS = {HAN: "models/toy/han/han-1-seed1.safetensors", NET: "models/toy/nets/spatial-1.safetensors"}


class Machine:
    """A working folder with its own params and data; the cache is shared."""

    def __init__(self, folder, repository, params, cache):
        self.path, self.repository, self.params, self.cache = folder, repository, params, cache

    def start(self, stage, **environment):
        """Start a stage as DVC does; ``environment`` may hold torchrun's variables."""
        return self._start([sys.executable, "-m", *stage], **environment)

    def torchrun(self, rank, port, stage, backend="static"):
        """Start a stage as a person does, by torchrun."""
        meet = f"--master-addr 127.0.0.1 --master-port {port}"  # as docs/training.md says
        if backend == "c10d":
            meet = f"--rdzv-backend c10d --rdzv-endpoint 127.0.0.1:{port}"
        options = f"--nnodes 2 --node-rank {rank} {meet}"
        return self._start([sys.executable, "-m", "torch.distributed.run", *options.split(), "-m", *stage])

    def _start(self, command, **environment):
        (self.path / "params.yaml").write_text(yaml.safe_dump(self.params), encoding="utf-8")
        own = {"PYTHONPATH": str(self.repository), "HAN_CACHE": str(self.cache), "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            command,
            cwd=self.path,
            env=os.environ | own | environment,
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def made(self):
        """What a run leaves: name -> content."""
        roots = [self.path / name for name in ("models", "plots", "logs", "metrics")]
        files = [path for root in roots for path in root.rglob("*") if path.is_file()]
        return {p.relative_to(self.path).as_posix(): p.read_bytes() for p in files if "logs" not in p.parts}

    def clear(self):
        for name in ("models", "plots", "logs", "metrics"):
            shutil.rmtree(self.path / name, ignore_errors=True)


def ended(process, code=0):
    said, _ = process.communicate(timeout=300)
    assert process.returncode == code, said
    return said


def lose(process):
    """All of a machine's processes end at once. (Torchrun starts its own apart from itself: they outlive its kill.)"""
    for one in [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]:
        one.kill()
    process.wait()


def han_params(repository):
    params = yaml.safe_load((repository / "params.yaml").read_text(encoding="utf-8"))
    params["synthetic"] = None
    params["dataset"].update(name="toy", kind="folder", root="videos", generate=[])
    params["cubes"].update(nets="toy", frames=4)
    params["train"].update(lstm_size=8, epochs=EPOCHS, batch=5)
    params["run"].update(checkpoint_seconds=0, device="cpu")
    return params


@pytest.fixture
def machines(repository, tmp_path):
    """Two machines with a store of cubes, equal and apart."""
    found = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_store(tmp_path / name)
        found.append(Machine(tmp_path / name, repository, han_params(repository), tmp_path / "cache"))
    return found


def on_one_machine(machine, stage, cache):
    """What two processes of one machine make, which is then removed."""
    params = {**machine.params, "run": {**machine.params["run"], "processes": 2}}
    alone = Machine(machine.path, machine.repository, params, cache)
    ended(alone.start(stage))
    made = alone.made()
    alone.clear()
    return made


@pytest.mark.long
def test_two_machines_make_the_model_of_two_processes_on_one(machines, tmp_path, free_port):
    one, two = machines
    expected = on_one_machine(one, HAN, tmp_path / "another_cache")
    running = [machine.torchrun(rank, free_port, HAN) for rank, machine in enumerate(machines)]
    said = [ended(process) for process in running]
    assert "processes: 2, on cpu" in said[0]
    assert "train han, split 1, seed 1:" not in said[1], "only the first process speaks"
    assert one.made() == expected
    assert MODELS[HAN] in expected
    assert two.made() == {}, "only the first machine writes"
    assert list((tmp_path / "cache/checkpoints").iterdir()) == [], "a finished run keeps no checkpoint"


@pytest.mark.long
def test_dvc_may_run_the_stage_of_one_of_them(machines, tmp_path, free_port):
    """Torchrun's options as variables: the command in dvc.yaml stays as it is."""
    expected = on_one_machine(machines[0], HAN, tmp_path / "another_cache")
    torchrun = {"PET_NNODES": "2", "PET_NODE_RANK": "0"}
    torchrun |= {"PET_MASTER_ADDR": "127.0.0.1", "PET_MASTER_PORT": str(free_port)}
    running = [machines[0].start(HAN, **torchrun), machines[1].torchrun(1, free_port, HAN)]
    for process in running:
        ended(process)
    assert machines[0].made() == expected


@pytest.mark.long
@pytest.mark.parametrize("backend", ["c10d", pytest.param("static", marks=pytest.mark.slow)])
def test_a_net_is_fine_tuned_by_two_machines(backend, nets_project, repository, tmp_path, free_port):
    nets_project.params["finetune"]["spatial"] |= {"iterations": 2, "batch": 4, "micro_batch": 1}
    nets_project.params["run"] |= {"device": "cpu", "checkpoint_seconds": 0}
    machines = []
    for name in ("one", "two"):
        shutil.copytree(nets_project.folder / "data", tmp_path / name / "data")
        machines.append(Machine(tmp_path / name, repository, nets_project.params, tmp_path / "cache"))
    expected = on_one_machine(machines[0], NET, tmp_path / "another_cache")
    running = [machine.torchrun(rank, free_port, NET, backend) for rank, machine in enumerate(machines)]
    said = [ended(process) for process in running]
    assert "2 iterations on 3 clips" in said[0]
    assert machines[0].made() == expected
    assert MODELS[NET] in expected
    assert machines[1].made() == {}, "only the first machine writes"


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1])
def test_a_machine_that_is_lost_ends_the_other_plainly_and_both_go_on(lost, machines, tmp_path, free_port):
    for machine in machines:  # steps that take long enough to be caught in the middle
        machine.params["train"]["epochs"] = 400
    expected = on_one_machine(machines[0], HAN, tmp_path / "another_cache")
    running = [machine.torchrun(rank, free_port, HAN) for rank, machine in enumerate(machines)]
    checkpoints, deadline = tmp_path / "cache/checkpoints", time.monotonic() + 120
    while not list(checkpoints.glob("*.safetensors")):
        assert time.monotonic() < deadline
        assert all(process.poll() is None for process in running), running[0].stdout.read()
        time.sleep(0.01)
    lose(running[lost])
    said = ended(running[1 - lost], 1)
    assert "another process that trains with this one has ended or cannot be reached" in said
    assert machines[0].made().keys().isdisjoint({MODELS[HAN]})
    assert list(checkpoints.glob("*.safetensors")), "the state is kept"

    running = [machine.torchrun(rank, free_port, HAN) for rank, machine in enumerate(machines)]
    said = [ended(process) for process in running]
    assert "of 400 epochs from an earlier run" in said[0]
    assert machines[0].made()[MODELS[HAN]] == expected[MODELS[HAN]]


@pytest.mark.long
@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("cache", r"process 1 on .*: it does not see .*another.* the cache must be on a disk that all share"),
        ("params", r"process 1 on .*: its params file says something else"),
    ],
)
def test_a_machine_that_differs_is_named_before_any_training(what, told, machines, tmp_path, free_port):
    if what == "cache":
        machines[1].cache = tmp_path / "another"
    else:
        machines[1].params = han_params(machines[1].repository)
        machines[1].params["train"]["dropout"] = 0.1
    running = [machine.torchrun(rank, free_port, HAN) for rank, machine in enumerate(machines)]
    for process in running:
        said = ended(process, 1)
        assert "clips (0 without cubes)" not in said, "nothing was trained"
        if process is running[1]:
            assert re.search(told, said), said
    assert machines[0].made() == {}
