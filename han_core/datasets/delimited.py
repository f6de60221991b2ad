"""Tables as people and spreadsheets write them: commas, semicolons or tabs, UTF-8 with or without a byte order mark.

(Tables that the stages write carry checksums and are read by ``han_core.tables``.)
"""

import csv
import io
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from han_core.errors import HanError

_DELIMITERS = ",;\t"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


class DelimitedError(HanError):
    """A file that is no text that can be read; the message says which and what to do."""


@dataclass(frozen=True)
class Row:
    """One line of a table."""

    line: int
    """Number in the file, from 1."""
    values: Mapping[str, str]
    """Column -> value without spaces around it; "" where the line has none."""


@dataclass(frozen=True)
class Delimited:
    """A table."""

    columns: tuple[str, ...]
    """As the first line names them, in lower case; some may be named twice or not at all ("")."""
    rows: tuple[Row, ...]
    """Lines that are not empty."""
    faults: tuple[str, ...]
    """``line N: why`` of lines that are not in ``rows``."""


def read_text(path: Path) -> str:
    """The text of a file.

    Raises:
        DelimitedError: it cannot be read, or is not UTF-8.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DelimitedError(f"{path}: cannot be read ({error.strerror})") from None
    return decoded(raw, str(path))


def decoded(raw: bytes, name: str) -> str:
    """Bytes as text, without a byte order mark.

    Args:
        name: of the file, for the message.

    Raises:
        DelimitedError: they are not UTF-8.
    """
    if raw.startswith(_UTF16):
        raise DelimitedError(f"{name}: is UTF-16; save it as UTF-8 (spreadsheets call it CSV UTF-8)")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DelimitedError(
            f"{name}: line {line}: is not UTF-8; save the file as UTF-8 (spreadsheets call it CSV UTF-8)"
        ) from None


def parse(text: str) -> Delimited:
    """A text whose first line names the columns. The delimiter is the one that this line has most of."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = max(_DELIMITERS, key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    columns: tuple[str, ...] | None = None
    rows, faults = [], []
    while True:
        line = reader.line_num + 1  # a quoted value may go over several lines; the first one is told
        try:
            values = [value.strip() for value in next(reader)]
        except StopIteration:
            break
        except csv.Error as error:
            faults.append(f"line {line}: {error}; what follows was not read")
            break
        if not any(values):
            continue
        if columns is None:
            columns = tuple(name.lower() for name in _trimmed(values))
        elif len(_trimmed(values)) > len(columns):
            faults.append(
                f"line {line}: {len(values)} values for {len(columns)} columns; is one with a comma unquoted?"
            )
        else:
            padded = [*values, *[""] * len(columns)]
            rows.append(Row(line, dict(zip(columns, padded, strict=False))))
    return Delimited(columns or (), tuple(rows), tuple(faults))


def listed_paths(text: str, name: str) -> list[str]:
    """The paths of a list: its column ``path`` if the first line names one, else every line as it stands.

    Args:
        name: of the list, for the message.

    Raises:
        DelimitedError: there is none, or a line with columns cannot be read or has no path.
    """
    table = parse(text)
    if "path" in table.columns:
        faults = [*table.faults, *(f"line {row.line}: has no path" for row in table.rows if not row.values["path"])]
        if faults:
            raise DelimitedError("\n  ".join([f"{name}: lines that cannot be read", *faults]))
        found = [row.values["path"] for row in table.rows]
    else:
        found = [line.strip() for line in re.split(r"\r\n|\r|\n", text) if line.strip()]
    if not found:
        raise DelimitedError(f"{name}: holds no path")
    return found


def expanded(path: str, folder: Path = Path()) -> str:
    """A path as a list names it, with ``~`` for a home folder. Backslashes stand for slashes, but where there is a file
    of the name with backslashes.

    Args:
        folder: that a relative path starts from.
    """
    written = os.path.expanduser(path)
    if "\\" not in path or os.path.lexists(folder / written):
        return written
    return os.path.expanduser(path.replace("\\", "/"))


def located(path: str, folder: Path) -> Path:
    """The absolute path of a file that a list names; a relative path starts from ``folder``.

    Links are not followed, so ``a/../b`` is ``b``.
    """
    return Path(os.path.normpath(folder.absolute() / expanded(path, folder)))


def _trimmed(values: list[str]) -> list[str]:
    """Without the empty values at the end that spreadsheets write."""
    count = max((n for n, value in enumerate(values, 1) if value), default=0)
    return values[:count]
