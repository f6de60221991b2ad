"""Stage ``stacked``: stacked Fisher vectors [13] of each clip, ``data/<dataset>/stacked/<split>/<class>/<clip>.h5``.

Subvolumes of the clip as Fisher vectors, compressed, and encoded again. A clip without trajectories has a vector of
zeros.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.execution.opened import Opened
from pipeline.execution.told import told_plainly
from pipeline.params import Params, load_params, params_option
from pipeline.stacked_features import local_features

if TYPE_CHECKING:
    from han_core.baselines.fisher.stacked import StackedModel
    from han_core.cache.store import ClipCache
    from pipeline.execution.jobs import ClipTask
    from pipeline.execution.runner import Summary
    from pipeline.execution.work import ClipWork


@click.command(help=__doc__)
@params_option
@click.option("--split", required=True, type=click.IntRange(min=1), help="The split whose model is used.")
def main(params_path: Path, split: int) -> None:
    """Encode the training and test clips of one split."""
    params = load_params(params_path)

    from han_core.cache.store import ClipCache

    with told_plainly(f"stacked {split}"):
        stacked(params, split, ClipCache.from_environment(verify=params.run.verify))


def stacked(params: Params, split: int, cache: "ClipCache") -> "Summary":
    """Run the stage."""
    from pipeline.execution.clip_tasks import do

    return do(stacked_work(params, split), params, cache)


def stacked_work(params: Params, split: int) -> "ClipWork":
    """What the stage makes."""
    from han_core.baselines.fisher.stacked_file import read_stacked
    from han_core.baselines.fisher.stored import identity
    from han_core.clips import read_clips
    from pipeline.execution.clip_tasks import clip_tasks
    from pipeline.execution.work import ClipWork
    from pipeline.paths import Paths

    paths = Paths.of(params)
    table = read_clips(paths.clips)
    table.require(split)
    model = paths.codebook("stacked", split)
    encode = StackClip(model.absolute(), identity(read_stacked(model)[1]))
    tasks, failed, faults = clip_tasks(
        (clip for role in ("train", "test") for clip in table.select(split, role)),
        [(paths.trajectories, "trajectories")],
        encode.fingerprint,
    )
    return ClipWork(f"stacked-{split}", "stacked", "fisher", encode, tuple(tasks), paths.stacked(split), failed, faults)


@dataclass(frozen=True)
class StackClip:
    """Makes the stacked Fisher vector of one clip."""

    model: Path
    identity: str
    """Content of the model."""

    def fingerprint(self, trajectories: str) -> str:
        """Identity of a clip's vector, given the content of its trajectory file."""
        from han_core.cache.fingerprint import fingerprint
        from pipeline.execution.code import stage_code

        inputs = {"model": self.identity, "trajectories": trajectories}
        return fingerprint("stacked", stage_code("stacked"), {}, inputs)

    def __call__(self, task: "ClipTask", path: Path) -> None:
        """Encode a clip, whose trajectory file is the task's argument, into ``path``.

        Raises:
            ClipError: its frames are numbered beyond any clip.
            ClipFileError: the trajectory file is damaged.
            CodebookError: the model is, or was replaced.
        """
        from han_core.baselines.fisher.fisherfile import write_vectors

        features = local_features(task.arguments)
        write_vectors(
            path,
            clip=task.clip.name,
            fingerprint=task.fingerprint,
            vectors={"stacked": MODELS.get(self).encode(features)},
            attributes={"codebook": self.identity, "trajectories": len(features.positions)},
        )


def _open(stack: StackClip) -> AbstractContextManager["StackedModel"]:
    from han_core.baselines.fisher.stacked_file import read_stacked
    from han_core.baselines.fisher.stored import CodebookError, identity

    model, metadata = read_stacked(stack.model)
    if identity(metadata) != stack.identity:  # workers of a cluster outlive a stage
        raise CodebookError(f"{stack.model}: was replaced by another model meanwhile; run the stage again")
    return nullcontext(model)


MODELS: "Opened[StackClip, StackedModel]" = Opened(_open)
"""The model that this process has open."""


if __name__ == "__main__":
    main()
