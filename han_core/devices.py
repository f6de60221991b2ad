"""What this machine computes with: its cores and GPUs, the arithmetic that they have, and compiled loops.

Torch and Numba take seconds to import and are imported where they are used: workers that need neither start without.
"""

import ctypes
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from han_core.errors import HanError

if TYPE_CHECKING:
    import torch

Precision = Literal["float32", "bfloat16", "float16"]


class DeviceError(HanError, RuntimeError):
    """A device that is not here."""


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpus() -> int:
    """GPUs that torch sees."""
    if not _gpu_driver():
        return 0
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _gpu_driver() -> bool:
    """Whether torch may see a GPU: without the driver's library (CUDA) or device (ROCm) it sees none on Linux, and need
    not be loaded to say so."""
    if sys.platform != "linux" or Path("/dev/kfd").exists():
        return True
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def choose_device(wanted: Literal["auto", "cpu", "cuda"]) -> "torch.device":
    """The device of this name; ``auto`` takes the GPU where there is one.

    Raises:
        DeviceError: a GPU is asked for and torch sees none.
    """
    import torch

    if wanted == "cuda" and not gpus():
        raise DeviceError("device cuda is asked for, but torch sees no GPU; choose auto or cpu (params: run.device)")
    return torch.device("cuda" if wanted != "cpu" and gpus() else "cpu")


def resolve_precision(choice: Literal["float32", "bfloat16", "float16", "auto"], device: "torch.device") -> Precision:
    """What ``auto`` means on a device: bfloat16 where its hardware multiplies it, float32 elsewhere."""
    import torch

    if choice != "auto":
        return choice
    if device.type == "cuda":
        has = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
        has = capabilities.get("avx512_bf16", False) or capabilities.get("amx_bf16", False)
    return "bfloat16" if has else "float32"


def autocast(precision: Precision, device: "torch.device") -> "torch.autocast":
    """A context in which convolutions and matrix products of float32 tensors are computed in ``precision``."""
    import torch

    return torch.autocast(device.type, getattr(torch, precision), enabled=precision != "float32")


def compiled(function: Callable) -> Callable:
    """Compile a loop for the CPU with Numba, without the GIL; kept on disk so that worker processes need not compile.

    Where neither the package's folder nor the user's cache folder can be written, nothing is kept.
    """
    import numba

    options = {"nogil": True, "error_model": "numpy", "fastmath": True}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # Numba's "no locator available": no folder for its cache
        return numba.njit(**options)(function)
