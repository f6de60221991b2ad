"""Where the cubes of a training set are while it is used: read from their files, in memory, or on the GPU."""

import os
from typing import Literal

import torch

from han_core.cubes.store import CubeStore, Features

MEMORY_SHARE = 0.5  # of the memory of a machine, or of what is free on a GPU, that `store: auto` may fill with cubes


Place = Literal["auto", "stream", "memory", "device"]


def placed(store: CubeStore, wanted: Place, device: torch.device) -> tuple[Features, str]:
    """The store itself, or all of it in memory or on the GPU, as wanted; and which it is.

    Several processes on a machine each hold all of it.

    Args:
        wanted: ``stream`` reads batch by batch, ``memory`` holds all in sparse form, ``device`` holds it so on the GPU,
            ``auto`` goes by size.
    """
    choice = wanted if wanted != "auto" else _by_size(store.bytes_in_memory, device)
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
