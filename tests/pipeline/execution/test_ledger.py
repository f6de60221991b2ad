"""The ledger's file: damage is told, so that no failed clip passes for one that did not fail."""

import pytest

from han_core.tables.checked import write_table
from pipeline.execution.ledger import Failure, LedgerError, read_failures, write_failures
from tests.flips import check_told


def test_every_flipped_bit_is_told_or_changes_nothing(tmp_path):
    write_failures(tmp_path, [Failure("a", "x", "no frames, é"), Failure("b", 'y"', "the file is empty")])
    wanted = {"a/x": "no frames, é", 'b/y"': "the file is empty"}
    told = check_told(
        tmp_path / "failures.csv", lambda: read_failures(tmp_path), LedgerError, wanted.__eq__, "run the stage"
    )
    assert told > 0.95


def test_every_flipped_bit_of_an_empty_ledger_is_told(tmp_path):
    write_failures(tmp_path, [])
    path = tmp_path / "failures.csv"
    assert path.read_text() == "clip,class,reason,crc32\n"
    check_told(path, lambda: read_failures(tmp_path), LedgerError, {}.__eq__, "run the stage that made it again")


@pytest.mark.parametrize("text", ["", "clip,class,reason\n", "clip,class,reason\nx,a,why\n", "x,crc32\n"])
def test_what_is_no_ledger_is_refused(text, tmp_path):
    (tmp_path / "failures.csv").write_text(text)
    with pytest.raises(LedgerError, match=r"failures\.csv: .*run the stage that made it again"):
        read_failures(tmp_path)


def test_other_columns_are_refused(tmp_path):
    write_table(tmp_path / "failures.csv", ["clip", "reason", "class"], [["x", "why", "a"]])
    with pytest.raises(LedgerError, match="the columns must be clip, class, reason"):
        read_failures(tmp_path)
