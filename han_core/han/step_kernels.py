"""What a step of eq. 2 does beside its matrix products, and the softmax's gradient, as Triton kernels for a GPU.

Each reads what it needs once and writes its results once, where torch's own operations take a dozen launches. Every
number has one thread that computes it, so the bytes are the same in every run.

Symbols as in :mod:`han_core.han.model`: B clips, H LSTM size, S streams, R regions. Gates are in the order i, f, o, g.
"""

# ruff: noqa: ANN201, ANN202 (of kernels, to whose arguments and results Triton gives types)

import triton
import triton.language as tl
from torch import Tensor

BLOCK = 256
"""Units of a program."""
OPTIONS = {"num_warps": 4, "enable_fp_fusion": True}
"""Of every launch. Triton's own choice of fused multiply-add differs between its versions."""


@triton.jit
def _sigmoid(x):
    return 1 / (1 + tl.exp(-x))


@triton.jit
def _tanh(x):
    """To 2e-7 of the value: by the exponential, which loses what is small near 0, where the series is taken."""
    e = tl.exp(-2 * tl.abs(x))
    far = (1 - e) / (1 + e)
    square = x * x
    series = 1 + square * (-1 / 3 + square * (2 / 15 + square * (-17 / 315 + square * (62 / 2835))))
    return tl.where(square < 0.0625, x * series, tl.where(x < 0, -far, far))


@triton.jit
def step_kernel(
    products, known, bias, before, after, gates, h, typed,
    size, products_stream, known_stream, cells_stream, gates_stream, h_stream, h_row, typed_stream, typed_row,
    KNOWN: tl.constexpr, TYPED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Eq. 2 once the products are there. Grid: (H / BLOCK, B, S)."""
    unit = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    b, s = tl.program_id(1), tl.program_id(2)
    inside = unit < size
    gate = b * 4 * size + unit
    products += s * products_stream + gate
    known += s * known_stream + gate
    bias += s * 4 * size + unit
    gates += s * gates_stream + gate
    cell = s * cells_stream + b * size + unit
    i = tl.load(products, mask=inside).to(tl.float32) + tl.load(bias, mask=inside)
    f = tl.load(products + size, mask=inside).to(tl.float32) + tl.load(bias + size, mask=inside)
    o = tl.load(products + 2 * size, mask=inside).to(tl.float32) + tl.load(bias + 2 * size, mask=inside)
    g = tl.load(products + 3 * size, mask=inside).to(tl.float32) + tl.load(bias + 3 * size, mask=inside)
    if KNOWN:
        i += tl.load(known, mask=inside).to(tl.float32)
        f += tl.load(known + size, mask=inside).to(tl.float32)
        o += tl.load(known + 2 * size, mask=inside).to(tl.float32)
        g += tl.load(known + 3 * size, mask=inside).to(tl.float32)
    i, f, o, g = _sigmoid(i), _sigmoid(f), _sigmoid(o), _tanh(g)
    c = f * tl.load(before + cell, mask=inside) + i * g
    state = o * _tanh(c)
    tl.store(gates, i, mask=inside)
    tl.store(gates + size, f, mask=inside)
    tl.store(gates + 2 * size, o, mask=inside)
    tl.store(gates + 3 * size, g, mask=inside)
    tl.store(after + cell, c, mask=inside)
    tl.store(h + s * h_stream + b * h_row + unit, state, mask=inside)
    if TYPED:
        target = typed + s * typed_stream + b * typed_row + unit
        tl.store(target, state.to(typed.dtype.element_ty), mask=inside)


@triton.jit
def step_gradient_kernel(
    gates, before, after, d_direct, d_next, d_joint, d_c, d_gates, typed,
    size, gates_stream, cells_stream, direct_stream, direct_row, next_stream, next_row, joint_row,
    JOINT: tl.constexpr, TYPED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Back through one step of eq. 2. Grid: (H / BLOCK, B, S)."""
    unit = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    b, s = tl.program_id(1), tl.program_id(2)
    inside = unit < size
    gate = s * gates_stream + b * 4 * size + unit
    cell = s * cells_stream + b * size + unit
    d_h = tl.load(d_next + s * next_stream + b * next_row + unit, mask=inside).to(tl.float32)
    if JOINT:
        d_h += tl.load(d_joint + b * joint_row + s * size + unit, mask=inside)
    d_h += tl.load(d_direct + s * direct_stream + b * direct_row + unit, mask=inside)
    i = tl.load(gates + gate, mask=inside)
    f = tl.load(gates + gate + size, mask=inside)
    o = tl.load(gates + gate + 2 * size, mask=inside)
    g = tl.load(gates + gate + 3 * size, mask=inside)
    tanh_c = _tanh(tl.load(after + cell, mask=inside))
    carried = d_c + (s * tl.num_programs(1) + b) * size + unit
    d_cell = tl.load(carried, mask=inside) + d_h * o * (1 - tanh_c * tanh_c)
    d_i = d_cell * g * (i * (1 - i))
    d_f = d_cell * tl.load(before + cell, mask=inside) * (f * (1 - f))
    d_o = d_h * tanh_c * (o * (1 - o))
    d_g = d_cell * i * (1 - g * g)
    tl.store(carried, d_cell * f, mask=inside)
    tl.store(d_gates + gate, d_i, mask=inside)
    tl.store(d_gates + gate + size, d_f, mask=inside)
    tl.store(d_gates + gate + 2 * size, d_o, mask=inside)
    tl.store(d_gates + gate + 3 * size, d_g, mask=inside)
    if TYPED:
        kind = typed.dtype.element_ty
        tl.store(typed + gate, d_i.to(kind), mask=inside)
        tl.store(typed + gate + size, d_f.to(kind), mask=inside)
        tl.store(typed + gate + 2 * size, d_o.to(kind), mask=inside)
        tl.store(typed + gate + 3 * size, d_g.to(kind), mask=inside)


@triton.jit
def softmax_gradient_kernel(maps, d_maps, d_logits, regions, ALL: tl.constexpr):
    """Gradient of the scores from that of their softmax. Grid: (B,)."""
    region = tl.arange(0, ALL)
    inside = region < regions
    place = tl.program_id(0) * regions + region
    share = tl.load(maps + place, mask=inside, other=0.0)
    gradient = tl.load(d_maps + place, mask=inside, other=0.0)
    tl.store(d_logits + place, share * (gradient - tl.sum(share * gradient, 0)), mask=inside)


def step(
    products: Tensor,
    known: Tensor | None,
    bias: Tensor,
    before: Tensor,
    after: Tensor,
    gates: Tensor,
    h: Tensor,
    typed: Tensor | None,
) -> None:
    """Eq. 2 for S streams once the products are there. The last axis of each tensor is contiguous; so is B of all but
    ``h`` and ``typed``.

    Args:
        products, known: (S, B, 4H) of any floating type, which are added; None is 0.
        bias: (S, 4H) float32, contiguous.
        before, after: (S, B, H) float32: c_{t-1}, and c_t, which is written.
        gates: (S, B, 4H) float32, written: the gates after their activation.
        h: (S, B, H) float32, written: h_t.
        typed: (S, B, H), written: h_t in another type; None is nowhere.
    """
    streams, batch, size = before.shape
    second = products if known is None else known
    copy = h if typed is None else typed
    step_kernel[(triton.cdiv(size, BLOCK), batch, streams)](
        products, second, bias, before, after, gates, h, copy,
        size, products.stride(0), second.stride(0), _shared_stride(before, after), gates.stride(0),
        h.stride(0), h.stride(1), copy.stride(0), copy.stride(1),
        KNOWN=known is not None, TYPED=typed is not None, BLOCK=BLOCK, **OPTIONS,
    )  # fmt: skip


def step_gradient(
    gates: Tensor,
    before: Tensor,
    after: Tensor,
    d_direct: Tensor,
    d_next: Tensor,
    d_joint: Tensor | None,
    d_c: Tensor,
    d_gates: Tensor,
    typed: Tensor | None,
) -> None:
    """Back through one step of eq. 2 for S streams: gradients of h_t and c_t -> of the gates before activation.

    Args:
        gates, before, after: as of :func:`step`.
        d_direct: (S, B, H) float32: gradient of h_t from what reads the states.
        d_next: (S, B, H) of any floating type: that from step t + 1 of the same LSTM.
        d_joint: (B, S * H) float32: that from the map of t + 1, which reads the states of all streams; None is 0.
        d_c: (S, B, H) float32, contiguous: what reaches c_t from t + 1; becomes what reaches c_{t-1}.
        d_gates: (S, B, 4H) float32, with the strides of ``gates``; written.
        typed: the same in another type; None is nowhere.
    """
    streams, batch, size = before.shape
    copy = d_gates if typed is None else typed
    joint = d_c if d_joint is None else d_joint
    step_gradient_kernel[(triton.cdiv(size, BLOCK), batch, streams)](
        gates, before, after, d_direct, d_next, joint, d_c, d_gates, copy,
        size, _shared_stride(gates, d_gates, copy), _shared_stride(before, after),
        d_direct.stride(0), d_direct.stride(1), d_next.stride(0), d_next.stride(1), streams * size,
        JOINT=d_joint is not None, TYPED=typed is not None, BLOCK=BLOCK, **OPTIONS,
    )  # fmt: skip


def softmax_gradient(maps: Tensor, d_maps: Tensor, d_logits: Tensor) -> None:
    """dl_i -> ds_i = l_i (dl_i - sum_j l_j dl_j), into ``d_logits``; (B, R) float32 each, contiguous."""
    batch, regions = maps.shape
    softmax_gradient_kernel[(batch,)](maps, d_maps, d_logits, regions, ALL=triton.next_power_of_2(regions), **OPTIONS)


def _shared_stride(*tensors: Tensor) -> int:
    """The first stride of all of them."""
    (stride,) = {tensor.stride(0) for tensor in tensors}
    return stride
