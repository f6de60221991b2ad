"""What recurrent models on cube files are built of: the LSTM cell of eq. 2, and dropout, of features, of regions and of
streams, for a batch in several shares.

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

    Args:
        rate: of features.
        region_rate: of regions that attention may not look at.
        stream_rate: of clips one of whose streams is silent.
    """

    def __init__(self, rate: float, region_rate: float = 0.0, stream_rate: float = 0.0) -> None:
        super().__init__()
        self.rate = rate
        self.region_rate = region_rate
        self.stream_rate = stream_rate
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
        own = self._own(masks)
        return own / keep if keep else own

    def kept_regions(self, steps: int, batch: int, regions: int, like: Tensor) -> Tensor | None:
        """(steps, batch, regions) bool: the regions that attention may look at; None where none is dropped.

        Each is dropped with probability ``region_rate``, but of each frame one is always kept. A single region, as of
        features without a place, is never dropped, and nothing is drawn for it.
        """
        if not self.training or not self.region_rate or regions == 1:
            return None
        drawn = like.new_empty(steps, self.batch or batch, regions).uniform_()
        kept = drawn >= self.region_rate
        kept |= torch.arange(regions, device=kept.device) == drawn.argmax(dim=2, keepdim=True)
        return self._own(kept)

    def masks_of_streams(self, streams: int, steps: int, batch: int, size: int, like: Tensor) -> list[Tensor | None]:
        """:meth:`masks` of each stream, which are 0 all over where the stream is silent for a clip.

        Of each clip, with probability ``stream_rate``, one stream drawn at random is silent (Neverova et al., ModDrop,
        PAMI 2016, without its rescaling: a silent stream is told by states that know nothing). A single one never is.
        """
        masks = [self.masks(steps, batch, size, like) for _ in range(streams)]
        if not self.training or not self.stream_rate or streams == 1:
            return masks
        silent, which = like.new_empty(2, 1, self.batch or batch).uniform_()
        chosen = (which * streams).to(torch.int64).clamp_(max=streams - 1)
        drawn = torch.arange(streams, device=chosen.device).unsqueeze(1) == chosen
        audible = (~drawn | (silent >= self.stream_rate)).to(like)
        audible = self._own(audible).view(streams, 1, batch, 1)
        return [
            own.expand(steps, batch, size) if mask is None else mask * own
            for own, mask in zip(audible, masks, strict=True)
        ]

    def _own(self, whole: Tensor) -> Tensor:
        """This process's clips of (steps, clips of the whole batch, any)."""
        return whole if self.rows is None else whole[:, self.rows]
