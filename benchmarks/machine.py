"""The machine that a benchmark ran on, for its JSON."""

import os
import platform
from importlib.metadata import version
from pathlib import Path

import torch

PACKAGES = ("torch", "numpy", "numba", "h5py", "hdf5plugin", "zstandard", "opencv-contrib-python")


def machine(device: str = "cpu") -> dict:
    """Processor, cores, device and versions."""
    told: dict = {"processor": _processor(), "cores": len(os.sched_getaffinity(0)), "python": platform.python_version()}
    if device.startswith("cuda"):
        told["gpu"] = torch.cuda.get_device_name(device)
    for package in PACKAGES:
        try:
            told[package] = version(package)
        except ImportError:
            told[package] = "not installed"
    return told


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()
