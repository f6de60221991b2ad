"""What the stages cost: ``logs/<dataset>/costs.csv``, a line appended whenever one has made something.

Processor time is that of the stage and of its local workers, not of a cluster's, and of processes that train together
that of the first. Like all logs it is never part of an output: the same params give the same bytes, at whatever price.
"""

import csv
import os
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.params import Params
from pipeline.paths import Paths

_COLUMNS = ["stage", "made", "cpu_seconds", "seconds"]


@dataclass
class Cost:
    """Of one run of a stage."""

    stage: str
    """As DVC names it, with what its matrix makes of it: ``train@han-1-1``."""
    made: int = 0
    """How many files: clips, or one net or set of predictions. What was found in the cache was not made."""
    cpu_seconds: float = 0.0
    seconds: float = 0.0


@contextmanager
def counted(params: Params, stage: str, made: int = 1) -> Iterator[Cost]:
    """Note what the block costs, unless it fails or sets ``made`` to 0."""
    cost = Cost(stage, made)
    began, cpu_before = time.monotonic(), _cpu_seconds()
    yield cost
    if cost.made and os.environ.get("RANK", "0") == "0":
        cost.cpu_seconds, cost.seconds = _cpu_seconds() - cpu_before, time.monotonic() - began
        _append(Paths.of(params).logs / "costs.csv", cost)


def read_costs(path: Path) -> list[Cost]:
    """All that was noted, in order; lines that are none, e.g. half of one, are passed over."""
    found = []
    if path.exists():
        with path.open(encoding="utf-8", errors="replace", newline="") as file:
            for line in csv.DictReader(file):
                try:
                    numbers = int(line["made"]), float(line["cpu_seconds"]), float(line["seconds"])
                except (KeyError, TypeError, ValueError):
                    continue
                found.append(Cost(line["stage"], *numbers))
    return found


def _append(path: Path, cost: Cost) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists()
    with path.open("a", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if new:
            writer.writerow(_COLUMNS)
        writer.writerow([cost.stage, cost.made, f"{cost.cpu_seconds:.3f}", f"{cost.seconds:.3f}"])


def _cpu_seconds() -> float:
    """Of this process, and of those that it started and that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)
