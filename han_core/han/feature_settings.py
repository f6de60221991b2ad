"""How a video becomes the features that a trained HAN reads; kept in the model's file, so that it can be done again."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class FeatureSettings:
    """Every setting between a video file and the model's input. Plain values, because it lives in a file."""

    frames: int
    """T: frames per clip."""
    layer: str
    fc: str
    batch: int
    """Images of a forward pass: rounding may depend on it."""
    precision: str
    stack: int
    """L: flow fields in one input of the temporal net."""
    short_side: int | None
    frame_quality: int
    """Of the JPEGs that frames are kept as, 1 to 100."""
    flow: Mapping[str, Any]
    """Arguments of :class:`han_core.flow.levels.FlowFormat`."""
    tvl1: Mapping[str, float | int]
    """Arguments of :class:`han_core.flow.tvl1.params.TVL1Params`."""
    backend: str
    """Of the flow solver, or ``auto``."""
    clip_frames: int
    """Median length in frames of the clips that the model learnt from."""
    nets: Mapping[str, str] = field(default_factory=dict)
    """Stream -> identity of the net (:func:`han_core.nets.sealed_net.net_identity`)."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """Stream -> input convention of the net (:data:`han_core.nets.preprocess.Convention`)."""
    camera: str = "none"
    """What is taken out of the temporal net's flow (:func:`han_core.camera.steady_field.steady_field`)."""

    def to_dict(self) -> dict:
        values = asdict(self)
        if self.camera == "none":  # as in the files of models that were made before there was a choice
            del values["camera"]
        return values

    @classmethod
    def from_dict(cls, values: Mapping) -> "FeatureSettings":
        size = values["flow"].get("size")  # JSON knows no tuples
        return cls(**{**values, "flow": {**values["flow"], "size": tuple(size) if size else None}})
