"""The library behind the pipeline: pure functions and ``nn.Module``s, no params file, no global state.

``import han_core as han`` offers what the room :mod:`han_core.api` defines; nothing is imported before it is used.
"""

import sys
from importlib import import_module
from types import ModuleType

_OFFERED = {
    "extract": "videos",
    "frames": "videos",
    "Label": "models",
    "load_model": "models",
    "Model": "models",
    "open_store": "stores",
}
"""Name -> module of the room ``api``."""


class _Flow(ModuleType):
    """The room ``han_core.flow``, which is a function, too: ``han.flow(video)``."""

    def __call__(self, *arguments: object, **named: object) -> object:
        """See :func:`han_core.api.videos.flow`."""
        return import_module("han_core.api.videos").flow(*arguments, **named)


class _Package(ModuleType):
    def __setattr__(self, name: str, value: object) -> None:
        if name == "flow" and isinstance(value, ModuleType):  # it has just been imported
            value.__class__ = _Flow
        super().__setattr__(name, value)

    def __getattr__(self, name: str) -> object:
        if name == "flow":
            return import_module("han_core.flow")
        if name in _OFFERED:
            return getattr(import_module(f"han_core.api.{_OFFERED[name]}"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *_OFFERED, "flow"})


sys.modules[__name__].__class__ = _Package
