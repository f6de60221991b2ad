"""What this machine computes with: its cores and GPUs, the arithmetic that they have, and compiled loops.

Torch and Numba take seconds to import and are imported where they are used: workers that need neither start without.
"""

import ctypes
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from han_core.errors import HanError

if TYPE_CHECKING:
    import torch

Precision = Literal["float32", "tf32", "bfloat16", "float16"]
"""Arithmetic of a net. ``float32`` is IEEE's, on whatever device. ``tf32`` is what NVIDIA's GPUs from Ampere on make of
float32: 10 bits of each factor, sums in float32. The other two are the types themselves, sums in float32."""

TOLERANCE = 1e-3
"""By how much of a layer's largest value float32 on a GPU may differ from float32 on a CPU, where only the order of
sums differs. Results of the other precisions differ by more, and are told apart (:func:`device_apart`)."""


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


def gpu_fault(error: BaseException) -> str:
    """What an error says of the GPU: that it has no memory for what is asked, or can be used no more by this process.

    After an error of the latter kind each further use of the GPU in the same process fails, whatever it is.

    Returns:
        One line without addresses or sizes, the same on every run; "" for an error of another kind.
    """
    torch = sys.modules.get("torch")  # who has not loaded it gets no error of a class of its own
    if torch is not None and isinstance(error, torch.OutOfMemoryError):
        return NO_MEMORY
    found = _GPU_ERROR.search(str(error)) if isinstance(error, RuntimeError) else None
    if found is None:
        newer = getattr(torch, "AcceleratorError", None)
        return "the GPU failed (AcceleratorError)" if newer is not None and isinstance(error, newer) else ""
    if any(words in found[0] for words in ("out of memory", "ALLOC_FAILED", "unable to find an engine")):
        return NO_MEMORY
    return f"the GPU failed ({found[0].partition(' when calling ')[0].strip()})"


# "No engine": cuDNN tries all that it has for a convolution, and none gets the memory that it works in.
_GPU_ERROR = re.compile(
    r"(CUDA error|CUDA driver error|cuDNN error|cuDNN Frontend error|Triton Error \[CUDA\]|CUDA out of memory|"
    r"(GET|FIND) was unable to find an engine)[^\n(]*"
)
NO_MEMORY = "the GPU has no memory left for it; lower the batch, or end what else uses the GPU"


def exclusive_gpus() -> bool:
    """Whether a GPU that this process sees is in exclusive compute mode: one process at a time may use it.

    Asked of the driver, because torch does not tell; it starts nothing on the GPU.
    """
    if not _gpu_driver() or sys.platform != "linux":
        return False
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    count, device, mode = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return False
    for number in range(count.value):
        if driver.cuDeviceGet(ctypes.byref(device), number):
            continue
        asked = driver.cuDeviceGetAttribute(ctypes.byref(mode), _COMPUTE_MODE, device)
        if not asked and mode.value in _EXCLUSIVE:
            return True
    return False


_COMPUTE_MODE = 20  # CU_DEVICE_ATTRIBUTE_COMPUTE_MODE
_EXCLUSIVE = (1, 3)  # CU_COMPUTEMODE_EXCLUSIVE (of one thread, in old drivers), CU_COMPUTEMODE_EXCLUSIVE_PROCESS


def choose_device(wanted: "str | torch.device") -> "torch.device":
    """The device of this name; ``auto`` takes the GPU where there is one.

    Args:
        wanted: ``auto``, ``cpu``, ``cuda``, or one GPU by its number, from 0: ``cuda:1``.

    Raises:
        DeviceError: there is no device of this name, or a GPU is asked for and torch sees none, or none of this number.
    """
    import torch

    name = str(wanted)
    if name == "cpu":
        return torch.device("cpu")
    kind, colon, number = name.partition(":")
    numbered = bool(colon) and number.isascii() and number.isdigit() and len(number) < 5
    if name not in ("auto", "cuda") and not (kind == "cuda" and numbered):
        raise DeviceError(f"there is no device {name[:80]!r}; choose auto, cpu, cuda, or one GPU by its number, cuda:0")
    found = gpus()
    if name == "auto":
        return torch.device("cuda" if found else "cpu")
    if not found:
        raise DeviceError(f"device {name} is asked for, but torch sees no GPU; choose auto or cpu (params: run.device)")
    if not numbered:
        return torch.device("cuda")
    if int(number) >= found:
        there = "cuda:0" if found == 1 else f"cuda:0 to cuda:{found - 1}"
        raise DeviceError(f"device {name} is asked for, but torch sees {there} only")
    return torch.device("cuda", int(number))


def resolve_precision(
    choice: Literal["float32", "tf32", "bfloat16", "float16", "auto"], device: "torch.device"
) -> Precision:
    """What a choice means on a device.

    ``auto`` is bfloat16 where the hardware multiplies it, float32 elsewhere. ``tf32`` is float32 where there is none:
    on a CPU, and on GPUs before Ampere.
    """
    import torch

    if choice == "tf32":
        has = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
        return "tf32" if has else "float32"
    if choice != "auto":
        return choice
    if device.type == "cuda":
        has = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
        has = capabilities.get("avx512_bf16", False) or capabilities.get("amx_bf16", False)
    return "bfloat16" if has else "float32"


def device_apart(precision: Precision, device: "torch.device") -> str:
    """Part of the identity of what a net computes: the kind of the device, where the same arithmetic gives results that
    differ from a CPU's by more than :data:`TOLERANCE`; "" where it does not."""
    return "" if device.type == "cpu" or precision == "float32" else device.type


def stored_type(precision: Precision) -> "torch.dtype":
    """Type of weights and activations of a net that computes in a precision."""
    import torch

    return torch.float32 if precision in ("float32", "tf32") else getattr(torch, precision)


def autocast(precision: Precision, device: "torch.device") -> "torch.autocast":
    """A context in which convolutions and matrix products of float32 tensors are computed in ``precision``; of float32
    and tf32 see :func:`arithmetic`."""
    import torch

    return torch.autocast(device.type, stored_type(precision), enabled=stored_type(precision) != torch.float32)


@contextmanager
def arithmetic(precision: Precision) -> Iterator[None]:
    """While the block runs, GPUs compute as the precision says, and not as torch's switches happen to stand.

    Float32 is IEEE's in matrix products, as torch has it, and in convolutions, of which cuDNN makes TF32 unless it is
    told otherwise; with ``tf32`` both are TF32. Sums of shorter types are float32, which cuBLAS may shorten, too.

    The switches are the process's. Threads that want the same share them; a thread that wants something else waits, so
    a block must not be inside one of another precision.
    """
    wanted = precision == "tf32"
    with _switches.free:
        _switches.free.wait_for(lambda: not _switches.users or _switches.tf32 == wanted)
        if not _switches.users:
            _switches.turn(wanted)
        _switches.users += 1
    try:
        yield
    finally:
        with _switches.free:
            _switches.users -= 1
            if not _switches.users:
                _switches.turn_back()
                _switches.free.notify_all()


class _Switches:
    """Torch's switches for TF32 and for short sums: who relies on them, and how they stood before."""

    def __init__(self) -> None:
        self.free = threading.Condition()
        self.users = 0
        self.tf32 = False
        self._before: list[tuple[object, str, bool]] = []

    def turn(self, tf32: bool) -> None:
        import torch

        cudnn, cublas = torch.backends.cudnn, torch.backends.cuda.matmul
        wanted: list[tuple[object, str, bool]] = [
            (cudnn, "allow_tf32", tf32),
            (cublas, "allow_tf32", tf32),
            (cublas, "allow_bf16_reduced_precision_reduction", False),
            (cublas, "allow_fp16_reduced_precision_reduction", False),
        ]
        self._before = [(owner, name, getattr(owner, name)) for owner, name, _ in wanted]
        self.tf32 = tf32
        for owner, name, value in wanted:
            setattr(owner, name, value)

    def turn_back(self) -> None:
        for owner, name, value in self._before:
            setattr(owner, name, value)


_switches = _Switches()


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
