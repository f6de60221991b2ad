"""What a machine lacks is told before any work, all at once."""

import socket
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.numpy import save_file

from han_core.tensorfile.file import write_tensors
from pipeline import environment
from pipeline.check import CHECKS
from pipeline.params import Params


@pytest.fixture
def values(repository, tmp_path, monkeypatch):
    """Params of a dataset of one's own that is there, with random weights."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HTTPS_PROXY", raising=False)
    monkeypatch.delenv("https_proxy", raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    Path("videos").mkdir()
    found = yaml.safe_load((repository / "params.yaml").read_text(encoding="utf-8"))
    found["dataset"].update(name="mine", kind="folder", root="videos", generate=[])
    found["cubes"]["nets"] = "mine"
    return found


def problems(values):
    params = Params.model_validate(_tuples(values))
    return [problem for check in CHECKS for problem in check(params)]


def _tuples(value):
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def unreachable(*arguments, **more):
    raise OSError("no route")


def test_nothing_is_told_where_all_is_there(values):
    assert problems(values) == []


def test_all_that_is_missing_comes_at_once(values, monkeypatch):
    monkeypatch.setattr(socket, "create_connection", unreachable)
    Path("lists").touch()
    values["dataset"].update(root="nowhere", annotations="lists", kind="ucf101")
    values["finetune"]["spatial"] = {**values["finetune"]["spatial"], "weights": "vgg.safetensors"}
    values["finetune"]["temporal"] = {**values["finetune"]["temporal"], "weights": "imagenet"}
    values["train"]["start"] = "other/{model}.safetensors"
    values["models"] = ["han", "temporal"]
    values["run"]["device"] = "cuda"
    values["flow"]["backend"] = "cuda"
    told = problems(values)
    monkeypatch.setattr("han_core.devices.gpus", lambda: 0)
    keys = [problem.partition(":")[0] for problem in problems(values)]
    assert keys == [
        "dataset.root",
        "dataset.annotations",
        "finetune.spatial.weights",
        "train.start",
        "train.start",
        "finetune.temporal.weights",
        "run.device",
        *(["flow.backend"] if any(p.startswith("flow.backend") for p in told) else []),
    ]
    assert told[0] == "dataset.root: nowhere does not exist; put the data there or correct the params file"
    assert "lists is not a folder" in told[1]
    assert "other/temporal.safetensors does not exist" in told[4]
    assert f"cannot be reached; copy vgg16-397923af.pth into {Path('torch').absolute()}/hub/checkpoints" in told[5]


def test_weights_that_were_downloaded_before_need_no_network(values, monkeypatch):
    monkeypatch.setattr(socket, "create_connection", unreachable)
    for stream in ("spatial", "temporal"):
        values["finetune"][stream] = {**values["finetune"][stream], "weights": "imagenet"}
    (told,) = problems(values)
    assert told.startswith("finetune.spatial.weights, finetune.temporal.weights: imagenet has to be downloaded")
    checkpoints = environment._checkpoints()
    checkpoints.mkdir(parents=True)
    (checkpoints / "vgg16-397923af.pth").touch()
    assert problems(values) == []


def test_torch_would_look_in_the_same_place(values, monkeypatch):
    import torch

    assert Path(torch.hub.get_dir()) / "checkpoints" == environment._checkpoints()
    monkeypatch.delenv("TORCH_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert Path(torch.hub.get_dir()) / "checkpoints" == environment._checkpoints()


def test_nets_of_another_dataset_need_no_weights_here(values):
    values["finetune"]["splits"] = []
    values["cubes"]["nets"] = "ucf101"
    values["finetune"]["spatial"] = {**values["finetune"]["spatial"], "weights": "gone.safetensors"}
    assert problems(values) == []


def test_a_list_is_a_file_and_its_base_a_folder(values):
    values["dataset"].update(kind="list", root="videos", base="nowhere")
    assert problems(values) == [
        "dataset.root: videos is not a file; put the data there or correct the params file",
        "dataset.base: nowhere does not exist; put the data there or correct the params file",
    ]
    Path("list.csv").touch()
    values["dataset"].update(root="list.csv", base="videos")
    assert problems(values) == []


def test_a_file_that_is_no_safetensors_file_is_told_before_any_work(values):
    Path("params.yaml").write_text("seed: 1\n" * 9)
    Path("folder").mkdir()
    for stream, weights in (("spatial", "params.yaml"), ("temporal", "folder")):
        values["finetune"][stream] = {**values["finetune"][stream], "weights": weights}
    values["slow_fusion"]["splits"] = values["splits"]
    values["slow_fusion"]["train"] = {**values["slow_fusion"]["train"], "weights": "params.yaml"}
    values["train"]["start"] = "params.yaml"
    told = problems(values)
    assert [problem.partition(":")[0] for problem in told] == [
        "finetune.spatial.weights", "finetune.temporal.weights", "slow_fusion.train.weights", "train.start"
    ]  # fmt: skip
    assert "params.yaml: is not a safetensors file, or is damaged" in told[0]
    assert (
        told[1]
        == "finetune.temporal.weights: folder is not a file; name a safetensors file, or take imagenet or random"
    )
    assert "params.yaml: is not a safetensors file, or is damaged" in told[3]
    assert told[3].endswith("; name a trained HAN, or null")


def test_weights_of_elsewhere_have_no_seal_and_a_trained_han_has(values):
    save_file({"x": np.zeros(2, np.float32)}, "other.safetensors")
    write_tensors("ours.safetensors", {"x": np.zeros(2, np.float32)}, {})
    values["finetune"]["spatial"] = {**values["finetune"]["spatial"], "weights": "other.safetensors"}
    values["train"]["start"] = "ours.safetensors"
    assert problems(values) == []
    values["train"]["start"] = "other.safetensors"
    (told,) = problems(values)
    assert told.startswith("train.start: other.safetensors: carries no checksum")


@pytest.mark.parametrize(("processes", "device", "told"), [(3, "auto", True), (2, "auto", False), (3, "cpu", False)])
def test_more_training_processes_than_gpus_are_told(values, monkeypatch, processes, device, told):
    monkeypatch.setattr("han_core.devices.gpus", lambda: 2)
    values["run"].update(processes=processes, device=device)
    found = problems(values)
    assert [problem.partition(":")[0] for problem in found] == ["run.processes"] * told
    assert not told or "3 processes cannot train on 2 GPUs" in found[0]
