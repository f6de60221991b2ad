"""The machine that a benchmark ran on, for its JSON."""

import os
import platform
from importlib.metadata import version
from pathlib import Path

import torch

PACKAGES = ("torch", "triton", "numpy", "numba", "llvmlite", "h5py", "hdf5plugin", "zstandard", "opencv-contrib-python")


def machine(device: str = "cpu") -> dict:
    """What the figures depend on: processor, cores, device and versions. No names of hosts or folders."""
    facts: dict = {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
    }
    if device.startswith("cuda"):
        facts |= {"gpu": torch.cuda.get_device_name(device), "cuda": torch.version.cuda}
    for package in PACKAGES:
        try:
            facts[package] = version(package)
        except ImportError:
            facts[package] = "not installed"
    return facts


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()
