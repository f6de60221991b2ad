"""A step of HAN on fake CUDA tensors: the host waits for nothing, and asks the GPU for as much as is written here."""

from collections import Counter

import pytest
import torch

pytest.importorskip("triton")

from han_core.cubes import sparse_cuda
from han_core.cubes.features import MemoryFeatures
from han_core.cubes.shift import shifted
from han_core.cubes.sparse import SparseCubes
from han_core.han import adadelta, step_kernels, training
from han_core.han.config import HANConfig
from han_core.han.model import HAN
from han_core.han.steps import Steps
from han_core.han.training import TrainingSchedule, make_optimizer
from han_core.runs.processes import Processes
from tests.fake_cuda import Watch, fake_cuda
from tests.stubbed_kernels import stubbed

STREAMS, CLIPS, FRAMES, CHANNELS, REGIONS, SIZE = ("spatial", "temporal"), 9, 25, 16, 196, 8
GPU = torch.device("cuda")


def cubes(frames=FRAMES, *, across=True):
    """Sparse cubes on a fake GPU."""
    rows = SparseCubes.empty(CLIPS, frames, CHANNELS, REGIONS, 1000, device=GPU)
    if not across:
        return rows
    columns = SparseCubes.empty(CLIPS, frames, REGIONS, CHANNELS, 1000, device=GPU)
    return SparseCubes(rows.counts, rows.columns, rows.values, rows.starts, rows.clips, REGIONS, columns)


def model(**changes):
    with GPU:
        made = HAN(HANConfig(STREAMS, 5, CHANNELS, REGIONS, lstm_size=SIZE, skip=5, **changes))
    return made.train()


def backward(output: torch.Tensor, launches: Counter) -> Counter:
    """Call the backward passes of the project's own operations; torch refuses to go back through fake CUDA tensors.
    Returns the kernels that they launched."""
    before = launches.copy()
    seen, nodes = set(), [output.grad_fn]
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "_forward_cls"):
            shapes = [torch.empty(shape, device=GPU) for shape in _outputs(node)]
            node._forward_cls.backward(node, *shapes)
        nodes += [following for following, _ in node.next_functions]
    return launches - before


def _outputs(node) -> list[tuple[int, ...]]:
    """Shapes of what the operation gave."""
    if node.name().startswith("LSTMs"):
        gates, cells = node.saved_tensors[3], node.saved_tensors[4]
        return [(*gates.shape[:3], cells.shape[3])]
    joint, maps = node.saved_tensors[2], node.saved_tensors[3]
    return [tuple(maps.shape), (joint.shape[0] - 1, *joint.shape[1:])]


def launched(watch: Watch) -> int:
    """Launches of torch's own operations; ``new_empty`` is none."""
    return sum(count for name, count in watch.launches.items() if name != "aten::new_empty")


FORWARD, BACKWARD, OPTIMIZER = 127, 71, 9
"""Launches of torch's operations: matrix products, softmaxes, dropout, and what prepares and ends the sequences; and
all that follow the gradients. What torch launches between the project's own backward passes is not counted."""


def test_a_step_never_waits_and_launches_so_much():
    """T = 25 frames, k = 5, two streams, dropout, Adadelta with clipped gradients."""
    with stubbed(sparse_cuda, step_kernels, adadelta) as launches, fake_cuda() as watch:
        han = model(dropout=0.5)
        store = MemoryFeatures({s: cubes() for s in STREAMS}, torch.arange(CLIPS) % 5)
        numbers = torch.arange(4, device=GPU)
        labels = torch.zeros(4, dtype=torch.int64, device=GPU)
        watch.launches.clear()
        output = han.learn(store.batch(numbers), labels)
        forward = launches.copy(), launched(watch)
        back = backward(output.loss, launches), launched(watch) - forward[1]
        launches.clear()
        finish(han, TrainingSchedule(clip_gradient=1.0), watch)
    weights = len(list(han.parameters()))
    assert launches == {"adadelta_kernel": 2 * weights}, "of two steps; the first one makes the state"
    assert watch.waits == []
    # Of 25 frames of the first layer and 5 of the second; two streams share each step.
    assert forward[0] == {"glimpse_kernel": 50, "step_kernel": 25 + 5}
    assert back[0] == {"regions_kernel": 50, "step_gradient_kernel": 25 + 5, "softmax_gradient_kernel": 25}
    assert (forward[1], back[1], launched(watch)) == (FORWARD, BACKWARD, OPTIMIZER)


def finish(han: HAN, schedule: TrainingSchedule, watch: Watch) -> None:
    """What follows the gradients, for the second time: the first one makes the optimiser's state."""
    optimizer = make_optimizer(han, schedule)
    steps = Steps(han, optimizer, schedule, Processes(device=GPU))
    for parameter in han.parameters():
        parameter.grad = torch.empty_like(parameter)
    optimizer.step()
    watch.launches.clear()
    steps._finish()


OPTIONS = [
    ({"region_dropout": 0.3, "stream_dropout": 0.3, "initial_state": "mean"}, True),
    ({"layers": 3}, False),
    ({"attention": "uniform", "region_dropout": 0.3}, True),
    ({"attention": "content"}, True),
]


@pytest.mark.parametrize(("options", "across"), OPTIONS, ids=str)
def test_nor_does_it_wait_with_other_options_and_shifted_cubes(options, across):
    with stubbed(sparse_cuda, step_kernels) as launches, fake_cuda() as watch:
        han = model(**options)
        store = MemoryFeatures({s: cubes(6, across=across) for s in STREAMS}, torch.arange(CLIPS) % 5)
        offsets = torch.zeros(4, 2, dtype=torch.int64, device=GPU)
        batch = {s: shifted(values, offsets) for s, values in store.batch(torch.arange(4, device=GPU)).items()}
        output = han.learn(batch, torch.zeros(4, dtype=torch.int64, device=GPU))
        backward(output.loss, launches)
    assert watch.waits == []


@pytest.mark.parametrize("optimizer", ["adadelta", "adam", "sgd"])
def test_no_optimizer_waits(optimizer):
    with stubbed(adadelta), fake_cuda() as watch:
        finish(model(), TrainingSchedule(optimizer=optimizer, clip_gradient=1.0, attention_rate=2.0), watch)
    assert watch.waits == []


def test_a_batch_out_of_the_memory_of_the_host_is_not_taken_for_one_on_the_gpu():
    with stubbed(sparse_cuda, step_kernels), fake_cuda():
        han = model()
        rows = SparseCubes.empty(CLIPS, 2, CHANNELS, REGIONS, 1000)
        labels = torch.zeros(CLIPS, dtype=torch.int64)
        with pytest.raises(ValueError, match="spatial cubes are on cpu and the model is on cuda"):
            han.learn(dict.fromkeys(STREAMS, rows), labels.to(GPU))
        with pytest.raises(Exception, match="device"):
            han.learn({s: cubes(2) for s in STREAMS}, labels)
        mixed = SparseCubes(
            *(getattr(cubes(2), n) for n in ("counts", "columns", "values", "starts")), rows.clips, REGIONS
        )
        with pytest.raises(AssertionError, match="glimpse_kernel is given a tensor on cpu"):
            han.learn(dict.fromkeys(STREAMS, mixed), labels.to(GPU))


@pytest.mark.parametrize(("where", "processes", "captured"), [("cuda", 1, True), ("cuda", 2, False), ("cpu", 1, None)])
def test_steps_are_captured_where_the_features_are_on_the_gpu_of_one_process(where, processes, captured, monkeypatch):
    monkeypatch.setattr(training, "CudaGraphs", lambda device: device)
    with stubbed(), fake_cuda():
        rows = SparseCubes.empty(CLIPS, 2, CHANNELS, REGIONS, 1000, device=torch.device(where))
        store = MemoryFeatures(dict.fromkeys(STREAMS, rows), torch.arange(CLIPS) % 5)
        found = training._steps_on_device(None, store, Processes(0, processes, GPU))
    assert (None if found is None else found._graphs is not None) is captured


@pytest.mark.parametrize("cubes", ["sparse", "dense"])
def test_where_triton_cannot_start_only_steps_of_dense_cubes_are_captured(cubes, monkeypatch):
    """Those of sparse ones read on the host how much room they need."""
    monkeypatch.setattr(training, "CudaGraphs", lambda device: device)
    monkeypatch.setattr("han_core.cubes.gpu_kernels.triton_works", lambda: False)
    with fake_cuda():
        rows = SparseCubes.empty(CLIPS, 2, CHANNELS, REGIONS, 1000, device=GPU)
        dense = torch.zeros(CLIPS, 2, CHANNELS, REGIONS, device=GPU)
        store = MemoryFeatures(dict.fromkeys(STREAMS, rows if cubes == "sparse" else dense), torch.arange(CLIPS) % 5)
        found = training._steps_on_device(None, store, Processes(device=GPU))
    assert (found._graphs is None) is (cubes == "sparse")
