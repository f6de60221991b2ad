"""A call on its way to a worker of a cluster.

A stage runs as ``python -m pipeline.<stage>``, where its classes and functions are of module ``__main__``. Those Dask
would send as code, with all that they refer to, such as a net that is open. Here they travel by name, as between local
processes, and the worker imports the stage's module.
"""

import pickle
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from io import BytesIO
from typing import Any


@dataclass(frozen=True)
class Sent:
    """A call and its argument, packed."""

    call: bytes
    argument: bytes
    main: str
    """Name of the module that is ``__main__`` where they were packed; "" where it has none."""

    def __call__(self) -> Any:
        """Unpack and call."""
        return _call(self.call, self.main)(_unpacked(self.argument, self.main))


class Packing:
    """Packs one call with many arguments.

    Args:
        call: picklable, as are its arguments.
    """

    def __init__(self, call: Callable[[Any], Any]) -> None:
        spec = getattr(sys.modules["__main__"], "__spec__", None)
        self._main = spec.name if spec is not None else ""
        self._call = pickle.dumps(call)

    def __call__(self, argument: object) -> Sent:
        """With one of them."""
        return Sent(self._call, pickle.dumps(argument), self._main)


class _Unpickler(pickle.Unpickler):
    def __init__(self, packed: bytes, main: str) -> None:
        super().__init__(BytesIO(packed))
        self._main = main

    def find_class(self, module_name: str, global_name: str) -> Any:
        if module_name == "__main__" and self._main:
            found: Any = import_module(self._main)
            for part in global_name.split("."):
                found = getattr(found, part)
            return found
        return super().find_class(module_name, global_name)


def _unpacked(packed: bytes, main: str) -> Any:
    return _Unpickler(packed, main).load()


@lru_cache(maxsize=8)
def _call(packed: bytes, main: str) -> Callable[[Any], Any]:
    return _unpacked(packed, main)
