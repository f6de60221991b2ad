"""What the kernel ``sweep`` does, in plain torch: Triton's interpreter takes a tenth of a second for each row of it."""

import torch

from han_core.flow.tvl1 import cuda_layout as layout
from han_core.flow.tvl1.reference import divergence, forward_gradient


class PlainSweep:
    """Takes the place of the kernel: ``PlainSweep()[grid](..)``."""

    def __getitem__(self, grid):
        return self._launch

    def _launch(self, state, data, partial, plan, table, field, parts, tau, bound, flat, **options):
        for slot, (_, level, _, steps, _, _, buffer, *_) in enumerate(plan.tolist()):
            if steps:
                height, width, stride = table[level, : layout.STRIDE + 1].tolist()
                cut = slice(layout.MARGIN, layout.MARGIN + width)
                size = height * stride
                before, after = (
                    state[slot, k].flatten()[: 6 * size].view(6, height, stride) for k in (buffer, 1 - buffer)
                )
                coefficients = data[slot].flatten()[: 3 * size].view(3, height, stride)[..., cut]
                after.zero_()
                after[..., cut], sums = iterated(before[..., cut], coefficients, steps, tau, bound, flat)
                partial[slot] = 0
                partial[slot, 0, :steps] = sums


def iterated(fields, coefficients, steps, tau, bound, flat):
    """(6, H, W) fields, with q = tau p, after some iterations; the sums of squared updates of each."""
    u, q = fields[None, :2], fields[None, 2:].unflatten(1, (2, 2))
    slope, constant = coefficients[None, :2], coefficients[2]
    m = -1 / (slope**2).sum(1).clamp(min=flat)
    sums = []
    for _ in range(steps):
        force = ((constant + (slope * u).sum(1)) * m).clamp(-bound, bound)
        update = divergence(q) + force[:, None] * slope
        u = u + update
        sums.append((update**2).sum())
        gradient = forward_gradient(u)
        q = (q + tau * gradient) / (1 + gradient.norm(dim=2, keepdim=True))
    return torch.cat([u[0], q[0].flatten(0, 1)]), torch.stack(sums)
