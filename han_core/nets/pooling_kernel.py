"""The gradient of 2x2 max pooling as a Triton kernel: one pass over the pixels, where torch's operations take seven."""

# ruff: noqa: ANN201 (Triton reads the annotations of a kernel as its own)
import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024
"""Windows of a program."""
WARPS = 4


def spread(x: Tensor, gradient: Tensor) -> Tensor:
    """As :func:`han_core.nets.pooling.max_pool2_gradient`; x, gradient and result may be laid out in any way, and are
    fastest with their channels last."""
    count, channels, rows, columns = gradient.shape
    odd = x.shape[2] % 2 or x.shape[3] % 2
    result = torch.zeros_like(x) if odd else torch.empty_like(x)
    if gradient.numel():
        grid = triton.cdiv(columns * channels, BLOCK), rows, count
        spread_kernel[grid](
            x,
            gradient,
            result,
            channels,
            columns,
            *(tensor.stride(axis) for tensor in (x, gradient, result) for axis in range(4)),
            BLOCK=BLOCK,
            num_warps=WARPS,
            enable_fp_fusion=False,  # nothing is multiplied; Triton warns of a default that it changes
        )
    return result


@triton.jit
def spread_kernel(
    x,
    gradient,
    result,
    channels,
    columns,
    x_image,
    x_channel,
    x_row,
    x_column,
    gradient_image,
    gradient_channel,
    gradient_row,
    gradient_column,
    result_image,
    result_channel,
    result_row,
    result_column,
    BLOCK: tl.constexpr,
):
    """A program takes the windows of a part of one row of one image, channel by channel."""
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    row, image = tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)
    valid = place < columns * channels
    channel, column = (place % channels).to(tl.int64), (place // channels).to(tl.int64)

    first = x + image * x_image + 2 * row * x_row + 2 * column * x_column + channel * x_channel
    best = tl.load(first, mask=valid, other=0)
    chosen = tl.zeros((BLOCK,), tl.int32)
    for number in tl.static_range(1, 4):
        value = tl.load(first + (number // 2) * x_row + (number % 2) * x_column, mask=valid, other=0)
        better = (value > best) | (value != value)  # not a number: as torch has it, the last one counts
        best = tl.where(better, value, best)
        chosen = tl.where(better, number, chosen)

    given = gradient + image * gradient_image + row * gradient_row
    share = tl.load(given + column * gradient_column + channel * gradient_channel, mask=valid, other=0)
    target = result + image * result_image + 2 * row * result_row
    target += 2 * column * result_column + channel * result_channel
    for number in tl.static_range(4):
        part = tl.where(chosen == number, share, tl.zeros_like(share))
        tl.store(target + (number // 2) * result_row + (number % 2) * result_column, part, mask=valid)
