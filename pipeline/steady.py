"""Stage ``steady``: flow without the camera's motion, ``data/<dataset>/steady/<class>/<clip>.h5``.

What the temporal net then looks at in place of the flow (``camera``), while tracking and fine pictures still read the
flow itself. With ``camera: none``, as in the paper, it leaves ``not_made.txt`` in place of the clips, and the temporal
net looks at the flow.
"""

from dataclasses import dataclass
from pathlib import Path

import click

from han_core.cache.fingerprint import fingerprint
from han_core.cache.store import ClipCache
from han_core.camera.steady import write_steady_flow
from han_core.clips import read_clips
from pipeline.execution.clip_tasks import clip_tasks, do
from pipeline.execution.code import stage_code
from pipeline.execution.contents import write_no_contents
from pipeline.execution.costs import counted
from pipeline.execution.jobs import ClipTask
from pipeline.execution.outputs import clear
from pipeline.execution.runner import Summary
from pipeline.execution.told import told_plainly
from pipeline.execution.work import ClipWork
from pipeline.params import Params, load_params, params_option
from pipeline.paths import Paths

NOT_MADE = "not_made.txt"


@dataclass(frozen=True)
class Arguments:
    """What a worker has to know beyond the clip."""

    flow: Path
    """The clip's flow file."""
    camera: str


def steady_clip(task: ClipTask, path: Path) -> None:
    """Write the flow of one clip without the camera's motion.

    Raises:
        ClipFileError: the flow file is damaged.
    """
    arguments: Arguments = task.arguments
    write_steady_flow(arguments.flow, path, clip=task.clip.name, fingerprint=task.fingerprint, camera=arguments.camera)


def steady_work(params: Params) -> ClipWork:
    """What the stage makes.

    Raises:
        click.ClickException: the params say that the camera's motion stays.
    """
    if params.camera == "none":
        raise click.ClickException("camera: none makes no flow without the camera's motion")
    paths = Paths.of(params)
    tasks, failed, faults = clip_tasks(
        read_clips(paths.clips).clips,
        [(paths.flow, "flow")],
        lambda flow: fingerprint("steady", stage_code("steady"), {"camera": params.camera}, {"flow": flow}),
        lambda flow: Arguments(flow, params.camera),
    )
    return ClipWork("steady", "steady", "flow", steady_clip, tuple(tasks), paths.steady, failed, faults)


def steady(params: Params, cache: ClipCache) -> Summary:
    """Run the stage."""
    work = steady_work(params)
    (work.output / NOT_MADE).unlink(missing_ok=True)
    click.echo(f"steady: {len(work.tasks)} clips, taken out: {params.camera}")
    return do(work, params, cache)


def leave_out(params: Params) -> None:
    """Say why there is none."""
    output = Paths.of(params).steady
    clear(output)
    output.mkdir(parents=True)
    reason = "camera is none: the temporal net looks at the unchanged flow"
    (output / NOT_MADE).write_text(f"{reason}\n", encoding="utf-8")
    write_no_contents(output, reason)
    click.echo("steady: camera is none, nothing to do")


@click.command(help=__doc__)
@params_option
def main(params_path: Path) -> None:
    """Take the camera's motion out of the flow of all clips."""
    params = load_params(params_path)
    with told_plainly("steady"):
        if params.camera == "none":
            with counted(params, "steady"):
                leave_out(params)
        else:
            steady(params, ClipCache.from_environment(verify=params.run.verify))


if __name__ == "__main__":
    main()
