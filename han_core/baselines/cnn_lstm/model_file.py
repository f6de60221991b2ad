"""A trained two-stream CNN + LSTM as one safetensors file; :mod:`han_core.han.described` says how it is checked."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from han_core.baselines.cnn_lstm.model import CNNLSTM, CNNLSTMConfig
from han_core.han.described import ModelKind, Strict, Text, read_model, whole, write_model

SCHEMA = 1


class _Config(Strict):
    """Of :class:`CNNLSTMConfig`."""

    streams: Annotated[tuple[Literal["spatial", "temporal"], ...], Field(min_length=1, max_length=2)]
    classes: whole(1, 1_000_000)
    channels: whole(1, 1 << 20)
    units: whole(1, 1 << 16)
    layers: whole(1, 1000)
    dropout: Annotated[float, Field(ge=0, le=1)]
    forget_bias: float


class Description(Strict):
    """The JSON text in the metadata of a model's file."""

    schema_: Annotated[Literal[SCHEMA], Field(alias="schema")]
    config: _Config
    classes: tuple[Text, ...]
    source: Literal["cubes", "fc6", "fc7"]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(self.classes) != self.config.classes or len(set(self.classes)) < len(self.classes):
            raise ValueError(f"it names {len(set(self.classes))} classes, but config says {self.config.classes}")
        self.model_config_of()  # what CNNLSTMConfig itself refuses
        return self

    def model_config_of(self) -> CNNLSTMConfig:
        """The config of the model."""
        return CNNLSTMConfig(**self.config.model_dump())


_KIND = ModelKind(
    "cnn_lstm",
    "trained two-stream CNN + LSTM",
    SCHEMA,
    Description,
    lambda description: CNNLSTM(description.model_config_of()),
)


@dataclass(frozen=True)
class TrainedCNNLSTM:
    """A model with what a user of it must know."""

    model: CNNLSTM
    classes: tuple[str, ...]
    """Class names by label."""
    source: str
    """The array of the cube files that it reads: ``cubes``, averaged over the regions, or a fully connected layer."""


def save_cnn_lstm(trained: TrainedCNNLSTM, path: Path, *, made_with: Mapping[str, str] | None = None) -> None:
    """Write a model; the same model gives the same bytes.

    Args:
        made_with: libraries and processor, for whoever wonders why two models differ.
    """
    description = {
        "config": asdict(trained.model.config),
        "classes": trained.classes,
        "source": trained.source,
    }
    write_model(_KIND, trained.model, description, path, made_with=made_with)


def load_cnn_lstm(path: Path) -> TrainedCNNLSTM:
    """Read a model that :func:`save_cnn_lstm` wrote. Nothing is unpickled, and no model is made before all fits.

    Raises:
        ModelFileError: the file is missing, damaged or of another kind.
    """
    model, description = read_model(_KIND, path)
    return TrainedCNNLSTM(model, description.classes, description.source)
