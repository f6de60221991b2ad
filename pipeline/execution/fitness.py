"""What every worker of a cluster has to have, and how it is asked."""

import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from han_core.devices import DeviceError, choose_device, resolve_precision
from pipeline.execution.code import CodeChanged, stage_code

_LIBRARIES = ("numpy", "torch", "torchvision", "h5py", "av", "opencv-contrib-python", "numba", "zstandard")
"""What decides the bytes of a clip file beside the project's own code."""


@dataclass(frozen=True)
class Question:
    """What a worker is asked before it gets work."""

    files: tuple[tuple[str, int], ...] = ()
    """Paths and sizes of files that it will have to read."""
    note: str = ""
    """Path of a file in the cache; "" where nothing is written."""
    written: str = ""
    """What the note holds."""
    stage: str = ""
    """Whose code it must have; "" for none."""
    device: Literal["", "auto", "cpu", "cuda"] = ""
    """What a net, or flow, is to run on; "" where nothing does."""
    precision: str = "float32"
    """Arithmetic of the net."""


@dataclass(frozen=True)
class Answer:
    """What a worker has."""

    versions: Mapping[str, str]
    code: str
    """Digest of the stage's code."""
    cache: str
    """Why it does not see the cache; "" if it does."""
    missing: str
    """The first file that it does not see, and why; "" if it sees all."""
    computes: str
    """What it would compute with."""


def look(question: Question) -> Answer:
    """Answer for the process in which this is called."""
    return Answer(
        versions(),
        stage_code(question.stage) if question.stage else "",
        _unseen(question.note, lambda: Path(question.note).read_text(encoding="ascii") == question.written),
        next((f"{path} ({fault})" for path, size in question.files if (fault := _differs(path, size))), ""),
        computes(question.device, question.precision) if question.device else "",
    )


def why_unfit(answer: Answer | BaseException, here: Answer, question: Question) -> str:
    """What keeps a worker from the work; "" if nothing does.

    Args:
        here: the answer of the process that hands the work out.
    """
    if isinstance(answer, ModuleNotFoundError):
        return f"it has not got this project ({answer}); start it in the project's folder, or install the project there"
    if isinstance(answer, CodeChanged):
        return "files of the project were changed since it was started; start it again"
    if isinstance(answer, AttributeError | TypeError):
        return f"it has another version of this project ({answer}); install the same one, and start the worker again"
    if isinstance(answer, BaseException):
        return f"{type(answer).__name__}: {answer}"
    if differ := _differences(here.versions, answer.versions):
        return f"{differ}; install the same versions on all machines (requirements.lock)"
    if answer.code != here.code:
        return f"it has other code of stage {question.stage} than this process; start it again from the same commit"
    if answer.cache:
        return (
            f"it does not see {Path(question.note).parents[1]} as this machine does ({answer.cache}); the cache must "
            "be on a disk that all share"
        )
    if answer.missing:
        return f"it does not see {answer.missing} as this machine does; it must be on a disk that all share"
    if answer.computes != here.computes:
        return (
            f"it would compute on {answer.computes}, and this machine on {here.computes}; name what both have in "
            "run.device, or start the stage and its workers on machines alike"
        )
    return ""


def versions() -> dict[str, str]:
    """Of Python and the libraries, where this is called."""
    found = {"python": ".".join(map(str, sys.version_info[:3]))}
    for name in _LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "none"
    return found


def computes(device: Literal["auto", "cpu", "cuda"], precision: str) -> str:
    """What a choice of ``run.device`` takes here, and whether the hardware has the arithmetic: where it has not, the
    same net gives other bits."""
    try:
        found = choose_device(device)
    except DeviceError:
        return "no GPU"
    has = {"bfloat16": "auto", "tf32": "tf32"}.get(precision)
    without = has is not None and resolve_precision(has, found) != precision
    return f"{found.type} without {precision}" if without else found.type


def files_in(*values: object) -> tuple[tuple[str, int], ...]:
    """Paths and sizes of the files that are named somewhere in settings: fields of dataclasses, values of mappings."""
    return tuple((str(path), path.stat().st_size) for path in _paths(values) if path.is_absolute() and path.is_file())


def _paths(value: object) -> Iterator[Path]:
    if isinstance(value, Path):
        yield value
        return
    parts: list[Any] = []
    if is_dataclass(value):
        parts = [getattr(value, field.name) for field in fields(value)]
    elif isinstance(value, Mapping):
        parts = list(value.values())
    elif isinstance(value, tuple | list):
        parts = list(value)
    for part in parts:
        yield from _paths(part)


def _unseen(path: str, holds: Any) -> str:
    if not path:
        return ""
    try:
        return "" if holds() else "it is another file there"
    except OSError as error:
        return error.strerror or str(error)


def _differs(path: str, size: int) -> str:
    return _unseen(path, lambda: os.stat(path).st_size == size)


def _differences(here: Mapping[str, str], there: Mapping[str, str]) -> str:
    differ = [name for name in here if here[name] != there.get(name)]
    return ", ".join(f"{name} is {there.get(name)} there and {here[name]} here" for name in differ)
