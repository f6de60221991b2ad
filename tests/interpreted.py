"""Triton kernels run by Triton's interpreter, on tensors of the CPU, in this process.

    with interpreted(sparse_cuda, step_kernels):
        ...

It is slow: some milliseconds for each program of a launch.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import pytest


@contextmanager
def interpreted(*modules: ModuleType) -> Iterator[None]:
    """In this block the kernels of these modules, and what of Triton's own language is written in it, are interpreted,
    and used for tensors of the CPU."""
    import numpy as np
    import triton.language
    from triton.runtime.interpreter import InterpretedFunction
    from triton.runtime.jit import JITFunction, mangle_type

    if _version(triton.__version__) < (3, 7) and _version(np.__version__) >= (2, 4):
        pytest.skip("the interpreter of this Triton does not work with this NumPy")
    mangle_type(1)  # imports what must find Triton as it is
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("han_core.cubes.gpu_kernels.by_kernels", lambda device: device.type == "cpu")
        for module in (*modules, triton.language, triton.language.standard):
            for name, value in list(vars(module).items()):
                if isinstance(value, JITFunction):
                    patch.setattr(module, name, InterpretedFunction(value.fn))
        yield


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:2])
