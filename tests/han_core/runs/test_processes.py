"""Sums over real processes, joined by gloo."""

import os

import pytest
import torch
import torch.multiprocessing
from torch import nn

from han_core.devices import DeviceError
from han_core.runs.processes import Processes, ProcessLost, processes


def test_alone_nothing_is_summed(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with processes(torch.device("cpu")) as me:
        assert (me.rank, me.size, me.main) == (0, 1, True)
        assert me.sum(1.5, 2) == (1.5, 2)
        me.barrier()


def test_a_process_without_a_gpu_of_its_own_says_so(monkeypatch):
    for name, value in {"RANK": 2, "WORLD_SIZE": 3, "LOCAL_RANK": 2, "LOCAL_WORLD_SIZE": 3}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    told = r"3 processes .* but torch sees 2 here; lower run\.processes"
    with pytest.raises(DeviceError, match=told), processes(torch.device("cuda")):
        pass


def test_shares_are_consecutive_and_cover_all():
    rows = torch.arange(8)
    parts = [Processes(rank, 3).share(rows) for rank in range(3)]
    assert [len(part) for part in parts] == [3, 3, 2]
    assert torch.equal(torch.cat(parts), rows)


def _member(rank: int, port: int, folder: str) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    with processes(torch.device("cpu")) as me:
        model = nn.Linear(3, 2)
        model.weight.grad = torch.full((2, 3), float(rank + 1))
        model.bias.grad = torch.tensor([float(rank), 10.0])
        large = nn.Parameter(torch.zeros(1024, 1100))  # summed where it lies
        large.grad = torch.arange(large.numel(), dtype=torch.float32).view_as(large) * (rank + 1)
        turned = nn.Parameter(torch.zeros(1100, 1024))  # as large, but not in one piece as it is read
        turned.grad = large.grad.T.clone(memory_format=torch.preserve_format)
        frozen = nn.Parameter(torch.zeros(3))
        me.sum_gradients([large, model.weight, frozen, turned, model.bias])
        found = {"weight": model.weight.grad, "bias": model.bias.grad, "large": large.grad, "turned": turned.grad}
        torch.save({**found, "sum": me.sum(rank, 0.1)}, f"{folder}/{rank}")


def test_two_processes_sum_gradients_and_numbers(tmp_path, free_port):
    torch.multiprocessing.spawn(_member, (free_port, str(tmp_path)), nprocs=2)
    for rank in range(2):
        found = torch.load(tmp_path / str(rank))
        assert torch.equal(found["weight"], torch.full((2, 3), 3.0))
        assert torch.equal(found["bias"], torch.tensor([1.0, 20.0]))
        expected = torch.arange(1024 * 1100, dtype=torch.float32).view(1024, 1100)
        assert torch.equal(found["large"], expected + 2 * expected)
        assert torch.equal(found["turned"], (expected + 2 * expected).T)
        assert found["sum"] == (1.0, 0.2)


def _left_alone(rank: int, port: int, folder: str) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    with processes(torch.device("cpu")) as me:
        me.barrier()
        if rank == 1:
            os._exit(0)
        layer = nn.Linear(2, 1)
        layer.weight.grad = torch.ones(1, 2)
        for number, call in enumerate((me.barrier, lambda: me.sum(1), lambda: me.sum_gradients(layer.parameters()))):
            try:
                call()
            except ProcessLost as error:
                with open(f"{folder}/{number}", "w") as file:
                    file.write(str(error))


def test_a_process_whose_partner_ends_says_so(tmp_path, free_port):
    torch.multiprocessing.spawn(_left_alone, (free_port, str(tmp_path)), nprocs=2)
    for number in range(3):
        assert "another process that trains with this one has ended" in (tmp_path / str(number)).read_text()
