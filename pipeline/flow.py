"""Stage ``flow``: TV-L1 optical flow between adjacent frames, ``data/<dataset>/flow/<class>/<clip>.h5``.

Computed on grey frames, on the CPU in one process per core, on GPUs in three processes per GPU. Decoding, solving,
encoding and writing overlap, and memory is bounded by ``flow.batch``. What the back end needs is tried before any work,
with one small solve where it is a GPU.

The fingerprint of a flow file names the solver's back end, not ``auto``: back ends agree only within a tolerance, and a
file must not depend on which machine made it. A team that shares a cache between machines with and without GPUs
sets ``flow.backend`` to share its flow too.
"""

from concurrent.futures import BrokenExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import click

from han_core.cache.fingerprint import fingerprint
from han_core.cache.store import ClipCache
from han_core.clips import read_clips
from han_core.devices import cores, gpus
from han_core.flow.flowfile import Solver, write_flow
from han_core.flow.levels import FlowFormat
from han_core.flow.tvl1.params import TVL1Params
from han_core.flow.tvl1.solver import pairs_at_once, resolve_backend, tvl1_flow, tvl1_quantized
from pipeline.execution.clip_tasks import clip_tasks, do
from pipeline.execution.code import stage_code
from pipeline.execution.jobs import ClipTask
from pipeline.execution.local import local_pool
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
    batch: int | None
    """Pairs at once; None leaves it to the back end."""
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
        solver=_solver(arguments),
        form=arguments.form,
        batch=arguments.batch or partial(pairs_at_once, arguments.backend),
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
    batch = None if settings.batch == "auto" else settings.batch
    tasks, failed, faults = clip_tasks(
        table.clips,
        [(paths.frames, "frames")],
        lambda frames: flow_fingerprint(settings, backend, frames),
        lambda path: Arguments(path, backend, solver, form, batch, threads),
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


def _solver(arguments: Arguments) -> Solver:
    """A GPU hands back levels in place of flow: a quarter of the bytes."""
    if arguments.backend == "cuda":
        form = arguments.form
        return partial(tvl1_quantized, params=arguments.solver, bound=form.bound, rounding=form.rounding)
    return partial(tvl1_flow, backend=arguments.backend, params=arguments.solver, threads=1)


def _backend(params: Params) -> str:
    """The back end that computes. ``run.device: cpu`` keeps ``auto`` off the GPU.

    Raises:
        click.ClickException: it cannot run here.
    """
    wanted = params.flow.backend
    try:
        if wanted == "auto" and params.run.device == "cpu":
            return _without_gpu()
        return _tried_apart(wanted) if wanted in ("auto", "cuda") and gpus() else resolve_backend(wanted)
    except ValueError as error:
        raise click.ClickException(f"flow.backend: {error}") from None


def _without_gpu() -> str:
    """What ``auto`` is where the GPU is left alone."""
    try:
        return resolve_backend("cpu")
    except ValueError:
        return resolve_backend("opencv")


@lru_cache(maxsize=2)
def _tried_apart(wanted: str) -> str:
    """:func:`resolve_backend` in a process of its own, once: the small solve there takes memory of the GPU and, in
    exclusive mode, the GPU itself, which this process would hold for as long as its workers need it; and a crash of the
    driver does not end the stage.

    Raises:
        ValueError: the back end cannot run here.
    """
    with local_pool(1) as pool:
        try:
            return pool.submit(resolve_backend, wanted).result()
        except BrokenExecutor:
            reason = "the process that tried it on the GPU died"
    if wanted == "cuda":
        raise ValueError(f"back end 'cuda' of optical flow cannot run here: {reason}")
    click.echo(f"flow: {reason}; it is computed on the CPU", err=True)
    return _without_gpu()


@click.command()
@params_option
def main(params_path: Path) -> None:
    """Compute the optical flow of all clips."""
    params = load_params(params_path)
    with told_plainly("flow"):
        flow(params, ClipCache.from_environment(verify=params.run.verify))


if __name__ == "__main__":
    main()
