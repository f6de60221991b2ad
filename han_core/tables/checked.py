"""CSV files (UTF-8, ``\\n``) whose last column ``crc32`` is a checksum of each line.

A line's checksum is the CRC-32 of a JSON list: the header's names, the line's number and the number of all lines (the
first after the header is 1), and its values, without ``crc32`` itself; no spaces between the list's items, non-ASCII
letters as they are, in UTF-8. It stands as 8 lower-case hexadecimal digits. A flipped bit in a line or in the header,
lines that were lost, added or swapped: none of it reads as another table.
"""

import csv
import json
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from han_core.errors import HanError

CRC = "crc32"
"""Name of the column."""


class TableError(HanError, ValueError):
    """A table that cannot be read or is damaged; the message says which and where, not what to do about it."""


class Table(NamedTuple):
    """A table as text. Row n is on line n + 2 of a file that has no line breaks within its values."""

    header: list[str]
    rows: list[list[str]]


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table and the column of checksums."""
    lines = [[str(value) for value in row] for row in rows]
    with path.open("w", encoding="utf-8", newline="") as file:
        plain = csv.writer(file, lineterminator="\n")
        quoted = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)
        plain.writerow([*header, CRC])
        for number, line in enumerate(lines, start=1):
            # Python before 3.13 leaves a carriage return without the quotes that it needs to be read as one.
            writer = quoted if any("\r" in value for value in line) else plain
            writer.writerow([*line, line_checksum(header, number, len(lines), line)])


def read_table(path: Path) -> Table:
    """The table with the column of checksums verified and left out.

    Raises:
        TableError: the file cannot be read, is not CSV in UTF-8, has no such column, or is damaged.
    """
    header, *lines = read_lines(path)
    if header[-1:] != [CRC]:
        raise TableError(f"{path}: line 1: has no last column {CRC}: it is damaged, or not a table of this version")
    return verified(path, header, lines)


def read_lines(path: Path) -> list[list[str]]:
    """All lines of a CSV file, the header, which is not empty, first.

    Raises:
        TableError: the file cannot be read, is empty, or is not CSV in UTF-8.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            lines = list(csv.reader(file, strict=True))
    except OSError as error:
        raise TableError(f"{path}: cannot be read ({error.strerror})") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise TableError(f"{path}: is not a CSV file in UTF-8 ({error})") from None
    if not lines or not lines[0]:
        raise TableError(f"{path}: is empty, or its first line is")
    return lines


def verified(path: Path, header: Sequence[str], lines: Sequence[Sequence[str]]) -> Table:
    """The table that these lines of a file are, whose last column is ``crc32``.

    Raises:
        TableError: a line does not fit its checksum.
    """
    names, rows = list(header[:-1]), []
    for number, line in enumerate(lines, start=1):
        *values, checksum = line or [""]
        if len(line) != len(header):
            raise TableError(f"{path}: line {number + 1} is damaged: it has {len(line)} fields, not {len(header)}")
        if checksum != line_checksum(names, number, len(lines), values):
            raise TableError(f"{path}: line {number + 1} is damaged, or lines of the file are missing or changed")
        rows.append(values)
    return Table(names, rows)


def line_checksum(header: Sequence[str], number: int, count: int, values: Sequence[str]) -> str:
    """The checksum of line ``number`` of ``count``, both without the header's line."""
    text = json.dumps([list(header), number, count, list(values)], ensure_ascii=False, separators=(",", ":"))
    return f"{zlib.crc32(text.encode('utf-8', 'surrogatepass')):08x}"
