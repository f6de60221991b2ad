"""Triton kernels compiled for GPUs that are not here: what they need of a card can be known without one.

    with compiling_for(90):
        kernel = advance.warmup(floats, floats, ints, 256, 340, STEPS=4, num_warps=8, grid=(1,))
    assert needs_of(kernel) == Needs(registers=128, spilled=0, shared=0)

``warmup`` takes what a launch takes, with :func:`pointer` in place of tensors, and compiles what the launch would.
"""

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch

CAPABILITIES = (80, 90)
"""A100 and H100."""


@dataclass(frozen=True)
class Needs:
    """Of a compiled kernel."""

    registers: int
    """Of a thread."""
    spilled: int
    """Bytes of a thread that found no register and go to memory instead."""
    shared: int
    """Bytes of shared memory of a block."""


class _NoDriver:
    """What Triton asks the driver of the machine when it compiles."""

    def __init__(self, capability: int) -> None:
        self.capability = capability

    def get_current_target(self) -> object:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", self.capability, 32)

    def get_current_device(self) -> int:
        return self.capability  # kernels are kept by device

    def get_current_stream(self, device: object = None) -> int:
        return 0

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cuda")


@contextmanager
def compiling_for(capability: int) -> Iterator[None]:
    """Triton compiles for a GPU of this compute capability, e.g. 90, whatever the machine has."""
    pytest.importorskip("triton")
    from triton.runtime.driver import driver

    before = driver._active  # Triton's own reset asks for the machine's driver, which is an error without a GPU
    driver.set_active(_NoDriver(capability))
    try:
        yield
    finally:
        driver._active = before


def pointer(dtype: torch.dtype) -> object:
    """Stands for a tensor of the type, aligned to 16 bytes as torch allocates them."""
    from triton.runtime.jit import MockTensor

    return MockTensor(dtype)


def needs_of(kernel: object) -> Needs:
    """What the tools that come with Triton say of a compiled kernel."""
    import triton.backends.nvidia as nvidia

    tool = Path(nvidia.__file__).parent / "bin" / "cuobjdump"
    if not tool.exists():
        pytest.skip("this Triton comes without cuobjdump")
    with TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(kernel.asm["cubin"])
        shown = subprocess.run([tool, "-res-usage", path], capture_output=True, text=True, check=True).stdout
    found = dict(re.findall(r"\b(REG|STACK|LOCAL):(\d+)", shown))
    return Needs(int(found["REG"]), int(found["STACK"]) + int(found["LOCAL"]), kernel.metadata.shared)
