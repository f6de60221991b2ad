"""Stage ``flow``: TV-L1 optical flow between adjacent frames, ``data/<dataset>/flow/<class>/<clip>.h5``.

Computed on grey frames, on the CPU in one process per core, on GPUs in three processes per GPU. Decoding, solving,
encoding and writing overlap, and memory is bounded by ``flow.batch``.

The fingerprint of a flow file names the solver's back end, not ``auto``: back ends agree only within a tolerance, and a
file must not depend on which machine made it. A team that shares a cache between machines with and without GPUs
sets ``flow.backend`` to share its flow too.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import click
import numpy as np

from han_core.cache.fingerprint import fingerprint
from han_core.cache.store import ClipCache
from han_core.clips import read_clips
from han_core.devices import cores, gpus
from han_core.flow.flowfile import write_flow
from han_core.flow.levels import FlowFormat
from han_core.flow.tvl1.params import TVL1Params
from han_core.flow.tvl1.solver import resolve_backend, tvl1_flow
from pipeline.execution.clip_tasks import clip_tasks, do
from pipeline.execution.code import stage_code
from pipeline.execution.jobs import ClipTask
from pipeline.execution.runner import Summary
from pipeline.execution.told import told_plainly
from pipeline.execution.work import ClipWork
from pipeline.execution.workers import worker_count
from pipeline.params import Flow, Params, load_params, params_option
from pipeline.paths import Paths


@dataclass(frozen=True)
class Arguments:
    """What a worker has to know beyond the clip."""

    frames: Path
    """The clip's frames file."""
    backend: str
    solver: TVL1Params
    form: FlowFormat
    batch: int
    threads: int
    """That decode and encode beside the solver."""


def flow_clip(task: ClipTask, path: Path) -> None:
    """Compute the flow of one clip into the flow file ``path``.

    Raises:
        ClipError: the clip has one frame, or the solver refuses its frames.
        ClipFileError: the frames file is damaged.
    """
    arguments: Arguments = task.arguments
    write_flow(
        arguments.frames,
        path,
        clip=task.clip.name,
        fingerprint=task.fingerprint,
        solver=partial(_solve, backend=arguments.backend, params=arguments.solver),
        form=arguments.form,
        batch=arguments.batch,
        threads=arguments.threads,
        attributes={"backend": arguments.backend}
        | {name.rstrip("_"): value for name, value in vars(arguments.solver).items()},
    )


def flow_fingerprint(settings: Flow, backend: str, frames: str) -> str:
    """Identity of a clip's flow file: the content of its frames file, the solver, and how flow is stored. The batch
    does not matter."""
    parameters = settings.model_dump(exclude={"batch"} if settings.codec == "jpeg" else {"batch", "quality"})
    return fingerprint("flow", stage_code("flow"), parameters | {"backend": backend}, {"frames": frames})


def flow_work(params: Params) -> ClipWork:
    """What the stage makes."""
    paths, settings = Paths.of(params), params.flow
    table = read_clips(paths.clips)
    backend = _backend(params)
    cards = gpus() if backend == "cuda" else 0
    form = FlowFormat(settings.bound, settings.rounding, settings.codec, settings.quality, settings.size)
    threads = max(1, cores() // worker_count(params.run, cards)) if cards else 1
    solver = TVL1Params(**settings.tvl1.model_dump())
    tasks, failed, faults = clip_tasks(
        table.clips,
        [(paths.frames, "frames")],
        lambda frames: flow_fingerprint(settings, backend, frames),
        lambda path: Arguments(path.absolute(), backend, solver, form, settings.batch, threads),
    )
    return ClipWork("flow", "flow", "flow", flow_clip, tuple(tasks), paths.flow, failed, faults, gpus=cards)


def flow(params: Params, cache: ClipCache) -> Summary:
    """Run the stage."""
    work, settings = flow_work(params), params.flow
    size = "x".join(map(str, settings.size)) if settings.size else "the frames' size"
    click.echo(
        f"flow: {len(work.tasks)} clips, TV-L1 by back end {_backend(params)} at {size}, "
        f"bound {settings.bound:g} pixels"
    )
    return do(work, params, cache)


def _solve(first: np.ndarray, second: np.ndarray, *, backend: str, params: TVL1Params) -> np.ndarray:
    return tvl1_flow(first, second, backend=backend, params=params, threads=1)


def _backend(params: Params) -> str:
    """The back end that computes. ``run.device: cpu`` keeps ``auto`` off the GPU.

    Raises:
        click.ClickException: it cannot run here.
    """
    wanted = params.flow.backend
    try:
        chosen = resolve_backend(wanted)
        if chosen == "cuda" and wanted == "auto" and params.run.device == "cpu":
            chosen = resolve_backend("cpu")
    except ValueError as error:
        raise click.ClickException(f"flow.backend: {error}") from None
    return chosen


@click.command()
@params_option
def main(params_path: Path) -> None:
    """Compute the optical flow of all clips."""
    params = load_params(params_path)
    with told_plainly("flow"):
        flow(params, ClipCache.from_environment(verify=params.run.verify))


if __name__ == "__main__":
    main()
