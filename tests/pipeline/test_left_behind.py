"""What earlier params made and today's do not ask for leaves the folders that stages depend on as a whole."""

import shutil
from pathlib import Path

import pytest
import yaml

from pipeline.left_behind import remove_left_behind
from pipeline.params import load_params

KEPT = (
    "data/synthetic/predictions/han-1-seed1/han.safetensors",
    "data/synthetic/predictions/linear-1/linear.safetensors",
    "data/synthetic/predictions/notes.txt",  # a person's
    "data/synthetic/cubes/spatial-2/jump/a.h5",  # nor on this one
    "metrics/synthetic/store/spatial-1.json",
    "metrics/synthetic/summary.json",
    "metrics/other/store/spatial-2.json",
    "data/other/predictions/spatial-1-seed1/spatial.safetensors",
    "models/synthetic/han/spatial-1-seed1.safetensors",  # no stage depends on this folder
    "plots/synthetic/per_class.csv",
    "plots/synthetic/confusion/han.csv",
    "plots/synthetic/train/han-1-seed1/plots/metrics/loss.tsv",
)
REMOVED = (
    "data/synthetic/predictions/spatial-1-seed1/spatial.safetensors",  # out of models
    "data/synthetic/predictions/han-1-seed2/han.safetensors",  # out of train.seeds
    "data/synthetic/predictions/tdd-1/tdd.safetensors",  # out of tdd.splits
    "data/synthetic/predictions/linear-2/linear.safetensors",  # out of splits
    "metrics/synthetic/store/spatial-2.json",
    "plots/synthetic/train/spatial-1-seed1/metrics.json",
    "plots/synthetic/train/spatial-1-seed1/plots/metrics/loss.tsv",
    "plots/synthetic/finetune/spatial-2/metrics.json",
)


@pytest.fixture
def params(repository, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(repository / "dvc.yaml", "dvc.yaml")
    params = yaml.safe_load((repository / "params.yaml").read_text(encoding="utf-8"))
    params["models"] = ["han"]
    Path("params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    for name in (*KEPT, *REMOVED):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text("\n")
    return load_params()


def test_outputs_that_nobody_asks_for_are_removed_and_said(params, capsys):
    remove_left_behind(params)
    assert [name for name in KEPT if not Path(name).exists()] == []
    assert [name for name in REMOVED if Path(name).exists()] == []
    assert (
        "removed data/synthetic/predictions/spatial-1-seed1: these params do not ask for it" in capsys.readouterr().out
    )
    assert not Path("plots/synthetic/train/spatial-1-seed1").exists(), "empty folders go, too"
    remove_left_behind(params)
    assert capsys.readouterr().out == ""


def test_a_folder_without_a_pipeline_has_none(params):
    Path("dvc.yaml").unlink()
    remove_left_behind(params)
    assert all(Path(name).exists() for name in REMOVED)
