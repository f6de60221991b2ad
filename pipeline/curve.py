"""A run's learning curve, through DVCLive: what ``dvc metrics show``, ``dvc plots show`` and ``dvc exp show`` read.

A folder holds ``metrics.json`` (the last step) and ``plots/metrics/<figure>.tsv`` (step, value). It is written again by
every run, from the first step on, so that a run that was interrupted leaves the bytes of one that was not. Where DVC is
not installed (a stage that is run by itself, on a machine that has little) the same files are written without it.
"""

import csv
import errno
import json
import math
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from pipeline.execution.outputs import clear

if TYPE_CHECKING:  # takes seconds to import, and --help should not
    from dvclive import Live

_POINTS = 250  # of a fine-tuning curve that is shown: DVCLive reads its files again at every step
_COLUMNS = ("iteration", "loss", "learning_rate", "top1", "validation_top1")


class Curve:
    """Writes a curve as it grows; a context manager. Wall times are left out on purpose.

    Without a token for DVC Studio among the user's settings nothing leaves the machine.

    Args:
        folder: made, or emptied of an earlier curve.
    """

    def __init__(self, folder: Path) -> None:
        self._live = _live(folder)
        self._none = _figures(folder) / "not_trained.tsv"  # where there is no step: DVC warns of an empty output
        self._none.parent.mkdir(parents=True, exist_ok=True)
        clear(self._none)  # it may be a link into DVC's cache
        self._none.write_text("step\tnot_trained\n", encoding="utf-8")

    def add(self, step: int, figures: Mapping[str, float | None]) -> None:
        """Append one step (counted from 1); figures that are None are left out."""
        self._none.unlink(missing_ok=True)
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
    """Step -> value of one figure; empty where the run has no such figure.

    Raises:
        FileNotFoundError: there is no curve at all.
    """
    if not folder.is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder))
    path = _figures(folder) / f"{figure}.tsv"
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        return {int(row["step"]): float(row[figure]) for row in csv.DictReader(file, delimiter="\t")}


def _live(folder: Path) -> "Live | _Files":
    try:
        from dvc.exceptions import NotDvcRepoError
        from dvc.repo import Repo
        from dvclive import Live
        from scmrepo.exceptions import SCMError
    except ModuleNotFoundError:
        return _Files(folder)

    class PoliteLive(Live):
        """Makes no DVC repository out of a Git one, bears one without a commit, and closes DVC's databases."""

        def _init_dvc(self) -> None:
            with suppress(NotDvcRepoError, SCMError):
                Repo.find_root()
                super()._init_dvc()

        def end(self) -> None:
            super().end()
            if self._dvc_repo is not None:
                self._dvc_repo.close()

    return PoliteLive(str(folder), save_dvc_exp=False, dvcyaml=False)


class _Files:
    """As much of DVCLive as a curve needs."""

    def __init__(self, folder: Path) -> None:
        self.step = 0
        self._folder = folder
        self._last: dict[str, float | str] = {}
        clear(_figures(folder), folder / "metrics.json")
        _figures(folder).mkdir(parents=True)
        self._write({})

    def log_metric(self, name: str, value: float) -> None:
        path = _figures(self._folder) / f"{name}.tsv"
        head = "" if path.exists() else f"step\t{name}\n"
        with path.open("a", encoding="utf-8") as file:
            file.write(f"{head}{self.step}\t{value}\n")
        self._last[name] = value if math.isfinite(value) else str(value)

    def next_step(self) -> None:
        self._last["step"] = self.step
        self._write(self._last)
        self.step += 1

    def end(self) -> None:
        """All is written as it comes."""

    def _write(self, summary: Mapping[str, float | str]) -> None:
        (self._folder / "metrics.json").write_text(json.dumps(summary, indent=4) + "\n", encoding="utf-8")


def _figures(folder: Path) -> Path:
    return folder / "plots" / "metrics"


def write_record(path: Path, points: Iterable[tuple[int, Mapping[str, float | None]]]) -> None:
    """The whole curve of a net, as it is kept beside it in the cache: (iteration, figures) of every iteration."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_COLUMNS)
        writer.writerows(record_row(iteration, figures).values() for iteration, figures in points)


def record_row(iteration: int, figures: Mapping[str, float | None]) -> dict[str, str]:
    """A row of the record, by column."""
    cells = {name: "" if figures[name] is None else f"{figures[name]:.6g}" for name in _COLUMNS[1:]}
    return {_COLUMNS[0]: str(iteration)} | cells


def read_record(path: Path) -> list[dict[str, str]]:
    """The rows of a record."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def add_thinned(curve: Curve, iteration: int, figures: dict[str, float | None], iterations: int) -> None:
    """Add an iteration to the curve that is shown, which has some hundred points however long the run."""
    every = math.ceil(iterations / _POINTS)
    if iteration % every == 0 or iteration == iterations or figures["validation_top1"] is not None:
        curve.add(iteration, figures)


def draw_record(record: Path, folder: Path, iterations: int) -> None:
    """The curve of a net that was taken from the cache."""
    with Curve(folder) as curve:
        for row in read_record(record):
            figures = {name: float(row[name]) if row[name] else None for name in _COLUMNS[1:]}
            add_thinned(curve, int(row["iteration"]), figures, iterations)
