"""The features of a split's clips that a model reads, out of their cube files."""

from collections.abc import Sequence
from pathlib import Path

from han_core.clipfile.trailer import ClipFileError
from han_core.clips import Clip
from han_core.cubes.store import CubeStore, CubeStoreError
from pipeline.execution.contents import check_listed, read_contents
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
        ClipFileError: a file is another clip's, or another stream's.
        LedgerError: a ledger of failures is damaged.
    """
    paths = Paths.of(params)
    sets = {view: {stream: paths.cubes(stream, split, view) for stream in streams} for view in ("", *views)}
    folders = [folder for one in sets.values() for folder in one.values()]
    store = CubeStore(sets.pop(""), clips, further=sets, array=array, pooled=pooled)
    _check_files(store, streams, folders)
    failed = {key for folder in folders for key in read_failures(folder)}
    if unexplained := [clip.key for clip in store.missing if clip.key not in failed]:
        raise CubeStoreError(
            f"{', '.join(map(str, folders))}: {len(unexplained)} clips have no cubes, e.g. {unexplained[0]}, "
            "and no failure is noted for them; run the cubes stages again"
        )
    return store


def _check_files(store: CubeStore, streams: Sequence[str], folders: Sequence[Path]) -> None:
    """See that each file is that of its clip and of its stream.

    Args:
        folders: those of the store; of each view, one for each stream.
    """
    for stream in streams:
        own = store.attributes(stream).get("stream", stream)
        if own != stream:
            raise ClipFileError(
                f"{folders[streams.index(stream)]}: holds cubes of the {own} stream; run the cubes stages again"
            )
    listed = [read_contents(folder) for folder in folders]
    for key, found in store.contents().items():
        # Of a clip: all views of the first stream, then all of the second.
        places = [view * len(streams) + number for number in range(len(streams)) for view in range(len(store.views))]
        for place, content in zip(places, found.split(" "), strict=True):
            check_listed(folders[place] / f"{key}.h5", key, content, listed[place])
