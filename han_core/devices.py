"""The device that computes, and its arithmetic: by name, and where the hardware has it."""

from typing import Literal

import torch

from han_core.errors import HanError

Precision = Literal["float32", "bfloat16", "float16"]


class DeviceError(HanError, RuntimeError):
    """A device that is not here."""


def resolve_precision(choice: Literal["float32", "bfloat16", "float16", "auto"], device: torch.device) -> Precision:
    """What ``auto`` means on a device: bfloat16 where its hardware multiplies it, float32 elsewhere."""
    if choice != "auto":
        return choice
    if device.type == "cuda":
        has = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
        has = capabilities.get("avx512_bf16", False) or capabilities.get("amx_bf16", False)
    return "bfloat16" if has else "float32"


def autocast(precision: Precision, device: torch.device) -> torch.autocast:
    """A context in which convolutions and matrix products of float32 tensors are computed in ``precision``."""
    return torch.autocast(device.type, getattr(torch, precision), enabled=precision != "float32")


def choose_device(wanted: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """The device of this name; ``auto`` takes the GPU where there is one.

    Raises:
        DeviceError: a GPU is asked for and torch sees none.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise DeviceError("device cuda is asked for (run.device), but torch sees no GPU; take auto or cpu")
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")
