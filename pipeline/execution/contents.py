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

from han_core.clipfile.trailer import ClipFileError, read_trailer
from han_core.clips import Clip
from han_core.tables.checked import TableError, read_table, write_table
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


def read_contents(folder: Path) -> dict[str, str]:
    """Clip's key -> identity of the content of its file, of the clips that have one; empty where there is no list.

    Raises:
        ClipFileError: the list is damaged.
    """
    path = folder / CONTENTS
    if not path.exists():
        return {}
    try:
        header, rows = read_table(path)
    except TableError as error:
        raise ClipFileError(f"{error}; run the stage that made it again") from None
    if header != _COLUMNS:  # of a folder of folders
        return {}
    return {f"{class_name}/{clip}": content for clip, class_name, content, _ in rows if content}


def contents_of(files: Mapping[str, Path]) -> dict[str, str]:
    """Clip's key -> identity of the content of its file ``<folder>/<class>/<clip>.h5``.

    Raises:
        ClipFileError: a file is missing, damaged, or not the one that its folder's list names.
    """
    listed = {folder: read_contents(folder) for folder in {path.parent.parent for path in files.values()}}
    found = {}
    for key, path in files.items():
        found[key] = read_trailer(path).content
        check_listed(path, key, found[key], listed[path.parent.parent])
    return found


def check_listed(path: Path, key: str, content: str, listed: Mapping[str, str]) -> None:
    """See that a clip's file is the one that its folder's list names.

    A file of another clip, or of another run, is as sound as the right one, and nothing in it would tell: its label is
    the folder that it lies in.

    Args:
        path, key, content: of the file.
        listed: of :func:`read_contents`; a clip that is not in it is not looked at.

    Raises:
        ClipFileError: it is another one.
    """
    if listed.get(key, content) != content:
        raise ClipFileError(
            f"{path}: is not the file that the list beside it ({CONTENTS}) names for clip {key}: files were exchanged, "
            "or the stage that makes them was interrupted; run that stage again"
        )


def _write(folder: Path, columns: list[str], rows: Iterable[Sequence[str]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    beside = folder / f".{secrets.token_hex(8)}.tmp"
    write_table(beside, columns, rows)
    beside.replace(folder / CONTENTS)
