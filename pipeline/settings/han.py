"""Settings of HAN itself."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, field_validator, model_validator

from han_core.nets.views import FURTHER
from pipeline.settings.kinds import Batch, Frames, Group, Name, Seed, Share, Units, UserPath, each_once

NOTHING_CHOSEN = "none"
"""Value of ``train.chosen``. Not null: DVC, too, has to find a file of this name, ``choices/none.yaml``."""


class Optimizer(Group):
    name: Literal["adadelta", "adam", "sgd"] = "adadelta"
    learning_rate: PositiveFloat = 1.0
    rho: Share = 0.95
    eps: PositiveFloat = 1e-6
    weight_decay: Annotated[float, Field(ge=0)] = 0.0


class Train(Group):
    """HAN, eq. 2 to 6 of the paper."""

    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (1,)
    """One model a seed, of each variant and split: initial weights, order of the clips and dropout. Figures are means
    over them, shown with their spread. Another seed trains that one only."""
    lstm_size: Units = 1024
    """D', units of each LSTM layer."""
    layers: Annotated[int, Field(ge=1, le=100)] = 2
    """L, LSTM layers per stream."""
    skip: Frames = 5
    """k: a layer reads every k-th state of the layer below."""
    dropout: Share = 0.5
    attention: Literal["location", "content"] = "location"
    """``location`` is eq. 3; ``content`` also looks at the region's feature, as the code of [15] does."""
    attention_rate: Annotated[float, Field(ge=0, le=10**6)] = 1.0
    """Learning rate of the weights W of eq. 3 (with content: of all that scores) as a multiple of the others'; 0 keeps
    them as they were drawn."""
    attention_deviation: Annotated[float, Field(gt=0, le=1000)] | None = None
    """W of eq. 3 starts from a normal distribution of this standard deviation; null: torch's default, uniform within
    1 / sqrt(units of all streams). Of ``location``, so not of row ``soft_attention_lstm``."""
    region_dropout: Share = 0.0
    """Share of a frame's regions, drawn again for each clip, frame and batch, that attention may not look at during
    training; never all. The map sums to one over the others. Nothing where there is one region: fully connected
    features, and rows without attention, whose cubes are averaged over all regions while they are read."""
    stream_dropout: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of clips, drawn again in each batch, one of whose two streams is silent during training: its LSTM reads
    zeros, the mean glimpse where ``standardize`` is set. So no stream is learnt by heart and the other neglected."""
    views: tuple[Literal[FURTHER], ...] = ()
    """Those of ``cubes.views`` to learn from beside the plain one: one of them is drawn for each clip and epoch."""
    shift: Annotated[int, Field(ge=0, le=6)] = 0
    """Crops of the cubes: each clip's are moved by up to this many regions along each side, drawn each epoch, and
    filled up with zeros. Nothing where there is one region, as ``region_dropout``."""
    initial_state: Literal["zeros", "mean"] = "zeros"
    forget_bias: Literal["span"] | float = "span"
    """Initial bias of the LSTMs' forget gates; ``span`` lets every layer remember its whole sequence at the start."""
    standardize: bool = True
    """Subtract mean and divide by standard deviation of each channel over the training clips."""
    precision: Literal["float32", "bfloat16", "auto"] = "float32"
    """Arithmetic of the products with weight matrices; ``auto`` is bfloat16 where the device multiplies it."""
    batch: Batch = 128
    """Clips of a step, whatever the number of processes."""
    epochs: Annotated[int, Field(ge=1, le=10**6)] = 100
    clip_gradient: Annotated[float, Field(ge=0)] = 0.0
    optimizer: Optimizer = Optimizer()
    start: UserPath | None = None
    """Path of a HAN trained on other data, whose weights training starts from, all but the classifier's; ``{model}`` in
    it stands for the variant: ``models/ucf101/han/{model}-1-seed1.safetensors``."""
    chosen: Name = NOTHING_CHOSEN
    """``none``, or the name of a file ``choices/<name>.yaml`` that ``python -m pipeline.select`` wrote: settings chosen
    inside the training groups of each split, which stand in place of those here."""

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        return each_once(seeds)

    @model_validator(mode="after")
    def _of_the_attention(self) -> "Train":
        if self.attention_deviation is not None and self.attention != "location":
            raise ValueError(f"attention_deviation is of attention: location, but attention is {self.attention}")
        return self


def start_of(settings: Train, model: str) -> Path:
    """The file of the HAN that a variant starts from; ``settings.start`` is given."""
    return Path(str(settings.start).replace("{model}", model))
