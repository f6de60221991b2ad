"""The failure ledger: ``failures.csv`` in a stage's output folder, one row per clip that could not be processed.

Its last column is the checksum of each line (:mod:`han_core.tables.checked`).
"""

import re
import secrets
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from han_core.errors import REPAIR, HanError
from han_core.tables.checked import TableError, read_table, write_table

LEDGER = "failures.csv"
_COLUMNS = ["clip", "class", "reason"]
_NAMED = 5  # clips that are named with each reason on the terminal
_KINDS = 20  # of reasons that are shown there


class LedgerError(HanError, ValueError):
    """A ledger that cannot be read or is damaged; the message names it and says what to run."""


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
    write_table(beside, _COLUMNS, ((failure.clip, failure.class_name, failure.reason) for failure in sorted(failures)))
    beside.replace(folder / LEDGER)


def read_failures(folder: str | Path) -> dict[str, str]:
    """Clip's key -> reason, of a stage's output folder; empty where the stage left no ledger.

    Raises:
        LedgerError: the ledger is damaged.
    """
    path = Path(folder) / LEDGER
    if not path.exists():
        return {}
    try:
        header, rows = read_table(path)
    except TableError as error:
        raise LedgerError(f"{error}; run the stage that made it again ({REPAIR})") from None
    if header != _COLUMNS:
        wanted = ", ".join(_COLUMNS)
        raise LedgerError(f"{path}: line 1: the columns must be {wanted}; run the stage that made it again")
    return {f"{class_name}/{clip}": reason for clip, class_name, reason in rows}


def describe(failures: Iterable[Failure]) -> str:
    """The kinds of reasons, the most frequent first, each with the number of its clips, of how many classes they are,
    and the names of the first few. Of very many kinds the rest is counted only: the ledger has them all.

    Reasons that differ in numbers only are of one kind, and told by their first clip's.
    """
    by_kind = defaultdict(list)
    for failure in sorted(failures):
        by_kind[re.sub(r"\d+", "0", failure.reason)].append(failure)
    lines = []
    kinds = sorted(by_kind.items(), key=lambda item: (-len(item[1]), item[0]))
    for _, group in kinds[:_KINDS]:
        names = [failure.key for failure in group[:_NAMED]]
        shown = ", ".join(names) + (f" and {len(group) - _NAMED} more" if len(group) > _NAMED else "")
        classes = len({failure.class_name for failure in group})
        of_classes = f" of {classes} classes" if classes > 1 and len(group) > _NAMED else ""
        differ = len({failure.reason for failure in group}) > 1
        reason = f"{'e.g. ' if differ else ''}{group[0].reason}"
        lines.append(f"  {len(group)} clip{'s' if len(group) > 1 else ''}{of_classes}: {reason} ({shown})")
    if rest := kinds[_KINDS:]:
        clips = sum(len(group) for _, group in rest)
        lines.append(f"  {clips} clips for {len(rest)} other reasons")
    return "\n".join(lines)
