"""Arithmetic of the nets: by name, and where the hardware has it."""

from typing import Literal

import torch

Precision = Literal["float32", "bfloat16", "float16"]


def resolve_precision(choice: Literal["float32", "bfloat16", "float16", "auto"], device: torch.device) -> Precision:
    """What ``auto`` means on a device: bfloat16 where its hardware multiplies it, float32 elsewhere."""
    if choice != "auto":
        return choice
    if device.type == "cuda":
        has = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        told = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
        has = told.get("avx512_bf16", False) or told.get("amx_bf16", False)
    return "bfloat16" if has else "float32"


def autocast(precision: Precision, device: torch.device) -> torch.autocast:
    """A context in which convolutions and matrix products of float32 tensors are computed in ``precision``."""
    return torch.autocast(device.type, getattr(torch, precision), enabled=precision != "float32")
