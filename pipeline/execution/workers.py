"""How many workers a stage has."""

from dataclasses import dataclass

from han_core.devices import cores, exclusive_gpus
from pipeline.params import Run

PROCESSES_PER_GPU = 3
"""Of work whose processes do one clip at a time: while one computes, another reads and a third writes."""

FEWEST_THREADS = 3
"""Clips in work where a net computes: one being read, one computed, one written."""

MOST_THREADS = 4
"""Of a process. 14 of the 53 ms that a core takes to read and write a temporal clip hold the interpreter's lock
(docs/finetune.md), so that four threads keep it busy, and more would wait for it."""

MOST_PROCESSES = 4
"""A GPU, each of which holds the net and what CUDA needs for itself: about 1.5 GB of the GPU's memory."""


@dataclass(frozen=True)
class Crew:
    """Who does the clips of a stage."""

    processes: int
    threads: int = 1
    """Of each process, each with a clip of its own."""
    gpus: int = 0
    """That the processes share, in turn; 0 leaves them alone."""
    told: str = ""
    """Why there are fewer than were to be expected."""


def worker_count(run: Run, gpus: int = 0) -> int:
    """Worker processes that do one clip at a time: ``run.workers``, or one per core, or three per GPU; no more than the
    GPUs let in."""
    return crew(run, gpus).processes


def crew(run: Run, gpus: int = 0, *, net: bool = False) -> Crew:
    """The workers of a map over clips.

    Args:
        gpus: how many they share; 0 is none.
        net: whether each process holds a net on its GPU, and does several clips at once. ``run.workers`` (by default
            the number of cores, up to sixteen a GPU) is then the number of clips in work, and there is one process a
            GPU for each four of them, up to four.
    """
    if not gpus:
        return Crew(run.workers or cores())
    if net:
        clips = run.workers or max(FEWEST_THREADS * gpus, min(cores(), MOST_PROCESSES * MOST_THREADS * gpus))
        gpus = min(gpus, clips)
        each = -(-clips // gpus)
        together = min(-(-each // MOST_THREADS), MOST_PROCESSES)
        told = ""
        if together > 1 and exclusive_gpus():
            together, told = 1, f"{_EXCLUSIVE}: one process a GPU in place of {together}"
        return Crew(together * gpus, -(-each // together), gpus, told)
    wanted = run.workers or PROCESSES_PER_GPU * gpus
    if wanted > gpus and exclusive_gpus():
        return Crew(gpus, gpus=gpus, told=f"{_EXCLUSIVE}: one process a GPU in place of {wanted} in all")
    return Crew(wanted, gpus=gpus)


_EXCLUSIVE = "the GPUs are in exclusive compute mode and let one process in"
