"""What computes runs on a machine that has little more than PyTorch: stages from flow to evaluation are run by
``python -m pipeline.<stage>`` there, without DVC, PyAV, hdf5plugin or anything that only draws."""

import os
import re
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from pipeline import baselines, classify, train, two_stream
from pipeline.evaluate import __main__ as evaluate
from tests.only_han import only_han
from tests.pipeline.toy_store import FRAMES, write_store

ABSENT = ("av", "boto3", "distributed", "dvc", "dvclive", "hdf5plugin", "playwright", "scmrepo")
NEED_VIDEO = {"pipeline.prepare", "pipeline.decode", "pipeline.report"}
"""Stages that read or write videos, by PyAV."""
WITHOUT = f"""
import sys
from importlib.metadata import PackageNotFoundError
import importlib.metadata as metadata

ABSENT = {ABSENT!r}
sys.modules |= dict.fromkeys(ABSENT)  # to import one is a ModuleNotFoundError
real = metadata.version

def version(name):
    if name in ABSENT:
        raise PackageNotFoundError(name)
    return real(name)

metadata.version = version
"""
WRITE = """
import numpy as np
from pathlib import Path
from han_core.cubes.cubefile import write_cubes

cube = np.maximum(np.random.default_rng(0).standard_normal((3, 8, 14, 14)), 0).astype(np.float16)
fc7 = np.arange(12, dtype=np.float16).reshape(3, 4)
facts = {"clip": "c", "fingerprint": "0" * 64, "layer": "conv5_3", "fc": "fc7", "attributes": {}}
write_cubes(Path("c.h5"), frames=np.arange(3, dtype=np.int32), values={"conv5_3": cube, "fc7": fc7}, **facts)
np.save("cube.npy", cube)
"""


def run(script: str, folder: Path, repository: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    command = [sys.executable, "-c", WITHOUT + script]
    found = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr


def test_stages_are_imported_without_what_they_do_not_need(repository, tmp_path):
    stages = set(re.findall(r"python -m (pipeline\.\w+)", (repository / "dvc.yaml").read_text(encoding="utf-8")))
    assert stages > NEED_VIDEO
    run("".join(f"import {stage}\n" for stage in sorted(stages - NEED_VIDEO)), tmp_path, repository)


def test_a_cube_written_without_hdf5plugin_is_read_by_hdf5_with_it(repository, tmp_path):
    import hdf5plugin  # noqa: F401 (its filters)

    run(WRITE, tmp_path, repository)
    with h5py.File(tmp_path / "c.h5") as file:
        assert file["fc7"][:].tolist() == np.arange(12).reshape(3, 4).tolist()
        values, columns, counts = (file[f"cubes/{name}"][:] for name in ("values", "columns", "counts"))
    cube = np.load(tmp_path / "cube.npy")
    assert int(counts.sum()) == len(values) == len(columns) == np.count_nonzero(cube)
    assert np.array_equal(values, cube[cube != 0])


@pytest.fixture
def few_packages(monkeypatch):
    """In this process: what was imported before stays, what is imported when it is needed is not found."""
    for name in ABSENT:
        monkeypatch.setitem(sys.modules, name, None)


@pytest.mark.usefixtures("small_training_images", "small_nets", "few_packages")
def test_the_nets_are_trained_and_cubes_made(nets_project):
    for stage in ("finetune", "cubes", "scores"):
        nets_project.ok(stage)


@pytest.mark.usefixtures("few_packages")
def test_han_is_trained_and_evaluated(repository, monkeypatch, tmp_path):
    params = only_han(yaml.safe_load((repository / "params.yaml").read_text(encoding="utf-8")))
    params |= {"synthetic": None, "splits": [1], "models": ["han"]}
    params["finetune"]["splits"] = [1]
    params["dataset"].update(name="toy", kind="folder", root="videos", generate=[])
    params["cubes"].update(nets="toy", frames=FRAMES)
    params["train"].update(seeds=[1], lstm_size=8, epochs=2, batch=8)
    params["evaluate"] = {"baselines": ["linear"], "fusion": [1, 3]}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    write_store(tmp_path)
    monkeypatch.chdir(tmp_path)
    han = ["--model", "han", "--split", "1", "--seed", "1"]
    nets, linear = ["--split", "1"], ["--baseline", "linear", "--split", "1"]
    for stage, options in ((train, han), (classify, han), (two_stream, nets), (baselines, linear), (evaluate, [])):
        ran = CliRunner().invoke(stage.main, options)
        assert ran.exit_code == 0, (ran.output, ran.exception)
