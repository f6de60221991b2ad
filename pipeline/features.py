"""Which features a variant of HAN reads, and where they are kept while it does."""

import os
from collections.abc import Sequence

import torch

from han_core.cubestore import CubeStore, Features
from han_core.datasets.clips import Clip
from han_core.han import Variant
from pipeline.params import Params, Run
from pipeline.paths import Paths

MEMORY_SHARE = 0.5  # of the machine's memory that `store: auto` may fill with cubes


def open_store(params: Params, variant: Variant, split: int, clips: Sequence[Clip]) -> CubeStore:
    """The features that a variant reads, of some clips of a split.

    Cubes whose regions all count the same are averaged while they are read: the same result at 1/196 of the memory.
    """
    paths = Paths.of(params)
    return CubeStore(
        {stream: paths.cubes(stream, split) for stream in variant.streams},
        clips,
        array=params.cubes.fc if variant.source == "fc" else "cubes",
        pooled=variant.source == "cubes" and not variant.attention,
    )


def placed(store: CubeStore, run: Run) -> Features:
    """The store itself, or all of it in memory, as ``run.store`` says.

    In float32 where that fits as well: the numbers are the same, and no epoch converts them again.
    """
    room = MEMORY_SHARE * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if run.store == "stream" or (run.store == "auto" and store.bytes_in_memory > room):
        return store
    return store.load(torch.float32 if 2 * store.bytes_in_memory < room else torch.float16)
