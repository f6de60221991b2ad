"""Stage ``scores_slow_fusion``: what Slow Fusion says of test clips, ``data/<dataset>/scores/slow_fusion-<split>``.

The test protocol of [10]: equally spaced windows of ten frames, the centre and its mirror image, probabilities
averaged. A net that cannot be scored (its last layer is random, or knows other classes) leaves ``not_scored.txt`` with
the reason in place of the clips.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.execution.opened import Opened
from pipeline.execution.told import told_plainly
from pipeline.not_scored import leave_out, why_not
from pipeline.params import Params, load_params, params_option
from pipeline.paths import Paths

if TYPE_CHECKING:  # torch takes seconds to import, and --help should not
    from han_core.cache.store import ClipCache
    from han_core.nets.slow_fusion.inputs import SquareViews
    from han_core.nets.slow_fusion.net import SlowFusion
    from han_core.nets.slow_fusion.scoring import WindowScorer
    from pipeline.execution.jobs import ClipTask
    from pipeline.execution.work import ClipWork

STAGE = "scores-slow-fusion"
"""In ``dvc.yaml``."""


@click.command()
@click.option("--split", type=click.IntRange(min=1), required=True)
@params_option
def main(split: int, params_path: Path) -> None:
    """Score the test clips of one split with Slow Fusion."""
    params = load_params(params_path)

    from han_core.cache.store import ClipCache

    with told_plainly(f"scores slow_fusion-{split}"):
        scores(params, split, ClipCache.from_environment(verify=params.run.verify))


def scores(params: Params, split: int, cache: "ClipCache") -> None:
    """Run the stage."""
    from han_core.baselines.two_stream.scorefile import NOT_SCORED
    from han_core.clips import read_clips
    from han_core.nets.sealed_net import read_metadata
    from pipeline.execution.clip_tasks import do

    paths, net_path = Paths.of(params), net_file(params, split)
    if reason := why_not(read_metadata(net_path), read_clips(paths.clips).classes):
        leave_out(paths.scores("slow_fusion", split), f"{net_path}: {reason}")
        return
    with scores_work(params, split) as work:
        (work.output / NOT_SCORED).unlink(missing_ok=True)
        do(work, params, cache)


@contextmanager
def scores_work(params: Params, split: int) -> Iterator["ClipWork"]:
    """What the stage makes."""
    from han_core.clips import read_clips
    from han_core.devices import choose_device, device_apart, resolve_precision
    from han_core.nets.slow_fusion.net_file import look_at_net
    from pipeline.execution.clip_tasks import clip_tasks, net_work
    from pipeline.execution.work import ClipWork

    paths, wanted = Paths.of(params), params.slow_fusion.scores
    table = read_clips(paths.clips)
    table.require(split)
    device = choose_device(params.run.device)
    net_path = net_file(params, split)
    stated = look_at_net(net_path)
    precision = resolve_precision(wanted.precision, device)
    plan = Plan(
        net=stated.identity,
        windows=wanted.windows,
        batch=wanted.batch,
        precision=precision,
        device=device_apart(precision, device),
    )
    click.echo(
        f"scores slow_fusion-{split}: windows per clip: {plan.windows}"
        f"{', mirrored too' if stated.views.flip else ''}, on {device} in {plan.precision}, "
        f"with {net_path}"
    )
    score = ScoreWindows(net_path.absolute(), stated.views, plan, device.type)
    tasks, failed, faults = clip_tasks(table.select(split, "test"), [(paths.frames, "frames")], plan.fingerprint)
    work = ClipWork(
        name=f"{STAGE}-{split}",
        stage=STAGE,
        kind="scores",
        function=score,
        tasks=tuple(tasks),
        output=paths.scores("slow_fusion", split),
        failed=failed,
        faults=faults,
    )
    with net_work(work, NETS, score, device, params.run) as ready:
        yield ready


def net_file(params: Params, split: int) -> Path:
    """The file of the net.

    Raises:
        WeightsError: it is missing.
    """
    from han_core.nets.sealed_net import WeightsError

    path = Paths.of(params).slow_fusion(split)
    if not path.exists():
        raise WeightsError(f"{path}: is missing; make it with stage finetune-slow-fusion")
    return path


_ANYWHERE = ("device", "")
"""Of the fields below: what is not part of a fingerprint."""


@dataclass(frozen=True)
class Plan:
    """All that decides a clip's scores, besides its frames."""

    net: str
    """Content of the net's file, which also says how frames are cut and mirrored."""
    windows: int
    batch: int
    """Windows of a forward pass: rounding may depend on it."""
    precision: str
    device: str = ""
    """Where the precision alone does not say how the net computes (:func:`han_core.devices.device_apart`)."""

    def fingerprint(self, frames: str) -> str:
        """Identity of a clip's scores, given the content of its frames file."""
        from han_core.cache.fingerprint import fingerprint
        from pipeline.execution.code import stage_code

        parameters = {name: value for name, value in vars(self).items() if name != "net" and (name, value) != _ANYWHERE}
        return fingerprint("scores_slow_fusion", stage_code(STAGE), parameters, {"net": self.net, "frames": frames})


@dataclass(frozen=True)
class ScoreWindows:
    """Makes the score file of one clip; called from several threads of each process that does the work. They share a
    net, which the first of them opens."""

    path: Path
    """Of the net."""
    views: "SquareViews"
    plan: Plan
    device: str

    def open(self) -> "SlowFusion":
        """The net that was looked at."""
        from han_core.nets.sealed_net import WeightsError
        from han_core.nets.slow_fusion.net_file import read_net

        trained = read_net(self.path)
        if trained.identity != self.plan.net:
            raise WeightsError(f"{self.path}: was replaced by another net meanwhile; run the stage again")
        return trained.net

    def running(self, net: "SlowFusion") -> "WindowScorer":
        """The net, ready to run."""
        from han_core.nets.slow_fusion.scoring import WindowScorer

        plan = self.plan
        return WindowScorer(net, flip=self.views.flip, batch=plan.batch, precision=plan.precision, device=self.device)

    def __call__(self, task: "ClipTask", path: Path) -> None:
        """Score a clip, whose frames file is the task's argument, and write ``path``: ``frames`` are the first of each
        window.

        Raises:
            ClipFileError: the frames file is damaged.
        """
        import torch

        from han_core.baselines.two_stream.scorefile import write_scores
        from han_core.nets.slow_fusion.inputs import read_clip_windows

        clip = read_clip_windows(task.arguments, self.plan.windows, self.views)
        write_scores(
            path,
            clip=task.clip.name,
            fingerprint=task.fingerprint,
            frames=clip.starts,
            probabilities=NETS.get(self).probabilities(clip),
            attributes={
                "stream": "slow_fusion",
                "window": clip.fields.shape[1],
                "resize": self.views.resize,
                "mirrored": int(self.views.flip),
                "net": self.plan.net,
                "precision": self.plan.precision,
            },
            torch_threads=torch.get_num_threads(),
        )


NETS: "Opened[ScoreWindows, WindowScorer]" = Opened(lambda score: score.running(score.open()))
"""The net that this process has open."""


if __name__ == "__main__":
    main()
