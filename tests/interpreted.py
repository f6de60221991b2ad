"""Triton kernels run by Triton's interpreter, on tensors of the CPU, in this process.

    with interpreted(sparse_cuda, step_kernels):
        ...

It is slow: some milliseconds for each program of a launch.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import pytest


def needs_an_interpreter_that_works() -> None:
    """Skip the test where Triton's does not."""
    import numpy as np
    import triton

    if _version(triton.__version__) < (3, 7) and _version(np.__version__) >= (2, 4):
        pytest.skip("the interpreter of this Triton does not work with this NumPy")


@contextmanager
def interpreted(*modules: ModuleType) -> Iterator[None]:
    """In this block the kernels of these modules, and what of Triton's own language is written in it, are interpreted,
    and used for tensors of the CPU."""
    import triton.language
    from triton.runtime.interpreter import InterpretedFunction
    from triton.runtime.jit import JITFunction, mangle_type

    needs_an_interpreter_that_works()
    mangle_type(1)  # imports what must find Triton as it is
    with pytest.MonkeyPatch.context() as patch, _left_as_it_was(*_language()):
        patch.setattr("han_core.cubes.gpu_kernels.by_kernels", lambda device: device.type == "cpu")
        for module in (*modules, triton.language, triton.language.standard):
            for name, value in list(vars(module).items()):
                if isinstance(value, JITFunction):
                    patch.setattr(module, name, InterpretedFunction(value.fn))
        yield


def _language() -> list[Any]:
    """Modules and classes in which the interpreter exchanges what a program may say."""
    import triton.language as tl

    modules = [module for name, module in sys.modules.items() if name.startswith("triton.language")]
    return [*modules, *(value for value in vars(tl.core).values() if isinstance(value, type))]


@contextmanager
def _left_as_it_was(*places: Any) -> Iterator[None]:
    """Undo what the block changes in modules and classes. Triton 3.9 does not undo what it changes for functions that
    kernels call, and nothing could be compiled afterwards. Names that are new to modules stay, because the functions
    that the interpreter has rewritten, and keeps, refer to them."""
    before = [(place, dict(vars(place))) for place in places]
    try:
        yield
    finally:
        for place, attributes in before:
            for name in vars(place).keys() - attributes.keys() if isinstance(place, type) else ():
                delattr(place, name)
            for name, value in attributes.items():
                if vars(place)[name] is not value:
                    setattr(place, name, value)


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:2])
