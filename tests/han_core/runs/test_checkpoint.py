"""A run that stops and is restored takes the same steps as one that never stopped."""

import logging
from pathlib import Path

import pytest
import torch
from torch import nn

from han_core.runs import checkpoint as checkpoint_module
from han_core.runs.checkpoint import Checkpoint
from han_core.tensorfile.file import read_tensors, write_tensors
from tests.flips import flipped

OPTIMIZERS = {
    "adadelta": lambda p: torch.optim.Adadelta(p, lr=0.7, rho=0.95),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
}


def made(optimizer: str, seed: int = 0) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
    return model, OPTIMIZERS[optimizer](model.parameters())


def step(model: nn.Module, optimizer: torch.optim.Optimizer, number: int) -> None:
    torch.manual_seed(number)
    optimizer.zero_grad()
    model(torch.randn(8, 4)).square().sum().backward()
    optimizer.step()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_two_steps_equal_one_a_restore_and_one(name, tmp_path):
    whole, optimizer = made(name)
    step(whole, optimizer, 1)
    Checkpoint(tmp_path / "c.safetensors", seconds=0).save(whole, optimizer, {"step": 1, "loss": 0.1 + 0.2})
    step(whole, optimizer, 2)

    resumed, optimizer = made(name, seed=9)
    progress = Checkpoint(tmp_path / "c.safetensors").restore(resumed, optimizer)
    assert progress == {"step": 1, "loss": 0.1 + 0.2}
    step(resumed, optimizer, 2)
    for key, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key


def test_the_last_state_is_the_one_that_is_kept(tmp_path):
    model, optimizer = made("sgd")
    checkpoint = Checkpoint(tmp_path / "c.safetensors", seconds=0)
    for number in (1, 2):
        step(model, optimizer, number)
        checkpoint.save(model, optimizer, {"step": number})
    resumed, optimizer = made("sgd", seed=9)
    assert checkpoint.restore(resumed, optimizer) == {"step": 2}
    assert all(torch.equal(value, resumed.state_dict()[name]) for name, value in model.state_dict().items())


def test_saves_no_more_often_than_asked(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(checkpoint_module.time, "monotonic", lambda: now[0])
    model, optimizer = made("sgd")
    checkpoint = Checkpoint(tmp_path / "runs" / "c.safetensors", seconds=60)
    assert not checkpoint.save(model, optimizer, {})
    assert not checkpoint.path.exists()
    assert checkpoint.save(model, optimizer, {}, now=True)
    assert [path.name for path in checkpoint.path.parent.iterdir()] == ["c.safetensors"]
    saved = []
    for now[0] in (59, 61, 100, 120, 122):
        saved.append(checkpoint.save(model, optimizer, {}))
    assert saved == [False, True, False, False, True]
    checkpoint.discard()
    assert not checkpoint.path.exists()


def test_a_kill_while_it_is_written_leaves_the_state_before(tmp_path, monkeypatch):
    model, optimizer = made("sgd")
    checkpoint = Checkpoint(tmp_path / "c.safetensors", seconds=0)
    checkpoint.save(model, optimizer, {"step": 1})

    def half(path: Path, tensors: object, header: object) -> None:
        path.write_bytes(b"half a file")
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint_module, "write_tensors", half)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(model, optimizer, {"step": 2})
    assert checkpoint.restore(model, optimizer) == {"step": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["c.safetensors"]


def test_the_file_before_the_rename_is_the_one_that_is_asked_for(tmp_path, monkeypatch):
    model, optimizer = made("sgd")
    temporary, written = tmp_path / "tmp" / "half", []
    write = checkpoint_module.write_tensors
    monkeypatch.setattr(
        checkpoint_module, "write_tensors", lambda path, *rest: (written.append(path), write(path, *rest))
    )
    checkpoint = Checkpoint(tmp_path / "c.safetensors", seconds=0, temporary=temporary)
    checkpoint.save(model, optimizer, {"step": 1})
    assert written == [temporary]
    assert not temporary.exists()
    assert checkpoint.restore(model, optimizer) == {"step": 1}


def test_a_flipped_bit_is_told_or_changes_nothing(tmp_path, caplog):
    model, optimizer = made("adam")
    step(model, optimizer, 1)
    path = tmp_path / "c.safetensors"
    checkpoint = Checkpoint(path, seconds=0)
    checkpoint.save(model, optimizer, {"step": 1})
    kept = [value.clone() for value in model.state_dict().values()]
    other, other_optimizer = made("adam", seed=9)
    before = [value.clone() for value in other.state_dict().values()]
    told = 0
    for bit in flipped(path, 1500):
        caplog.clear()
        progress = checkpoint.restore(other, other_optimizer)
        found = list(other.state_dict().values())
        if progress is None:
            told += 1
            assert f"checkpoint {path} cannot be used" in caplog.text, bit
            assert "starts from the beginning" in caplog.text
            assert all(map(torch.equal, found, before)), bit
            assert not other_optimizer.state
        else:
            assert progress == {"step": 1}, bit
            assert all(map(torch.equal, found, kept)), bit
            other, other_optimizer = made("adam", seed=9)
    assert told > 1400


def no_step(tensors, header):
    for name in [name for name in tensors if name.endswith(".step")][:1]:
        del tensors[name]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t, h: h.pop("progress"), "progress"),
        (lambda t, h: h.update(progress="[1]"), "another kind of run"),
        (lambda t, h: h.update(progress="{"), "Expecting"),
        (lambda t, h: h.update(optimizer="[]"), "not a mapping"),
        (lambda t, h: h.update(optimizer='{"optimizer.0.step": "x"}'), "step is not one of weight number 0"),
        (lambda t, h: h.update(kind="SGD"), "another kind of run"),
        (lambda t, h: t.update({"optimizer.0.exp_avg": torch.zeros(9)}), "exp_avg is not one of weight number 0"),
        (lambda t, h: t.update({"optimizer.99.exp_avg": torch.zeros(9)}), "does not keep the same"),
        (lambda t, h: t.update({"optimizer.x.exp_avg": torch.zeros(9)}), "invalid literal"),
        (lambda t, h: t.update({"other.0.x": torch.zeros(9)}), "belongs to nothing"),
        (lambda t, h: t.update({"lone": torch.zeros(9)}), "unpack"),
        (lambda t, h: t.pop("model.0.bias"), "0.bias is not the model's"),
        (no_step, "does not keep the same"),
    ],
)
def test_a_checkpoint_made_to_do_harm_is_told_and_changes_nothing(change, words, tmp_path, caplog):
    model, optimizer = made("adam")
    step(model, optimizer, 1)
    path = tmp_path / "c.safetensors"
    checkpoint = Checkpoint(path, seconds=0)
    checkpoint.save(model, optimizer, {"step": 1})
    tensors, header = read_tensors(path)
    tensors = {name: value.clone() for name, value in tensors.items()}
    change(tensors, header)
    write_tensors(path, tensors, header)
    other, other_optimizer = made("adam", seed=9)
    before = [value.clone() for value in other.state_dict().values()]
    assert checkpoint.restore(other, other_optimizer) is None
    assert "starts from the beginning" in caplog.text
    assert words in caplog.text
    assert all(map(torch.equal, other.state_dict().values(), before))
    assert not other_optimizer.state


def test_what_cannot_be_used_is_told_and_changes_nothing(tmp_path, caplog):
    model, optimizer = made("sgd")
    path = tmp_path / "c.safetensors"
    checkpoint = Checkpoint(path, seconds=0)
    assert checkpoint.restore(model, optimizer) is None
    assert not caplog.records

    before = {name: value.clone() for name, value in model.state_dict().items()}
    wider = nn.Linear(4, 4)
    finer = made("sgd")[0].double()
    deeper = nn.Sequential(*made("sgd")[0], nn.Linear(2, 2))
    with caplog.at_level(logging.WARNING):
        for other in (wider, finer, deeper):
            Checkpoint(path, seconds=0).save(other, torch.optim.SGD(other.parameters(), lr=1), {})
            assert checkpoint.restore(model, optimizer) is None
        path.write_bytes(path.read_bytes()[:100])
        assert checkpoint.restore(model, optimizer) is None
    assert caplog.text.count("starts from the beginning") == 4
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
