from pathlib import Path

import pytest

from han_core.datasets.delimited import DelimitedError, listed_paths, located, parse, read_text


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_any_delimiter_and_line_end(delimiter, end):
    lines = ["Path , CLASS,,", 'a.mp4,"walk, slow"', "", ",,", "b.mp4", " c.mp4 , run ,,"]
    text = end.join(line.replace(",", delimiter) for line in lines)
    table = parse(text)
    assert table.columns == ("path", "class")
    assert [row.line for row in table.rows] == [2, 5, 6]
    assert [row.values for row in table.rows] == [
        {"path": "a.mp4", "class": f"walk{delimiter} slow"},
        {"path": "b.mp4", "class": ""},
        {"path": "c.mp4", "class": "run"},
    ]
    assert table.faults == ()


def test_lines_that_do_not_fit_are_told_with_their_numbers():
    table = parse('path,class\na,b,c\n"x\ny",b\nd,e\nf,"g\nh')
    assert [(row.line, row.values["path"]) for row in table.rows] == [(3, "x\ny"), (5, "d")]
    assert table.faults[0] == "line 2: 3 values for 2 columns; is one with a comma unquoted?"
    assert table.faults[1].startswith("line 6: ")
    assert "not read" in table.faults[1]
    assert parse("").columns == ()


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"path,class\n\xfftea,x\n", "line 2: is not UTF-8"),
        ("path,class\n".encode("utf-16"), "is UTF-16"),
        (None, r"cannot be read \(No such file"),
    ],
)
def test_files_that_are_no_text(tmp_path, raw, message):
    if raw is not None:
        (tmp_path / "a.csv").write_bytes(raw)
    with pytest.raises(DelimitedError, match=r"a\.csv: " + message):
        read_text(tmp_path / "a.csv")


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path):
    (tmp_path / "a.csv").write_bytes("\ufeffpath;class\n".encode())
    assert parse(read_text(tmp_path / "a.csv")).columns == ("path", "class")


def test_where_a_path_leads(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("DATA", "/data")
    found = [str(located(text, Path("/lists"))) for text in ("a/b.mp4", "../c.mp4", "~/d.mp4", "/e.mp4", r"f\g.mp4")]
    assert found == ["/lists/a/b.mp4", "/c.mp4", "/home/me/d.mp4", "/e.mp4", "/lists/f/g.mp4"]
    assert str(located("$DATA/a.mp4", Path("/lists"))) == "/lists/$DATA/a.mp4"


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        ('a, "b".mp4\r\n\n c;d.mp4\n', ['a, "b".mp4', "c;d.mp4"]),
        ("class\tPATH\nwalk\ta.mp4\nrun\tb.mp4\n", ["a.mp4", "b.mp4"]),
        ("path\na.mp4\n", ["a.mp4"]),
    ],
)
def test_paths_of_a_list_are_its_lines_or_a_column(text, paths):
    assert listed_paths(text, "x") == paths


def test_backslashes_are_slashes_unless_there_is_a_file_of_that_name(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / r"f\g.mp4").touch()
    assert located(r"f\g.mp4", tmp_path) == located(r"~/f\g.mp4", Path("/lists")) == tmp_path / r"f\g.mp4"
    assert located(r"f\h.mp4", tmp_path) == tmp_path / "f/h.mp4"
    assert located(r"f\g.mp4", Path("/lists")) == Path("/lists/f/g.mp4")
    assert located(r"~\f\h.mp4", Path("/lists")) == tmp_path / "f/h.mp4"
