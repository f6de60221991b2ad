"""Adadelta in one kernel is torch's."""

import pytest
import torch

pytest.importorskip("triton")

import triton

from han_core.han import adadelta
from han_core.han.config import HANConfig
from han_core.han.model import HAN
from han_core.han.training import TrainingSchedule, make_optimizer
from tests.compiled import CAPABILITIES, Needs, compiling_for, needs_of
from tests.interpreted import interpreted
from tests.stubbed_kernels import compiled_at_launch

SETTINGS = {"lr": 0.7, "rho": 0.9, "eps": 1e-5, "weight_decay": 0.01}


def stepped(kind, device="cpu", steps=3):
    """Weights and state after some steps, the second weight being without a gradient at first."""
    torch.manual_seed(0)
    weights = [torch.randn(7, 5, device=device), torch.randn(3, 1100, device=device), torch.randn(1, device=device)]
    optimizer = kind(weights, **SETTINGS)
    for step in range(steps):
        for number, weight in enumerate(weights):
            weight.grad = None if (step, number) == (0, 1) else torch.randn(weight.shape, device=device)
        optimizer.step()
    return weights, optimizer.state_dict()["state"]


def compare(one, other):
    for found, expected in zip(one[0], other[0], strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    for number, state in other[1].items():
        assert one[1][number].keys() == state.keys()
        for name, value in state.items():
            torch.testing.assert_close(one[1][number][name].cpu(), value.cpu(), rtol=1e-5, atol=1e-9)


def test_steps_and_state_are_those_of_torch():
    expected = stepped(torch.optim.Adadelta)
    with interpreted(adadelta):
        compare(stepped(adadelta.Adadelta), expected)


def test_it_is_taken_where_kernels_are_and_goes_on_from_torch_s_state():
    model = HAN(HANConfig(("spatial",), 2, 3, 4, lstm_size=2))
    plain = make_optimizer(model, TrainingSchedule())
    assert type(plain) is torch.optim.Adadelta
    with interpreted(adadelta):
        optimizer = make_optimizer(model, TrainingSchedule())
        assert type(optimizer) is adadelta.Adadelta
        assert optimizer.defaults.keys() == plain.defaults.keys()
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter)
        plain.step()
        optimizer.load_state_dict(plain.state_dict())
        optimizer.step()
    assert {state["step"].item() for state in optimizer.state_dict()["state"].values()} == {2}


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_it_compiles_for_gpus_that_are_not_here(capability):
    weight = torch.empty(4096, 1536, device="meta")
    weight.grad = torch.empty_like(weight)
    with compiling_for(capability), compiled_at_launch(adadelta) as kernels:
        adadelta.Adadelta([weight], **SETTINGS).step()
        needs = needs_of(kernels["adadelta_kernel"])
    assert needs.spilled == 0
    if triton.__version__.startswith("3.9."):
        assert needs == NEEDS[capability]


NEEDS = {80: Needs(registers=42, spilled=0, shared=0), 90: Needs(registers=47, spilled=0, shared=0)}
"""By capability, of Triton 3.9, of a block of 128 threads."""


@pytest.mark.gpu
def test_on_a_gpu_steps_are_those_of_torch(gpu):
    compare(stepped(adadelta.Adadelta, gpu), stepped(torch.optim.Adadelta, gpu))
