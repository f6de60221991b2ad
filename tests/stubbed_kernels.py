"""Triton kernels that are counted, or compiled, in place of launched; the former for GPU code on fake CUDA tensors
(:mod:`tests.fake_cuda`).

    with stubbed(sparse_cuda, step_kernels) as launches, fake_cuda() as watch:
        ...
    assert launches["glimpse_kernel"] == 50

Names of kernels have no underscore in front; functions that kernels call do.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import pytest
import torch

from tests.compiled import pointer


class _Stub:
    def __init__(self, name: str, launches: Counter[str]) -> None:
        self.name, self.launches = name, launches

    def __getitem__(self, grid: tuple[int, ...]):
        assert all(size > 0 for size in grid), f"{self.name} is launched on a grid of {grid}"

        def launch(*arguments, **constants) -> None:
            for argument in arguments:
                if isinstance(argument, torch.Tensor):
                    assert argument.device.type == "cuda", f"{self.name} is given a tensor on {argument.device}"
            self.launches[self.name] += 1

        return launch


@contextmanager
def stubbed(*modules: ModuleType) -> Iterator[Counter[str]]:
    """In this block the kernels of these modules are counted, by name, and used for tensors on a GPU."""
    from triton.runtime.jit import JITFunction

    launches: Counter[str] = Counter()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("han_core.cubes.gpu_kernels.triton_works", lambda: True)
        for module in modules:
            for name, value in list(vars(module).items()):
                if isinstance(value, JITFunction) and not name.startswith("_"):
                    patch.setattr(module, name, _Stub(name, launches))
        yield launches


class _Compiled:
    def __init__(self, name: str, kernel: object, found: dict[str, object]) -> None:
        self.name, self.kernel, self.found = name, kernel, found

    def __getitem__(self, grid: tuple[int, ...]):
        def launch(*arguments, **constants) -> None:
            mocked = [pointer(a.dtype) if isinstance(a, torch.Tensor) else a for a in arguments]
            self.found[self.name] = self.kernel.warmup(*mocked, grid=grid, **constants)

        return launch


@contextmanager
def compiled_at_launch(*modules: ModuleType) -> Iterator[dict[str, object]]:
    """In this block the kernels of these modules are compiled, with what they are launched with, in place of launched:
    name -> the compiled kernel. The tensors may be on device ``meta``."""
    from triton.runtime.jit import JITFunction

    found: dict[str, object] = {}
    with pytest.MonkeyPatch.context() as patch:
        for module in modules:
            for name, value in list(vars(module).items()):
                if isinstance(value, JITFunction) and not name.startswith("_"):
                    patch.setattr(module, name, _Compiled(name, value, found))
        yield found
