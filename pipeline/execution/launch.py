"""Training stages in several processes: a stage starts itself again under ``torchrun``."""

import os
import subprocess
import sys

import click

from han_core.devices import gpus
from pipeline.params import Run


def relaunched(run: Run, module: str, arguments: list[str]) -> bool:
    """Start ``module`` in ``run.processes`` processes, if that is more than one and this is not one of them.

    Several machines: start the stage with ``torchrun`` by hand on each; then this does nothing.

    Args:
        module: e.g. ``pipeline.train``.
        arguments: its command line.

    Returns:
        Whether it was started, and has ended well; the caller then has nothing left to do.

    Raises:
        ClickException: a process failed.
    """
    if "WORLD_SIZE" in os.environ:
        return False
    count = run.processes or (1 if run.device == "cpu" else max(1, gpus()))
    if count == 1:
        return False
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    ended = subprocess.run([*command, "-m", module, *arguments], check=False)
    if ended.returncode:
        raise click.ClickException(f"{module}: one of {count} processes failed; see its message above")
    return True
