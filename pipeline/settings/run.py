"""Settings of how the work is spread."""

import os
from typing import Annotated, Literal

from pydantic import Field

from pipeline.settings.kinds import Group, Processes, Text

SCHEDULER = "DASK_SCHEDULER_ADDRESS"
"""Environment variable that dask reads, too."""


class Run(Group):
    """How the work is spread. Never changes a result, so no stage depends on it."""

    workers: Processes = 0
    """Clips in work at once: worker processes of a map over clips; 0 is one per core. On GPUs, flow has so many
    processes in all, by default three a GPU: while one computes, another reads and a third writes; fewer leave the GPU
    idle while a clip is read, more need memory for a context each. Stages that run a net (cubes, scores) have as many
    clips in work as this says, by default as many as cores (at most sixteen a GPU), and for each four of them a process
    a GPU (at most four). GPUs in exclusive compute mode let one process in, and a stage says so."""
    executor: Literal["local", "dask"] = "local"
    """``dask`` maps over clips on the workers of a cluster (docs/cluster.md), as many at once as these have threads."""
    scheduler: Text | None = None
    """Address of the dask scheduler (``executor: dask``); null takes ``$DASK_SCHEDULER_ADDRESS``, as dask does."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    verify: Literal["size", "content"] = "size"
    """Before a cached file is reused: ``size`` compares its identity and length, ``content`` its checksum as well,
    which reads the whole file."""
    store: Literal["auto", "stream", "memory", "device"] = "auto"
    """Cubes while HAN trains: ``stream`` reads them batch by batch, ``memory`` holds all in sparse form, ``device``
    holds them so on the GPU, ``auto`` goes by size."""
    processes: Processes = 1
    """Processes that fine-tune a net, or train HAN, together; 0 is one per GPU. No more than there are GPUs, unless
    they train on the CPU."""
    checkpoint_seconds: Annotated[float, Field(ge=0, le=10**9)] = 60.0
    """Least time between two checkpoints of a training run, which resumes from the last one if it is killed."""

    @property
    def address(self) -> str:
        """Of the dask scheduler; "" where nothing names it."""
        return self.scheduler or os.environ.get(SCHEDULER, "")
