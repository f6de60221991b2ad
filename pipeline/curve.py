"""A run's learning curve, through DVCLive: what ``dvc metrics show``, ``dvc plots show`` and ``dvc exp show`` read.

A folder holds ``metrics.json`` (the last step) and ``plots/metrics/<figure>.tsv`` (step, value). It is written anew by
every run, from the first step on, so that a run that was interrupted leaves the bytes of one that was not.
"""

import csv
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self


class Curve:
    """Writes a curve as it grows; a context manager. Wall times are left out on purpose.

    Without a token for DVC Studio among the user's settings nothing leaves the machine.

    Args:
        folder: made, or emptied of an earlier curve.
    """

    def __init__(self, folder: Path) -> None:
        from dvclive import Live

        self._live = Live(str(folder), save_dvc_exp=False, dvcyaml=False)
        _figures(folder).mkdir(parents=True, exist_ok=True)  # an output even where there is no step

    def add(self, step: int, figures: Mapping[str, float | None]) -> None:
        """Append one step (counted from 1); figures that are None are left out."""
        self._live.step = step
        for name, value in figures.items():
            if value is not None:
                self._live.log_metric(name, float(f"{value:.6g}"))
        self._live.next_step()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.end()


def read_curve(folder: Path, figure: str) -> dict[int, float]:
    """Step -> value of one figure; empty where the run has no such figure."""
    path = _figures(folder) / f"{figure}.tsv"
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        return {int(row["step"]): float(row[figure]) for row in csv.DictReader(file, delimiter="\t")}


def _figures(folder: Path) -> Path:
    return folder / "plots" / "metrics"
