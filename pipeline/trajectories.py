"""Stage ``trajectories``: improved dense trajectories [19], ``data/<dataset>/trajectories/<class>/<clip>.h5``.

Points on a grid are tracked along the stored flow for 15 frames at several scales, those that only the camera moves are
left out, and the others are described by their shape, HOG, HOF and MBH. Computed once for all splits, in one process
per core; memory does not grow with the length of a clip.
"""

from dataclasses import dataclass
from pathlib import Path

import click

from han_core.baselines.trajectories.making import make_trajectories
from han_core.baselines.trajectories.params import TrajectoryParams
from han_core.cache.fingerprint import fingerprint
from han_core.cache.store import ClipCache
from han_core.clips import read_clips
from pipeline.execution.clip_tasks import clip_tasks, do
from pipeline.execution.code import stage_code
from pipeline.execution.jobs import ClipTask
from pipeline.execution.runner import Summary
from pipeline.execution.told import told_plainly
from pipeline.execution.work import ClipWork
from pipeline.params import Params, load_params, params_option
from pipeline.paths import Paths


@dataclass(frozen=True)
class Arguments:
    """What a worker has to know beyond the clip."""

    frames: Path
    """The clip's frames file."""
    flow: Path
    """The clip's flow file."""
    settings: TrajectoryParams
    seed: int
    """Draws the trajectories that are kept, where not all are."""


def track_clip(task: ClipTask, path: Path) -> None:
    """Write the trajectories of one clip.

    Raises:
        ClipError: frames and flow do not fit together.
        ClipFileError: the frames or the flow file is damaged.
    """
    arguments: Arguments = task.arguments
    make_trajectories(
        arguments.frames,
        arguments.flow,
        path,
        clip=task.clip.name,
        fingerprint=task.fingerprint,
        params=arguments.settings,
        seed=arguments.seed,
    )


def trajectory_fingerprint(settings: TrajectoryParams, seed: int, frames: str, flow: str) -> str:
    """Identity of a clip's trajectory file: the content of its frames and its flow file, and how it is tracked."""
    drawn = {"seed": seed} if settings.most else {}
    inputs = {"frames": frames, "flow": flow}
    return fingerprint("trajectories", stage_code("trajectories"), vars(settings) | drawn, inputs)


def trajectories_work(params: Params) -> ClipWork:
    """What the stage makes."""
    paths = Paths.of(params)
    settings = TrajectoryParams(**params.trajectories.model_dump(exclude={"source"}))
    tasks, failed, faults = clip_tasks(
        read_clips(paths.clips).clips,
        [(paths.frames, "frames"), (paths.flow, "flow")],
        lambda frames, flow: trajectory_fingerprint(settings, params.seed, frames, flow),
        lambda frames, flow: Arguments(frames, flow, settings, params.seed),
    )
    name = "trajectories"
    return ClipWork(name, name, name, track_clip, tuple(tasks), paths.trajectories, failed, faults)


def trajectories(params: Params, cache: ClipCache) -> Summary:
    """Run the stage."""
    work, settings = trajectories_work(params), params.trajectories
    kept = f"at most {settings.most} a clip" if settings.most else "all of them"
    click.echo(f"trajectories: {len(work.tasks)} clips, camera's motion: {settings.camera}, {kept}")
    return do(work, params, cache)


@click.command()
@params_option
def main(params_path: Path) -> None:
    """Track and describe points along the flow of all clips."""
    params = load_params(params_path)
    with told_plainly("trajectories"):
        trajectories(params, ClipCache.from_environment(verify=params.run.verify))


if __name__ == "__main__":
    main()
