"""Two-stream CNN + LSTM (Ng et al. 2015, "Beyond Short Snippets"): a deep LSTM that names the class at every frame.

Symbols as in :mod:`han_core.han.model`: B clips, T frames, D channels, C classes, S streams.

For each stream, at every frame t of a clip of n frames:

    h^1 = LSTM^1(x_t),   h^l = LSTM^l(h^{l-1})           five layers of 512 cells, eq. 2 of the HAN paper
    y_t = softmax(W h^5 + b)                             a class at every frame, not at the last alone
    g_t = (t - 1) / (n - 1)                              how much the frame counts: from 0 to 1

    loss = sum_t g_t CE(y_t) / sum_t g_t,   answer = sum_t g_t y_t / sum_t g_t

Early frames can say little yet and are hardly blamed for it; and yet the error need not come all the way from the last
frame. The streams share nothing: their losses are added and their gradients clipped apart, so each is trained as it
would be alone.

Clips of fewer than T frames are not padded: the cubes stage takes T equally spaced instants of every clip and of each
the nearest frame (:func:`han_core.nets.sampling.sample_frames`), so that a short clip repeats frames all along and ends
with its last one. It goes slowly, and g_t is the instant's place in it as in any other clip.

Where this departs from the paper: cells without peepholes; the CNN is VGG-16, fine-tuned beforehand, its features are
in files and no gradient goes through it; no Sports-1M. Dropout lies between the layers. The cell has one bias
(PyTorch's own LSTM has two, which are added), so that a forget bias is set once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from han_core.cubes.sparse import SparseCubes
from han_core.han.layers import Dropout, LSTMCell
from han_core.han.learner import Answer, Learner, Learnt
from han_core.han.recurrence import lstm


@dataclass(frozen=True)
class CNNLSTMConfig:
    """Everything that decides the shape of a :class:`CNNLSTM`, and where its weights start."""

    streams: tuple[str, ...]
    classes: int
    channels: int = 4096
    """D: units of the fully connected layer, or channels of a cube that is averaged over its regions."""
    units: int = 512
    layers: int = 5
    dropout: float = 0.5
    forget_bias: float = 0.0
    """Initial bias of all forget gates; see :func:`han_core.han.config.span_forget_bias`, with ``skip`` 1."""

    def __post_init__(self) -> None:
        for name in ("classes", "channels", "units", "layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if not self.streams or len(set(self.streams)) < len(self.streams):
            raise ValueError(f"streams must name each stream once, not {self.streams}")


def frame_weights(frames: int, lengths: Tensor) -> Tensor:
    """g (B, T) float32: rises linearly from 0 at a clip's first frame to 1 at its last; 1 where it has one frame only.

    Args:
        frames: T.
        lengths: (B,) frames of each clip, 1 to T; those past it get 0.
    """
    t = torch.arange(frames, device=lengths.device)
    last = (lengths - 1).unsqueeze(1)
    rising = torch.where(last > 0, t / last.clamp(min=1), 1.0)
    return torch.where(t <= last, rising, 0.0)


def frame_losses(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """(S, B): the cross-entropies of each clip's frames, averaged with its weights.

    Args:
        logits: (S, B, T, C).
        labels: (B,) int64.
        weights: (B, T), of :func:`frame_weights`.
    """
    # In place of gather, whose gradient is in the same order on every run of a GPU only if it sorts first.
    its = torch.arange(logits.shape[3], device=labels.device) == labels.view(1, -1, 1, 1)
    losses = -torch.where(its, torch.log_softmax(logits, dim=3), 0).sum(3)
    return (losses * weights).sum(2) / weights.sum(1)


def clip_probabilities(logits: Tensor, weights: Tensor) -> Tensor:
    """(B, S, C): the softmaxes of each clip's frames, averaged with its weights; shapes as of :func:`frame_losses`."""
    softmaxes = torch.softmax(logits, dim=3) * weights.unsqueeze(2)
    return (softmaxes.sum(2) / weights.sum(1, keepdim=True)).transpose(0, 1)


class CNNLSTM(Learner):
    """One deep LSTM a stream.

    Features are standardised per channel by the buffers ``mean`` and ``deviation``, (streams, D) each, which are 0
    and 1 until :meth:`standardize` sets them.

    Example:
        >>> model = CNNLSTM(CNNLSTMConfig(("spatial", "temporal"), classes=8, channels=32, units=16)).eval()
        >>> features = {stream: torch.rand(2, 25, 32, 1) for stream in model.config.streams}  # (B, T, D, 1)
        >>> tuple(model(features).shape)
        (2, 2, 25, 8)
        >>> answer = model.answer(features)
        >>> tuple(answer.probabilities.shape), tuple(answer.details.shape)
        ((2, 8), (2, 2, 8))
    """

    def __init__(self, config: CNNLSTMConfig) -> None:
        super().__init__()
        self.config = config
        self.cells = nn.ModuleDict(
            {
                stream: nn.ModuleList(
                    LSTMCell(config.channels if layer == 0 else config.units, config.units, config.forget_bias)
                    for layer in range(config.layers)
                )
                for stream in config.streams
            }
        )
        self.classifiers = nn.ModuleDict({s: nn.Linear(config.units, config.classes) for s in config.streams})
        self.dropout = Dropout(config.dropout)
        self.register_buffer("mean", torch.zeros(len(config.streams), config.channels))
        self.register_buffer("deviation", torch.ones(len(config.streams), config.channels))

    def forward(self, features: Mapping[str, Tensor | SparseCubes]) -> Tensor:
        """Scores of every frame before the softmax, (S, B, T, C).

        Args:
            features: for each stream (B, T, D, 1), of any floating type.

        Raises:
            ValueError: a stream is missing or a shape is not the one of the config.
        """
        return torch.stack([self._scores(s, values) for s, values in enumerate(self._checked(features))])

    def learn(
        self, features: Mapping[str, Tensor | SparseCubes], labels: Tensor, lengths: Tensor | None = None
    ) -> Learnt:
        """The losses of all streams, added; a clip is right where the mean of the streams' probabilities is.

        Args:
            features, labels: as of :meth:`Learner.learn`.
            lengths: (B,) frames of each clip, 1 to T; None where all have T. Frames past a length change nothing.
        """
        logits = self(features)
        weights = self._weights(logits, lengths)
        probabilities = clip_probabilities(logits.detach(), weights).mean(1)
        losses = frame_losses(logits, labels, weights)
        return Learnt(losses.sum(), (probabilities.argmax(1) == labels).sum())

    def answer(self, features: Mapping[str, Tensor | SparseCubes], lengths: Tensor | None = None) -> Answer:
        """The mean of the streams' probabilities, and in the details (B, S, C) those of each stream.

        Args:
            features, lengths: as of :meth:`learn`.
        """
        logits = self(features)
        details = clip_probabilities(logits, self._weights(logits, lengths)).float()
        return Answer(details.mean(1), details)

    def parts(self) -> Sequence[Sequence[nn.Parameter]]:
        """A part a stream."""
        return [[*self.cells[s].parameters(), *self.classifiers[s].parameters()] for s in self.config.streams]

    def _scores(self, s: int, values: Tensor) -> Tensor:
        """(B, T, C) of stream number ``s``, whose features ``values`` are (B, T, D, 1)."""
        stream = self.config.streams[s]
        x = (values.squeeze(3).to(self.mean.dtype) - self.mean[s]) / self.deviation[s]
        x = x.transpose(0, 1).contiguous()
        zeros = x.new_zeros(x.shape[1], self.config.units)
        for layer, cell in enumerate(self.cells[stream]):
            masks = self.dropout.masks(*x.shape, x) if layer else None
            x = lstm(x if masks is None else x * masks, zeros, zeros, *cell.parameters_in_order(), x.dtype)
        return self.classifiers[stream](x).transpose(0, 1)

    @staticmethod
    def _weights(logits: Tensor, lengths: Tensor | None) -> Tensor:
        _, batch, frames, _ = logits.shape
        if lengths is None:
            lengths = torch.full((batch,), frames, device=logits.device)
        return frame_weights(frames, lengths).to(logits.dtype)

    def _checked(self, features: Mapping[str, Tensor | SparseCubes]) -> list[Tensor]:
        missing = [s for s in self.config.streams if s not in features]
        if missing:
            raise ValueError(f"features of {', '.join(missing)} are missing; this model reads {self.config.streams}")
        chosen = [features[stream] for stream in self.config.streams]
        for stream, values in zip(self.config.streams, chosen, strict=True):
            shape = tuple(values.shape)
            if len(shape) != 4 or shape[2:] != (self.config.channels, 1):
                raise ValueError(f"{stream} features must be (clips, frames, {self.config.channels}, 1), not {shape}")
            if shape[:2] != tuple(chosen[0].shape[:2]):
                raise ValueError(
                    f"{stream} features have {shape[:2]} clips and frames, not {tuple(chosen[0].shape[:2])}"
                )
        return chosen
