"""Stage ``tdd``: trajectory-pooled deep-convolutional descriptors [20], ``data/<dataset>/tdd/<stream>-<split>``.

The net of a stream and split runs over every frame of a clip (or every ``tdd.step``-th) at the frames' own aspect; its
maps are summed along the clip's trajectories of the original scale under two normalisations, and the sums encoded as
Fisher vectors by the codebook of stage ``tdd_codebook``, at once: neither maps nor descriptors reach the disk. A clip
without trajectories has vectors of zeros.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.execution.told import told_plainly
from pipeline.opened_codebook import codebook_at
from pipeline.params import Params, load_params, params_option
from pipeline.tdd_net import ClipPaths, Pooling

if TYPE_CHECKING:
    from han_core.cache.store import ClipCache
    from pipeline.execution.jobs import ClipTask
    from pipeline.execution.runner import Summary
    from pipeline.execution.work import ClipWork


@click.command(help=__doc__)
@click.option("--stream", type=click.Choice(["spatial", "temporal"]), required=True)
@click.option("--split", type=click.IntRange(min=1), required=True, help="The split whose net and codebook are used.")
@params_option
def main(stream: str, split: int, params_path: Path) -> None:
    """Encode the training and test clips of one split with one stream's net."""
    params = load_params(params_path)

    from han_core.cache.store import ClipCache

    with told_plainly(f"tdd {stream}-{split}"):
        tdd(params, stream, split, ClipCache.from_environment(verify=params.run.verify))


def tdd(params: Params, stream: str, split: int, cache: "ClipCache") -> "Summary":
    """Run the stage."""
    from pipeline.execution.clip_tasks import do

    with tdd_work(params, stream, split) as work:
        return do(work, params, cache)


@contextmanager
def tdd_work(params: Params, stream: str, split: int) -> Iterator["ClipWork"]:
    """What the stage makes."""
    from han_core.baselines.fisher.codebook import codebook_identity, read_codebook
    from han_core.baselines.fisher.fisherfile import KIND
    from han_core.clips import read_clips
    from pipeline.execution.clip_tasks import clip_tasks
    from pipeline.execution.work import ClipWork
    from pipeline.paths import Paths
    from pipeline.tdd_net import choose_pooling, pooling_work, stream_sources

    paths = Paths.of(params)
    table = read_clips(paths.clips)
    table.require(split)
    codebook = paths.codebook(f"tdd-{stream}", split)
    _, metadata = read_codebook(codebook)

    def said(what: str) -> None:
        click.echo(f"tdd {stream}-{split}: {what}")

    pooling, device = choose_pooling(params, stream, split, said)
    encode = EncodeClip(pooling, codebook.absolute(), codebook_identity(metadata))
    tasks, failed, faults = clip_tasks(
        (clip for role in ("train", "test") for clip in table.select(split, role)),
        stream_sources(params, stream),
        encode.fingerprint,
        ClipPaths,
    )
    work = ClipWork(
        name=f"tdd-{stream}-{split}",
        stage=f"tdd-{stream}",
        kind=KIND,
        function=encode,
        tasks=tuple(tasks),
        output=paths.tdd(stream, split),
        failed=failed,
        faults=faults,
    )
    with pooling_work(work, pooling, device, params) as ready:
        yield ready


@dataclass(frozen=True)
class EncodeClip:
    """Makes the Fisher vectors of one clip; called from several threads."""

    pooling: Pooling
    codebook: Path
    identity: str
    """Content of the codebook."""

    def fingerprint(self, images: str, trajectories: str) -> str:
        """Identity of a clip's vectors, given the content of its frames or flow file and of its trajectory file."""
        from han_core.cache.fingerprint import fingerprint
        from pipeline.execution.code import stage_code

        settings = self.pooling.settings
        inputs = {"net": settings.net, "source": images, "trajectories": trajectories, "codebook": self.identity}
        return fingerprint("tdd", stage_code(f"tdd-{settings.stream}"), settings.parameters, inputs)

    def __call__(self, task: "ClipTask", path: Path) -> None:
        """Pool and encode a clip.

        Raises:
            ClipError: an activation is not finite.
            ClipFileError: a file of the clip is damaged.
            CodebookError: the codebook is, or was replaced.
            WeightsError: the net was replaced.
            TracksError: its trajectories are of another clip.
        """
        from han_core.baselines.fisher.fisherfile import write_vectors
        from han_core.baselines.tdd.encoding import encode
        from han_core.baselines.tdd.tracks import read_tracks

        arguments: ClipPaths = task.arguments
        tracks = read_tracks(arguments.trajectories)
        codebook = codebook_at(self.codebook, self.identity)
        write_vectors(
            path,
            clip=task.clip.name,
            fingerprint=task.fingerprint,
            vectors=encode(self.pooling.descriptors(arguments.images, tracks), codebook),
            attributes={**self.pooling.settings.attributes, "codebook": self.identity, "tracks": len(tracks)},
        )


if __name__ == "__main__":
    main()
