"""Outputs that stages made under earlier params and that today's do not ask for, e.g. of a model that was taken out of
``models``.

DVC leaves them where they are. But ``evaluate`` and ``report`` depend on whole folders, ``data/<dataset>/predictions``
and ``metrics`` among them, so ``dvc.lock`` would note a folder that nobody else can have.
"""

import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import click
import yaml

from pipeline.execution.outputs import clear
from pipeline.params import Params

_GRAPH = Path("dvc.yaml")
_VALUE = re.compile(r"\$\{([\w.]+)\}")


def remove_left_behind(params: Params) -> None:
    """Remove them, out of the folders that stages depend on as a whole. DVC's cache keeps them: asked for again, they
    are restored without a run."""
    if not _GRAPH.is_file():
        return
    stages = yaml.safe_load(_GRAPH.read_text(encoding="utf-8"))["stages"].values()
    asked = {Path(out) for stage in stages for out in outputs(stage, params)}
    shared = [folder for stage in stages for dep in stage["deps"] if (folder := _shared(dep, params, asked))]
    for stage in stages:
        for pattern in _spelled(stage):
            anything = _VALUE.sub(lambda value: params.dataset.name if value[1] == "dataset.name" else "*", pattern)
            for path in sorted(Path().glob(anything)):
                inside = any(path.is_relative_to(folder) for folder in shared)
                if inside and not any(path.is_relative_to(out) or out.is_relative_to(path) for out in asked):
                    clear(path)
                    _remove_empty(path.parent, shared)
                    click.echo(f"removed {path}: these params do not ask for it (DVC's cache keeps what DVC has made)")


def outputs(stage: dict, params: Params) -> Iterator[str]:
    """The paths that a stage of ``dvc.yaml`` writes, for all items of its matrix.

    Args:
        stage: as it is spelled there.
    """
    matrix = {key: _values(value, params) for key, value in stage.get("matrix", {}).items()}
    for item in product(*matrix.values()):
        known = {f"item.{key}": str(value) for key, value in zip(matrix, item, strict=True)}
        known["dataset.name"] = params.dataset.name
        for out in _spelled(stage):
            yield _VALUE.sub(lambda value, known=known: known[value[1]], out)


def _spelled(stage: dict) -> Iterator[str]:
    for kind in ("outs", "metrics", "plots"):
        for out in stage.get(kind, []):
            yield next(iter(out)) if isinstance(out, dict) else out


def _values(spelled: str, params: Params) -> tuple:
    """Those of ``${train.seeds}``, for example."""
    found = params
    for key in _VALUE.fullmatch(spelled)[1].split("."):
        found = getattr(found, key)
    return tuple(found)


def _shared(dep: str, params: Params, asked: set[Path]) -> Path | None:
    """A folder that a stage depends on and that outputs of several stages of this dataset lie in; else None."""
    if not {"dataset.name"}.issuperset(_VALUE.findall(dep)):
        return None
    folder = Path(_VALUE.sub(lambda value: params.dataset.name, dep))
    return folder if folder not in asked and any(out.is_relative_to(folder) for out in asked) else None


def _remove_empty(folder: Path, shared: list[Path]) -> None:
    while folder not in shared and folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent
