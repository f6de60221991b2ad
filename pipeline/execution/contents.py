"""The list of what is in a stage's output folder: ``contents.csv``, a row for each clip, or for each of its folders.

Stages that read the folder depend on this one file in its place (``dvc.yaml``): DVC then looks at the thousands of
files of a folder once, where it is an output, and not again for each stage that reads it. What the list says of a clip
is all that a later stage makes anything of: the identity of the content of its file, or why there is none. Its last
column is the checksum of each line (:mod:`han_core.tables.checked`).
"""

import hashlib
import secrets
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from han_core.clips import Clip
from han_core.tables.checked import write_table
from pipeline.execution.ledger import Failure

CONTENTS = "contents.csv"
_COLUMNS = ["clip", "class", "content", "reason"]


def write_contents(folder: Path, made: Mapping[str, tuple[Clip, str]], failures: Iterable[Failure]) -> None:
    """Write the list, sorted by class and clip. Replaces an old one by rename: it may be a hard link into DVC's cache.

    Args:
        made: {clip's key: (clip, identity of the content of its file)}.
        failures: the clips that have no file.
    """
    rows = [(clip.class_name, clip.name, content, "") for clip, content in made.values()]
    rows += [(failure.class_name, failure.clip, "", failure.reason) for failure in failures]
    ordered = ((clip, class_name, content, reason) for class_name, clip, content, reason in sorted(rows))
    _write(folder, _COLUMNS, ordered)


def write_no_contents(folder: Path, reason: str) -> None:
    """Write the list of a folder that holds no clips: one row with the reason."""
    _write(folder, _COLUMNS, [("", "", "", reason)])


def write_contents_of_views(folder: Path, views: Sequence[str]) -> None:
    """Write the list of a folder of folders: a row for each view, with the checksum of its own list."""
    rows = [(view, hashlib.sha256((folder / view / CONTENTS).read_bytes()).hexdigest()) for view in views]
    _write(folder, ["view", "contents"], rows)


def _write(folder: Path, columns: list[str], rows: Iterable[Sequence[str]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    beside = folder / f".{secrets.token_hex(8)}.tmp"
    write_table(beside, columns, rows)
    beside.replace(folder / CONTENTS)
