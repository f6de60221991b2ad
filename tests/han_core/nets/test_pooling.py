"""Pooling whose gradient is the same each time: torch's, on a CPU, to the bit; and nothing else of a training step is
known to be summed in any order on a GPU."""

import os
import subprocess
import sys
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from han_core.finetune import sgd
from han_core.finetune.sgd import SGDSchedule, accumulate, make_optimizer
from han_core.nets import pooling
from han_core.nets.pooling import MaxPool2, max_pool2, spread_plainly
from han_core.nets.slow_fusion.net import SlowFusion
from han_core.nets.vgg16 import VGG16
from tests.compiled import CAPABILITIES, compiling_for, needs_of, pointer
from tests.fake_cuda import fake_cuda

SHAPES = [(2, 3, 6, 8), (1, 5, 7, 9), (2, 4, 2, 3), (3, 1, 4, 4)]


def case(shape: tuple[int, ...], *, layout=torch.channels_last, dtype=torch.float32) -> tuple[torch.Tensor, ...]:
    """Pixels with many ties, as a ReLU leaves them, one that is no number, and a gradient of the pooled ones."""
    random = np.random.default_rng(sum(shape))
    x = torch.from_numpy(random.integers(-2, 3, shape).astype(np.float32)).relu().to(dtype, memory_format=layout)
    x[0, 0, 1, 0] = float("nan")
    gradient = torch.from_numpy(random.standard_normal((*shape[:2], shape[2] // 2, shape[3] // 2)).astype(np.float32))
    return x, gradient.to(dtype)


def torchs_gradient(x: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    x = x.clone().requires_grad_()
    F.max_pool2d(x, 2).backward(gradient)
    return x.grad


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_gradient_is_torchs_ties_included(shape, layout, dtype):
    x, gradient = case(shape, layout=layout, dtype=dtype)
    found = spread_plainly(x, gradient)
    assert torch.equal(found, torchs_gradient(x, gradient))
    assert found.stride() == x.stride()


def test_pooling_itself_is_torchs_and_so_is_what_autograd_makes_of_it(monkeypatch):
    monkeypatch.setattr(pooling, "_on_cpu", lambda x: False)  # as on a GPU
    x, gradient = case((2, 3, 7, 8))
    x.nan_to_num_()
    learning = x.clone().requires_grad_()
    pooled = max_pool2(learning)
    assert "_MaxPool2" in pooled.grad_fn.name()
    pooled.backward(gradient)
    assert torch.equal(pooled, F.max_pool2d(x, 2))
    assert torch.equal(learning.grad, torchs_gradient(x, gradient))
    with torch.no_grad():
        assert max_pool2(learning).grad_fn is None


INTERPRETED = """
import torch
from han_core.nets.pooling import spread_plainly
from han_core.nets.pooling_kernel import spread
from tests.han_core.nets.test_pooling import SHAPES, case
for shape in SHAPES:
    for layout in (torch.channels_last, torch.contiguous_format):
        x, gradient = case(shape, layout=layout)
        found = spread(x, gradient)
        assert torch.equal(found, spread_plainly(x, gradient)), shape
        assert found.stride() == x.stride()
"""


def test_the_kernel_gives_the_same(repository):
    """Under Triton's interpreter, which has to be chosen before Triton is imported."""
    pytest.importorskip("triton")
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": str(repository), "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, "-c", INTERPRETED], env=environment, capture_output=True, text=True, timeout=200
    )
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_the_kernel_compiles_and_spills_nothing(capability):
    """Loads of one element a thread and no shared memory: what bounds it is memory, as long as registers suffice."""
    pytest.importorskip("triton")
    from han_core.nets.pooling_kernel import BLOCK, WARPS, spread_kernel

    tensor = pointer(torch.bfloat16)
    strides = (224 * 224 * 64, 1, 224 * 64, 64, 112 * 112 * 64, 1, 112 * 64, 64, 224 * 224 * 64, 1, 224 * 64, 64)
    with compiling_for(capability):
        kernel = spread_kernel.warmup(
            tensor,
            tensor,
            tensor,
            64,
            112,
            *strides,
            BLOCK=BLOCK,
            num_warps=WARPS,
            enable_fp_fusion=False,
            grid=(7, 112, 64),
        )
    needs = needs_of(kernel)
    assert (needs.spilled, needs.shared) == (0, 0)
    assert needs.registers <= 64, "four blocks of 128 threads and more fit on a multiprocessor"


@pytest.mark.parametrize("fault", ["no compiler", "wrong numbers", "no memory"])
def test_where_the_kernel_cannot_be_started_torchs_operations_do_it(monkeypatch, caplog, fault):
    """Fine-tuning needs no C compiler; a GPU that fails is another matter."""
    kernels = pytest.importorskip("han_core.nets.pooling_kernel")

    def spread(x, gradient):
        if fault == "no compiler":
            raise RuntimeError("Failed to find C compiler. Please specify via CC environment variable.")
        if fault == "no memory":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return x * 0

    monkeypatch.setattr(kernels, "spread", spread)
    pooling._kernel.cache_clear()
    x, gradient = case((2, 3, 6, 8))
    try:
        with fake_cuda():
            if fault == "no memory":
                with pytest.raises(torch.OutOfMemoryError):
                    pooling._kernel()
                return
            assert pooling._kernel() is None
            assert pooling.max_pool2_gradient(x.to("cuda"), gradient.to("cuda")).shape == x.shape
    finally:
        pooling._kernel.cache_clear()
    assert [record.levelname for record in caplog.records] == ["WARNING"]


REFUSED = (
    "_adaptive_avg_pool2d_backward",
    "_adaptive_avg_pool3d_backward",
    "_ctc_loss_backward",
    "_embedding_bag",
    "adaptive_max_pool2d_backward",
    "avg_pool3d_backward",
    "bincount",
    "cumsum",
    "fractional_max_pool2d_backward",
    "grid_sampler_2d_backward",
    "histc",
    "kthvalue",
    "max_pool2d_with_indices_backward",
    "max_pool3d_with_indices_backward",
    "max_unpool2d",
    "median",
    "nll_loss2d_forward",
    "nll_loss2d_backward",
    "put_",
    "reflection_pad1d_backward",
    "reflection_pad2d_backward",
    "replication_pad1d_backward",
    "scatter_reduce",
    "upsample_bicubic2d_backward",
    "upsample_bilinear2d_backward",
    "upsample_linear1d_backward",
    "upsample_trilinear3d_backward",
)
"""Operations that have no repeatable form on a GPU, by the documentation of ``torch.use_deterministic_algorithms``."""


class Asked(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.refused: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name.removeprefix("aten::")
        self.refused |= {one for one in REFUSED if name == one}
        return func(*args, **(kwargs or {}))


def step(net: nn.Module, images: tuple[int, ...]) -> set[str]:
    """What a training step would ask of a GPU that has no repeatable form; device meta stands for the GPU."""
    schedule = SGDSchedule(iterations=1, clip_gradient=1.0)
    net.train()
    optimizer = make_optimizer(net, schedule)
    with Asked() as asked:
        inputs, labels = torch.empty(images, device="meta"), torch.empty(images[0], dtype=torch.int64, device="meta")
        accumulate(net, inputs, labels, images[0])
        nn.utils.clip_grad_norm_(net.parameters(), schedule.clip_gradient)
        optimizer.step()
    return asked.refused


def test_no_operation_of_a_training_step_is_known_to_be_unrepeatable(monkeypatch):
    monkeypatch.setattr(sgd, "autocast", lambda *of: nullcontext())  # knows no device meta
    with torch.device("meta"):
        vgg16, slow_fusion = VGG16(classes=3), SlowFusion(classes=3)
    assert step(vgg16, (2, 3, 224, 224)) == set()
    assert step(slow_fusion, (2, 3, 10, 170, 170)) == set()
    for number, module in enumerate(vgg16.features):
        if isinstance(module, MaxPool2):
            vgg16.features[number] = nn.MaxPool2d(2)
    assert step(vgg16, (2, 3, 224, 224)) == {"max_pool2d_with_indices_backward"}, "or this test sees nothing"


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_on_a_gpu_the_gradient_is_the_cpus_to_the_bit(gpu, dtype, layout):
    for shape in (*SHAPES, (4, 64, 56, 56)):
        x, gradient = case(shape, layout=layout, dtype=dtype)
        expected = torchs_gradient(x, gradient)
        learning = x.to(gpu).requires_grad_()
        with torch.autograd.set_detect_anomaly(False):
            max_pool2(learning).backward(gradient.to(gpu))
        assert torch.equal(learning.grad.cpu(), expected)
