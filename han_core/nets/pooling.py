"""Max pooling of windows of 2x2 that do not overlap, with a gradient that is the same each time it is computed.

On a GPU torch adds the gradients of pooling up in any order, because windows may overlap, so that two runs of one
training differ in the last bits of everything. Here each pixel lies in one window at most, and nothing is added.
"""

import logging
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from han_core.devices import gpu_fault

log = logging.getLogger(__name__)


class MaxPool2(nn.MaxPool2d):
    """``nn.MaxPool2d(2)``: (n, channels, height, width) to (n, channels, height // 2, width // 2)."""

    def __init__(self) -> None:
        super().__init__(kernel_size=2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return max_pool2(x)


def max_pool2(x: Tensor) -> Tensor:
    """The largest of each 2x2 pixels of (n, channels, height, width); an odd last row or column is left out.

    The gradient of a window goes to the first of its largest pixels in reading order, as torch has it on a CPU.
    """
    learns = torch.is_grad_enabled() and x.requires_grad
    return F.max_pool2d(x, 2) if _on_cpu(x) or not learns else _MaxPool2.apply(x)


def _on_cpu(x: Tensor) -> bool:
    return x.device.type == "cpu"


class _MaxPool2(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return F.max_pool2d(x, 2)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return max_pool2_gradient(x, gradient)


def max_pool2_gradient(x: Tensor, gradient: Tensor) -> Tensor:
    """Gradient by the pixels of :func:`max_pool2`, given the one by its windows.

    Args:
        x: (n, channels, height, width).
        gradient: (n, channels, height // 2, width // 2), of the type of ``x``.

    Returns:
        (n, channels, height, width), laid out as ``x``.
    """
    spread = _kernel() if x.is_cuda else None
    return (spread or spread_plainly)(x, gradient)


@cache
def _kernel() -> Callable[[Tensor, Tensor], Tensor] | None:
    """The kernel, or None, which is logged, where Triton cannot start one on this process's GPU."""
    try:
        from han_core.nets.pooling_kernel import spread  # Triton takes seconds to import

        one = torch.ones(1, 1, 2, 2, device="cuda")
        if spread(one, one[..., :1, :1]).sum().item() == 1:
            return spread
        reason = "it gives wrong numbers"
    except Exception as error:  # whatever it is: a library that is missing, a compiler that fails, a card too old
        if gpu_fault(error):
            raise
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
    log.warning(
        "Triton cannot start a kernel here (%s), so the gradient of pooling is computed the slower way. Triton needs a "
        "C compiler (gcc) and Python's headers (python3-dev).",
        reason,
    )
    return None


def spread_plainly(x: Tensor, gradient: Tensor) -> Tensor:
    """As :func:`max_pool2_gradient`, with torch's own operations: what the kernel is compared with."""
    height, width = (2 * side for side in gradient.shape[2:])
    places = [(slice(i, height, 2), slice(j, width, 2)) for i in (0, 1) for j in (0, 1)]
    best = x[..., places[0][0], places[0][1]]
    chosen = torch.zeros_like(best, dtype=torch.uint8)
    for number, (rows, columns) in enumerate(places[1:], start=1):
        value = x[..., rows, columns]
        better = (value > best) | value.isnan()
        best, chosen = torch.where(better, value, best), chosen.masked_fill(better, number)
    result = torch.zeros_like(x)
    for number, (rows, columns) in enumerate(places):
        result[..., rows, columns] = gradient.masked_fill(chosen != number, 0)
    return result
