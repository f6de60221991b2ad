"""The grid file: which settings of HAN to try, and how. Refused before any work, with every problem named."""

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, field_validator

from han_core.han.variants import VARIANTS
from pipeline.chosen import flat, in_words, unfit_settings, with_settings
from pipeline.params import Group, Model, ParamsError, Seed, Train, problems_of
from pipeline.plain_yaml import PlainYamlError, read_plain_yaml

MOST = 1000
"""Combinations of a grid; each is trained for every fold and seed."""

Combination = Mapping[str, object]
"""Dotted keys of params group ``train`` -> values, e.g. ``{epochs: 20, optimizer.learning_rate: 0.5}``."""


class GridFile(Group):
    """The file as it is written."""

    model: Model = "han"
    """Which variant of HAN."""
    folds: Annotated[int, Field(ge=2, le=1000)] = 3
    """Inner folds that the training groups are dealt into."""
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1, max_length=100)] = (1,)
    """One model a seed, of each combination and inner fold."""
    grid: dict[str, tuple[Any, ...]] | None = None
    """Key of params group ``train``, or dotted key into its groups -> values to try, each with each."""
    candidates: tuple[dict[str, Any], ...] | None = None
    """Whole combinations, in place of ``grid``."""

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) < len(seeds):
            raise ValueError("holds a value twice")
        return seeds


@dataclass(frozen=True)
class Grid:
    """What is to be tried."""

    model: str
    folds: int
    seeds: tuple[int, ...]
    combinations: tuple[Combination, ...]
    """At least one; no two give the same settings."""


def read_grid(path: Path, train: Train) -> Grid:
    """Read and check a grid file.

    Args:
        train: the settings that the combinations stand in.

    Raises:
        ParamsError: the file is missing or is no grid; the message names all problems.
    """
    try:
        raw = read_plain_yaml(path)
    except OSError as error:
        raise ParamsError(
            f"{path}: cannot be read ({error.strerror}). There is one in presets/select_han.yaml"
        ) from None
    except PlainYamlError as error:
        raise ParamsError(f"{path}: {error}") from None
    if not isinstance(raw, dict):
        raise ParamsError(
            f"{path}: must be a mapping with the key `grid` or `candidates`, e.g. `grid: {{epochs: [20]}}`"
        )
    try:
        file = GridFile.model_validate(raw)
    except ValidationError as error:
        raise ParamsError.of(path, problems_of(error, raw, GridFile)) from None
    problems = list(dict.fromkeys(_problems(file, train)))
    if problems:
        raise ParamsError.of(path, problems)
    combinations = tuple(_as_read(train, settings) for settings in _combinations(file))
    return Grid(file.model, file.folds, file.seeds, combinations)


def _problems(file: GridFile, train: Train) -> Iterator[str]:
    if (file.grid is None) == (file.candidates is None):
        yield "grid: must be given, or candidates, but not both"
        return
    key = "candidates" if file.grid is None else "grid"
    if not (file.grid or file.candidates):
        yield f"{key}: holds no combination"
        return
    single = False
    for where, name, value in _values(file):
        for problem in (*_unfit_key(file, name), *_unfit_value(train, name, value)):
            single = True
            yield f"{where}{problem}"
    for name, values in (file.grid or {}).items():
        if not values:
            single = True
            yield f"grid.{name}: is empty"
    count = math.prod(map(len, file.grid.values())) if file.grid is not None else len(file.candidates)
    if count > MOST:
        yield f"{key}: makes {count} combinations; at most {MOST} can be tried"
    elif not single:
        yield from _unfit_combinations(file, train)


def _values(file: GridFile) -> Iterator[tuple[str, str, object]]:
    """(where it stands, dotted key, value) of every value in the file."""
    if file.grid is not None:
        for key, values in file.grid.items():
            for value in values:
                yield from (("grid.", inner, v) for inner, v in flat({key: value}).items())
    for number, settings in enumerate(file.candidates or (), start=1):
        yield from ((f"candidates.{number}.", key, value) for key, value in flat(settings).items())


def _unfit_key(file: GridFile, key: str) -> Iterator[str]:
    variant = VARIANTS[file.model]
    if key in variant.fixed or (key.split(".")[0].startswith("attention") and not variant.attention):
        yield f"{key}: is no setting of {file.model}, which has its own"


def _unfit_value(train: Train, key: str, value: object) -> list[str]:
    """What is wrong with a value by itself: not what it needs of others, which stand in the combination."""
    problems = unfit_settings(train, {key: value})
    return [problem for problem in problems if problem.split(":")[0].split(".")[0] == key.split(".")[0]]


def _unfit_combinations(file: GridFile, train: Train) -> Iterator[str]:
    seen: dict[str, str] = {}
    for settings in _combinations(file):
        told = in_words(settings)[:200]
        if problems := unfit_settings(train, settings):
            yield from (f"{{{told}}}: {problem}" for problem in problems)
            continue
        same = with_settings(train, settings).model_dump_json()
        if same in seen:
            yield f"{{{told}}}: gives the same settings as {{{seen[same]}}}"
        seen[same] = told


def _combinations(file: GridFile) -> Iterator[dict[str, object]]:
    if file.grid is None:
        yield from map(flat, file.candidates)
        return
    for values in itertools.product(*file.grid.values()):
        yield flat(dict(zip(file.grid, values, strict=True)))


def _as_read(train: Train, settings: Combination) -> dict[str, object]:
    """The settings as the params understand them: 1 is 1.0 where a number is asked for; plain values."""
    values = flat(with_settings(train, settings).model_dump(mode="json"))
    return {key: values[key] for key in settings}
