"""TV-L1 optical flow as in Zach, Pock and Bischof, "A Duality Based Approach for Realtime TV-L1 Optical Flow" (2007).

Plain torch on any device, a batch at once, to be read and to be compared with. The numbers in the docstrings are the
paper's equations; what the paper leaves open follows OpenCV's ``cv2.optflow.DualTVL1OpticalFlow``.

The energy, over a flow u = (u1, u2) from image I0 to image I1 (eq. 5):

    E(u) = sum over pixels of  lambda |I1(x + u) - I0(x)|  +  |grad u1|  +  |grad u2|

I1 is linearised at a known flow u0 (eq. 6):  rho(u) = I1(x + u0) + <grad I1(x + u0), u - u0> - I0(x).
A second field v takes over the data term, coupled by (u - v)^2 / (2 theta) (eq. 7), and u and v are found in turn:

    v = u + TH(u)          point by point (eq. 15, Proposition 3), see :func:`threshold`
    u = v + theta div p    with one step of Chambolle's dual algorithm for p each time (eq. 11 to 14)

From coarse to fine over a pyramid of images; on each level the second image is warped ``warps`` times by the flow so
far.
"""

import torch
from torch import Tensor

from han_core.flow.tvl1.params import MEDIAN_PERIOD, TVL1Params, pyramid_sizes
from han_core.flow.tvl1.pyramid import gradient, median_filter, resize, warp

FLAT = 1.1920929e-07
"""|grad I1|^2 below which a pixel says nothing about the motion."""


@torch.no_grad()
def solve(first: Tensor, second: Tensor, params: TVL1Params) -> Tensor:
    """Flow of each pair: (N, H, W) grey values 0..255 twice -> (N, 2, H, W) float32 pixels, x first."""
    sizes = pyramid_sizes(*first.shape[1:], params)
    images = [torch.stack([first.float(), second.float()], dim=1)]
    for size in sizes[1:]:
        images.append(resize(images[-1], size, params.scale_step))
    u = torch.zeros(len(first), 2, *sizes[-1], device=first.device)
    for level in reversed(range(len(sizes))):
        if level < len(sizes) - 1:
            u = resize(u, sizes[level]) / params.scale_step
        u = solve_level(images[level][:, 0], images[level][:, 1], u, params, finest=level == 0)
    return u


def solve_level(first: Tensor, second: Tensor, u: Tensor, params: TVL1Params, *, finest: bool) -> Tensor:
    """All warps on one level: images (N, H, W), flow so far (N, 2, H, W) -> flow (N, 2, H, W).

    The dual variables p, (N, 2, 2, H, W) = (component of u, x or y), start at zero and carry on from warp to warp.
    """
    p = u.new_zeros(len(u), 2, 2, *u.shape[2:])
    stack = torch.stack([second, *gradient(second)], dim=1)
    for _ in range(params.warps):
        warped = warp(stack, u)
        slope = warped[:, 1:]
        constant = warped[:, 0] - (slope * u).sum(1) - first  # rho(u) = constant + <slope, u>, eq. 6
        u, p = iterate(u, p, slope, constant, params)
    if finest and params.settle:
        u, p = iterate(u, p, slope, constant, params.settling())
    return u


def iterate(u: Tensor, p: Tensor, slope: Tensor, constant: Tensor, params: TVL1Params) -> tuple[Tensor, Tensor]:
    """Iterations of one warp, until each pair meets the stopping rule on its own.

    A pair stops after the first iteration in which the summed squared change of u is at most epsilon^2 x pixels, and
    after ``params.iterations`` at the latest.
    """
    u, p = u.clone(), p.clone()
    limit = params.epsilon**2 * u.shape[2] * u.shape[3]
    active = torch.arange(len(u), device=u.device)
    for n in range(params.iterations):
        if params.median > 1 and n % MEDIAN_PERIOD == 0:
            u[active] = median_filter(u[active], params.median)
        old = u[active]
        v = old + threshold(old, slope[active], constant[active], params.lambda_ * params.theta)
        new = v + params.theta * divergence(p[active])  # eq. 14
        u[active] = new
        p[active] = dual_step(p[active], new, params.tau / params.theta)
        active = active[((new - old) ** 2).sum((1, 2, 3)) > limit]
        if len(active) == 0:
            break
    return u, p


def threshold(u: Tensor, slope: Tensor, constant: Tensor, bound: float) -> Tensor:
    """TH(u) of eq. 15, with bound = lambda theta: the step along the image's slope that the data term asks for.

    +bound grad I1            where rho(u) < -bound |grad I1|^2
    -bound grad I1            where rho(u) >  bound |grad I1|^2
    -rho(u) grad I1 / |grad I1|^2   between them: the point where rho vanishes
    """
    rho = constant + (slope * u).sum(1)
    length = (slope**2).sum(1).clamp(min=FLAT)
    return (-rho / length).clamp(-bound, bound)[:, None] * slope


def divergence(p: Tensor) -> Tensor:
    """Divergence of (N, 2, 2, H, W) by backward differences, zero outside: the adjoint of -:func:`forward_gradient`."""
    px, py = p[:, :, 0], p[:, :, 1]
    result = px + py
    result[..., :, 1:] -= px[..., :, :-1]
    result[..., 1:, :] -= py[..., :-1, :]
    return result


def forward_gradient(u: Tensor) -> Tensor:
    """(N, 2, H, W) -> (N, 2, 2, H, W): forward differences along x and y, zero in the last column or row."""
    result = u.new_zeros(len(u), 2, 2, *u.shape[2:])
    result[:, :, 0, :, :-1] = u[..., :, 1:] - u[..., :, :-1]
    result[:, :, 1, :-1, :] = u[..., 1:, :] - u[..., :-1, :]
    return result


def dual_step(p: Tensor, u: Tensor, step: float) -> Tensor:
    """One step of Chambolle's algorithm, eq. 12 and 13, with step = tau / theta.

    p <- (p + step grad u) / (1 + step |grad u|)
    """
    slope = forward_gradient(u)
    return (p + step * slope) / (1 + step * slope.norm(dim=2, keepdim=True))
