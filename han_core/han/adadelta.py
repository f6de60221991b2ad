"""Adadelta on a GPU in one Triton kernel a weight matrix.

Torch's own takes eleven launches that each read and write all weights, 110 bytes a weight; this one 28. The state is
that of torch's, under the same names, so that either goes on from a checkpoint of the other.
"""

# ruff: noqa: ANN201 (of kernels, to whose arguments and results Triton gives types)

from collections.abc import Callable

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024
"""Numbers of a program."""
OPTIONS = {"num_warps": 4, "enable_fp_fusion": True}
"""Of every launch. Triton's own choice of fused multiply-add differs between its versions."""


@triton.jit
def adadelta_kernel(weight, gradient, square, delta, count, rate, rho, rest, eps, decay, BLOCK: tl.constexpr):
    """One step of each of ``count`` weights. Grid: (count / BLOCK,)."""
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = place < count
    w = tl.load(weight + place, mask=inside, other=0.0)
    g = tl.load(gradient + place, mask=inside, other=0.0) + decay * w
    s = rho * tl.load(square + place, mask=inside, other=0.0) + rest * g * g
    u = tl.load(delta + place, mask=inside, other=0.0)
    d = tl.sqrt(u + eps) / tl.sqrt(s + eps) * g
    tl.store(square + place, s, mask=inside)
    tl.store(delta + place, rho * u + rest * d * d, mask=inside)
    tl.store(weight + place, w - rate * d, mask=inside)


class Adadelta(torch.optim.Adadelta):
    """torch.optim.Adadelta for float32 weights that Triton's kernels work on; its steps can be captured."""

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:
        """One step from the gradients that there are. ``closure`` must be None."""
        if closure is not None:
            raise ValueError("this Adadelta computes no loss again; call it without a closure")
        counts = []
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    counts.append(self._own_state(weight)["step"])
                    self._step(weight, group)
        if counts:
            torch._foreach_add_(counts, 1)

    def _step(self, weight: Tensor, group: dict) -> None:
        state, rho = self.state[weight], group["rho"]
        size = weight.numel()
        adadelta_kernel[(triton.cdiv(size, BLOCK),)](
            weight, weight.grad.contiguous(), state["square_avg"], state["acc_delta"], size,
            group["lr"], rho, 1 - rho, group["eps"], float(group["weight_decay"]), BLOCK=BLOCK, **OPTIONS,
        )  # fmt: skip

    def _own_state(self, weight: Tensor) -> dict[str, Tensor]:
        state = self.state[weight]
        if not state:
            state["step"] = torch.zeros((), device=weight.device)
            state["square_avg"] = torch.zeros_like(weight, memory_format=torch.contiguous_format)
            state["acc_delta"] = torch.zeros_like(weight, memory_format=torch.contiguous_format)
        return state
