"""What the file of a trained HAN may say of itself; see :mod:`han_core.han.described`."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from han_core.han.config import HANConfig
from han_core.han.described import Strict, Text, whole
from han_core.han.feature_settings import FeatureSettings

SCHEMA = 2

_Stream = Literal["spatial", "temporal"]
_Positive = Annotated[float, Field(gt=0)]
_CAMERA = r"^(none|mean|homography|((mean|homography)-)?still[0-9]{1,3}(\.[0-9]{1,9})?)$"
"""Of :class:`han_core.camera.compensation.Compensation`, which this room does not know."""
_Side = Annotated[int, Field(ge=1, le=1 << 16)]


class _Config(Strict):
    """Of :meth:`HANConfig.to_dict`."""

    streams: Annotated[tuple[Text, ...], Field(min_length=1, max_length=8)]
    classes: whole(1, 1_000_000)
    features: whole(1, 1 << 20)
    regions: whole(1, 1 << 20)
    attention: Literal["location", "content", "uniform"]
    lstm_size: whole(1, 1 << 16)
    layers: whole(1, 1000)
    skip: whole(1, 1 << 31)
    dropout: Annotated[float, Field(ge=0, le=1)]
    forget_bias: Annotated[tuple[float, ...], Field(max_length=1000)]
    initial_state: Literal["zeros", "mean"]
    attention_deviation: _Positive | None = None
    region_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    stream_dropout: Annotated[float, Field(ge=0, le=1)] = 0.0


class _Flow(Strict):
    """Of :class:`han_core.flow.levels.FlowFormat`."""

    bound: _Positive
    rounding: Literal["nearest", "floor"] = "nearest"
    codec: Literal["jpeg", "png"] = "jpeg"
    quality: whole(1, 100) = 95
    size: tuple[_Side, _Side] | None = None


class _TVL1(Strict):
    """Of :class:`han_core.flow.tvl1.params.TVL1Params`; what is left out has its default."""

    tau: _Positive = 0.25
    lambda_: _Positive = 0.15
    theta: _Positive = 0.3
    scales: whole(1, 1000) = 5
    scale_step: Annotated[float, Field(gt=0, lt=1)] = 0.8
    warps: whole(1, 10_000) = 5
    epsilon: Annotated[float, Field(ge=0)] = 0.01
    iterations: whole(1, 10_000_000) = 300
    median: Literal[1, 3, 5] = 1
    settle: whole(0, 10_000_000) = 10


class _Recipe(Strict):
    """Of :meth:`FeatureSettings.to_dict`."""

    frames: whole(1, 100_000)
    layer: Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*$", max_length=200)]
    fc: Literal["fc6", "fc7"]
    batch: whole(1, 1 << 31)
    precision: Literal["float32", "tf32", "bfloat16", "float16"]
    stack: whole(1, 2048)
    short_side: _Side | None
    frame_quality: whole(1, 100)
    flow: _Flow
    tvl1: _TVL1
    backend: Literal["auto", "reference", "cpu", "cuda", "opencv"]
    clip_frames: whole(1, 1 << 31)
    nets: dict[_Stream, Text] = Field(default_factory=dict)
    inputs: dict[_Stream, Literal["caffe", "torchvision"]] = Field(default_factory=dict)
    camera: Annotated[str, Field(pattern=_CAMERA)] = "none"


class Description(Strict):
    """The JSON text in the metadata of a model's file."""

    schema_: Annotated[Literal[SCHEMA], Field(alias="schema")]
    config: _Config
    variant: Text
    classes: tuple[Text, ...]
    source: Literal["cubes", "fc6", "fc7"]
    recipe: _Recipe | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(self.classes) != self.config.classes or len(set(self.classes)) < len(self.classes):
            raise ValueError(f"it names {len(set(self.classes))} classes, but config says {self.config.classes}")
        self.model_config_of()  # what HANConfig itself refuses
        return self

    def model_config_of(self) -> HANConfig:
        """The config of the model."""
        return HANConfig.from_dict(self.config.model_dump())

    def feature_settings(self) -> FeatureSettings | None:
        """How the model's input is made; None where the file does not say."""
        if self.recipe is None:
            return None
        values = self.recipe.model_dump()
        parts = {name: getattr(self.recipe, name).model_dump(exclude_unset=True) for name in ("flow", "tvl1")}
        return FeatureSettings.from_dict({**values, **parts})
