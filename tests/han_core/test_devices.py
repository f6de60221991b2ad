"""What this machine computes with."""

import ctypes
import sys
from pathlib import Path

import pytest

from han_core import devices


def no_library(name: str) -> None:
    raise OSError(f"{name}: cannot open shared object file")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere torch is always asked")
@pytest.mark.skipif(Path("/dev/kfd").exists(), reason="this machine has ROCm's driver")
def test_without_a_driver_there_is_no_gpu_and_torch_is_not_loaded_to_say_so(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", no_library)
    monkeypatch.setitem(sys.modules, "torch", None)  # importing it fails
    assert devices.gpus() == 0


def test_with_a_driver_torch_is_asked(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError):
        devices.gpus()


def test_the_driver_is_found_where_torch_sees_a_gpu():
    import torch

    assert devices.gpus() == torch.cuda.device_count()
