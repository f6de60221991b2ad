import pytest

from han_core.clips import Clip, ClipTable, ClipTableError, read_clips, write_clips


def make_clip(name="b", class_name="jump", label=1, roles=None, **more):
    return Clip(name, f"{class_name}/{name}.avi", class_name, label, "g1", roles or {1: "train", 2: ""}, **more)


@pytest.fixture
def table():
    clips = (
        make_clip('#2 (odd); [x], "q" & é!', sha256="ab"),
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
    assert lines[0] == "clip,path,class,label,group,sha256,damaged,split_1,split_2"
    assert lines[1] == "c,bow/c.avi,bow,0,g1,,,train,"
    assert lines[-1] == "a,jump/a.avi,jump,1,g1,,,test,validation"


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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("clip,path\n", "has no column class, label, group, sha256"),
        ("clip,path,class,label,group,sha256,split_1\na,a.avi,x,zero,g,,train\n", "line 2: label 'zero'"),
        ("clip,path,class,label,group,sha256,split_1\na,a.avi,x,1,g,,train\n", "without a gap"),
        ("clip,path,class,label,group,sha256,split_1\na,a.avi,x,0,g\n", "line 2 does not have as many fields"),
        ("clip,path,class,label,group,sha256,split_1\na,a.avi,x,0,g,,tset\n", "role 'tset' in split 1"),
        ("clip,path,class,label,group,sha256,split_1\n", "no clip"),
    ],
)
def test_read_names_what_is_wrong(tmp_path, text, message):
    (tmp_path / "clips.csv").write_text(text)
    with pytest.raises(ClipTableError, match=message) as caught:
        read_clips(tmp_path / "clips.csv")
    assert "clips.csv" in str(caught.value)


def test_read_of_a_missing_file_says_what_to_run(tmp_path):
    with pytest.raises(ClipTableError, match="run stage prepare"):
        read_clips(tmp_path / "clips.csv")
