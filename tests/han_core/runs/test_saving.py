"""Checkpoints that are written beside the steps."""

import threading

import pytest
import torch

from han_core.runs import checkpoint as checkpoint_module
from han_core.runs.checkpoint import Checkpoint
from han_core.runs.saving import SavedBeside
from tests.han_core.runs.test_checkpoint import made, step


class SlowDisk:
    """Writes nothing until it is told to."""

    def __init__(self, monkeypatch) -> None:
        self.go, self.begun = threading.Event(), threading.Event()
        write = checkpoint_module.write_tensors

        def slow(*of) -> None:
            self.begun.set()
            assert self.go.wait(20)
            write(*of)

        monkeypatch.setattr(checkpoint_module, "write_tensors", slow)


def restored(path) -> tuple[dict, torch.nn.Module]:
    model, optimizer = made("sgd", seed=9)
    return Checkpoint(path).restore(model, optimizer), model


def test_a_step_does_not_wait_for_the_disk_and_does_not_change_what_is_written(tmp_path, monkeypatch):
    """Nor does a kill while it is written take the one before."""
    path = tmp_path / "c.safetensors"
    model, optimizer = made("sgd")
    step(model, optimizer, 1)
    with SavedBeside(Checkpoint(path, seconds=0)) as saved:
        assert saved.save(model, optimizer, {"step": 1})
        saved.finish()
        disk = SlowDisk(monkeypatch)
        step(model, optimizer, 2)
        assert saved.save(model, optimizer, {"step": 2})
        assert disk.begun.wait(20)
        second = {name: value.clone() for name, value in model.state_dict().items()}
        step(model, optimizer, 3)
        assert restored(path)[0] == {"step": 1}, "what a kill would leave"
        disk.go.set()
    progress, model = restored(path)
    assert progress == {"step": 2}
    assert all(torch.equal(value, second[name]) for name, value in model.state_dict().items())


def test_while_one_is_written_no_other_is_begun(tmp_path, monkeypatch):
    disk = SlowDisk(monkeypatch)
    now = [100.0]
    monkeypatch.setattr(checkpoint_module.time, "monotonic", lambda: now[0])
    model, optimizer = made("sgd")
    with SavedBeside(Checkpoint(tmp_path / "c.safetensors", seconds=60)) as saved:
        assert not saved.save(model, optimizer, {})
        now[0] += 60
        assert saved.save(model, optimizer, {"step": 1})
        now[0] += 60
        assert not saved.save(model, optimizer, {"step": 2}), "the disk takes longer than a minute"
        disk.go.set()
    assert restored(tmp_path / "c.safetensors")[0] == {"step": 1}


def test_a_disk_that_takes_nothing_is_told_at_the_next_save_or_at_the_end(tmp_path, monkeypatch):
    def full(*_) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint_module, "write_tensors", full)
    model, optimizer = made("sgd")
    with pytest.raises(OSError, match="No space"), SavedBeside(Checkpoint(tmp_path / "c", seconds=0)) as saved:
        saved.save(model, optimizer, {})
    with SavedBeside(Checkpoint(tmp_path / "c", seconds=0)) as saved:
        saved.save(model, optimizer, {})
        with pytest.raises(OSError, match="No space"):
            saved.save(model, optimizer, {})
    saved = SavedBeside(Checkpoint(tmp_path / "c", seconds=0))
    saved.save(model, optimizer, {})
    saved.__exit__(KeyError, KeyError("what went wrong before is what is told"), None)


def test_without_a_checkpoint_nothing_is_saved():
    with SavedBeside(None) as saved:
        assert not saved.save(*made("sgd"), {})


@pytest.mark.gpu
def test_from_a_gpu(gpu, tmp_path):
    path = tmp_path / "c.safetensors"
    model, optimizer = made("sgd")
    model.to(gpu)
    kept = {}
    with SavedBeside(Checkpoint(path, seconds=0)) as saved:
        for number in range(1, 4):
            torch.manual_seed(number)
            optimizer.zero_grad()
            model(torch.randn(8, 4, device=gpu)).square().sum().backward()
            optimizer.step()
            saved.save(model, optimizer, {"step": number})
            kept = {name: value.cpu() for name, value in model.state_dict().items()}
    progress, model = restored(path)
    assert progress == {"step": 3}
    assert all(torch.equal(value, kept[name]) for name, value in model.state_dict().items())
