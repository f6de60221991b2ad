"""How many workers a stage has."""

from han_core.devices import cores
from pipeline.params import Run

_WORKERS_PER_GPU = 3


def worker_count(run: Run, gpus: int = 0) -> int:
    """Worker processes: ``run.workers``, or one per core, or three per GPU."""
    return run.workers or (_WORKERS_PER_GPU * gpus if gpus else cores())
