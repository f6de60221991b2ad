"""Settings of which rows there are, how they are evaluated, and what is told of them."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator

from han_core.clips import unfit_name
from han_core.rows import ROWS, families, table_lines
from pipeline.settings.kinds import Group, Text, each_once, no_boolean
from pipeline.settings.problems import shown

Model = Literal[families("classify")]
Baseline = Literal[families("baselines")]
RowName = Literal[tuple(row.name for row in ROWS if row.stage and not row.ensemble_of)]
TABLE_1: tuple[Model, ...] = tuple(rows[0].name for rows in table_lines(1).values())


def _clip(name: str) -> str:
    parts = name.split("/")
    if len(parts) > 2 or any(unfit_name(part) for part in parts):
        raise ValueError(f"must be the name of a clip or <class>/<name>, not {shown(name)}")
    return name


class Evaluate(Group):
    baselines: tuple[Baseline, ...] = ()
    """``linear``: logistic regression on cubes averaged over regions, frames side by side; ``linear_mean``: averaged
    over the frames too; ``frame_size``: on width, height and ratio of the frames alone."""

    fusion: tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]] = (1.0, 1.0)
    """Weights of the spatial and the temporal stream's scores in ``two_stream`` and ``deep_lstm``; [16] takes the plain
    mean."""

    ensemble: bool = False
    """Beside each row of HAN with several ``train.seeds`` a row ``<row>_ensemble``: the mean of their probabilities."""
    samplings: Annotated[Literal[1, 3], BeforeValidator(no_boolean)] = 1
    """Of the T frames by which HAN classifies a clip: 3 gives the mean of the probabilities of the plain view and of
    ``shift1`` and ``shift2``, which ``cubes.views`` must have."""


class Report(Group):
    clips: Annotated[int, Field(ge=0, le=10_000)] | tuple[Annotated[Text, AfterValidator(_clip)], ...] = 4
    """Test clips whose attention maps are drawn: how many, or their names."""
    megabytes: Annotated[float, Field(gt=0, le=1000)] = 10
    """What ``report.html`` may weigh, about. Predictions and playing clips take what tables and charts leave of it;
    where that is too little, clips are smaller, then fewer, and the page says so."""
    tuned: tuple[RowName, ...] = ()
    """Rows whose settings in this file were picked by looking at the clips they are scored on; the tables say so."""
    costs: bool = False
    """A table of what each row took to compute and to store, from the logs of the stages that were run here. With it
    the report's bytes are not the same from run to run."""

    @field_validator("tuned")
    @classmethod
    def _once(cls, tuned: tuple[str, ...]) -> tuple[str, ...]:
        return each_once(tuned)
