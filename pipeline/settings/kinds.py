"""Kinds of values that settings have, and the base of their groups."""

import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from pipeline.settings.problems import shown

Share = Annotated[float, Field(ge=0, lt=1)]

# Upper bounds are far beyond use; what is more would end as a lack of memory, hours into the work.
Split = Annotated[int, Field(ge=1, le=9999)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Frames = Annotated[int, Field(ge=1, le=10_000)]
Pixels = Annotated[int, Field(ge=1, le=16_384)]
Units = Annotated[int, Field(ge=1, le=16_384)]
Batch = Annotated[int, Field(ge=1, le=65_536)]
Processes = Annotated[int, Field(ge=0, le=1024)]
Count = Annotated[int, Field(ge=0, le=10**9)]
PositiveCount = Annotated[int, Field(ge=1, le=10**9)]

_NAME = re.compile(r"[A-Za-z0-9_-]{1,100}")


def _name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(
            "is part of paths, so it must be of 1 to 100 letters A-Z, a-z, digits, - and _, not " + shown(name)
        )
    return name


def _text(text: object) -> object:
    """Paths and names go to the operating system, which ends them at a NUL."""
    if isinstance(text, str) and not text:
        raise ValueError("is empty")
    if isinstance(text, str) and "\0" in text:
        raise ValueError(f"holds a NUL character: {shown(text)}")
    return text


def _local(path: object) -> object:
    if isinstance(path, str) and "://" in path:
        raise ValueError(f"must be a path on this machine, not {shown(path)}")
    return path


def expanded(path: Path) -> Path:
    """``~`` is expanded, as shells do; variables are not, so that a params file means the same in every shell."""
    try:
        return path.expanduser()
    except RuntimeError:
        raise ValueError(f"there is no home folder {shown(path.parts[0])}") from None


def each_once(values: tuple) -> tuple:
    if len(set(values)) < len(values):
        raise ValueError("holds a value twice")
    return values


def no_boolean(value: object) -> object:
    """Python takes true for 1 among the values of a Literal."""
    if isinstance(value, bool):
        raise ValueError(f"must not be {str(value).lower()}")
    return value


Name = Annotated[str, AfterValidator(_name)]
"""One component of paths inside the project."""
Text = Annotated[str, BeforeValidator(_text)]
LocalPath = Annotated[Path, Field(strict=False), BeforeValidator(_local), BeforeValidator(_text)]
UserPath = Annotated[LocalPath, AfterValidator(expanded)]
"""Wherever people keep their data."""
Weights = Annotated[Text, AfterValidator(lambda text: str(expanded(Path(text))) if text.startswith("~") else text)]
"""A word, or the path of a file."""


class Group(BaseModel):
    """Base of all groups: unknown keys are refused, values cannot be changed after loading. Nothing is converted: text
    is not a number, 1.5 and true are not whole numbers; a whole number is a number, too."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
