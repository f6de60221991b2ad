import pytest

from han_core.clips import Clip, ClipTable, ClipTableError, read_clips, write_clips
from han_core.tables.checked import line_checksum, write_table
from tests.flips import check_told


def make_clip(name="b", class_name="jump", label=1, roles=None, **more):
    return Clip(name, f"{class_name}/{name}.avi", class_name, label, "g1", roles or {1: "train", 2: ""}, **more)


@pytest.fixture
def table():
    clips = (
        make_clip('#2 (odd); [x], "q" & é!', sha256="ab" * 32, damaged="3/60"),
        make_clip("a", roles={1: "test", 2: "validation"}),
        make_clip("c", "bow", 0),
    )
    return ClipTable(clips, ("bow", "jump"), (1, 2))


def test_round_trip_keeps_everything_and_is_stable(table, tmp_path):
    write_clips(table, tmp_path / "new" / "clips.csv")
    read = read_clips(tmp_path / "new" / "clips.csv")
    assert read == table
    write_clips(read, tmp_path / "again.csv")
    assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "new" / "clips.csv").read_bytes()
    assert b"\r" not in (tmp_path / "again.csv").read_bytes()


def test_file_has_the_documented_columns_and_order(table, tmp_path):
    write_clips(table, tmp_path / "clips.csv")
    lines = (tmp_path / "clips.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "clip,path,class,label,group,sha256,damaged,split_1,split_2,crc32"
    fields = lines[0].split(",")[:-1]
    for number, expected in ((1, "c,bow/c.avi,bow,0,g1,,,train,"), (-1, "a,jump/a.avi,jump,1,g1,,,test,validation")):
        checksum = line_checksum(fields, number % 4, 3, expected.split(","))
        assert lines[number] == f"{expected},{checksum}"


def test_select_returns_the_clips_of_a_role(table):
    assert [clip.name for clip in table.select(1, "test")] == ["a"]
    assert next(clip.name for clip in table.select(1, "train")) == "c"
    assert table.select(2, "train") == ()


def test_select_refuses_unknown_splits_and_roles(table):
    with pytest.raises(ValueError, match="split 3 is not in the clips table, which has 1, 2"):
        table.select(3, "train")
    with pytest.raises(ValueError, match="role 'dev'"):
        table.select(1, "dev")


def test_clips_can_be_members_of_sets(table):
    assert len(set(table.clips)) == 3


@pytest.mark.parametrize(
    ("clips", "classes", "message"),
    [
        ((make_clip(), make_clip()), ("bow", "jump"), "clip jump/b occurs twice"),
        ((make_clip(label=0),), ("bow", "jump"), "label 0 is not that of class jump"),
        ((make_clip(label=0),), ("jump", "bow"), "class bow has no clip"),
        ((make_clip(label=0, roles={1: "train"}),), ("jump",), "role None in split 2"),
        ((make_clip(label=0, roles={1: "trian", 2: ""}),), ("jump",), "role 'trian' in split 1"),
        ((make_clip(label=0),), ("jump", "jump"), "listed twice"),
    ],
)
def test_table_refuses_contradictions(clips, classes, message):
    with pytest.raises(ValueError, match=message):
        ClipTable(clips, classes, (1, 2))


HEADER = ["clip", "path", "class", "label", "group", "sha256", "damaged", "split_1"]
GOOD = ["a", "x/a.avi", "x", "0", "g", "", "", "train"]


def changed(**columns):
    names = {"class_name": "class", "clip": "clip"}
    row = dict(zip(HEADER, GOOD, strict=True)) | {names.get(name, name): value for name, value in columns.items()}
    return list(row.values())


@pytest.mark.parametrize(
    ("header", "rows", "message"),
    [
        (["clip", "path"], [], "line 1: the columns must be clip, path, class, label, group, sha256, damaged, split_1"),
        ([*HEADER, "split_0"], [[*GOOD, ""]], "line 1: the columns must be"),
        ([*HEADER, "split_1"], [[*GOOD, ""]], "splits must be numbers from 1, ascending and each given once"),
        ([*HEADER[:-1], "split_2", "split_1"], [[*GOOD, ""]], "splits must be"),
        ([*HEADER, f"split_{'9' * 5000}"], [[*GOOD, ""]], "line 1: the columns must be"),
        (HEADER, [], "holds no clip"),
        (HEADER, [changed(label="zero")], "line 2: label zero is not a number"),
        (HEADER, [changed(label="-1")], "line 2: label -1 is not a number"),
        (HEADER, [changed(label="٣")], "is not a number"),
        (HEADER, [changed(label="9" * 5000)], "is not a number"),
        (HEADER, [changed(label="1")], "without a gap"),
        (HEADER, [changed(split_1="tset")], "role 'tset' in split 1"),
        (HEADER, [GOOD, GOOD], "clip x/a occurs twice"),
        (HEADER, [GOOD, changed(clip="b", class_name="y")], "is not that of class"),
        (HEADER, [changed(sha256="ab")], "sha256 ab is not 64 hexadecimal digits"),
        (HEADER, [changed(sha256="G" * 64)], "is not 64 hexadecimal digits"),
        (HEADER, [changed(damaged="x")], "damaged x is not like 3/60"),
    ],
)
def test_read_names_what_is_wrong(tmp_path, header, rows, message):
    write_table(tmp_path / "clips.csv", header, rows)
    with pytest.raises(ClipTableError, match=message) as caught:
        read_clips(tmp_path / "clips.csv")
    assert "clips.csv" in str(caught.value)
    assert str(caught.value).endswith("run stage prepare again")
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("clip,path,class,label,group,sha256,damaged,split_1\na,x/a.avi,x,0,g,,,train\n", "no last column crc32"),
        ("clip,path,class,label,group,sha256,damaged,split_1,crc32\na,x/a.avi,x,0,g,,,train\n", "line 2 is damaged"),
        ("clip,crc32\n\ud800", "is not a CSV file in UTF-8"),
    ],
)
def test_a_damaged_file_says_what_to_run(tmp_path, text, message):
    (tmp_path / "clips.csv").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(ClipTableError, match=rf"clips\.csv: .*{message}.*; run stage prepare again"):
        read_clips(tmp_path / "clips.csv")


def test_every_flipped_bit_is_told_or_changes_nothing(table, tmp_path):
    path = tmp_path / "clips.csv"
    write_clips(table, path)
    assert check_told(path, lambda: read_clips(path), ClipTableError, table.__eq__, "run stage prepare again") > 0.95


OUTSIDE = "is not the name of one file or folder"
CONTROL = "holds a control character"
HOSTILE = {
    "name ../": ({"clip": "../../../escape/evil"}, OUTSIDE),
    "name absolute": ({"clip": "/tmp/evil"}, OUTSIDE),
    "name of Windows": ({"clip": "..\\evil"}, OUTSIDE),
    "name ..": ({"clip": ".."}, OUTSIDE),
    "name .": ({"clip": "."}, OUTSIDE),
    "name empty": ({"clip": ""}, OUTSIDE),
    "name newline": ({"clip": "evil\nx"}, CONTROL),
    "name return": ({"clip": "evil\rx"}, CONTROL),
    "name NUL": ({"clip": "evil\0x"}, CONTROL),
    "name escape": ({"clip": "evil\x1b[2J"}, CONTROL),
    "name long": ({"clip": "x" * 201}, "is longer than 200 bytes"),
    "name long in bytes": ({"clip": "é" * 101}, "is longer than 200 bytes"),
    "class absolute": ({"class_name": "/tmp/escape"}, OUTSIDE),
    "class ../": ({"class_name": "../../escape"}, OUTSIDE),
    "class .": ({"class_name": "."}, OUTSIDE),
    "class empty": ({"class_name": ""}, OUTSIDE),
    "class newline": ({"class_name": "a\nb"}, CONTROL),
    "class long": ({"class_name": "x" * 300}, "is longer than 200 bytes"),
    "path absolute": ({"path": "/etc/passwd"}, "is not a path inside the dataset's folder"),
    "path ../": ({"path": "../tiny/a.avi"}, "is not a path inside the dataset's folder"),
    "path /../": ({"path": "x/../../a.avi"}, "is not a path inside the dataset's folder"),
    "path of Windows": ({"path": "C:/a.avi"}, "is not a path inside the dataset's folder"),
    "path of a network": ({"path": "\\\\host\\a.avi"}, "is not a path inside the dataset's folder"),
    "path empty": ({"path": ""}, "is not a path inside the dataset's folder"),
    "path NUL": ({"path": "x/a\0.avi"}, CONTROL),
    "path long": ({"path": "x/" * 3000 + "a.avi"}, "is longer than any path"),
    "path part long": ({"path": "x" * 256}, "is longer than any path"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_names_that_lead_elsewhere_are_refused_on_reading_and_on_making(name, tmp_path):
    columns, words = HOSTILE[name]
    row = changed(**columns)
    write_table(tmp_path / "clips.csv", HEADER, [row])
    with pytest.raises(ClipTableError, match=words) as caught:
        read_clips(tmp_path / "clips.csv")
    assert "clips.csv" in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600
    clip, path, class_name, label, group, *_ = row
    with pytest.raises(ClipTableError, match=words):
        ClipTable((Clip(clip, path, class_name, int(label), group, {1: "train"}),), (class_name,), (1,))


def test_a_name_that_is_not_utf_8_is_refused():
    with pytest.raises(ClipTableError, match=r"clip x/\\udcff: its name holds"):
        ClipTable((Clip("\udcff", "x/a.avi", "x", 0, "g", {1: "train"}),), ("x",), (1,))


@pytest.mark.parametrize(
    "name", ["a b", " a", "a.b.", "...", ".hidden", "日本", "x" * 200, "-rf", "a:b", "%s", "~", "é*?\"'", "C:"]
)
def test_odd_names_that_lead_nowhere_are_kept(name, tmp_path):
    clip = Clip(name, f"x/{name}.avi", name, 0, "g/../h", {1: "train"})
    write_clips(ClipTable((clip,), (name,), (1,)), tmp_path / "clips.csv")
    assert read_clips(tmp_path / "clips.csv").clips == (clip,)


def test_no_more_problems_are_named_than_can_be_read():
    clips = tuple(Clip("..", f"{n}", "x", 0, "g", {1: "train"}) for n in range(1000))
    with pytest.raises(ClipTableError, match=r"and 19[0-9]{2} more") as caught:
        ClipTable(clips, ("x",), (1,))
    assert len(str(caught.value).splitlines()) == 21


def test_read_of_a_missing_file_says_what_to_run(tmp_path):
    with pytest.raises(ClipTableError, match="run stage prepare"):
        read_clips(tmp_path / "clips.csv")
