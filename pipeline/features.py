"""The features of a split's clips that a model reads, out of their cube files."""

from collections.abc import Sequence

from han_core.clips import Clip
from han_core.cubes.store import CubeStore, CubeStoreError
from pipeline.execution.ledger import read_failures
from pipeline.params import Params
from pipeline.paths import Paths


def open_store(
    params: Params,
    split: int,
    clips: Sequence[Clip],
    *,
    streams: Sequence[str],
    array: str,
    pooled: bool,
    views: Sequence[str] = (),
) -> CubeStore:
    """The features of some clips of a split.

    Args:
        array, pooled: as of :class:`CubeStore`.
        views: names of further views that are wanted beside the plain one.

    Raises:
        CubeStoreError: no clip has its files, files differ in shape, or one is missing for no reason.
        LedgerError: a ledger of failures is damaged.
    """
    paths = Paths.of(params)
    sets = {view: {stream: paths.cubes(stream, split, view) for stream in streams} for view in ("", *views)}
    folders = [folder for one in sets.values() for folder in one.values()]
    store = CubeStore(sets.pop(""), clips, further=sets, array=array, pooled=pooled)
    failed = {key for folder in folders for key in read_failures(folder)}
    if unexplained := [clip.key for clip in store.missing if clip.key not in failed]:
        raise CubeStoreError(
            f"{', '.join(map(str, folders))}: {len(unexplained)} clips have no cubes, e.g. {unexplained[0]}, "
            "and no failure is noted for them; run the cubes stages again"
        )
    return store
