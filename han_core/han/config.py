"""What decides the shape of a HAN, symbols as in :mod:`han_core.han.model`."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal

Attention = Literal["location", "content", "uniform"]


@dataclass(frozen=True)
class HANConfig:
    """Everything that decides the shape of a :class:`han_core.han.model.HAN`."""

    streams: tuple[str, ...]
    """Streams in the order in which their states are concatenated: spatial before temporal."""
    classes: int
    channels: int = 512
    """D: channels of a cube, or units of a fully connected layer (then R = 1)."""
    regions: int = 196
    """R: regions per frame; 1 for features without a place."""
    attention: Attention = "location"
    """``location`` is eq. 3. ``content`` also scores the region's own features, as the code of [15] does.
    ``uniform`` is the paper's "without attention": the mean over the regions."""
    lstm_size: int = 1024
    layers: int = 2
    skip: int = 5
    dropout: float = 0.5
    forget_bias: tuple[float, ...] = ()
    """Initial bias of the forget gate, one per layer; empty is 0 everywhere. See :func:`span_forget_bias`."""
    initial_state: Literal["zeros", "mean"] = "zeros"
    """h_0 and c_0: zeros, or an MLP of the clip's mean feature as in [15]."""
    attention_deviation: float | None = None
    """Standard deviation of the normal distribution that W of eq. 3 starts from; None is torch's default for a linear
    layer. Of ``location`` alone."""
    region_dropout: float = 0.0
    """Rate at which regions are hidden from attention during training; see :meth:`Dropout.kept_regions`."""
    stream_dropout: float = 0.0
    """Rate at which a clip loses one of its streams during training; see :meth:`Dropout.masks_of_streams`."""

    def __post_init__(self) -> None:
        for name in ("classes", "channels", "regions", "lstm_size", "layers", "skip"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if not self.streams or len(set(self.streams)) < len(self.streams):
            raise ValueError(f"streams must name each stream once, not {self.streams}")
        if self.forget_bias and len(self.forget_bias) != self.layers:
            raise ValueError(
                f"forget_bias must have one value for each of {self.layers} layers, not {self.forget_bias}"
            )
        if self.attention_deviation is not None and not 0 < self.attention_deviation < math.inf:
            raise ValueError(f"attention_deviation must be more than 0, not {self.attention_deviation}")
        if self.attention_deviation is not None and self.attention != "location":
            raise ValueError(f"attention_deviation is of attention location, not of {self.attention}")
        if not 0 <= self.region_dropout < 1:
            raise ValueError(f"region_dropout must be at least 0 and less than 1, not {self.region_dropout}")
        if not 0 <= self.stream_dropout <= 1:
            raise ValueError(f"stream_dropout must be at least 0 and at most 1, not {self.stream_dropout}")

    def to_dict(self) -> dict:
        """Plain values, as they stand in a model's file, where ``channels`` has its old name.

        Options that came later stand there only where they are used, so that a model without them keeps its bytes.
        """
        values = asdict(self)
        for name, unused in (("attention_deviation", None), ("region_dropout", 0.0), ("stream_dropout", 0.0)):
            if values[name] == unused:
                del values[name]
        return {"features": values.pop("channels"), **values}

    @classmethod
    def from_dict(cls, values: Mapping) -> "HANConfig":
        changed = {
            "channels": values["features"],
            "streams": tuple(values["streams"]),
            "forget_bias": tuple(values["forget_bias"]),
        }
        kept = {name: value for name, value in values.items() if name != "features"}
        return cls(**{**kept, **changed})


def span_forget_bias(frames: int, layers: int, skip: int) -> tuple[float, ...]:
    """Forget-gate biases with which every layer starts out remembering its whole sequence.

    A gate with bias b multiplies the memory by sigmoid(b) at each step, which forgets with a time constant of
    1 + e^b steps. With b = log(steps - 1) that is the length of the sequence (the middle of what Tallec and
    Ollivier, arXiv 1804.11188, draw at random). With b = 0 half of the memory is gone after each frame, and h_T, all
    that the classifier sees, knows little but the last few frames.

    Args:
        frames: T. layers: L. skip: k; layer l has T / k^l steps.
    """
    steps = [max(frames // skip**layer, 1) for layer in range(layers)]
    return tuple(math.log(max(count - 1, 1)) for count in steps)
