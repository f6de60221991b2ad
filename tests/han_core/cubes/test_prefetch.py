"""Batches on their way: what of them is moved, and what counts as waiting for them."""

import threading

import pytest
import torch

from han_core.cubes.features import MemoryFeatures
from han_core.cubes.prefetch import AHEAD, Prefetched, Work
from han_core.cubes.sparse import SparseCubes

CLIPS, FRAMES, CHANNELS, REGIONS = 12, 3, 4, 9
GPU = torch.device("meta")
"""Stands for a GPU: another device, with no kernels."""


def features():
    torch.manual_seed(0)
    shape = (CLIPS, FRAMES, CHANNELS, REGIONS)
    dense = (torch.rand(shape) * (torch.rand(shape) < 0.3)).half()
    arrays = {"spatial": SparseCubes.from_dense(dense), "temporal": dense}
    return MemoryFeatures(arrays, torch.arange(CLIPS) % 5), dense


def test_of_a_store_in_memory_a_batch_takes_along_its_own_clips_alone():
    store, dense = features()
    ((values, labels),) = Prefetched(store, [[7, 2]], GPU)
    moved = values["spatial"]
    assert moved.device == GPU
    assert moved.bytes == SparseCubes.from_dense(dense[[7, 2]]).bytes
    assert moved.shape == values["temporal"].shape == (2, FRAMES, CHANNELS, REGIONS)
    assert (labels.device, labels.shape) == (GPU, (2,))


def test_a_whole_store_is_moved_as_it_is():
    store, _ = features()
    assert store.to(GPU).arrays["spatial"].bytes == store.arrays["spatial"].bytes


def test_what_goes_to_a_gpu_beside_the_work_goes_through_pinned_memory(monkeypatch):
    store, asked = features()[0].arrays["spatial"], []
    monkeypatch.setattr(SparseCubes, "gathered", lambda self, pin=False: asked.append(pin) or self)
    monkeypatch.setattr(SparseCubes, "_moved", lambda self, device, non_blocking: self)
    gpu = torch.device("cuda")
    for cubes in (store, store.select([3, 1])):
        cubes.to(gpu, non_blocking=True)
    assert asked == [True, True]
    for cubes in (store, store.select([3, 1])):
        cubes.to(gpu)
    assert asked == [True, True, False], "a whole store is not copied once more"


def test_clips_that_are_gathered_are_those_that_were_chosen():
    store, dense = features()
    for chosen in ([7, 2], [3, 3, 0], list(range(CLIPS))):
        alone = store.arrays["spatial"].select(chosen).gathered()
        assert torch.equal(alone.dense(torch.float16), dense[chosen])
        assert torch.equal(alone.dense(), dense[chosen].float())
        weights = torch.rand(len(chosen), REGIONS)
        glimpse = torch.einsum("bdr,br->bd", dense[chosen][:, 2].float(), weights)
        torch.testing.assert_close(alone.glimpse(2, weights), glimpse)
    part = store.subset([5, 1, 8])
    assert part.to(GPU).arrays["spatial"].bytes < store.arrays["spatial"].bytes / 3


class Clock:
    """Nobody but the features below moves it."""

    def __init__(self):
        self.now, self.looked_at = 0.0, threading.Event()

    def __call__(self):
        now = self.now
        self.looked_at.set()
        return now


class Slow:
    """Features whose batch comes, 5 s later, once the loop waits for it."""

    def __init__(self, clock):
        self.labels, self.views, self.clock = torch.arange(CLIPS), ("",), clock

    def batch(self, indices):
        assert self.clock.looked_at.wait(10)
        self.clock.now += 5
        return {"spatial": torch.zeros(len(indices), 1, 1, 1)}


class Device(Work):
    """Works by itself, whatever the host does, until the clock says ``until``."""

    def __init__(self, clock, until):
        self.clock, self.until, self.limits = clock, until, []

    def mark(self):
        if self.going_on():
            self.clock.looked_at.set()

    def going_on(self):
        return self.clock.now < self.until

    def keep_to(self, batches):
        self.limits.append(batches)


@pytest.mark.parametrize(("work_left", "waited"), [(100, 0), (0, 5)])
def test_waiting_for_data_is_only_what_leaves_the_device_idle(work_left, waited):
    """The loop waits 5 s for the batch both times. A GPU that has 100 s of work left does not."""
    clock = Clock()
    device = Device(clock, work_left)
    with Prefetched(Slow(clock), [[0]], work=device, clock=clock) as data:
        next(data)
    assert data.waited == waited
    assert device.limits == [AHEAD]


def test_batches_come_in_order_and_an_error_where_it_belongs():
    store, dense = features()

    class Broken(MemoryFeatures):
        def batch(self, indices):
            if 9 in indices:
                raise ValueError("clip 9 is damaged")
            return super().batch(indices)

    data = Prefetched(Broken(store.arrays, store.labels), [[1], [4, 2], [9]], GPU)
    assert [len(next(data)[1]) for _ in range(2)] == [1, 2]
    with pytest.raises(ValueError, match="clip 9"):
        next(data)
    assert [t.name for t in threading.enumerate() if t.name.startswith("batches")]
    data.close()
    assert not [t.name for t in threading.enumerate() if t.name.startswith("batches")]
    at_once = Prefetched(store, [[1], [4, 2]])
    for (values, labels), chosen in zip(at_once, ([1], [4, 2]), strict=True):
        assert torch.equal(values["temporal"], dense[chosen])
        assert labels.tolist() == [n % 5 for n in chosen]
