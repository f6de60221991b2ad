"""Stage ``fisher``: Fisher vectors of each clip's trajectories, ``data/<dataset>/fisher/<split>/<class>/<clip>.h5``.

One vector for each channel of the split's codebook: signed root, then length 1. A clip without trajectories has vectors
of zeros.
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
    from pipeline.execution.jobs import ClipTask
    from pipeline.execution.runner import Summary
    from pipeline.execution.work import ClipWork


@click.command(help=__doc__)
@params_option
@click.option("--split", required=True, type=click.IntRange(min=1), help="The split whose codebook is used.")
def main(params_path: Path, split: int) -> None:
    """Encode the training and test clips of one split."""
    params = load_params(params_path)

    from han_core.cache.store import ClipCache

    with told_plainly(f"fisher {split}"):
        fisher(params, split, ClipCache.from_environment(verify=params.run.verify))


def fisher(params: Params, split: int, cache: "ClipCache") -> "Summary":
    """Run the stage."""
    from pipeline.execution.clip_tasks import do

    return do(fisher_work(params, split), params, cache)


def fisher_work(params: Params, split: int) -> "ClipWork":
    """What the stage makes."""
    from han_core.baselines.fisher.codebook import codebook_identity, read_codebook
    from han_core.clips import read_clips
    from pipeline.execution.clip_tasks import clip_tasks
    from pipeline.execution.work import ClipWork
    from pipeline.paths import Paths

    paths = Paths.of(params)
    table = read_clips(paths.clips)
    table.require(split)
    codebook = paths.codebook("fisher", split)
    encode = EncodeClip(codebook.absolute(), codebook_identity(read_codebook(codebook)[1]))
    tasks, failed, faults = clip_tasks(
        (clip for role in ("train", "test") for clip in table.select(split, role)),
        [(paths.trajectories, "trajectories")],
        encode.fingerprint,
    )
    return ClipWork(f"fisher-{split}", "fisher", "fisher", encode, tuple(tasks), paths.fisher(split), failed, faults)


@dataclass(frozen=True)
class EncodeClip:
    """Makes the Fisher vectors of one clip."""

    codebook: Path
    identity: str
    """Content of the codebook."""

    def fingerprint(self, trajectories: str) -> str:
        """Identity of a clip's vectors, given the content of its trajectory file."""
        from han_core.cache.fingerprint import fingerprint
        from pipeline.execution.code import stage_code

        inputs = {"codebook": self.identity, "trajectories": trajectories}
        return fingerprint("fisher", stage_code("fisher"), {}, inputs)

    def __call__(self, task: "ClipTask", path: Path) -> None:
        """Encode a clip, whose trajectory file is the task's argument, into ``path``.

        Raises:
            ClipFileError: the trajectory file is damaged.
            CodebookError: the codebook is, or was replaced.
        """
        from han_core.baselines.fisher.fisherfile import write_vectors
        from han_core.baselines.trajectories.trajectoryfile import read_trajectories

        codebook = codebook_at(self.codebook, self.identity)
        found = read_trajectories(task.arguments, tuple(codebook.channels), points=False)
        write_vectors(
            path,
            clip=task.clip.name,
            fingerprint=task.fingerprint,
            vectors={channel: codebook.encode(channel, found.channel(channel)) for channel in codebook.channels},
            attributes={"codebook": self.identity, "trajectories": len(found)},
        )


if __name__ == "__main__":
    main()
