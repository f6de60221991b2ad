"""Steps that are captured once and replayed: without a GPU, a graph that does its work again stands for one."""

import logging

import pytest
import torch

from han_core.cubes.features import MemoryFeatures
from han_core.cubes.sparse import SparseCubes
from han_core.han import training
from han_core.han.captured import CudaGraphs, StepsOnDevice
from han_core.han.config import HANConfig
from han_core.han.model import HAN
from han_core.han.steps import Steps
from han_core.han.training import TrainingSchedule, classify, make_optimizer, train
from han_core.runs.checkpoint import Checkpoint
from han_core.runs.processes import Processes
from tests.stand_in_graphs import Graphs

STREAMS, CLIPS, REGIONS = ("spatial", "temporal"), 10, 9


def features():
    torch.manual_seed(1)
    shape = (2 * CLIPS, 3, 4, REGIONS)
    dense = {s: (torch.rand(shape) * (torch.rand(shape) < 0.4)).half() for s in STREAMS}
    arrays = {s: SparseCubes.from_dense(cubes) for s, cubes in dense.items()}
    return MemoryFeatures(arrays, torch.arange(CLIPS) % 2, ("", "mirrored"))


def trained(graphs, *, shift=True, epochs=3, device=None):
    """The weights, and the sums, after three epochs of a batch of 4, a batch of 4 and a batch of 2."""
    device = device or torch.device("cpu")
    torch.manual_seed(0)
    model = HAN(HANConfig(STREAMS, 2, 4, REGIONS, lstm_size=5, skip=2, dropout=0.3, region_dropout=0.2)).to(device)
    schedule = TrainingSchedule(batch=4, clip_gradient=1.0)
    steps = Steps(model, make_optimizer(model, schedule), schedule, Processes(device=device))
    on_device = StepsOnDevice(steps, features().to(device), graphs)
    draw = torch.Generator().manual_seed(3)
    for epoch in range(epochs):
        torch.manual_seed(epoch)
        order = torch.randperm(CLIPS, generator=draw) + CLIPS * torch.randint(2, (CLIPS,), generator=draw)
        offsets = torch.randint(-1, 2, (CLIPS, 2), generator=draw)
        steps.begin()
        for numbers, moves in zip(order.split(4), offsets.split(4), strict=True):
            on_device.take(numbers.to(device), moves.to(device) if shift else None, len(numbers))
    return {**model.state_dict(), "sums": steps.sums}


def same(one, other):
    return all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize("shift", [True, False])
def test_replayed_steps_are_those_that_are_launched_one_by_one(shift):
    graphs = Graphs()
    assert same(trained(None, shift=shift), trained(graphs, shift=shift))
    large, small = ["prepare", "capture", "replay"], ["prepare"]
    assert graphs.seen == [*large, *small, "replay", "replay", "capture", "replay", "replay", "replay", "replay"]
    assert not same(trained(None, shift=True), trained(None, shift=False))


def test_a_step_that_cannot_be_captured_is_launched_and_said_so_once(caplog):
    graphs = Graphs(able=False)
    with caplog.at_level(logging.WARNING):
        found = trained(graphs)
    assert same(found, trained(None))
    assert graphs.seen == ["prepare", "capture"]
    (record,) = caplog.records
    assert "could not be captured" in record.getMessage()
    assert "not permitted when stream is capturing" in record.getMessage()


def test_a_capture_that_fails_leaves_the_thread_and_the_dropout_as_they_were(monkeypatch):
    """As torch 2.11 leaves them: on the capturing stream, with a generator that refuses to be used."""
    seen = []

    class Generator:
        def clone_state(self):
            return "a copy"

        def graphsafe_set_state(self, state):
            seen.append(state)

    class Graph:
        def __init__(self, graph, *, stream):
            pass

        def __enter__(self):
            pass

        def __exit__(self, *_):
            raise RuntimeError("operation failed due to a previous error during capture")

    class Stream:
        device = torch.device("cuda", 1)

    monkeypatch.setattr("han_core.han.captured._stream", lambda device: Stream())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", list)
    monkeypatch.setattr(torch.cuda, "graph", Graph)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"of {device}")
    monkeypatch.setattr(torch.cuda, "set_stream", seen.append)
    monkeypatch.setattr(torch.cuda, "default_generators", (None, Generator()))
    with pytest.raises(RuntimeError, match="during capture"):
        CudaGraphs(torch.device("cuda")).captured(lambda: None)
    assert seen == ["of cuda:1", "a copy"]


class OneOfThree(Processes):
    """A process whose others say nothing; of the two clips of the last batch it has none."""

    def sum_gradients(self, parameters):
        pass

    def sum(self, *values):
        return values

    def barrier(self):
        pass


@pytest.mark.parametrize("processes", [Processes(), OneOfThree(2, 3)], ids=["alone", "one of three"])
def test_a_run_from_features_on_the_device_is_that_from_the_host(processes, monkeypatch):
    """Views, shifts and last batch; as on a GPU, but for the device."""
    schedule = TrainingSchedule(epochs=3, batch=4, shift=1, views=("mirrored",), seed=3)

    def run():
        torch.manual_seed(0)
        model, losses = HAN(HANConfig(STREAMS, 2, 4, REGIONS, lstm_size=5, skip=2, dropout=0.3)), []
        note = lambda epoch, pace: losses.append((epoch.loss, epoch.top1))  # noqa: E731
        train(model, features(), schedule, processes=processes, on_epoch=note)
        return model.state_dict(), losses

    host, losses = run()
    graphs = Graphs() if processes.size == 1 else None
    monkeypatch.setattr(training, "_steps_on_device", lambda steps, store, _: StepsOnDevice(steps, store, graphs))
    device, others = run()
    assert same(host, device)
    assert losses == others
    assert graphs is None or graphs.seen.count("replay") == 3 * 3 - 2


CHOICES = [
    {},
    {"optimizer": "adam", "learning_rate": 0.01, "shift": 1, "views": ("mirrored",)},
    {"optimizer": "sgd", "learning_rate": 0.1, "clip_gradient": 1.0, "attention_rate": 2.0, "weight_decay": 1e-3},
]


def on_gpu(gpu, choices, *, where="device", epochs=5, seed=0, **options):
    """The weights after some epochs of whole training runs, and the losses."""
    torch.manual_seed(seed)
    config = HANConfig(STREAMS, 2, 4, REGIONS, lstm_size=32, skip=2, dropout=0.3, region_dropout=0.2)
    model, losses = HAN(config), []
    store = features()
    store = store.to(gpu).with_across() if where == "device" else store
    schedule = TrainingSchedule(epochs=epochs, batch=4, seed=7, **choices)
    note = lambda epoch, pace: losses.append(epoch.loss)  # noqa: E731
    train(model, store, schedule, processes=Processes(device=gpu), on_epoch=note, **options)
    classify(model, store, device=gpu)
    return {**model.state_dict(), "losses": torch.tensor(losses)}


@pytest.fixture
def repeatable():
    """As stages train."""
    before = torch.get_deterministic_debug_mode()
    torch.set_deterministic_debug_mode("warn")
    yield
    torch.set_deterministic_debug_mode(before)


@pytest.mark.gpu
def test_on_a_gpu_a_step_that_cannot_be_captured_is_launched_with_the_same_dropout(gpu, monkeypatch, caplog):
    take = Steps.take

    def waits(self, *given):
        take(self, *given)
        self.sums.sum().item()

    monkeypatch.setattr(Steps, "take", waits)
    found = trained(CudaGraphs(gpu), device=gpu)
    assert [r for r in caplog.records if "could not be captured" in r.getMessage()]
    assert torch.cuda.current_stream(gpu) == torch.cuda.default_stream(gpu)
    assert same(found, trained(None, device=gpu))


@pytest.mark.gpu
@pytest.mark.usefixtures("repeatable")
@pytest.mark.parametrize("choices", CHOICES, ids=str)
def test_on_a_gpu_replayed_steps_are_those_that_are_launched_and_a_resumed_run_ends_alike(
    gpu, choices, tmp_path, monkeypatch, caplog
):
    replayed = on_gpu(gpu, choices)
    assert not [r for r in caplog.records if "captured" in r.getMessage()], "it was captured"
    assert same(replayed, on_gpu(gpu, choices)), "run after run"
    checkpoint = Checkpoint(tmp_path / "run.safetensors", seconds=0)
    on_gpu(gpu, choices, epochs=2, checkpoint=checkpoint)
    assert same(replayed, on_gpu(gpu, choices, seed=9, checkpoint=checkpoint)), "resumed"
    host = on_gpu(gpu, choices, where="host")
    for name, value in host.items():
        torch.testing.assert_close(value, replayed[name], rtol=2e-2, atol=2e-3, msg=lambda m, n=name: f"{n}: {m}")
    monkeypatch.setattr(training, "CudaGraphs", lambda device: None)
    assert same(replayed, on_gpu(gpu, choices)), "launched one by one"


@pytest.mark.gpu
def test_on_a_gpu_the_host_waits_for_nothing_within_a_step(gpu):
    torch.manual_seed(0)
    model = HAN(HANConfig(STREAMS, 2, 4, REGIONS, lstm_size=32, skip=2, region_dropout=0.2, stream_dropout=0.2)).to(gpu)
    schedule = TrainingSchedule(batch=4, clip_gradient=1.0)
    steps = Steps(model, make_optimizer(model, schedule), schedule, Processes(device=gpu))
    store = features().to(gpu).with_across()
    numbers, offsets = torch.arange(4, device=gpu), torch.ones(4, 2, dtype=torch.int64, device=gpu)
    on_device = StepsOnDevice(steps, store, CudaGraphs(gpu))
    for _ in range(3):
        on_device.take(numbers, offsets, 4)
    launched = StepsOnDevice(steps, store, None)
    torch.cuda.set_sync_debug_mode("error")
    try:
        on_device.take(numbers, offsets, 4)
        launched.take(numbers, offsets, 4)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert steps.sums.isfinite().all()
