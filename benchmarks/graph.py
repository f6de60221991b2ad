"""The stages of ``dvc.yaml`` one after the other in this process: what ``dvc repro`` runs, without the start of Python
for each of a few hundred stages."""

import contextlib
import importlib
import os
import shlex
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import click
import yaml

from pipeline.costs import items_of
from pipeline.execution.code import ROOT
from pipeline.params import load_params


def run_stages(folder: Path, *, without: tuple[str, ...] = ()) -> None:
    """Run all stages that the params file in a folder asks for, in the order of ``dvc.yaml``.

    Args:
        folder: holds ``params.yaml`` and takes the outputs.
        without: patterns of names of stages that are left out, e.g. ``scores-*``.

    Raises:
        click.ClickException: a stage fails.
    """
    with contextlib.chdir(folder):
        values = load_params().model_dump(mode="json", by_alias=True)
        stages = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
        for name, stage in stages.items():
            if any(fnmatch(name, pattern) for pattern in without):
                continue
            for command in _commands(stage, values):
                words = shlex.split(command)[2:]
                click.echo(f"-- {os.path.basename(folder)}: {' '.join(words)}")
                module = importlib.import_module(words[0])
                module = importlib.import_module(f"{words[0]}.__main__") if hasattr(module, "__path__") else module
                module.main.main(words[1:], standalone_mode=False)


def _commands(stage: dict, values: dict) -> Iterator[str]:
    for item in items_of(stage.get("matrix", {}), values):
        yield stage["cmd"].replace("${item}", " ".join(f"--{key} {value}" for key, value in item.items()))
