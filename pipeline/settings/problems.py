"""What is wrong with a params file, in plain lines."""

import difflib
import re
import reprlib
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import click
from pydantic import BaseModel, ValidationError

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
"""What would break a line or steer a terminal."""
_SHOWN_PROBLEMS = 40


class ParamsError(click.ClickException):
    """Raised with every problem of a params file, one per line; click prints it without a traceback."""

    @classmethod
    def of(cls, path: Path, problems: Sequence[str]) -> "ParamsError":
        """The report of a file that can be read and must not be used."""
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        shown = [_CONTROL.sub(lambda found: ascii(found[0])[1:-1], line) for line in problems[:_SHOWN_PROBLEMS]]
        if len(problems) > len(shown):
            shown.append(f"... and {len(problems) - len(shown)} more")
        return cls(f"{path}: {count}\n  " + "\n  ".join(shown))


def problems_of(error: ValidationError, raw: dict, group: type[BaseModel]) -> tuple[str, ...]:
    """What is wrong with a file, each problem as a plain line that starts with the dotted key.

    Args:
        raw: the file's content, out of which ``group`` could not be made.
    """
    return tuple(dict.fromkeys(line for item in error.errors() for line in _describe(item, raw, group)))


def _describe(item: dict, raw: dict, group: type[BaseModel]) -> list[str]:
    """One pydantic error as plain lines."""
    location = _keys(item["loc"], raw)
    key = ".".join(map(printable, location))
    if not key and item["type"] == "value_error":
        return str(item["ctx"]["error"]).splitlines()
    if item["type"] == "extra_forbidden":
        known = _known_keys(item["loc"][:-1], group)
        close = difflib.get_close_matches(printable(item["loc"][-1]), known, n=1)
        return [f"{key}: unknown key" + (f"; did you mean {close[0]}?" if close else "; known: " + ", ".join(known))]
    if item["type"] == "missing":
        return [f"{key}: is missing"]
    if item["type"] == "value_error":
        return [f"{key}: {item['ctx']['error']}"]
    if item["type"] == "too_short":
        return [] if item["input"] else [f"{key}: is empty"]  # else its values are named for what they are
    if item["type"] == "model_type":
        return [f"{key}: must be a group of keys, not {shown(item['input'])}"]
    words = item["msg"].replace("valid tuple", "valid list")
    return [f"{key}: {words[0].lower()}{words[1:]}, not {shown(item['input'])}"]


def _keys(location: tuple, raw: object) -> list[str | int]:
    """The parts of a location that stand in the file; pydantic also names the kinds that a value may be of."""
    keys = []
    for part in location[:-1]:
        if part in raw if isinstance(raw, dict) else isinstance(raw, tuple) and isinstance(part, int):
            keys.append(part)
            raw = raw[part]
    last = location[-1:]
    if isinstance(raw, dict) or (isinstance(raw, tuple) and last and isinstance(last[0], int)):
        keys += last
    return keys


def printable(part: object) -> str:
    """A key as it may be printed: short, without what would move a terminal's cursor."""
    text = str(part)[:80]
    return text if text.isprintable() else ascii(text)[1:-1]


_REPR = reprlib.Repr()
_REPR.maxlevel, _REPR.maxstring, _REPR.maxother = 2, 60, 60


def shown(value: object) -> str:
    """A value of the file, whatever its size, in at most 80 characters."""
    try:
        text = _REPR.repr(list(value[:10]) if isinstance(value, tuple) else value)
    except ValueError:  # an integer of more digits than Python writes out
        return "a number of thousands of digits"
    return text if len(text) <= 80 else f"{text[:77]}..."


def _known_keys(location: tuple, group: type[BaseModel]) -> list[str]:
    for part in location:
        field = next((f for name, f in group.model_fields.items() if part in (name, f.alias)), None)
        if field is not None:  # else it is a key of a mapping
            group = _group_in(field.annotation) or group
    return sorted(field.alias or name for name, field in group.model_fields.items())


def _group_in(annotation: object) -> type[BaseModel] | None:
    """The group that a field may hold, or hold mappings of."""
    if get_args(annotation):
        return next((found for part in get_args(annotation) if (found := _group_in(part))), None)
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None
