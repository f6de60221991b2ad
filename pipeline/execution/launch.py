"""Training stages in several processes: a stage starts itself again under ``torchrun``."""

import os
import subprocess
import sys

import click

from han_core.devices import gpus
from pipeline.execution.machines import compare_machines, on_several_machines
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

    Several machines: the stage is started by ``torchrun`` on each, and this only looks whether they fit together. Where
    torchrun's own variables name several (``PET_NNODES`` and so on), it is this that starts torchrun on this machine,
    so that DVC can run the stage on one of them.

    Args:
        module: e.g. ``pipeline.train``.
        arguments: its command line.

    Returns:
        Whether it was started, and has ended well; the caller then has nothing left to do.

    Raises:
        ClickException: a process failed, there are fewer GPUs than processes, or a machine differs from the others.
    """
    if "WORLD_SIZE" in os.environ:
        if on_several_machines():
            compare_machines(module, arguments)
        return False
    machines = os.environ.get("PET_NNODES", "1")
    if run.processes == 1 and machines == "1":
        return False
    found = 0 if run.device == "cpu" else gpus()
    if problem := too_many_processes(run, found):
        raise click.ClickException(problem)
    count = run.processes or max(1, found)
    if count == 1 and machines == "1":
        return False
    command = [sys.executable, "-m", "pipeline.execution.torchrun", f"--nproc-per-node={count}"]
    if machines == "1":
        command.append("--standalone")
    ended = subprocess.run([*command, "-m", module, *arguments], check=False)
    if ended.returncode:
        several = (
            f"one of {count} processes" if machines == "1" else f"a process on this or another of {machines} machines"
        )
        raise click.ClickException(f"{module}: {several} failed; see its message above")
    return True
