"""The quantity that TV-L1 optical flow makes small."""

import torch
from torch import Tensor

from han_core.flow.tvl1.pyramid import warp
from han_core.flow.tvl1.reference import forward_gradient


@torch.no_grad()
def tvl1_energy(first: Tensor, second: Tensor, flow: Tensor, lambda_: float) -> Tensor:
    """E(u) = sum over pixels of lambda |I1(x + u) - I0(x)| + |grad u1| + |grad u2| of each pair, (N,) float64.

    Args:
        first, second: (N, H, W) grey values 0..255. The second is interpolated by cubic convolution, zero outside.
        flow: (N, 2, H, W) pixels, x first.
        lambda_: Weight of the data term.
    """
    first, second, flow = first.double(), second.double(), flow.double()
    data = (warp(second[:, None], flow)[:, 0] - first).abs().sum((1, 2))
    variation = forward_gradient(flow).norm(dim=2).sum((1, 2, 3))
    return lambda_ * data + variation
