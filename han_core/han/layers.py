"""What recurrent models on cube files are built of: the LSTM cell of eq. 2, and dropout for a batch in several shares.

Symbols as in :mod:`han_core.han.model`.
"""

import torch
from torch import Tensor, nn


class LSTMCell(nn.Module):
    """One step of eq. 2.

    The four products with x_t are one matrix product and so are the four with h_{t-1}; the blocks are in the order
    i, f, o, g.
    """

    def __init__(self, input_size: int, size: int, forget_bias: float = 0.0) -> None:
        super().__init__()
        self.input = nn.Linear(input_size, 4 * size)
        self.recurrent = nn.Linear(size, 4 * size, bias=False)
        with torch.no_grad():
            self.input.bias[size : 2 * size] += forget_bias

    def parameters_in_order(self) -> tuple[Tensor, Tensor, Tensor]:
        """Input weight (4H, input_size), recurrent weight (4H, H) and bias (4H,)."""
        return self.input.weight, self.recurrent.weight, self.input.bias

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, input_size); h, c (B, H) -> the next h, c."""
        i, f, o, g = (self.input(x) + self.recurrent(h)).chunk(4, dim=1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c


class Dropout(nn.Module):
    """Dropout whose masks are masks for a whole sequence at once, and for the whole batch.

    Where a batch is spread over processes each draws the masks of all of it and keeps its own rows, so that the
    result does not depend on how many there are.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.rows: slice | None = None
        """This process's rows of the whole batch; None is all."""
        self.batch: int | None = None
        """Clips of the whole batch, where ``rows`` is set."""

    def masks(self, steps: int, batch: int, size: int, like: Tensor) -> Tensor | None:
        """(steps, batch, size) of 0 and 1 / (1 - rate), to multiply by; None where nothing is dropped."""
        if not self.training or not self.rate:
            return None
        keep = 1 - self.rate
        masks = like.new_empty(steps, self.batch or batch, size).bernoulli_(keep)
        own = masks if self.rows is None else masks[:, self.rows]
        return own / keep if keep else own
