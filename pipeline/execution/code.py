"""The code of a stage, as part of the identity of what it makes."""

import time
from functools import cache
from pathlib import Path

import click
import yaml

from han_core.cache.code import code_digest, source_files

ROOT = Path(__file__).resolve().parents[2]
"""Folder of ``dvc.yaml`` and of the packages that run."""

_STARTED = time.time()


class CodeChanged(click.ClickException):
    """The files of the code are not those that this process has loaded."""


@cache
def stage_code(stage: str) -> str:
    """Digest of the packages that ``dvc.yaml`` names for a stage, e.g. ``flow`` or ``cubes-spatial``.

    Raises:
        click.ClickException: dvc.yaml is missing or names no such stage.
        CodeChanged: a file was changed since this process started, so it may run other code than the files hold.
    """
    names = code_of_stage(stage)
    try:
        changed = [path for path in source_files(ROOT, names) if _STARTED < path.stat().st_mtime <= time.time()]
        if changed:
            raise CodeChanged(f"{changed[0]} was changed while {stage} was starting; run it again")
        return code_digest(ROOT, names)
    except (OSError, SyntaxError) as error:
        raise click.ClickException(f"the code of stage {stage} cannot be read: {error}") from None


def code_of_stage(stage: str) -> list[str]:
    """The packages and modules that ``dvc.yaml`` names for a stage.

    Raises:
        click.ClickException: dvc.yaml is missing or names no such stage.
    """
    path = ROOT / "dvc.yaml"
    try:
        stages = yaml.safe_load(path.read_text(encoding="utf-8"))["stages"]
        deps = stages[stage]["deps"]
    except OSError as error:
        raise click.ClickException(
            f"{path}: cannot be read ({error.strerror}); stages run from a checkout, in which it names their code"
        ) from None
    except (KeyError, TypeError, ValueError, yaml.YAMLError) as error:
        raise click.ClickException(f"{path}: does not say what stage {stage} depends on ({error!r})") from None
    return sorted(dep for dep in deps if dep.startswith(("han_core/", "pipeline/")))
