"""Which features a variant of HAN reads, and where they are kept while it does."""

import os
from collections.abc import Sequence

import torch

from han_core.cubestore import CubeStore, Features
from han_core.datasets.clips import Clip
from han_core.variants import Variant
from pipeline.params import Params, Run
from pipeline.paths import Paths

MEMORY_SHARE = 0.5  # of the memory of a machine, or of what is free on a GPU, that `store: auto` may fill with cubes


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


def placed(store: CubeStore, run: Run, device: torch.device) -> tuple[Features, str]:
    """The store itself, or all of it in memory or on the GPU, as ``run.store`` says; and which it is.

    Several processes on a machine each hold all of it.
    """
    choice = run.store if run.store != "auto" else _by_size(store.bytes_in_memory, device)
    if choice == "device" and device.type == "cpu":
        choice = "memory"  # the same thing
    if choice == "stream":
        return store, choice
    features = store.load()
    return (features.to(device), choice) if choice == "device" else (features, choice)


def _by_size(size: int, device: torch.device) -> str:
    if device.type == "cuda" and size < MEMORY_SHARE * torch.cuda.mem_get_info(device)[0]:
        return "device"
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    return "memory" if size < MEMORY_SHARE * memory / processes else "stream"
