"""What this machine computes with."""

import ctypes
import sys
import threading
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


def switches() -> tuple[bool, ...]:
    import torch

    cublas = torch.backends.cuda.matmul
    short = cublas.allow_bf16_reduced_precision_reduction, cublas.allow_fp16_reduced_precision_reduction
    return (torch.backends.cudnn.allow_tf32, cublas.allow_tf32, *short)


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize(("precision", "tf32"), [("float32", False), ("tf32", True), ("bfloat16", False)])
def test_the_arithmetic_does_not_depend_on_how_torchs_switches_stand(before, precision, tf32):
    import torch

    stood = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    try:
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = before
        found = switches()
        with devices.arithmetic(precision):
            assert switches() == (tf32, tf32, False, False)
            with devices.arithmetic(precision):  # another thread's, or a pass within a run
                pass
            assert switches() == (tf32, tf32, False, False), "one that ends leaves them as the other wants them"
        assert switches() == found
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = stood


def test_threads_of_different_arithmetic_wait_for_each_other():
    seen, inside = [], threading.Event()

    def other() -> None:
        with devices.arithmetic("tf32"):
            seen.append(switches()[0])
            inside.set()

    thread = threading.Thread(target=other)
    with devices.arithmetic("float32"):
        thread.start()
        assert not inside.wait(0.05)
        seen.append(switches()[0])
    thread.join(5)
    assert seen == [False, True]


@pytest.mark.parametrize(("capability", "expected"), [((8, 0), "tf32"), ((9, 0), "tf32"), ((7, 5), "float32")])
def test_tf32_is_a_precision_of_gpus_that_have_it_and_float32_elsewhere(monkeypatch, capability, expected):
    import torch

    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert devices.resolve_precision("tf32", torch.device("cuda")) == expected
    assert devices.resolve_precision("tf32", torch.device("cpu")) == "float32"
    assert devices.stored_type("tf32") == torch.float32


def test_float32_is_one_arithmetic_everywhere_and_fewer_bits_are_each_kinds_own():
    import torch

    cpu, gpu = torch.device("cpu"), torch.device("cuda", 0)
    assert {devices.device_apart(precision, cpu) for precision in ("float32", "bfloat16", "float16")} == {""}
    assert devices.device_apart("float32", gpu) == ""
    assert {devices.device_apart(precision, gpu) for precision in ("tf32", "bfloat16", "float16")} == {"cuda"}


def test_errors_of_the_gpu_are_known_by_their_class():
    import torch

    assert devices.gpu_fault(torch.OutOfMemoryError("x")).startswith("the GPU has no memory")
    if hasattr(torch, "AcceleratorError"):
        assert devices.gpu_fault(torch.AcceleratorError("something new")) == "the GPU failed (AcceleratorError)"


@pytest.mark.parametrize(
    "name", ["tpu", "gpu", "cuda:", "cuda:-1", "cuda:x", "cuda:99999", "cuda:²", "CPU", "mps", "", None, 0]
)
def test_a_device_that_is_unknown_is_refused_and_never_the_cpu(monkeypatch, name):
    for found in (0, 1):
        monkeypatch.setattr(devices, "gpus", lambda found=found: found)
        with pytest.raises(devices.DeviceError, match="choose auto, cpu, cuda, or one GPU by its number, cuda:0"):
            devices.choose_device(name)


def test_devices_are_known_by_name_and_gpus_by_number_too(monkeypatch):
    import torch

    monkeypatch.setattr(devices, "gpus", lambda: 2)
    names = {"auto": "cuda", "cuda": "cuda", "cuda:0": "cuda:0", "cuda:1": "cuda:1", "cpu": "cpu"}
    assert {name: str(devices.choose_device(name)) for name in names} == names
    assert devices.choose_device(torch.device("cuda", 1)) == torch.device("cuda", 1)
    with pytest.raises(devices.DeviceError, match="cuda:2 is asked for, but torch sees cuda:0 to cuda:1 only"):
        devices.choose_device("cuda:2")
    monkeypatch.setattr(devices, "gpus", lambda: 0)
    assert {str(devices.choose_device(name)) for name in ("auto", "cpu")} == {"cpu"}
    for name in ("cuda", "cuda:0"):
        with pytest.raises(devices.DeviceError, match=f"device {name} is asked for, but torch sees no GPU"):
            devices.choose_device(name)
