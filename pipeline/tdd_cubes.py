"""Stage ``tdd_cubes``: the cheap variant of TDD [20], ``data/<dataset>/tdd_cubes/<split>/<class>/<clip>.h5``.

Pools the cubes that HAN reads (T frames, squeezed to 224x224, one layer) along a clip's trajectories in place of the
maps of every frame, and encodes them as stage ``tdd`` does. No net is run. Not the method of the paper, and no row of
its own right in the paper's table: the row ``tdd_cubes`` says what the cubes give.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.execution.told import told_plainly
from pipeline.opened_codebook import codebook_at
from pipeline.params import Params, load_params, params_option

if TYPE_CHECKING:
    from han_core.cache.store import ClipCache
    from han_core.cubes.folder import StoredClip
    from pipeline.execution.jobs import ClipTask
    from pipeline.execution.runner import Summary
    from pipeline.execution.work import ClipWork


@click.command(help=__doc__)
@click.option("--split", type=click.IntRange(min=1), required=True, help="The split whose cubes and codebook are used.")
@params_option
def main(split: int, params_path: Path) -> None:
    """Encode the training and test clips of one split."""
    params = load_params(params_path)

    from han_core.cache.store import ClipCache

    with told_plainly(f"tdd_cubes {split}"):
        tdd_cubes(params, split, ClipCache.from_environment(verify=params.run.verify))


def tdd_cubes(params: Params, split: int, cache: "ClipCache") -> "Summary":
    """Run the stage."""
    from pipeline.execution.clip_tasks import do

    return do(tdd_cubes_work(params, split), params, cache)


def tdd_cubes_work(params: Params, split: int) -> "ClipWork":
    """What the stage makes."""
    from han_core.baselines.fisher.codebook import codebook_identity, read_codebook
    from han_core.baselines.fisher.fisherfile import KIND
    from han_core.clips import read_clips
    from pipeline.execution.clip_tasks import clip_tasks
    from pipeline.execution.work import ClipWork
    from pipeline.paths import Paths

    paths = Paths.of(params)
    table = read_clips(paths.clips)
    table.require(split)
    codebook = paths.codebook("tdd_cubes", split)
    _, metadata = read_codebook(codebook)
    encode = EncodeClip(codebook.absolute(), codebook_identity(metadata))
    sources = [(paths.cubes(stream, split), "cubes") for stream in ("spatial", "temporal")]
    tasks, failed, faults = clip_tasks(
        (clip for role in ("train", "test") for clip in table.select(split, role)),
        [*sources, (paths.trajectories, "trajectories")],
        encode.fingerprint,
        lambda spatial, temporal, trajectories: ClipPaths({"spatial": spatial, "temporal": temporal}, trajectories),
    )
    output = paths.tdd_cubes(split)
    return ClipWork(f"tdd-cubes-{split}", "tdd-cubes", KIND, encode, tuple(tasks), output, failed, faults)


@dataclass(frozen=True)
class ClipPaths:
    """What a worker has to know beyond the clip."""

    cubes: "dict[str, StoredClip]"
    """Stream -> the clip's cubes."""
    trajectories: Path


@dataclass(frozen=True)
class EncodeClip:
    """Makes the Fisher vectors of one clip."""

    codebook: Path
    identity: str
    """Content of the codebook."""

    def fingerprint(self, spatial: str, temporal: str, trajectories: str) -> str:
        """Identity of a clip's vectors, given the content of its cube files and of its trajectory file."""
        from han_core.cache.fingerprint import fingerprint
        from pipeline.execution.code import stage_code

        inputs = {"spatial": spatial, "temporal": temporal, "trajectories": trajectories, "codebook": self.identity}
        return fingerprint("tdd_cubes", stage_code("tdd-cubes"), {}, inputs)

    def __call__(self, task: "ClipTask", path: Path) -> None:
        """Pool and encode a clip.

        Raises:
            ClipFileError: a file of the clip is damaged.
            CodebookError: the codebook is, or was replaced.
            TracksError: the trajectories are of another clip than the cubes.
        """
        from han_core.baselines.fisher.fisherfile import write_vectors
        from han_core.baselines.tdd.encoding import encode
        from han_core.baselines.tdd.from_cubes import crossing_tracks, cube_descriptors
        from han_core.cubes.folder import files_of

        arguments: ClipPaths = task.arguments
        with files_of(arguments.cubes) as cubes:
            tracks = crossing_tracks(arguments.trajectories, cubes)
            descriptors = cube_descriptors(cubes, tracks)
        write_vectors(
            path,
            clip=task.clip.name,
            fingerprint=task.fingerprint,
            vectors=encode([descriptors], codebook_at(self.codebook, self.identity)),
            attributes={"codebook": self.identity, "tracks": len(tracks)},
        )


if __name__ == "__main__":
    main()
