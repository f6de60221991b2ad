"""GPU code on fake CUDA tensors: where the host would wait for the GPU, and what it launches, without a GPU.

with fake_cuda() as watch:
    model = HAN(config).cuda()
    model(batch).sum().backward()
assert watch.waits == []
"""

import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

ROOT = Path(__file__).resolve().parents[1]

_NO_LAUNCH = ("aten::empty", "aten::detach", "aten::alias", "aten::lift_fresh", "aten::_local_scalar_dense", "prim::")
_READS = ("aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::repeat_interleave.Tensor")


class Watch(TorchDispatchMode):
    """Counts what the host asks of the GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []
        """Lines of this project at which the host waits: reading a value, or a copy that does not go on beside it."""
        self.launches: Counter[str] = Counter()
        """Operator -> how often it is launched on the GPU. Views and allocations are no launches."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = func._schema.name + (f".{func._schema.overload_name}" if func._schema.overload_name else "")
        if self._waits(name, args, kwargs):
            self.waits.append(f"{_line()}: {name}")
        result = func(*args, **kwargs)
        if _on_gpu(args if result is None else result) and not func.is_view and not name.startswith(_NO_LAUNCH):
            self.launches[name] += 1
        return result

    @staticmethod
    def _waits(name: str, args: tuple, kwargs: dict) -> bool:
        if name.startswith(_READS):
            return _on_gpu(args[0])
        if name.startswith(("aten::_to_copy", "aten::copy_")):
            source = args[1] if name.startswith("aten::copy_") else args[0]
            target = (
                args[0].device
                if name.startswith("aten::copy_")
                else torch.device(kwargs.get("device") or source.device)
            )
            blocking = not (
                kwargs.get("non_blocking") or (name.startswith("aten::copy_") and len(args) > 2 and args[2])
            )
            return source.device.type != target.type and blocking
        return False


@contextmanager
def fake_cuda() -> Iterator[Watch]:
    """Tensors are fake in this block: they have shapes, types and devices, ``cuda`` among them, and no values."""
    with FakeTensorMode(allow_non_fake_inputs=True), Watch() as watch:
        yield watch


def _on_gpu(value: object) -> bool:
    if isinstance(value, torch.Tensor):
        return value.device.type == "cuda"
    return isinstance(value, (tuple, list)) and any(_on_gpu(one) for one in value)


def _line() -> str:
    """The innermost line of this project that is being run, outside tests."""
    for frame in reversed(traceback.extract_stack()):
        path = Path(frame.filename)
        if path.is_relative_to(ROOT) and not path.is_relative_to(ROOT / "tests"):
            return f"{path.relative_to(ROOT)}:{frame.lineno} {frame.line}"
    return "outside this project"
