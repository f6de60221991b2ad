"""The list of what is in a folder of clip files, which stands for the folder where stages depend on it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from han_core.clips import Clip
from han_core.tables.checked import TableError, read_table
from han_core.tables.checked import write_table as real_write_table
from pipeline.execution import contents
from pipeline.execution.contents import CONTENTS, write_contents, write_contents_of_views, write_no_contents
from pipeline.execution.ledger import Failure


def clip(name: str, class_name: str) -> Clip:
    return Clip(name, f"{name}.avi", class_name, 0, name, {1: "train"}, name)


def test_a_row_for_each_clip_in_order_whatever_the_order_of_the_work(tmp_path):
    made = {f"{c}/{n}": (clip(n, c), f"content of {n}") for c, n in (("b", "x"), ("a", "z"), ("a", "ü,y"))}
    write_contents(tmp_path, made, [Failure("a", "w", 'too "odd"')])
    header, rows = read_table(tmp_path / CONTENTS)
    assert header == ["clip", "class", "content", "reason"]
    assert rows == [
        ["w", "a", "", 'too "odd"'],
        ["z", "a", "content of z", ""],
        ["ü,y", "a", "content of ü,y", ""],
        ["x", "b", "content of x", ""],
    ]
    first = (tmp_path / CONTENTS).read_bytes()
    write_contents(tmp_path, dict(reversed(made.items())), [Failure("a", "w", 'too "odd"')])
    assert (tmp_path / CONTENTS).read_bytes() == first
    (tmp_path / CONTENTS).write_bytes(first.replace(b"content of x", b"content of z"))
    with pytest.raises(TableError, match="damaged"):
        read_table(tmp_path / CONTENTS)


def test_of_a_folder_without_clips_the_list_says_why(tmp_path):
    write_contents(tmp_path / "steady", {"a/x": (clip("x", "a"), "1")}, [])
    write_no_contents(tmp_path / "steady", "camera is none")
    assert read_table(tmp_path / "steady" / CONTENTS)[1] == [["", "", "", "camera is none"]]


def test_of_a_folder_of_views_the_list_is_another_when_one_of_their_clips_is(tmp_path):
    write_contents_of_views(tmp_path, [])
    assert read_table(tmp_path / CONTENTS)[1] == []
    lists = set()
    for content, views in (("1", ["shift1"]), ("1", ["shift1", "mirrored"]), ("2", ["shift1", "mirrored"])):
        write_contents(tmp_path / "shift1", {"a/x": (clip("x", "a"), "1")}, [])
        write_contents(tmp_path / "mirrored", {"a/x": (clip("x", "a"), content)}, [])
        write_contents_of_views(tmp_path, views)
        assert [view for view, _ in read_table(tmp_path / CONTENTS)[1]] == views
        lists.add((tmp_path / CONTENTS).read_bytes())
    assert len(lists) == 3


def test_a_list_that_is_cut_off_leaves_the_old_one(tmp_path, monkeypatch):
    write_contents(tmp_path, {"a/x": (clip("x", "a"), "1")}, [])
    before = (tmp_path / CONTENTS).read_bytes()

    def cut_off(path, header, rows):
        real_write_table(path, header, [])
        raise KeyboardInterrupt

    monkeypatch.setattr(contents, "write_table", cut_off)
    with pytest.raises(KeyboardInterrupt):
        write_contents(tmp_path, {"a/x": (clip("x", "a"), "2")}, [])
    assert (tmp_path / CONTENTS).read_bytes() == before


def test_no_stage_makes_dvc_look_at_thousands_of_files_that_it_only_reads(repository):
    """But for the report, which reads a folder into which several stages write."""
    graph = yaml.safe_load((repository / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    listed = {dep.removesuffix(f"/{CONTENTS}") for stage in graph.values() for dep in stage["deps"] if CONTENTS in dep}
    outs = {out for stage in graph.values() for out in stage.get("outs", []) if isinstance(out, str)}
    assert len(listed) > 10
    assert listed <= outs, "each is a whole output"
    for name, stage in graph.items():
        assert listed & set(stage["deps"]) == set(), f"{name} names the folder itself"


@pytest.fixture
def dvc(tmp_path):
    """Runs DVC in a repository of its own; what it said."""
    environment = {**os.environ, "DVC_NO_ANALYTICS": "1", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    def run(*arguments):
        command = [sys.executable, "-m", "dvc", *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run("init", "--no-scm", "-q")
    return run


def test_dvc_runs_what_reads_a_folder_after_what_makes_it_and_only_when_its_list_is_another(dvc, tmp_path):
    script = "mkdir -p d; cp source d/clip; wc -c < source > d/contents.csv"
    reads = "cat d/clip > read; echo x >> ran"
    stages = {
        "reads": {"cmd": reads, "deps": ["d/contents.csv"], "outs": ["read"]},
        "makes": {"cmd": script, "deps": ["source"], "outs": ["d"]},
    }
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}, sort_keys=False))
    (tmp_path / "source").write_text("abc")
    dvc("repro")
    assert (tmp_path / "read").read_text() == "abc"
    (tmp_path / "source").write_text("abcd")
    dvc("repro", "reads")
    assert (tmp_path / "read").read_text() == "abcd", "the maker is behind it, though it is only named by a file within"
    (tmp_path / "source").write_text("ABCD")
    dvc("repro")
    assert (tmp_path / "d/clip").read_text() == "ABCD"
    assert (tmp_path / "ran").read_text() == "x\nx\n", "another file of the same content makes nobody run"
