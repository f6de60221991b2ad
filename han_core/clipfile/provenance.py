"""What decides the bytes of a file besides the code and the settings: the libraries and the kind of processor.

None of it is part of a fingerprint, or a team with two kinds of machines would share nothing; but every file says it,
and ``han store stat`` shows where a store mixes several.
"""

import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import cv2
import h5py
import numpy as np
import zstandard

_INSTRUCTIONS = ("sse4_2", "avx", "avx2", "fma", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "sve", "sve2")
"""Sets that compiled kernels choose between; products are summed in another order with each."""


def made_with(*, torch_threads: int | None = None) -> dict[str, str]:
    """Versions of what shapes the bytes of a clip file, and the kind of processor.

    Args:
        torch_threads: of the process, for files that hold what torch computed; its version is named with it.
    """
    found = dict(_libraries())
    if torch_threads is not None:
        found |= {"torch": version("torch"), "torch_threads": str(torch_threads)}
    return found


@cache
def _libraries() -> tuple[tuple[str, str], ...]:
    versions = {"h5py": h5py.__version__, "hdf5": h5py.version.hdf5_version, "numpy": np.__version__}
    versions |= {"opencv": cv2.__version__, "hdf5plugin": _installed("hdf5plugin")}
    versions |= {"av": _installed("av"), "numba": version("numba"), "zstandard": zstandard.__version__}
    versions["han-video"] = _installed("han-video", absent="unknown")  # a source tree that was not installed
    return (*versions.items(), ("cpu", _processor()))


def _installed(package: str, *, absent: str = "none") -> str:
    """Its version; only decoding needs av, and nothing needs hdf5plugin, so that either may be absent."""
    try:
        return version(package)
    except PackageNotFoundError:
        return absent


def _processor() -> str:
    """Architecture and instruction sets, e.g. ``x86_64 avx2 fma avx512f``; not the model, which decides no byte."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:  # not Linux
        return platform.machine()
    flags = next((set(line.split()) for line in lines if line.startswith(("flags", "Features"))), set())
    return " ".join([platform.machine(), *(name for name in _INSTRUCTIONS if name in flags)])
