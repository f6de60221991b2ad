"""Eq. 2 to 4 over all frames as one differentiable operation: the fast path of :mod:`han_core.han.model`.

The equations are those of the plain loop in ``HAN``, and so are the results, to rounding; a test holds the two
together, value and gradient. What makes it fast:

- x_t and h_{t-1} lie side by side, so that the eight products of eq. 2 are one matrix product a step.
- Back-propagation through time is written out. It keeps the gates of all steps, and the gradient of a weight matrix is
  one product over all steps at the end; automatic differentiation would add up T matrices of that size instead.
- Nothing that is the same at every step is computed in the loop; inputs known beforehand (layers above the first, and
  the first without attention) are multiplied by their weights in one product.
- Cubes are read in sparse form where they come so: the glimpse costs one multiplication a non-zero number.

On a GPU float32 goes by :mod:`han_core.han.recurrence_cuda`, where Triton's kernels can be used.

Symbols as in :mod:`han_core.han.model`: B clips, T frames, D channels, R regions, H LSTM size, S streams. Gates are in
the order i, f, o, g. Every sequence has time as its first axis.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from han_core.cubes import gpu_kernels
from han_core.cubes.sparse import SparseCubes


class Glimpses(Protocol):
    """Cubes of a batch of clips for one stream, as the recurrence reads them."""

    def glimpse(self, t: int, weights: Tensor) -> Tensor:
        """Eq. 4 at frame t: weights l (B, R) -> sum_i l_i p_i, (B, D) float32."""
        ...

    def regions_of(self, t: int, gradient: Tensor) -> Tensor:
        """The transposed product: gradient (B, D) of the glimpse -> gradient (B, R) of the weights, p_i . gradient."""
        ...


class DenseGlimpses:
    """Cubes (B, T, D, R) of any floating type, as :class:`Glimpses`."""

    def __init__(self, cubes: Tensor, dtype: torch.dtype = torch.float32) -> None:
        self._cubes = cubes
        self._dtype = dtype

    def glimpse(self, t: int, weights: Tensor) -> Tensor:
        return torch.bmm(self._cubes[:, t].to(self._dtype), weights.unsqueeze(2)).squeeze(2)

    def regions_of(self, t: int, gradient: Tensor) -> Tensor:
        return torch.bmm(gradient.unsqueeze(1), self._cubes[:, t].to(self._dtype)).squeeze(1)


def lstm(
    x: Tensor, h: Tensor, c: Tensor, input_weight: Tensor, recurrent_weight: Tensor, bias: Tensor, dtype: torch.dtype
) -> Tensor:
    """Eq. 2 over a sequence whose inputs are known.

    Args:
        x: (T, B, D) inputs, dropout applied.
        h, c: (B, H), the state before the first step.
        input_weight, recurrent_weight, bias: (4H, D), (4H, H), (4H,).
        dtype: of the matrix products; everything else is in the type of ``x``.

    Returns:
        (T, B, H) states.
    """
    return lstms([x], [h], [c], [input_weight], [recurrent_weight], [bias], dtype)[0]


def lstms(
    x: Sequence[Tensor],
    h: Sequence[Tensor],
    c: Sequence[Tensor],
    input_weights: Sequence[Tensor],
    recurrent_weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    dtype: torch.dtype,
) -> list[Tensor]:
    """:func:`lstm` for several LSTMs of the same size, of each argument but the last one per LSTM."""
    if gpu_kernels.by_kernels(x[0].device) and x[0].dtype == torch.float32:
        from han_core.han import recurrence_cuda

        return recurrence_cuda.lstms(x, h, c, input_weights, recurrent_weights, biases, dtype)
    each = zip(x, h, c, input_weights, recurrent_weights, biases, strict=True)
    return [_LSTM.apply(*arguments, dtype) for arguments in each]


def attended_lstms(
    sources: Sequence[Glimpses],
    scale: Tensor,
    shift: Tensor,
    masks: Sequence[Tensor] | None,
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
    """Eq. 2 to 4 of the first layer: the LSTMs of all streams, tied by one attention map.

    Args:
        sources: the cubes, one per stream.
        scale, shift: (S, D); the LSTM reads glimpse * scale + shift, which standardises it.
        masks: dropout, (T, B, D) per stream: 0 or 1 / (1 - rate). None is none.
        attention: W of eq. 3, (R, S * H).
        h, c: the states before the first frame, (B, H) per stream.
        input_weights, recurrent_weights, biases: of each stream's LSTM, as in :func:`lstm`.
        kept: (T, B, R) bool, the regions that attention may look at, at least one of each frame; None is all.
        frames: T.
        dtype: of the matrix products with weights.

    Returns:
        The maps (T, B, R) and the states, (T, B, H) per stream.
    """
    masks = [None] * len(sources) if masks is None else masks
    if attention.dtype == torch.float32 and all(isinstance(s, SparseCubes) and s.by_kernels for s in sources):
        from han_core.han import recurrence_cuda

        return recurrence_cuda.attended_lstms(
            sources, scale, shift, masks, attention, h, c, input_weights, recurrent_weights, biases,
            kept=kept, frames=frames, dtype=dtype,
        )  # fmt: skip
    maps, *states = _AttendedLSTMs.apply(
        sources, scale, shift, masks, kept, frames, dtype,
        attention, *h, *c, *input_weights, *recurrent_weights, *biases,
    )  # fmt: skip
    return maps, states


class _LSTM(Function):
    @staticmethod
    def forward(
        ctx: Function, x: Tensor, h: Tensor, c: Tensor, w: Tensor, u: Tensor, bias: Tensor, dtype: torch.dtype
    ) -> Tensor:
        steps, batch, _ = x.shape
        size = u.shape[1]
        w_typed, u_typed = w.to(dtype), u.to(dtype)
        gates = torch.matmul(x.to(dtype), w_typed.t()).to(x.dtype)
        gates += bias
        states = x.new_empty(steps + 1, batch, size)
        cells = x.new_empty(steps + 1, batch, size)
        states[0], cells[0] = h, c
        for t in range(steps):
            _add_product(gates[t], states[t], u_typed)
            _step(gates[t], cells[t], cells[t + 1], states[t + 1])
        ctx.save_for_backward(x, w_typed, u_typed, gates, cells, states)
        return states[1:].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Function, d_states: Tensor) -> tuple[Tensor | None, ...]:
        x, w, u, gates, cells, states = ctx.saved_tensors
        steps, batch, size = d_states.shape
        # d_h, d_c (B, H): the gradient that reaches h_t and c_t from the steps after t. Once the loop has filled
        # d_gates, each weight's gradient is one product over all steps.
        d_gates = torch.empty_like(gates)  # (T, B, 4H) before the activations
        d_h, d_c = torch.zeros_like(cells[0]), torch.zeros_like(cells[0])
        for t in reversed(range(steps)):
            d_h += d_states[t]  # from the loss, directly
            _step_gradient(gates[t], cells[t], cells[t + 1], d_h, d_c, d_gates[t])
            d_h = _product(d_gates[t], u, x.dtype)  # (B, 4H) @ (4H, H): through h_{t-1}
        flat = d_gates.view(steps * batch, -1).to(w.dtype)  # (T * B, 4H)
        d_x = torch.matmul(flat, w).to(x.dtype).view_as(x) if ctx.needs_input_grad[0] else None
        d_w = torch.matmul(flat.t(), x.reshape(steps * batch, -1).to(w.dtype)).to(x.dtype)
        d_u = torch.matmul(flat.t(), states[:-1].reshape(steps * batch, size).to(w.dtype)).to(x.dtype)
        return d_x, d_h, d_c, d_w, d_u, d_gates.sum(dim=(0, 1)), None


class _AttendedLSTMs(Function):
    @staticmethod
    def forward(
        ctx: Function,
        sources: Sequence[Glimpses],
        scale: Tensor,
        shift: Tensor,
        masks: Sequence[Tensor | None],
        kept: Tensor | None,
        frames: int,
        dtype: torch.dtype,
        attention: Tensor,
        *state_and_weights: Tensor,
    ) -> tuple[Tensor, ...]:
        streams = len(sources)
        h, c, w, u, bias = (state_and_weights[i * streams : (i + 1) * streams] for i in range(5))
        batch, size = h[0].shape
        channels = w[0].shape[1]
        new = h[0].new_empty
        weights = [torch.cat(pair, dim=1).to(dtype) for pair in zip(w, u, strict=True)]  # (4H, D + H)
        inputs = [new(frames, batch, channels + size) for _ in sources]  # x_t and h_{t-1} side by side
        gates = [new(frames, batch, 4 * size) for _ in sources]
        cells = [new(frames + 1, batch, size) for _ in sources]
        states = [new(frames, batch, size) for _ in sources]
        joint = new(frames + 1, batch, streams * size)
        maps = new(frames, batch, attention.shape[0])
        for s in range(streams):
            joint[0, :, s * size : (s + 1) * size], cells[s][0] = h[s], c[s]
        for t in range(frames):
            logits = torch.matmul(joint[t], attention.t())
            if kept is not None:
                logits.masked_fill_(~kept[t], -torch.inf)
            torch.softmax(logits, dim=1, out=maps[t])
            for s, source in enumerate(sources):
                own = slice(s * size, (s + 1) * size)
                x = inputs[s][t, :, :channels]
                torch.addcmul(shift[s], source.glimpse(t, maps[t]), scale[s], out=x)
                if masks[s] is not None:
                    x *= masks[s][t]
                inputs[s][t, :, channels:] = joint[t, :, own]
                gates[s][t] = bias[s]
                _add_product(gates[s][t], inputs[s][t], weights[s])
                _step(gates[s][t], cells[s][t], cells[s][t + 1], states[s][t])
                joint[t + 1, :, own] = states[s][t]
        ctx.sources, ctx.masks, ctx.streams = sources, masks, streams
        ctx.save_for_backward(scale, attention, joint, maps, *weights, *inputs, *gates, *cells)
        return maps, *states

    @staticmethod
    @once_differentiable
    def backward(ctx: Function, d_maps: Tensor, *d_states: Tensor) -> tuple[Tensor | None, ...]:
        streams = ctx.streams
        scale, attention, joint, maps, *rest = ctx.saved_tensors
        weights, inputs, gates, cells = (rest[i * streams : (i + 1) * streams] for i in range(4))
        frames, batch, regions = maps.shape
        size = cells[0].shape[2]
        channels = inputs[0].shape[2] - size
        # As in _LSTM, with two more roads for the gradient. Forward, h_{t-1} of all streams makes the map l_t, and l_t
        # makes every stream's glimpse x_t. So the gradient of each x_t goes into that of l_t (summed over the streams),
        # through the softmax into the logits W h, and from there to h_{t-1} of all streams.
        d_gates = [torch.empty_like(g) for g in gates]  # (T, B, 4H) per stream
        d_logits = torch.empty_like(maps)  # (T, B, R)
        d_h = [torch.zeros_like(cells[s][0]) for s in range(streams)]
        d_c = [torch.zeros_like(cells[s][0]) for s in range(streams)]
        for t in reversed(range(frames)):
            d_map = d_maps[t].clone()  # (B, R)
            for s, source in enumerate(ctx.sources):
                d_h[s] += d_states[s][t]
                _step_gradient(gates[s][t], cells[s][t], cells[s][t + 1], d_h[s], d_c[s], d_gates[s][t])
                d_input = _product(d_gates[s][t], weights[s], scale.dtype)  # (B, D + H): of [x_t, h_{t-1}]
                d_glimpse = d_input[:, :channels] * scale[s]  # (B, D) before it was standardised
                if ctx.masks[s] is not None:
                    d_glimpse *= ctx.masks[s][t]
                d_map += source.regions_of(t, d_glimpse)  # p_i . d_glimpse
                d_h[s] = d_input[:, channels:]  # (B, H)
            # softmax: dl_i -> ds_i = l_i (dl_i - sum_j l_j dl_j), which is 0 for regions that were not kept
            d_map -= (maps[t] * d_map).sum(dim=1, keepdim=True)
            torch.mul(maps[t], d_map, out=d_logits[t])
            d_joint = torch.matmul(d_logits[t], attention)  # (B, R) @ (R, S * H)
            for s in range(streams):
                d_h[s] = d_h[s] + d_joint[:, s * size : (s + 1) * size]
        d_w, d_u, d_bias = [], [], []
        for s in range(streams):
            flat = d_gates[s].view(frames * batch, -1)  # (T * B, 4H)
            typed = flat.to(weights[s].dtype)
            # (4H, D + H): the gradients of W_x and W_h side by side, as x_t and h_{t-1} lie in the inputs
            product = torch.matmul(typed.t(), inputs[s].view(frames * batch, -1).to(typed.dtype)).to(scale.dtype)
            d_w.append(product[:, :channels])
            d_u.append(product[:, channels:])
            d_bias.append(flat.sum(dim=0))
        d_attention = torch.matmul(
            d_logits.view(frames * batch, regions).t(), joint[:-1].view(frames * batch, streams * size)
        )
        return None, None, None, None, None, None, None, d_attention, *d_h, *d_c, *d_w, *d_u, *d_bias


def _product(values: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
    """values @ weight in the type of the weight, the result in ``dtype``."""
    return torch.matmul(values.to(weight.dtype), weight).to(dtype)


def _add_product(target: Tensor, values: Tensor, weight: Tensor) -> None:
    """target += values @ weight^T, the product in the type of the weight."""
    if weight.dtype == target.dtype:
        target.addmm_(values, weight.t())
    else:
        target += torch.matmul(values.to(weight.dtype), weight.t())


def _step(gates: Tensor, before: Tensor, after: Tensor, h: Tensor) -> None:
    """One step of eq. 2 once the products are there; activates ``gates`` (B, 4H) in place, writes c_t and h_t."""
    size = before.shape[1]
    gates[:, : 3 * size].sigmoid_()
    gates[:, 3 * size :].tanh_()
    i, f, o, g = gates.split(size, dim=1)
    torch.mul(f, before, out=after)
    after.addcmul_(i, g)
    torch.tanh(after, out=h)
    h *= o


def _step_gradient(gates: Tensor, before: Tensor, after: Tensor, d_h: Tensor, d_c: Tensor, d_gates: Tensor) -> None:
    """Back through one step of eq. 2: gradients of h_t and c_t -> of the gates before activation.

    Args:
        gates: (B, 4H) activated. before, after: c_{t-1}, c_t. d_h: (B, H).
        d_c: (B, H) what reaches c_t from t + 1; becomes what reaches c_{t-1}.
        d_gates: (B, 4H), written.
    """
    size = before.shape[1]
    i, f, o, g = gates.split(size, dim=1)
    d_i, d_f, d_o, d_g = d_gates.split(size, dim=1)
    tanh_c = torch.tanh(after)
    torch.mul(d_h, tanh_c, out=d_o)
    d_c += d_h * o * (1 - tanh_c * tanh_c)
    torch.mul(d_c, g, out=d_i)
    torch.mul(d_c, before, out=d_f)
    torch.mul(d_c, i, out=d_g)
    d_c *= f
    sigmoids = gates[:, : 3 * size]
    d_gates[:, : 3 * size] *= sigmoids * (1 - sigmoids)
    d_g *= 1 - g * g
