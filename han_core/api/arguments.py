"""Arguments that a function cannot work with, refused before any work."""

from contextlib import AbstractContextManager, nullcontext
from numbers import Integral
from typing import TYPE_CHECKING

from han_core.errors import HanError

if TYPE_CHECKING:  # torch takes seconds to import
    import torch


class ArgumentError(HanError, ValueError):
    """An argument that cannot be worked with; the message names it, and says what it may be."""


def whole_number(name: str, value: object, least: int, what: str) -> int:
    """The value of an argument that counts something.

    Args:
        name: of the argument.
        least: the smallest value that means anything.
        what: it counts, e.g. ``frames``.

    Raises:
        ArgumentError: it is no whole number, or a smaller one.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ArgumentError(f"{name} must be a whole number of {what}, at least {least}, not {_shown(value)}")
    return int(value)


def chosen_backend(backend: str) -> str:
    """As :func:`han_core.flow.tvl1.solver.resolve_backend`.

    Raises:
        ArgumentError: there is no such back end, or it cannot run here.
    """
    from han_core.flow.tvl1.solver import resolve_backend

    try:
        return resolve_backend(backend)
    except ValueError as error:
        raise ArgumentError(str(error)) from None


def on_gpu(device: "torch.device") -> AbstractContextManager:
    """While the block runs, kernels start on this GPU, and what takes "the GPU" takes it; nothing where the device is
    the CPU, or any GPU."""
    if device.type != "cuda" or device.index is None:
        return nullcontext()
    import torch

    return torch.cuda.device(device)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
