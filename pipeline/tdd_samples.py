"""Stage ``tdd_samples``: what the codebooks of TDD [20] are fitted to, ``data/<dataset>/tdd_samples/<stream>-<split>``.

Of ``tdd.codebook_clips`` training clips, drawn at random, each gives descriptors in proportion to its trajectories,
``tdd.samples`` in all. The net of the split runs over these clips a first time; an edit of ``tdd.gaussians`` needs no
second. No other clip is looked at.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.execution.told import told_plainly
from pipeline.params import Params, load_params, params_option
from pipeline.tdd_net import ClipPaths, Pooling

if TYPE_CHECKING:
    from han_core.cache.store import ClipCache
    from han_core.clips import Clip
    from pipeline.execution.jobs import ClipTask
    from pipeline.execution.runner import Summary
    from pipeline.execution.work import ClipWork


@click.command(help=__doc__)
@click.option("--stream", type=click.Choice(["spatial", "temporal"]), required=True)
@click.option("--split", type=click.IntRange(min=1), required=True, help="The split whose training clips are used.")
@params_option
def main(stream: str, split: int, params_path: Path) -> None:
    """Draw descriptors of one stream with the net of one split."""
    params = load_params(params_path)

    from han_core.cache.store import ClipCache

    with told_plainly(f"tdd_samples {stream}-{split}"):
        samples(params, stream, split, ClipCache.from_environment(verify=params.run.verify))


def samples(params: Params, stream: str, split: int, cache: "ClipCache") -> "Summary":
    """Run the stage."""
    from pipeline.execution.clip_tasks import do

    with samples_work(params, stream, split) as work:
        return do(work, params, cache)


@contextmanager
def samples_work(params: Params, stream: str, split: int) -> Iterator["ClipWork"]:
    """What the stage makes."""
    from han_core.baselines.fisher.sampling import shares
    from han_core.baselines.tdd.samplefile import KIND
    from han_core.baselines.tdd.tracks import count_tracks
    from han_core.clipfile.trailer import ClipFileError
    from han_core.clips import read_clips
    from pipeline.execution.clip_tasks import clip_tasks
    from pipeline.execution.ledger import read_failures
    from pipeline.execution.work import ClipWork
    from pipeline.paths import Paths, clip_file
    from pipeline.tdd_net import choose_pooling, pooling_work, stream_sources

    paths, wanted = Paths.of(params), params.tdd
    table = read_clips(paths.clips)
    table.require(split)
    sources = stream_sources(params, stream)
    failed = {key for folder, _ in sources for key in read_failures(folder)}
    known = [clip for clip in table.select(split, "train") if clip.key not in failed]
    clips = drawn_clips(known, wanted.codebook_clips, params.seed)

    def said(what: str) -> None:
        click.echo(f"tdd_samples {stream}-{split}: {len(clips)} training clips, {what}")

    counts = {}
    for clip in clips:
        with suppress(ClipFileError):  # a damaged file is told of with the clip's task
            counts[clip.key] = count_tracks(clip_file(paths.trajectories, clip.class_name, clip.name))
    # A track gives a descriptor at each size of the net's input.
    takes = shares(counts, max(1, wanted.samples // len(wanted.sizes)))
    pooling, device = choose_pooling(params, stream, split, said)
    draw = DrawSamples(pooling, params.seed)
    tasks: list[ClipTask] = []
    faults: dict[str, str] = {}
    for clip in clips:
        take = takes.get(clip.key, 0)
        if take or clip.key not in counts:
            own, _, wrong = clip_tasks([clip], sources, partial(draw.fingerprint, take), partial(ClipPaths, take=take))
            tasks += own
            faults |= wrong
    work = ClipWork(
        name=f"tdd-samples-{stream}-{split}",
        stage=f"tdd-samples-{stream}",
        kind=KIND,
        function=draw,
        tasks=tuple(tasks),
        output=paths.tdd_samples(stream, split),
        faults=faults,
    )
    with pooling_work(work, pooling, device, params) as ready:
        yield ready


def drawn_clips(clips: "list[Clip]", count: int, seed: int) -> "list[Clip]":
    """At most ``count`` of the clips, by name; which ones depends on their names and the seed."""
    import numpy as np

    ordered = sorted(clips, key=lambda clip: clip.key)
    if len(ordered) <= count:
        return ordered
    chosen = np.random.default_rng([seed, *b"tdd"]).choice(len(ordered), count, replace=False)
    return [ordered[i] for i in sorted(chosen.tolist())]


@dataclass(frozen=True)
class DrawSamples:
    """Makes the sample of one clip; called from several threads."""

    pooling: Pooling
    seed: int

    def fingerprint(self, take: int, images: str, trajectories: str) -> str:
        """Identity of a clip's sample.

        Args:
            take: how many tracks are drawn.
            images, trajectories: content of the clip's frames or flow file, and of its trajectory file.
        """
        from han_core.cache.fingerprint import fingerprint
        from pipeline.execution.code import stage_code

        settings = self.pooling.settings
        parameters = settings.parameters | {"take": take, "seed": self.seed}
        inputs = {"net": settings.net, "source": images, "trajectories": trajectories}
        return fingerprint("tdd_samples", stage_code(f"tdd-samples-{settings.stream}"), parameters, inputs)

    def __call__(self, task: "ClipTask", path: Path) -> None:
        """Write the descriptors of a clip's part.

        Raises:
            ClipError: an activation is not finite.
            ClipFileError: a file of the clip is damaged.
            WeightsError: the net was replaced.
            TracksError: its trajectories are of another clip.
        """
        import numpy as np
        import torch

        from han_core.baselines.fisher.sampling import drawn
        from han_core.baselines.tdd.samplefile import write_samples
        from han_core.baselines.tdd.tracks import read_tracks

        arguments: ClipPaths = task.arguments
        tracks = read_tracks(arguments.trajectories)
        tracks = tracks.take(drawn(task.clip.key, len(tracks), arguments.take, self.seed))
        found = list(self.pooling.descriptors(arguments.images, tracks))
        write_samples(
            path,
            clip=task.clip.name,
            fingerprint=task.fingerprint,
            samples={channel: np.concatenate([size[channel] for size in found]) for channel in found[0]},
            attributes={**self.pooling.settings.attributes, "tracks": len(tracks)},
            torch_threads=torch.get_num_threads(),
        )


if __name__ == "__main__":
    main()
