"""Training stages in several processes: a stage starts itself again under ``torchrun``."""

import os
import subprocess
import sys

import click

from han_core.devices import gpus
from pipeline.params import Run


def too_many_processes(run: Run, gpus: int) -> str:
    """What is wrong with ``run.processes`` where there are so many GPUs to train on; "" if nothing is.

    Each process takes the GPU of its number. Without GPUs they train on the CPU, which any number can.
    """
    if not gpus or run.processes <= gpus:
        return ""
    return (
        f"run.processes: {run.processes} processes cannot train on {gpus} GPU{'s' if gpus > 1 else ''}, of which each "
        "takes one; take 0 (one a GPU), or run.device: cpu"
    )


def relaunched(run: Run, module: str, arguments: list[str]) -> bool:
    """Start ``module`` in ``run.processes`` processes, if that is more than one and this is not one of them.

    Several machines: start the stage with ``torchrun`` by hand on each; then this does nothing.

    Args:
        module: e.g. ``pipeline.train``.
        arguments: its command line.

    Returns:
        Whether it was started, and has ended well; the caller then has nothing left to do.

    Raises:
        ClickException: a process failed, or there are fewer GPUs than processes.
    """
    if "WORLD_SIZE" in os.environ or run.processes == 1:
        return False
    found = 0 if run.device == "cpu" else gpus()
    if problem := too_many_processes(run, found):
        raise click.ClickException(problem)
    count = run.processes or max(1, found)
    if count == 1:
        return False
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    ended = subprocess.run([*command, "-m", module, *arguments], check=False)
    if ended.returncode:
        raise click.ClickException(f"{module}: one of {count} processes failed; see its message above")
    return True
