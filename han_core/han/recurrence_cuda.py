"""The fast path of :mod:`han_core.han.recurrence` on a GPU: the same equations, few launches, no wait.

All streams of a step share a launch: their tensors lie side by side, S first. Beside its matrix products a frame takes
a softmax, a kernel a stream that reads the cubes' rows (:mod:`han_core.cubes.sparse_cuda`), and one for the rest of
eq. 2 (:mod:`han_core.han.step_kernels`); as many go back. Shapes depend on those of the batch alone and the host reads
nothing, so that a step can be captured as a CUDA graph.

Symbols as in :mod:`han_core.han.recurrence`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from han_core.cubes.sparse import SparseCubes
from han_core.cubes.sparse_cuda import glimpse_into, regions_into
from han_core.han.step_kernels import softmax_gradient, step, step_gradient


def lstms(
    x: Sequence[Tensor],
    h: Sequence[Tensor],
    c: Sequence[Tensor],
    input_weights: Sequence[Tensor],
    recurrent_weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    dtype: torch.dtype,
) -> list[Tensor]:
    """As :func:`han_core.han.recurrence.lstms`, float32 on a GPU."""
    parts = (torch.stack(list(part)) for part in (x, h, c, input_weights, recurrent_weights, biases))
    return list(LSTMs.apply(*parts, dtype).unbind())


def attended_lstms(
    sources: Sequence[SparseCubes],
    scale: Tensor,
    shift: Tensor,
    masks: Sequence[Tensor | None],
    attention: Tensor,
    h: Sequence[Tensor],
    c: Sequence[Tensor],
    input_weights: Sequence[Tensor],
    recurrent_weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    *,
    kept: Tensor | None = None,
    frames: int,
    dtype: torch.dtype,
) -> tuple[Tensor, list[Tensor]]:
    """As :func:`han_core.han.recurrence.attended_lstms`, float32 on a GPU."""
    weights = torch.stack([torch.cat(pair, dim=1) for pair in zip(input_weights, recurrent_weights, strict=True)])
    maps, joint = AttendedLSTMs.apply(
        sources, scale.contiguous(), shift.contiguous(), [None if m is None else m.contiguous() for m in masks],
        None if kept is None else ~kept, frames, dtype,
        attention, torch.cat(list(h), dim=1), torch.stack(list(c)), weights, torch.stack(list(biases)),
    )  # fmt: skip
    return maps, list(joint.split(c[0].shape[1], dim=2))


class LSTMs(Function):
    """Eq. 2 of S LSTMs over sequences whose inputs are known."""

    @staticmethod
    def forward(
        ctx: Function, x: Tensor, h: Tensor, c: Tensor, w: Tensor, u: Tensor, bias: Tensor, dtype: torch.dtype
    ) -> Tensor:
        """x (S, T, B, D), h and c (S, B, H), w (S, 4H, D), u (S, 4H, H), bias (S, 4H) -> states (S, T, B, H)."""
        streams, frames, batch, channels = x.shape
        size = u.shape[2]
        new = x.new_empty
        x, w, u = x.to(dtype).view(streams, frames * batch, channels), w.to(dtype), u.to(dtype)
        known = torch.bmm(x, w.transpose(1, 2)).view(streams, frames, batch, 4 * size)
        gates = new(streams, frames, batch, 4 * size)
        cells, states = new(streams, frames + 1, batch, size), new(streams, frames + 1, batch, size)
        same = dtype == states.dtype
        typed = states if same else new(streams, frames + 1, batch, size, dtype=dtype)
        products = new(streams, batch, 4 * size, dtype=dtype)
        cells[:, 0], states[:, 0] = c, h
        if not same:
            typed[:, 0] = h
        for t in range(frames):
            torch.bmm(typed[:, t], u.transpose(1, 2), out=products)
            step(
                products, known[:, t], bias, cells[:, t], cells[:, t + 1], gates[:, t], states[:, t + 1],
                None if same else typed[:, t + 1],
            )  # fmt: skip
        ctx.save_for_backward(x, w, u, gates, cells, typed)
        return states[:, 1:].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Function, d_states: Tensor) -> tuple[Tensor | None, ...]:
        x, w, u, gates, cells, states = ctx.saved_tensors
        streams, frames, batch, size = d_states.shape
        d_states = d_states.contiguous()
        d_gates = torch.empty_like(gates)
        same = u.dtype == d_gates.dtype
        typed = d_gates if same else torch.empty_like(gates, dtype=u.dtype)
        d_h, d_c = u.new_zeros(streams, batch, size), cells.new_zeros(streams, batch, size)
        for t in reversed(range(frames)):
            step_gradient(
                gates[:, t], cells[:, t], cells[:, t + 1], d_states[:, t], d_h, None, d_c, d_gates[:, t],
                None if same else typed[:, t],
            )  # fmt: skip
            torch.bmm(typed[:, t], u, out=d_h)
        flat = typed.view(streams, frames * batch, 4 * size)
        d_x = None
        if ctx.needs_input_grad[0]:
            d_x = torch.bmm(flat, w).to(cells.dtype).view(streams, frames, batch, -1)
        d_w = torch.bmm(flat.transpose(1, 2), x).to(cells.dtype)
        seen = states[:, :frames].view(streams, frames * batch, size)
        d_u = torch.bmm(flat.transpose(1, 2), seen).to(cells.dtype)
        return d_x, d_h.to(cells.dtype), d_c, d_w, d_u, d_gates.sum(dim=(1, 2)), None


class AttendedLSTMs(Function):
    """Eq. 2 to 4 of the first layer: the LSTMs of all streams, tied by one attention map."""

    @staticmethod
    def forward(
        ctx: Function,
        sources: Sequence[SparseCubes],
        scale: Tensor,
        shift: Tensor,
        masks: Sequence[Tensor | None],
        hidden: Tensor | None,
        frames: int,
        dtype: torch.dtype,
        attention: Tensor,
        h: Tensor,
        c: Tensor,
        weights: Tensor,
        bias: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """h (B, S * H), c (S, B, H), weights (S, 4H, D + H), bias (S, 4H), hidden (T, B, R) bool -> the maps (T, B, R)
        and the states of all streams side by side (T, B, S * H)."""
        streams, batch, size = c.shape
        channels = weights.shape[2] - size
        new = c.new_empty
        weights = weights.to(dtype)
        inputs = new(streams, frames + 1, batch, channels + size, dtype=dtype)  # x_t and h_{t-1} side by side
        products = new(streams, batch, 4 * size, dtype=dtype)
        gates = new(streams, frames, batch, 4 * size)
        cells = new(streams, frames + 1, batch, size)
        joint = new(frames + 1, batch, streams * size)
        maps = new(frames, batch, attention.shape[0])
        logits = new(batch, attention.shape[0])
        cells[:, 0], joint[0] = c, h
        inputs[:, 0, :, channels:] = h.view(batch, streams, size).transpose(0, 1)
        for t in range(frames):
            torch.mm(joint[t], attention.t(), out=logits)
            if hidden is not None:
                logits.masked_fill_(hidden[t], -torch.inf)
            torch.softmax(logits, dim=1, out=maps[t])
            for s, source in enumerate(sources):
                mask = None if masks[s] is None else masks[s][t]
                x = inputs[None, s, t, :, :channels]
                glimpse_into(x, source, t, maps[None, t], scale=scale[s], shift=shift[s], mask=mask)
            torch.bmm(inputs[:, t], weights.transpose(1, 2), out=products)
            states = joint[t + 1].view(batch, streams, size).transpose(0, 1)
            step(
                products, None, bias, cells[:, t], cells[:, t + 1], gates[:, t], states, inputs[:, t + 1, :, channels:]
            )
        ctx.sources, ctx.masks = sources, masks
        ctx.save_for_backward(scale, attention, joint, maps, weights, inputs, gates, cells)
        return maps, joint[1:].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Function, d_maps: Tensor, d_joint: Tensor) -> tuple[Tensor | None, ...]:
        scale, attention, joint, maps, weights, inputs, gates, cells = ctx.saved_tensors
        streams, frames, batch, _ = gates.shape
        size, regions = cells.shape[3], maps.shape[2]
        channels = inputs.shape[3] - size
        # The roads of the gradient are those of _AttendedLSTMs in recurrence.py.
        d_direct = d_joint.contiguous().view(frames, batch, streams, size).transpose(1, 2)  # (T, S, B, H)
        d_map = d_maps.clone(memory_format=torch.contiguous_format)  # (T, B, R)
        d_logits = torch.empty_like(maps)
        d_gates = torch.empty_like(gates)
        typed = d_gates if weights.dtype == d_gates.dtype else torch.empty_like(gates, dtype=weights.dtype)
        d_input = weights.new_zeros(streams, batch, channels + size)  # of [x_t, h_{t-1}]
        d_attended = joint.new_zeros(batch, streams * size)  # of h_{t-1}, by the map
        d_c = cells.new_zeros(streams, batch, size)
        for t in reversed(range(frames)):
            step_gradient(
                gates[:, t], cells[:, t], cells[:, t + 1], d_direct[t], d_input[:, :, channels:], d_attended, d_c,
                d_gates[:, t], None if typed is d_gates else typed[:, t],
            )  # fmt: skip
            torch.bmm(typed[:, t], weights, out=d_input)
            for s, source in enumerate(ctx.sources):
                mask = None if ctx.masks[s] is None else ctx.masks[s][t]
                regions_into(d_map[t], source, t, d_input[s, :, :channels], scale=scale[s], mask=mask)
            softmax_gradient(maps[t], d_map[t], d_logits[t])
            torch.mm(d_logits[t], attention, out=d_attended)
        d_h = d_attended + d_input[:, :, channels:].transpose(0, 1).reshape(batch, streams * size)
        flat = typed.view(streams, frames * batch, 4 * size)
        seen = inputs[:, :frames].view(streams, frames * batch, channels + size)
        d_weights = torch.bmm(flat.transpose(1, 2), seen).to(cells.dtype)
        d_bias = d_gates.sum(dim=(1, 2))
        d_attention = torch.mm(
            d_logits.view(frames * batch, regions).t(), joint[:-1].view(frames * batch, streams * size)
        )
        return None, None, None, None, None, None, None, d_attention, d_h, d_c, d_weights, d_bias
