"""Where a store is put, by its size and by how many processes of the machine put theirs beside it."""

import pytest
import torch

from han_core.cubes import placement
from han_core.cubes.placement import placed
from han_core.cubes.store import CubeStoreError

CPU, GPU = torch.device("cpu"), torch.device("meta")


class Store:
    """A store of 10 GB."""

    bytes_in_memory, bytes_across = 10 * 10**9, 13 * 10**9

    def __init__(self):
        self.loaded = []

    def load(self, device=None):
        self.loaded.append(device)
        return "loaded"


@pytest.fixture
def machine(monkeypatch):
    """A machine of 64 GB."""
    monkeypatch.setattr(placement, "memory_of_machine", lambda: 64 * 10**9)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    return lambda processes: monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))


@pytest.mark.parametrize(("processes", "place"), [(1, "memory"), (3, "memory"), (4, "stream")])
def test_what_fits_is_what_fits_for_all_processes(machine, processes, place):
    machine(processes)
    assert placed(Store(), "auto", CPU)[1] == place


def test_memory_that_is_asked_for_and_not_there_is_a_plain_error(machine):
    machine(6)
    assert placed(Store(), "memory", CPU) == ("loaded", "memory")
    machine(7)
    with pytest.raises(CubeStoreError, match=r"takes 70\.0 GB \(7 processes with 10\.0 GB .* has 64\.0 GB; .* stream"):
        placed(Store(), "memory", CPU)
    machine(1)
    with pytest.raises(CubeStoreError, match="stream"):
        placed(Store(), "memory", CPU, beside=60 * 10**9)
    assert placed(Store(), "auto", CPU, beside=60 * 10**9)[1] == "stream"


def test_a_gpu_is_filled_without_a_copy_in_the_memory_of_the_machine(machine):
    machine(8)
    store = Store()
    assert placed(store, "device", GPU)[1] == "device"
    assert store.loaded == [GPU]


def test_a_container_may_have_less_memory_than_its_machine(monkeypatch):
    class Limits:
        texts = {"/sys/fs/cgroup/memory.max": "12345\n"}  # noqa: RUF012

        def __init__(self, path):
            self.path = path

        def read_text(self, encoding):
            if self.path not in self.texts:
                raise FileNotFoundError
            return self.texts[self.path]

    monkeypatch.setattr(placement, "Path", Limits)
    assert placement.memory_of_machine() == 12345
    Limits.texts = {"/sys/fs/cgroup/memory.max": "max\n"}
    assert placement.memory_of_machine() > 10**8
