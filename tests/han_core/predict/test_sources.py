"""Which videos are labelled, and where their copies go."""

import os
from pathlib import Path

import pytest

from han_core.predict.sources import find_sources


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def make(*names):
        for name in names:
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Path(name).write_bytes(b"x")

    return make


def found(*paths, out="out"):
    return [(str(source.path), source.fault) for source in find_sources(map(Path, paths), Path(out))]


def test_links_that_lead_nowhere_are_told_and_the_others_taken(files):
    files("d/ok.mp4", "else/linked.mp4", "d/note.txt")
    for name, target in (("loop", "loop.mp4"), ("gone", "nowhere"), ("link", "../else/linked.mp4")):
        Path(f"d/{name}.mp4").symlink_to(target)
    assert found("d") == [(f"d/{name}.mp4", "") for name in ("gone", "link", "loop", "ok")]


def test_a_folder_that_cannot_be_read_is_told_and_the_others_taken(files, monkeypatch):
    files("d/a.mp4", "d/sub/b.mp4", "d/z.mp4", "d/.hidden/c.mp4")
    scandir = os.scandir

    def refuse(path):  # root may read all, so no mode says it
        if os.path.basename(path) in ("sub", ".hidden"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    fault = "the folder cannot be read (Permission denied)"
    assert found("d") == [("d/a.mp4", ""), ("d/sub", fault), ("d/z.mp4", "")]
    assert found("d/sub") == [("d/sub", fault)]


def test_what_lies_in_the_folder_of_the_copies_is_left_out(files):
    files("d/a.mp4", "d/out/b.mp4", "d/out/sub/c.mp4", "d/sub/c.mp4")
    Path("d/link.mp4").symlink_to("out/b.mp4")
    assert found("d", out="d/out") == [("d/a.mp4", ""), ("d/sub/c.mp4", "")]
    assert found("d/out", out="d/out") == [("d/out", "is a folder without videos")]
    assert found("d/out/b.mp4", out="d/out") == [("d/out/b.mp4", "")]


def test_a_video_is_taken_once_and_a_zero_byte_is_no_name(files):
    files("d/a.mp4")
    assert found("d/a.mp4", "d", "d/a.mp4") == [("d/a.mp4", "")]
    assert found("a\0b.mp4") == [("a\0b.mp4", "is not the name of a file: it has a zero byte")]


def test_copies_of_long_names_differ(tmp_path):
    long = "n" * 246
    names = [tmp_path / "a" / f"{long}1.mp4", tmp_path / "b" / f"{long}1.avi", tmp_path / f"{long}2.mp4"]
    copies = [source.copy.name for source in find_sources(names, tmp_path)]
    assert len(set(copies)) == 3
    assert {len(name) for name in copies} == {255}
    assert all(name.startswith("n" * 200) and name.endswith(".predict.mp4") for name in copies)
    assert copies == [source.copy.name for source in find_sources(names, tmp_path)]
