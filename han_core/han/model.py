"""The Hierarchical Attention Network (Wang et al. 2016): attention, hierarchical LSTM, classifier.

Symbols, as in the paper and throughout this file:

    B  clips in a batch          D   channels of a cube (512)        k  ``skip``
    T  frames per clip             R   regions, K x K (196)            L  ``layers``
    C  classes                   H   LSTM size (the paper's D', 1024)
    P, Q   spatial and temporal cubes; one frame of one stream is (D, R), its columns the region vectors p_i, q_i

One step t of the first layer, per clip:

    l   = softmax_i(w_i . [h^p ; h^q])                      eq. 3: ONE map from the states of BOTH streams
    x_p = sum_i l_i p_i,   x_q = sum_i l_i q_i              eq. 4: the glimpses
    h^p, h^q = LSTM^p(x_p), LSTM^q(x_q)                     eq. 2

Layer 2 of each stream reads every k-th state of layer 1 (and layer 3 every k-th of layer 2, ..). The last states of
all layers of both streams are concatenated and classified by a softmax (eq. 5); training maximises the log
likelihood (eq. 6), which is the cross-entropy of ``HANOutput.logits``.

Dropout is Zaremba's (arXiv 1409.2329): on the non-recurrent connections only, that is on the input of every LSTM
layer and on the classifier's input, never on h_{t-1} -> h_t.

The loops over time below are the equations as they stand. :mod:`han_core.han.recurrence` computes the same several
times faster, and is what runs unless ``fast=False`` is asked for; content-based attention always takes the plain loop.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from han_core.cubes.sparse import SparseCubes
from han_core.han.config import HANConfig
from han_core.han.layers import Dropout, LSTMCell
from han_core.han.learner import Answer, Learner, Learnt
from han_core.han.recurrence import DenseGlimpses, Glimpses, attended_lstms, lstms


class HANOutput(NamedTuple):
    logits: Tensor
    """(B, C) scores before the softmax of eq. 5."""
    attention: Tensor
    """(B, T, R) attention maps l; each sums to one. Zero at frames past a clip's length."""


class LocationAttention(nn.Module):
    """Eq. 3: the score of region i is w_i . h_{t-1}; what the region shows plays no part."""

    def __init__(self, state_size: int, regions: int) -> None:
        super().__init__()
        self.regions = nn.Linear(state_size, regions, bias=False)  # row i is w_i

    def forward(self, h: Tensor, cubes: Sequence[Tensor], kept: Tensor | None = None) -> Tensor:
        """h (B, state_size), cubes one (B, D, R) per stream, kept (B, R) or None for all regions -> l (B, R)."""
        return _softmax(self.regions(h), kept)


class ContentAttention(nn.Module):
    """Score v . tanh(U [p_i; q_i] + W h_{t-1}): a region is scored by its own features too, as in the code of [15]."""

    def __init__(self, state_size: int, features: int, streams: int, size: int) -> None:
        super().__init__()
        self.state = nn.Linear(state_size, size)
        self.feature = nn.ModuleList(nn.Linear(features, size, bias=False) for _ in range(streams))
        self.score = nn.Linear(size, 1, bias=False)

    def forward(self, h: Tensor, cubes: Sequence[Tensor], kept: Tensor | None = None) -> Tensor:
        """As of :class:`LocationAttention`."""
        hidden = self.state(h).unsqueeze(1)
        for project, cube in zip(self.feature, cubes, strict=True):
            hidden = hidden + project(cube.transpose(1, 2))
        return _softmax(self.score(torch.tanh(hidden)).squeeze(2), kept)


class UniformAttention(nn.Module):
    """No attention: every region counts the same, so the glimpse is the mean over the regions."""

    def forward(self, h: Tensor, cubes: Sequence[Tensor], kept: Tensor | None = None) -> Tensor:
        """h (B, any), cubes one (B, D, R) per stream -> l (B, R): every entry 1 / R, or 1 / (kept regions) and 0."""
        if kept is not None:
            return _uniform(kept, h.dtype)
        batch, _, regions = cubes[0].shape
        return h.new_full((batch, regions), 1 / regions)


class InitialState(nn.Module):
    """h_0 and c_0 of one layer from the clip's mean feature, by an MLP each (Sharma et al. [15])."""

    def __init__(self, features: int, size: int) -> None:
        super().__init__()
        self.h = nn.Sequential(nn.Linear(features, size), nn.Tanh(), nn.Linear(size, size), nn.Tanh())
        self.c = nn.Sequential(nn.Linear(features, size), nn.Tanh(), nn.Linear(size, size))

    def forward(self, mean: Tensor) -> tuple[Tensor, Tensor]:
        """mean (B, D) -> h_0, c_0, each (B, H)."""
        return self.h(mean), self.c(mean)


class HAN(Learner):
    """The whole model.

    Glimpses are standardised per channel by the buffers ``mean`` and ``deviation``, (streams, D) each, which are 0
    and 1 until :meth:`standardize` sets them. Because the weights of a map sum to one this equals standardising the
    cube itself, and the cubes stay sparse.

    Attributes:
        product_type: type of the products with weight matrices, e.g. bfloat16; None is that of the weights. States,
            gates and sums stay in the type of the weights.

    Example:
        >>> config = HANConfig(("spatial", "temporal"), classes=8, lstm_size=16)
        >>> cubes = {stream: torch.rand(2, 25, 512, 196) for stream in config.streams}  # (B, T, D, R)
        >>> output = HAN(config).eval()(cubes)
        >>> tuple(output.logits.shape), tuple(output.attention.shape)
        ((2, 8), (2, 25, 196))
        >>> round(float(output.attention[0, 0].sum().detach()), 4)
        1.0
    """

    def __init__(self, config: HANConfig) -> None:
        super().__init__()
        self.config = config
        streams, size = len(config.streams), config.lstm_size
        forget_bias = config.forget_bias or (0.0,) * config.layers
        self.attention = self._make_attention(config)
        self.cells = nn.ModuleDict(
            {
                stream: nn.ModuleList(
                    LSTMCell(config.channels if layer == 0 else size, size, forget_bias[layer])
                    for layer in range(config.layers)
                )
                for stream in config.streams
            }
        )
        self.initial = nn.ModuleDict()
        if config.initial_state == "mean":
            self.initial = nn.ModuleDict(
                {
                    s: nn.ModuleList(InitialState(config.channels, size) for _ in range(config.layers))
                    for s in config.streams
                }
            )
        self.dropout = Dropout(config.dropout, config.region_dropout, config.stream_dropout)
        self.classifier = nn.Linear(streams * config.layers * size, config.classes)
        self.product_type: torch.dtype | None = None
        self.register_buffer("mean", torch.zeros(streams, config.channels))
        self.register_buffer("deviation", torch.ones(streams, config.channels))
        if config.attention_deviation is not None:  # last, so that all other weights are those that a seed gives anyway
            nn.init.normal_(self.attention.regions.weight, std=config.attention_deviation)

    @staticmethod
    def _make_attention(config: HANConfig) -> nn.Module:
        state_size = len(config.streams) * config.lstm_size
        match config.attention:
            case "location":
                return LocationAttention(state_size, config.regions)
            case "content":
                return ContentAttention(state_size, config.channels, len(config.streams), config.lstm_size)
            case "uniform":
                return UniformAttention()
        raise ValueError(f"attention must be location, content or uniform, not {config.attention!r}")

    def forward(
        self, features: Mapping[str, Tensor | SparseCubes], lengths: Tensor | None = None, *, fast: bool = True
    ) -> HANOutput:
        """Classify a batch of clips.

        Args:
            features: for each stream its cubes (B, T, D, R), dense of any floating type, or sparse.
            lengths: (B,) frames of each clip, 1 to T; None where all have T. Frames past a length change nothing.
            fast: False computes by the plain loops of this file.

        Raises:
            ValueError: a stream is missing, a shape is not the one of the config, or the model is on another device.
        """
        cubes = self._checked(features)
        batch, frames = cubes[0].shape[:2]
        fast = fast and not isinstance(self.attention, ContentAttention)
        if not fast:
            cubes = [cube.dense(self.mean.dtype) if isinstance(cube, SparseCubes) else cube for cube in cubes]
        first_layer = self._first_layer_fast if fast else self._first_layer
        upper_layer = self._upper_layer_fast if fast else self._upper_layer
        with torch.autocast(
            self.mean.device.type, self.product_type, enabled=self.product_type is not None and not fast
        ):
            initial = self._initial_states(cubes, lengths)
            kept = self.dropout.kept_regions(frames, batch, cubes[0].shape[3], self.mean)
            states, maps = first_layer(cubes, initial, kept)
            masks = self._masks_above(frames, batch)
            last = [[_state_at(sequence, lengths)] for sequence in states]
            below = lengths
            for layer in range(1, self.config.layers):
                picked, read = zip(*(every_kth(sequence, below, self.config.skip) for sequence in states), strict=True)
                below = read[0]
                inputs = [_dropped(values, own[layer - 1]) for values, own in zip(picked, masks, strict=True)]
                states = upper_layer(layer, inputs, [initial[stream][layer] for stream in self.config.streams])
                for own, sequence in zip(last, states, strict=True):
                    own.append(_state_at(sequence, below))
            summary = torch.cat([state for own in last for state in own], dim=1)
            mask = self.dropout.masks(1, batch, summary.shape[1], self.mean)
            logits = self.classifier(_dropped(summary.unsqueeze(1), mask)[:, 0])
        maps = maps.to(self.mean.dtype)
        if lengths is not None:
            maps = maps * (torch.arange(frames, device=lengths.device) < lengths.unsqueeze(1)).unsqueeze(2)
        return HANOutput(logits.to(self.mean.dtype), maps)

    def learn(self, features: Mapping[str, Tensor | SparseCubes], labels: Tensor) -> Learnt:
        """Eq. 6 of a batch."""
        logits = self(features).logits
        return Learnt(cross_entropy(logits, labels, reduction="sum"), (logits.argmax(1) == labels).sum())

    def answer(self, features: Mapping[str, Tensor | SparseCubes]) -> Answer:
        """Eq. 5 of a batch; the details are the attention maps (B, T, R)."""
        output = self(features)
        return Answer(torch.softmax(output.logits.float(), dim=1), output.attention.float())

    def attention_parameters(self) -> Sequence[nn.Parameter]:
        """W of eq. 3; of content-based attention all its weights; none of uniform attention."""
        return list(self.attention.parameters())

    def _first_layer(
        self,
        cubes: Sequence[Tensor],
        initial: Mapping[str, Sequence[tuple[Tensor, Tensor]]],
        kept: Tensor | None,
    ) -> tuple[list[Tensor], Tensor]:
        """Eq. 2 to 4 over time: states (B, T, H) per stream, and the maps (B, T, R).

        Args:
            kept: (T, B, R) bool, the regions that attention may look at; None is all.
        """
        batch, frames = cubes[0].shape[:2]
        state = [initial[stream][0] for stream in self.config.streams]
        states: list[list[Tensor]] = [[] for _ in cubes]
        maps = []
        masks = self.dropout.masks_of_streams(len(cubes), frames, batch, self.config.channels, self.mean)
        for t in range(frames):
            frame = [cube[:, t].to(self.mean.dtype) for cube in cubes]
            joint = torch.cat([h for h, _ in state], dim=1)
            content = [self._standardized(s, p) for s, p in enumerate(frame)] if self._sees_content else frame
            weights = self.attention(joint, content, None if kept is None else kept[t])
            maps.append(weights)
            for s, stream in enumerate(self.config.streams):
                glimpse = torch.bmm(frame[s], weights.unsqueeze(2))
                x = self._standardized(s, glimpse).squeeze(2)
                if masks[s] is not None:
                    x = x * masks[s][t]
                state[s] = self.cells[stream][0](x, *state[s])
                states[s].append(state[s][0])
        return [torch.stack(sequence, dim=1) for sequence in states], torch.stack(maps, dim=1)

    def _upper_layer(
        self, layer: int, below: Sequence[Tensor], initial: Sequence[tuple[Tensor, Tensor]]
    ) -> list[Tensor]:
        """States (B, T', H) of a layer of each stream, which reads one of ``below`` (B, T', H)."""
        states = []
        for stream, values, (h, c) in zip(self.config.streams, below, initial, strict=True):
            own = []
            for x in values.unbind(dim=1):
                h, c = self.cells[stream][layer](x, h, c)
                own.append(h)
            states.append(torch.stack(own, dim=1))
        return states

    def _masks_above(self, frames: int, batch: int) -> list[list[Tensor | None]]:
        """Dropout (T', B, H) of what the layers above the first read, for each stream from below. They are drawn stream
        by stream, in whatever order the layers are computed."""
        steps, skip = [], self.config.skip
        for _ in range(1, self.config.layers):
            frames = max(frames // skip, 1)
            steps.append(frames)
        size = self.config.lstm_size
        return [[self.dropout.masks(count, batch, size, self.mean) for count in steps] for _ in self.config.streams]

    def _first_layer_fast(
        self,
        cubes: Sequence[Tensor | SparseCubes],
        initial: Mapping[str, Sequence[tuple[Tensor, Tensor]]],
        kept: Tensor | None,
    ) -> tuple[list[Tensor], Tensor]:
        """As :meth:`_first_layer`."""
        batch, frames = cubes[0].shape[:2]
        cells = [self.cells[stream][0] for stream in self.config.streams]
        masks = self.dropout.masks_of_streams(len(cubes), frames, batch, self.config.channels, self.mean)
        h, c = zip(*(initial[stream][0] for stream in self.config.streams), strict=True)
        scale = 1 / self.deviation
        if isinstance(self.attention, UniformAttention):
            inputs = []
            weights = None if kept is None else _uniform(kept, self.mean.dtype)
            for s, cube in enumerate(cubes):
                means = self._region_means(cube) if weights is None else self._weighted(cube, weights)
                x = (means - self.mean[s]) * scale[s]
                inputs.append(x.transpose(0, 1) if masks[s] is None else x.transpose(0, 1) * masks[s])
            states = lstms(inputs, h, c, *_side_by_side(cells), self._product_type)
            regions = cubes[0].shape[3]
            maps = self.mean.new_full((batch, frames, regions), 1 / regions)
            maps = maps if weights is None else weights.transpose(0, 1)
        else:
            maps, states = attended_lstms(
                [self._glimpses(cube) for cube in cubes],
                scale,
                -self.mean * scale,
                masks,
                self.attention.regions.weight,
                h,
                c,
                *_side_by_side(cells),
                kept=kept,
                frames=frames,
                dtype=self._product_type,
            )
            maps = maps.transpose(0, 1)
        return [sequence.transpose(0, 1) for sequence in states], maps

    def _upper_layer_fast(
        self, layer: int, below: Sequence[Tensor], initial: Sequence[tuple[Tensor, Tensor]]
    ) -> list[Tensor]:
        """As :meth:`_upper_layer`."""
        cells = [self.cells[stream][layer] for stream in self.config.streams]
        x = [values.transpose(0, 1).contiguous() for values in below]
        states = lstms(x, *zip(*initial, strict=True), *_side_by_side(cells), self._product_type)
        return [sequence.transpose(0, 1) for sequence in states]

    def _glimpses(self, cube: Tensor | SparseCubes) -> Glimpses:
        """How the fast path reads a cube: by its rows; expanded on a GPU that cannot, and in other types."""
        if not isinstance(cube, SparseCubes):
            return DenseGlimpses(cube, self.mean.dtype)
        if (cube.device.type == "cpu" or cube.by_kernels) and self.mean.dtype == torch.float32:
            return cube
        return DenseGlimpses(cube.dense(torch.float16), self.mean.dtype)

    def _region_means(self, cube: Tensor | SparseCubes) -> Tensor:
        """(B, T, D): mean over the regions."""
        if isinstance(cube, SparseCubes):
            return cube.means().to(self.mean)
        return cube.to(self.mean.dtype).mean(dim=3)

    def _weighted(self, cube: Tensor | SparseCubes, weights: Tensor) -> Tensor:
        """(B, T, D): eq. 4 with maps (T, B, R) that are known beforehand."""
        source = self._glimpses(cube)
        if isinstance(source, SparseCubes) and source.by_kernels:
            return source.glimpses(0, weights.contiguous()).transpose(0, 1)
        return torch.stack([source.glimpse(t, weights[t]) for t in range(len(weights))], dim=1)

    @property
    def _product_type(self) -> torch.dtype:
        return self.product_type or self.mean.dtype

    def _initial_states(
        self, cubes: Sequence[Tensor | SparseCubes], lengths: Tensor | None
    ) -> dict[str, list[tuple[Tensor, Tensor]]]:
        """h_0 and c_0, (B, H) each, of every stream's layers."""
        layers = range(self.config.layers)
        if self.config.initial_state == "zeros":
            zeros = self.mean.new_zeros(cubes[0].shape[0], self.config.lstm_size)
            return {stream: [(zeros, zeros) for _ in layers] for stream in self.config.streams}
        batch, frames = cubes[0].shape[:2]
        if lengths is None:
            lengths = torch.full((batch,), frames, device=self.mean.device)
        valid = torch.arange(frames, device=lengths.device) < lengths.unsqueeze(1)
        share = (valid / lengths.unsqueeze(1)).to(self.mean.dtype)
        states = {}
        for s, stream in enumerate(self.config.streams):
            mean = torch.einsum("btd,bt->bd", self._region_means(cubes[s]), share)
            mean = self._standardized(s, mean.unsqueeze(2)).squeeze(2)
            states[stream] = [self.initial[stream][layer](mean) for layer in layers]
        return states

    def _standardized(self, s: int, values: Tensor) -> Tensor:
        """values (B, D, any) of stream number s."""
        return (values - self.mean[s].unsqueeze(1)) / self.deviation[s].unsqueeze(1)

    @property
    def _sees_content(self) -> bool:
        return isinstance(self.attention, ContentAttention)

    def _checked(self, features: Mapping[str, Tensor | SparseCubes]) -> list[Tensor | SparseCubes]:
        missing = [s for s in self.config.streams if s not in features]
        if missing:
            raise ValueError(f"features of {', '.join(missing)} are missing; this model reads {self.config.streams}")
        cubes = [features[stream] for stream in self.config.streams]
        expected = (self.config.channels, self.config.regions)
        for stream, cube in zip(self.config.streams, cubes, strict=True):
            if len(cube.shape) != 4 or (self.config.attention != "uniform" and tuple(cube.shape[2:]) != expected):
                raise ValueError(
                    f"{stream} cubes must be (clips, frames, {expected[0]}, {expected[1]}), not {tuple(cube.shape)}"
                )
            if cube.device.type != self.mean.device.type:
                raise ValueError(f"{stream} cubes are on {cube.device} and the model is on {self.mean.device}")
            if cube.shape[:2] != cubes[0].shape[:2]:
                raise ValueError(
                    f"{stream} cubes have {tuple(cube.shape[:2])} clips and frames, not {tuple(cubes[0].shape[:2])}"
                )
        return cubes


def _side_by_side(cells: Sequence[LSTMCell]) -> list[tuple[Tensor, ...]]:
    """Input weights, recurrent weights and biases of LSTMs, one of each per stream."""
    return list(zip(*(cell.parameters_in_order() for cell in cells), strict=True))


def _dropped(values: Tensor, masks: Tensor | None) -> Tensor:
    """values (B, T, any) with dropout (T, B, any); None is none."""
    return values if masks is None else values * masks.transpose(0, 1)


def _softmax(scores: Tensor, kept: Tensor | None) -> Tensor:
    """Scores (B, R) -> maps over the regions that are kept, 0 at the others; kept (B, R) bool, None is all."""
    return torch.softmax(scores if kept is None else scores.masked_fill(~kept, -torch.inf), dim=1)


def _uniform(kept: Tensor, dtype: torch.dtype) -> Tensor:
    """Maps (.., R) that look at all regions that are kept (.., R) alike."""
    return kept.to(dtype) / kept.sum(dim=-1, keepdim=True)


def every_kth(states: Tensor, lengths: Tensor | None, k: int) -> tuple[Tensor, Tensor | None]:
    """The states a higher layer reads: those at steps k, 2k, .. of a sequence.

    A shorter remainder at the end is dropped, unless it would leave nothing: a sequence of fewer than k steps gives
    its last state.

    Args:
        states: (B, T, H).
        lengths: (B,) valid steps of each sequence; None where all are valid, which costs no wait for a GPU.

    Returns:
        states (B, max(1, T // k), H) and their lengths (B,), None where all are valid.
    """
    steps = states.shape[1] // k
    if lengths is None:
        return (states[:, k - 1 : steps * k : k] if steps else states[:, -1:]), None
    picked = states[:, k - 1 : steps * k : k]
    if steps == 0:
        picked = states.new_zeros(states.shape[0], 1, states.shape[2])
    short = lengths < k
    if bool(short.any()):
        first = torch.where(short.unsqueeze(1), _state_at(states, lengths), picked[:, 0])
        picked = torch.cat([first.unsqueeze(1), picked[:, 1:]], dim=1)
    return picked, torch.clamp(lengths // k, min=1)


def _state_at(states: Tensor, lengths: Tensor | None) -> Tensor:
    """The last valid state of each sequence: states (B, T, H), lengths (B,) or None for T -> (B, H)."""
    if lengths is None:
        return states[:, -1]
    index = (lengths - 1).view(-1, 1, 1).expand(-1, 1, states.shape[2])
    return states.gather(1, index).squeeze(1)
