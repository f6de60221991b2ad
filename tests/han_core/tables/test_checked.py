"""Tables with checksums: they hold what was written, or are refused."""

import pytest

from han_core.tables.checked import TableError, line_checksum, read_table, write_table
from tests.flips import check_told

HEADER = ["name", "what", "n"]
ROWS = [["a", 'x, "y" é', "1"], ["", "#;\n\r", "-2"], ["日本", " \r", "3"]]


@pytest.fixture
def path(tmp_path):
    write_table(tmp_path / "t.csv", HEADER, ROWS)
    return tmp_path / "t.csv"


def test_what_is_written_is_read(path):
    assert read_table(path) == (HEADER, ROWS)
    assert path.read_text(encoding="utf-8").splitlines()[0] == "name,what,n,crc32"


def test_the_checksum_is_the_one_that_is_described(tmp_path):
    """The figure is that of another program: python -c 'print(zlib.crc32(...))' of the text in the module's words."""
    import zlib

    text = '[["name"],2,3,["é \\"q\\""]]'
    assert line_checksum(["name"], 2, 3, ['é "q"']) == format(zlib.crc32(text.encode()), "08x")


def test_numbers_and_an_empty_table_are_written_as_text(tmp_path):
    write_table(tmp_path / "t.csv", ["n"], [[1], [2.5]])
    assert read_table(tmp_path / "t.csv").rows == [["1"], ["2.5"]]
    write_table(tmp_path / "t.csv", ["n"], [])
    assert read_table(tmp_path / "t.csv") == (["n"], [])


def test_every_flipped_bit_is_told_or_changes_nothing(path):
    assert check_told(path, lambda: read_table(path), TableError, (HEADER, ROWS).__eq__) > 0.95


def test_lost_added_and_swapped_lines_are_told(tmp_path):
    path = tmp_path / "t.csv"
    write_table(path, ["n"], [[n] for n in range(4)])
    header, *lines = path.read_text().splitlines(keepends=True)
    for changed in (lines[:-1], lines[1:], lines[:1], [*lines, lines[-1]], [lines[1], lines[0], *lines[2:]]):
        path.write_text("".join([header, *changed]))
        with pytest.raises(TableError, match=r"line 2 is damaged, or lines of the file are missing or changed"):
            read_table(path)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (None, "cannot be read"),
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"n\n1\n", "line 1: has no last column crc32"),
        (b"n,crc32\n1\n", "line 2 is damaged: it has 1 fields, not 2"),
        (b"n,crc32\n\n", "line 2 is damaged: it has 0 fields, not 2"),
        (b"n,crc32\n1,00000000\n", "line 2 is damaged"),
        (b"n,crc32\n\"1,2\n", "is not a CSV file in UTF-8"),
        (b"n,crc32\n\xff,2\n", "is not a CSV file in UTF-8"),
        (b"n,crc32\n" + b"1" * 200_000, "is not a CSV file in UTF-8"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_the_file(tmp_path, data, words):
    path = tmp_path / "t.csv"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(TableError, match=words) as raised:
        read_table(path)
    assert str(path) in str(raised.value)
