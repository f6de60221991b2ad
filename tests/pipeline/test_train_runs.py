"""Stage train is killed, resumed, and run by several processes: the model is the same."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
import yaml
from safetensors.numpy import load, load_file

from tests.pipeline.test_train_evaluate_report import write_store

EPOCHS = 60


@pytest.fixture(scope="module")
def project(repository, tmp_path_factory):
    """A store, its params, and the outputs of an undisturbed run of one process."""
    folder = tmp_path_factory.mktemp("project")
    params = yaml.safe_load((repository / "params.yaml").read_text(encoding="utf-8"))
    params["synthetic"] = None
    params["dataset"].update(name="toy", kind="folder", root="videos", generate=[])
    params["cubes"].update(nets="toy", frames=4)
    params["train"].update(lstm_size=8, epochs=EPOCHS, batch=5)
    params["run"].update(checkpoint_seconds=0, device="cpu")
    write_store(folder)
    finished(start((folder, params, None), repository))
    return folder, params, outputs(folder)


def start(project, repository, **run):
    folder, params, _ = project
    settings = {**params, "run": {**params["run"], **run}}
    (folder / "params.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline.train", "--model", "han", "--split", "1", "--seed", "1"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(repository), "HAN_CACHE": str(folder / ".han_cache")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finished(process):
    output, _ = process.communicate(timeout=180)
    assert process.returncode == 0, output
    return output


def outputs(folder):
    model, curve = folder / "models/toy/han/han-1-seed1.safetensors", folder / "plots/toy/train/han-1-seed1"
    return [path.read_bytes() for path in (model, *sorted(curve.rglob("*.*s*"))) if path.is_file()]


@pytest.mark.long
def test_kill_9_in_the_middle_changes_nothing(project, repository):
    folder, _, undisturbed = project
    (folder / "models/toy/han/han-1-seed1.safetensors").unlink()

    process = start(project, repository)
    checkpoints = folder / ".han_cache/checkpoints"
    deadline = time.monotonic() + 120
    while not list(checkpoints.glob("*.safetensors")):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (folder / "models/toy/han/han-1-seed1.safetensors").exists()

    output = finished(start(project, repository))
    assert f"of {EPOCHS} epochs from an earlier run" in output
    assert outputs(folder) == undisturbed
    assert list(checkpoints.iterdir()) == [], "a finished run keeps no checkpoint"


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="the system's own means are Linux's")
def test_kill_9_leaves_none_of_several_processes_training(project, repository):
    """They would go on beside those of the next run."""
    folder, *_ = project
    process = start(project, repository, processes=2)
    deadline = time.monotonic() + 120
    while not list((folder / ".han_cache/checkpoints").glob("*.safetensors")):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.002)
    others = psutil.Process(process.pid).children(recursive=True)
    assert len(others) >= 3, "torchrun and two that train"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    _, alive = psutil.wait_procs(others, timeout=30)
    assert alive == []


@pytest.mark.long
def test_run_processes_starts_as_many_and_gives_the_same_model(project, repository):
    folder, _, (model, *_) = project
    alone = load(model)
    output = finished(start(project, repository, processes=2))
    assert "processes: 2, on cpu" in output
    assert output.count("train han, split 1, seed 1:") == 1, "only one process speaks"
    for name, values in load_file(folder / "models/toy/han/han-1-seed1.safetensors").items():
        # Sums in another order, over 240 steps of Adadelta.
        np.testing.assert_allclose(values, alone[name], rtol=0.02, atol=2e-3, err_msg=name)
