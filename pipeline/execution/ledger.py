"""The failure ledger: ``failures.csv`` in a stage's output folder, one row per clip that could not be processed."""

import csv
import re
import secrets
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

LEDGER = "failures.csv"
_COLUMNS = ("clip", "class", "reason")
_NAMED = 5  # clips that are named with each reason on the terminal


@dataclass(frozen=True, order=True)
class Failure:
    """One clip that could not be processed."""

    class_name: str
    clip: str
    reason: str
    """One line, the same on every run: no temporary names, process ids or addresses."""

    @property
    def key(self) -> str:
        """The clip's key."""
        return f"{self.class_name}/{self.clip}"


def write_failures(folder: Path, failures: Iterable[Failure]) -> None:
    """Write the ledger, sorted, its header even where nothing failed. Replaces an old one by rename: it may be a hard
    link into DVC's cache."""
    folder.mkdir(parents=True, exist_ok=True)
    beside = folder / f".{secrets.token_hex(8)}.tmp"
    with beside.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_COLUMNS)
        writer.writerows((failure.clip, failure.class_name, failure.reason) for failure in sorted(failures))
    beside.replace(folder / LEDGER)


def read_failures(folder: str | Path) -> dict[str, str]:
    """Clip's key -> reason, of a stage's output folder; empty where the stage left no ledger."""
    path = Path(folder) / LEDGER
    if not path.exists():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        return {f"{row['class']}/{row['clip']}": row["reason"] for row in csv.DictReader(file)}


def describe(failures: Iterable[Failure]) -> str:
    """All kinds of reasons, each with the number of its clips and the names of the first few.

    Reasons that differ in numbers only are of one kind, and told by their first clip's.
    """
    by_kind = defaultdict(list)
    for failure in sorted(failures):
        by_kind[re.sub(r"\d+", "0", failure.reason)].append(failure)
    lines = []
    for _, group in sorted(by_kind.items(), key=lambda item: (-len(item[1]), item[0])):
        names = [failure.key for failure in group]
        shown = ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
        differ = len({failure.reason for failure in group}) > 1
        reason = f"{'e.g. ' if differ else ''}{group[0].reason}"
        lines.append(f"  {len(group)} clip{'s' if len(group) > 1 else ''}: {reason} ({shown})")
    return "\n".join(lines)
