"""Where the cubes of a training set are while it is used: read from their files, in memory, or on the GPU.

Processes that train together (``torchrun``) each need all clips, which are shuffled over all of them. Each holds a copy
of its own, and the checks here count them: the more processes, the smaller what they let into a machine's memory. (One
copy for all would need a file that all map, or shared memory, which containers often limit to 64 MB. On GPUs, where
several processes are the rule, each fills its own, and the host holds only what is on its way.)
"""

import os
from pathlib import Path
from typing import Literal

import torch

from han_core.cubes.features import Features
from han_core.cubes.store import CubeStore, CubeStoreError

MEMORY_SHARE = 0.5
"""Of the memory of a machine, or of what is free on a GPU, that `store: auto` may fill with cubes."""
ACROSS_SHARE = 0.8
"""Of what is free on a GPU, that transposed copies may fill: a step itself needs 1 to 2 GB at UCF-101's size."""


Place = Literal["auto", "stream", "memory", "device"]


def placed(
    store: CubeStore, wanted: Place, device: torch.device, *, learnt: bool = False, beside: int = 0
) -> tuple[Features, str]:
    """The store itself, or all of it in memory or on the GPU, as wanted; and which it is.

    Args:
        wanted: ``stream`` reads batch by batch, ``memory`` holds all in sparse form, ``device`` holds it so on the GPU,
            ``auto`` goes by size.
        learnt: a model learns from it, so that a GPU with enough memory holds transposed copies for the gradients too.
        beside: bytes that each process of this machine holds of other features.

    Raises:
        CubeStoreError: memory is asked for and the machine has too little for all of its processes.
    """
    choice = wanted if wanted != "auto" else _by_size(store.bytes_in_memory + beside, device)
    if choice == "device" and device.type == "cpu":
        choice = "memory"  # the same thing
    if choice == "memory":
        _check_memory(store.bytes_in_memory + beside)
    if choice == "stream":
        return store, choice
    if choice == "memory":
        return store.load(), choice
    features = store.load(device)
    if learnt and device.type == "cuda" and store.bytes_across < ACROSS_SHARE * torch.cuda.mem_get_info(device)[0]:
        features = features.with_across()
    return features, choice


def processes_here() -> int:
    """Processes on this machine that train together."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def memory_of_machine() -> int:
    """Bytes that all processes here may use together: the machine's, or fewer in a container that is limited."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            whole = min(whole, int(Path(limit).read_text(encoding="ascii")))
        except (OSError, ValueError):  # no such limit, or "max"
            continue
    return whole


def _by_size(size: int, device: torch.device) -> str:
    if device.type == "cuda" and size < MEMORY_SHARE * torch.cuda.mem_get_info(device)[0]:
        return "device"
    return "memory" if size < MEMORY_SHARE * memory_of_machine() / processes_here() else "stream"


def _check_memory(size: int) -> None:
    together, there = size * processes_here(), memory_of_machine()
    if together > there:
        raise CubeStoreError(
            f"run.store: memory takes {together / 1e9:,.1f} GB ({processes_here()} processes with {size / 1e9:,.1f} GB "
            f"of features each), and this machine has {there / 1e9:,.1f} GB; choose run.store: stream, or fewer "
            "run.processes"
        )
