"""Stage ``scores``: the class scores of a stream's net on every clip, ``data/<dataset>/scores/<stream>-<split>``.

The test protocol of the two-stream ConvNets [16]: equally spaced frames, crops of each, probabilities averaged; of the
training clips too, because the SVM that joins the streams is fitted to those. A net that cannot be scored (its
classifier is random, or knows other classes), and ``scores.enabled: false``, leave ``not_scored.txt`` with the
reason in place of the clips, and stage ``evaluate`` has no rows of the nets then.
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
from pipeline.paths import Paths, net_file

if TYPE_CHECKING:  # torch takes seconds to import, and --help should not
    from han_core.baselines.two_stream.scoring import ScoringNet
    from han_core.cache.store import ClipCache
    from han_core.nets.crops import Crops
    from han_core.nets.stream_net import NetSource, StreamNet
    from pipeline.execution.jobs import ClipTask
    from pipeline.execution.work import ClipWork


@click.command()
@click.option("--stream", type=click.Choice(["spatial", "temporal"]), required=True)
@click.option("--split", type=click.IntRange(min=1), required=True)
@params_option
def main(stream: str, split: int, params_path: Path) -> None:
    """Score the clips of one split with the net of one stream."""
    params = load_params(params_path)
    if not params.scores.enabled:
        leave_out(Paths.of(params).scores(stream, split), "scores.enabled is false")
        return

    from han_core.cache.store import ClipCache

    with told_plainly(f"scores {stream}-{split}"):
        scores(params, stream, split, ClipCache.from_environment(verify=params.run.verify))


def scores(params: Params, stream: str, split: int, cache: "ClipCache") -> None:
    """Run the stage."""
    from han_core.baselines.two_stream.scorefile import NOT_SCORED
    from han_core.clips import read_clips
    from han_core.nets.sealed_net import read_metadata
    from pipeline.execution.clip_tasks import do

    net_path = net_file(params, stream, split)
    if reason := why_not(read_metadata(net_path), read_clips(Paths.of(params).clips).classes):
        leave_out(Paths.of(params).scores(stream, split), f"{net_path}: {reason}")
        return
    with scores_work(params, stream, split) as work:
        (work.output / NOT_SCORED).unlink(missing_ok=True)
        do(work, params, cache)


@contextmanager
def scores_work(params: Params, stream: str, split: int) -> Iterator["ClipWork"]:
    """What the stage makes."""
    from han_core.clips import read_clips
    from han_core.devices import choose_device, device_apart, resolve_precision
    from han_core.nets.stream_net import NetSource
    from pipeline.execution.clip_tasks import net_work, stream_work

    paths, wanted = Paths.of(params), params.scores
    table = read_clips(paths.clips)
    table.require(split)
    net_path = net_file(params, stream, split)
    device = choose_device(params.run.device)
    convention = getattr(params.finetune, stream).input
    source = NetSource(net_path, stream, stack=params.stack, camera=params.camera, convention=convention)
    net = source.look()
    precision = resolve_precision(wanted.precision, device)
    plan = Plan(
        net=net.identity,
        input=net.input,
        stream=stream,
        stack=net.stack,
        frames=wanted.frames,
        crops=wanted.crops,
        batch=wanted.batch,
        precision=precision,
        device=device_apart(precision, device),
    )
    click.echo(
        f"scores {stream}-{split}: frames per clip: {plan.frames}, crops: {plan.crops}, on {device} in "
        f"{plan.precision}, with {net_path}"
    )
    score = ScoreClip(source.absolute(), plan, paths.source(stream)[1], device.type)
    work = stream_work(
        "scores",
        score,
        params,
        table,
        stream,
        split,
        roles=("train", "test"),
        fingerprint=plan.fingerprint,
        output=paths.scores(stream, split),
    )
    with net_work(work, NETS, score, device, params.run) as ready:
        yield ready


_ANYWHERE = ("device", "")
"""Of the fields below: what is not part of a fingerprint."""


@dataclass(frozen=True)
class Plan:
    """All that decides a clip's scores, besides its frames or flow."""

    net: str
    """Content of the net."""
    input: str
    stream: str
    stack: int
    """0 for the spatial stream."""
    frames: int
    crops: "Crops"
    batch: int
    """Crops of a forward pass: rounding may depend on it."""
    precision: str
    device: str = ""
    """Where the precision alone does not say how the net computes (:func:`han_core.devices.device_apart`)."""

    def fingerprint(self, source: str) -> str:
        """Identity of a clip's scores, given the content of its frames or flow file."""
        from han_core.cache.fingerprint import fingerprint
        from pipeline.execution.code import stage_code

        parameters = {name: value for name, value in vars(self).items() if name != "net" and (name, value) != _ANYWHERE}
        code = stage_code(f"scores-{self.stream}")
        return fingerprint("scores", code, parameters, {"net": self.net, "source": source})


@dataclass(frozen=True)
class ScoreClip:
    """Makes the score file of one clip; called from several threads of each process that does the work. They share a
    net, which the first of them opens."""

    source: "NetSource"
    plan: Plan
    kind: str
    """Of the clip files that are read: frames or flow."""
    device: str

    def open(self) -> "StreamNet":
        """The net that was looked at."""
        return self.source.open(self.plan.net)

    def running(self, net: "StreamNet") -> "ScoringNet":
        """The net, ready to run."""
        from han_core.baselines.two_stream.scoring import ScoringNet

        plan = self.plan
        return ScoringNet(
            net.net,
            plan.input,
            kind=self.kind,
            crops=plan.crops,
            batch=plan.batch,
            precision=plan.precision,
            device=self.device,
        )

    def __call__(self, task: "ClipTask", path: Path) -> None:
        """Score a clip, whose frames or flow file is the task's argument, and write ``path``.

        Raises:
            ClipFileError: the frames or flow file is damaged.
        """
        import torch

        from han_core.baselines.two_stream.scorefile import write_scores
        from han_core.nets.clip_inputs import read_clip_frames

        plan, net = self.plan, NETS.get(self)
        clip = read_clip_frames(task.arguments, plan.frames, stack=plan.stack)
        write_scores(
            path,
            clip=task.clip.name,
            fingerprint=task.fingerprint,
            frames=clip.frames,
            probabilities=net.probabilities(clip.images())[clip.order],
            attributes={key: getattr(plan, key) for key in ("stream", "stack", "net", "input", "crops", "precision")},
            torch_threads=torch.get_num_threads(),
        )


NETS: "Opened[ScoreClip, ScoringNet]" = Opened(lambda score: score.running(score.open()))
"""The net that this process has open."""


if __name__ == "__main__":
    main()
