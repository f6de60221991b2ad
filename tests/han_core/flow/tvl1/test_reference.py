"""The reference against the mathematics that its docstrings state."""

import torch

from han_core.flow.tvl1.energy import tvl1_energy
from han_core.flow.tvl1.reference import divergence, dual_step, forward_gradient, threshold


def random(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape)), dtype=torch.float64)


def test_divergence_is_the_adjoint_of_minus_the_gradient():
    """<div p, u> = -<p, grad u> for every u and p whose last column (x) and row (y) do not flow out."""
    u, p = random(2, 2, 7, 9), random(2, 2, 2, 7, 9)
    p[:, :, 0, :, -1] = 0
    p[:, :, 1, -1, :] = 0
    assert torch.allclose((divergence(p) * u).sum(), -(p * forward_gradient(u)).sum())


def test_dual_variables_stay_in_the_unit_ball_and_out_of_the_border():
    p = torch.zeros(1, 2, 2, 7, 9, dtype=torch.float64)
    for i in range(20):
        p = dual_step(p, 10 * random(1, 2, 7, 9) * (i + 1), 0.8)
    assert p.norm(dim=2).max() <= 1 + 1e-12
    assert not p[:, :, 0, :, -1].any()
    assert not p[:, :, 1, -1, :].any()


def test_threshold_finds_the_minimum_of_its_pixels_problem():
    """v = u + TH(u) minimises lambda |rho(v)| + (u - v)^2 / (2 theta): no point of a fine grid about it is lower."""
    lambda_, theta = 0.15, 0.3
    u, slope, constant = random(1, 2, 6, 6), random(1, 2, 6, 6) * 2, random(1, 6, 6) * 0.3

    def cost(v):
        rho = constant + (slope * v).sum(1)
        return lambda_ * rho.abs() + ((u - v) ** 2).sum(1) / (2 * theta)

    best = cost(u + threshold(u, slope, constant, lambda_ * theta))
    offsets = torch.linspace(-0.3, 0.3, 61, dtype=torch.float64)
    for dx in offsets:
        for dy in offsets:
            assert (best <= cost(u + torch.stack([dx, dy])[None, :, None, None]) + 1e-9).all()


def test_threshold_leaves_flat_pixels():
    assert not threshold(random(1, 2, 4, 4), torch.zeros(1, 2, 4, 4).double(), random(1, 4, 4), 0.045).any()


def test_energy_of_a_known_flow():
    """A step of 3 in x between two columns costs 3 per row; images that differ by 10 everywhere cost lambda * 10."""
    first = torch.full((1, 8, 10), 50.0)
    flow = torch.zeros(1, 2, 8, 10)
    assert tvl1_energy(first, first, flow, 0.15).item() == 0
    assert abs(tvl1_energy(first, first + 10, flow, 0.15).item() - 0.15 * 10 * 80) < 1e-9
    inner = torch.zeros(1, 2, 8, 10)
    inner[:, 0, :, 5:8] = 1.0
    assert abs(tvl1_energy(first, first, inner, 0.15).item() - 2 * 8) < 1e-9
