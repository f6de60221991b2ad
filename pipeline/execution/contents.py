"""The list of what is in a stage's output folder: ``contents.csv``, a row for each clip.

Stages that read the folder depend on this one file in its place (``dvc.yaml``): DVC then looks at the thousands of
files of a folder once, where it is an output, and not again for each stage that reads it. What the list says of a clip
is all that a later stage makes anything of: the identity of the content of its file, or why there is none. Its last
column is the checksum of each line (:mod:`han_core.tables.checked`).
"""

import secrets
from collections.abc import Iterable, Mapping
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
    folder.mkdir(parents=True, exist_ok=True)
    beside = folder / f".{secrets.token_hex(8)}.tmp"
    ordered = ((clip, class_name, content, reason) for class_name, clip, content, reason in sorted(rows))
    write_table(beside, _COLUMNS, ordered)
    beside.replace(folder / CONTENTS)
