"""HAN by Triton kernels: what it computes under Triton's interpreter, what it asks of a GPU, and on one."""

import copy
import dataclasses

import pytest
import torch

pytest.importorskip("triton")

import triton

from han_core.cubes import sparse_cuda
from han_core.cubes.features import MemoryFeatures
from han_core.cubes.sparse import SparseCubes
from han_core.han import adadelta, recurrence_cuda, step_kernels, training
from han_core.han.captured import StepsOnDevice
from han_core.han.config import HANConfig
from han_core.han.model import HAN
from han_core.han.recurrence import lstm
from tests.compiled import CAPABILITIES, Needs, compiling_for, needs_of
from tests.interpreted import interpreted
from tests.stand_in_graphs import Graphs
from tests.stubbed_kernels import compiled_at_launch

CONFIG = HANConfig(
    ("spatial", "temporal"), classes=3, channels=7, regions=9, lstm_size=5, layers=2, skip=2, dropout=0.4
)
CLIPS, FRAMES = 2, 4
CLOSE = {"rtol": 2e-4, "atol": 2e-6}
"""float32 in another order of sums, through four steps; gradients are of the size 0.01 to 1."""


def make(config):
    torch.manual_seed(0)
    model = HAN(config)
    streams = len(config.streams)
    model.standardize(torch.rand(streams, config.channels), 0.5 + torch.rand(streams, config.channels))
    return model.train()


def sparse_and_dense(config, device=None):
    """A batch out of some clips: sparse, with the transposed copy, and dense."""
    device = device or torch.device("cpu")
    torch.manual_seed(1)
    shape = (CLIPS + 2, FRAMES, config.channels, config.regions)
    dense = {s: (torch.rand(shape) * (torch.rand(shape) < 0.3)).half() for s in config.streams}
    chosen = [3, 0]
    stores = {s: SparseCubes.from_dense(cubes).to(device).with_across() for s, cubes in dense.items()}
    sparse = {s: cubes.select(chosen) for s, cubes in stores.items()}
    return sparse, {s: cubes[chosen].to(device) for s, cubes in dense.items()}


def learnt(model, cubes, *, fast, lengths=None):
    """Logits, maps and all gradients of a training step, with the same dropout for the same seed."""
    model = copy.deepcopy(model)
    torch.manual_seed(5)
    output = model(cubes, lengths, fast=fast)
    places = torch.linspace(0, 1, output.attention.shape[2], device=output.attention.device)
    loss = output.logits.square().sum() + (output.attention * places).sum()
    loss.backward()
    return {"logits": output.logits, "maps": output.attention} | {n: p.grad for n, p in model.named_parameters()}


def compare(one, other, **tolerance):
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], msg=lambda m, n=name: f"{n}: {m}", **tolerance)


VARIANTS = [
    {},
    {"layers": 3, "dropout": 0.0, "streams": ("temporal",)},
    {"region_dropout": 0.4, "stream_dropout": 0.5, "initial_state": "mean"},
    {"attention": "uniform", "region_dropout": 0.4},
    {"attention": "content"},
]


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_a_whole_step_is_that_of_the_plain_loops(changes, monkeypatch):
    model = make(dataclasses.replace(CONFIG, **changes))
    sparse, dense = sparse_and_dense(model.config)
    launched = []
    monkeypatch.setattr(recurrence_cuda, "step", lambda *a: (launched.append(1), step_kernels.step(*a)))
    with interpreted(sparse_cuda, step_kernels):
        by_kernels = learnt(model, sparse, fast=True)
    assert bool(launched) == (model.config.attention != "content"), "content-based attention takes the plain loop"
    compare(by_kernels, learnt(model, dense, fast=False), **CLOSE)


def test_clips_of_different_length_and_no_transposed_copy():
    model = make(CONFIG)
    sparse, dense = sparse_and_dense(CONFIG)
    short = {s: dataclasses.replace(cubes, across=None) for s, cubes in sparse.items()}
    lengths = torch.tensor([1, 3])
    with interpreted(sparse_cuda, step_kernels):
        by_kernels = learnt(model, short, fast=True, lengths=lengths)
    compare(by_kernels, learnt(model, dense, fast=False, lengths=lengths), **CLOSE)


def test_products_in_bfloat16_are_close():
    """bfloat16 has 8 bits: each product is off by up to 0.4 %, and the steps add up."""
    model = make(dataclasses.replace(CONFIG, dropout=0.0))
    sparse, dense = sparse_and_dense(CONFIG)
    exact = learnt(model, dense, fast=False)
    model.product_type = torch.bfloat16
    with interpreted(sparse_cuda, step_kernels):
        rounded = learnt(model, sparse, fast=True)
    assert (rounded["logits"] - exact["logits"]).abs().max() > 1e-5, "the products were not in bfloat16"
    for name, value in rounded.items():
        assert (value - exact[name]).norm() < 0.03 * exact[name].norm(), name


@pytest.mark.parametrize("size", [5, 300])
def test_an_lstm_of_known_inputs_is_that_of_eq_2(size):
    """Of 300 units, more than a program has, and with gates near and far from zero."""
    torch.manual_seed(2)
    steps, batch, channels = 3, 2, 4
    leaves = [
        torch.randn(steps, batch, channels), torch.randn(batch, size), torch.randn(batch, size),
        3 * torch.randn(4 * size, channels), torch.randn(4 * size, size) / size**0.5, torch.randn(4 * size),
    ]  # fmt: skip
    leaves[0][1] *= 1e-4
    outward = torch.randn(steps, batch, size)

    def gradients(leaves):
        leaves = [leaf.clone().requires_grad_() for leaf in leaves]
        states = lstm(*leaves, leaves[0].dtype)
        (states * outward.to(states)).sum().backward()
        return states, *(leaf.grad for leaf in leaves)

    expected = gradients([leaf.double() for leaf in leaves])
    with interpreted(step_kernels):
        found = gradients(leaves)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=2e-5)


@pytest.mark.long
def test_a_whole_run_by_kernels_ends_as_one_without(monkeypatch):
    """Every option of a batch, steps replayed by a stand-in for a graph, and the answers of the trained model."""
    torch.manual_seed(1)
    clips, shape = 5, (10, 4, 6, 9)
    dense = {s: (torch.rand(shape) * (torch.rand(shape) < 0.4)).half() for s in CONFIG.streams}
    arrays = {s: SparseCubes.from_dense(cubes) for s, cubes in dense.items()}
    store = MemoryFeatures(arrays, torch.arange(clips) % 2, ("", "mirrored"))
    config = dataclasses.replace(CONFIG, classes=2, channels=6, region_dropout=0.2, stream_dropout=0.2)
    schedule = training.TrainingSchedule(2, 2, shift=1, views=("mirrored",), clip_gradient=1.0, seed=3)

    def run(features):
        torch.manual_seed(0)
        model, losses = HAN(config), []
        training.train(model, features, schedule, on_epoch=lambda epoch, pace: losses.append(epoch.loss))
        probabilities, maps = training.classify(model, features, details=True)
        return model.state_dict() | {"losses": torch.tensor(losses), "answers": probabilities, "maps": maps}

    plain = run(store)
    stand_in = Graphs()
    monkeypatch.setattr(training, "_steps_on_device", lambda steps, own, _: StepsOnDevice(steps, own, stand_in))
    with interpreted(sparse_cuda, step_kernels, adadelta):
        compare(run(store.with_across()), plain, rtol=1e-4, atol=1e-6)
    assert "replay" in stand_in.seen


NEEDS = {
    capability: {
        "step_kernel": Needs(registers=32, spilled=0, shared=0),
        "step_gradient_kernel": Needs(registers=32, spilled=0, shared=0),
        "softmax_gradient_kernel": Needs(registers=registers, spilled=0, shared=16),
    }
    for capability, registers in ((80, 22), (90, 20))
}
"""By capability, of Triton 3.9, of a block of 128 threads."""


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_kernels_compile_for_gpus_that_are_not_here(capability):
    """With the paper's sizes: two streams of 1,024 units, 196 regions."""
    streams, batch, size, regions = 2, 128, 1024, 196
    new = lambda *shape: torch.empty(shape, device="meta")  # noqa: E731
    gates, cells, states = new(streams, batch, 4 * size), new(streams, batch, size), new(streams, batch, size)
    bias, joint, inputs = new(streams, 4 * size), new(batch, streams * size), new(streams, batch, 512 + size)
    maps = new(batch, regions)
    with compiling_for(capability), compiled_at_launch(step_kernels) as kernels:
        step_kernels.step(gates, None, bias, cells, cells, gates, states, inputs[:, :, 512:])
        step_kernels.step_gradient(
            gates, cells, cells, states, inputs[:, :, 512:], joint, new(streams, batch, size), gates, None
        )
        step_kernels.softmax_gradient(maps, maps, maps)
        found = {name: needs_of(kernel) for name, kernel in kernels.items()}
    assert found.keys() == NEEDS[capability].keys()
    assert all(needs.spilled == 0 for needs in found.values())
    if triton.__version__.startswith("3.9."):
        assert found == NEEDS[capability]


@pytest.mark.gpu
@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_on_a_gpu_a_whole_step_is_that_of_the_plain_loops_and_the_same_each_time(gpu, changes):
    """Dropout is drawn by the GPU on both roads."""
    config = dataclasses.replace(CONFIG, channels=70, regions=196, lstm_size=300, **changes)
    model = make(config).to(gpu)
    sparse, dense = sparse_and_dense(config, gpu)
    first, second = (learnt(model, sparse, fast=True) for _ in range(2))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    plain = learnt(model, dense, fast=False)
    compare(first, plain, rtol=1e-3, atol=1e-4)
    alone = {s: dataclasses.replace(cubes, across=None) for s, cubes in sparse.items()}
    compare(learnt(model, alone, fast=True), plain, rtol=1e-3, atol=1e-4)
