"""``han predict`` around the model: what is taken, what is refused, and what is printed. The labels themselves:
``tests/pipeline/test_predict.py``."""

import errno
import json
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner

from han_core.cli.predict import predict
from han_core.predict import annotate as annotate_module
from han_core.predict import models, windows
from han_core.predict.windows import Prediction, Window
from han_core.video.encode import EncodeError
from tests.make_videos import make_video

FRAMES = 3


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs the command with a model that sees the same in every video."""
    monkeypatch.chdir(tmp_path)
    trained = SimpleNamespace(classes=("walk", "run"), variant="han")
    recogniser = SimpleNamespace(path="m", trained=trained, device="cpu", close=lambda: None)
    chances = np.array([0.25, 0.75], np.float32)
    frames, maps = np.arange(FRAMES), np.full((FRAMES, 4), 0.25, np.float16)
    seen = Prediction(FRAMES, (Window(frames, chances, np.stack([chances] * FRAMES), maps),))
    labelled = []
    monkeypatch.setattr(models, "load_recogniser", lambda *_, **__: recogniser)
    monkeypatch.setattr(windows, "predict_video", lambda video, *_, **__: labelled.append(str(video)) or seen)

    def invoke(*arguments, expected=0):
        labelled.clear()
        result = CliRunner().invoke(predict, [*map(str, arguments)])
        assert result.exit_code == expected, (result.output, result.exception)
        lines = [json.loads(line) for line in result.stdout_bytes.decode("utf-8").splitlines()]
        return SimpleNamespace(lines=lines, stderr=result.stderr, labelled=list(labelled))

    return invoke


def video(name="a.avi"):
    return make_video(Path(name), FRAMES)


def test_a_label_and_its_copy(run):
    (line,) = run(video()).lines
    assert line["top"] == [{"label": "run", "probability": 0.75}, {"label": "walk", "probability": 0.25}]
    assert line["annotated"] == "predictions/a.predict.mp4"
    assert Path(line["annotated"]).is_file()
    assert "video_error" not in line


def test_a_link_that_loops_stops_no_other_video(run):
    video("d/a.avi")
    Path("d/loop.avi").symlink_to("loop.avi")
    done = run("d", "--no-video", expected=1)
    assert done.labelled == ["d/a.avi"]
    assert done.lines[1] == {
        "video": "d/loop.avi",
        "error": f"the video file cannot be read ({os.strerror(errno.ELOOP)})",
    }


@pytest.mark.parametrize("name", ["n" * 251, "ä" * 124 + "x"])
def test_a_long_name_has_a_short_copy_and_is_said_where(run, name):
    # OpenCV opens no file with such a name
    long = video().rename(f"{name}.avi")
    (line, other) = run(long, video()).lines
    assert len(os.fsencode(Path(line["annotated"]).name)) <= 255
    assert Path(line["annotated"]).is_file()
    assert other["annotated"] == "predictions/a.predict.mp4"
    assert len(list(Path("predictions").iterdir())) == 2, "no file that is unfinished stays"


def test_a_folder_that_cannot_be_written_is_told_before_any_video_is_seen(run):
    Path("file").touch()
    done = run(video(), "--out", "file/out", expected=1)
    assert not done.labelled
    assert "file/out: no video can be written there (Not a directory)" in done.stderr
    assert "--no-video" in done.stderr
    assert run("a.avi", "--out", "file/out", "--no-video").labelled == ["a.avi"]


def test_a_copy_that_fails_leaves_the_label(run, monkeypatch):
    annotate = annotate_module.annotate

    def fail_once(source, *arguments, **options):
        if source.name == "a.avi":
            raise EncodeError("out/a.mp4: cannot be written (disk full)")
        annotate(source, *arguments, **options)

    monkeypatch.setattr(annotate_module, "annotate", fail_once)
    done = run(video(), video("b.avi"), "none.avi", expected=1)
    first, second, third = done.lines
    assert first["top"][0]["label"] == "run"
    assert first["video_error"] == "out/a.mp4: cannot be written (disk full)"
    assert not {"annotated", "error"} & first.keys()
    assert "annotated" in second
    assert third["error"] == "the video file is missing"
    assert "1 of 3 videos could not be labelled; 1 of 3 annotated copies could not be written" in done.stderr


def test_a_video_that_may_not_be_read_stops_no_other(run, monkeypatch):
    access = os.access
    video("closed.avi")
    # What click asks; root may read all, so no mode says it.
    monkeypatch.setattr(os, "access", lambda path, mode: "closed" not in str(path) and access(path, mode))
    assert run("closed.avi", video(), "--no-video").labelled == ["closed.avi", "a.avi"]


def test_a_name_that_is_no_utf8_is_escaped_and_others_are_readable(run):
    name = os.fsdecode(b"bad\xff.avi")
    video().rename(name)
    first, second = run(name, video("ü.avi"), "--no-video").lines
    assert os.fsencode(first["video"]) == b"bad\xff.avi"
    assert second["video"] == "ü.avi"


@pytest.mark.parametrize("arguments", [("",), ("a.avi", ""), ("a.avi", "--out", ""), ("a.avi", "--workspace", "")])
def test_a_variable_that_is_not_set_is_not_the_current_folder(run, arguments):
    video()
    done = run(*arguments, expected=2)
    assert "is empty; is a variable of the shell not set?" in done.stderr
    assert not done.labelled


def test_a_backslash_of_a_list_is_a_slash_unless_a_name_has_one(run):
    video().rename("a\\b.avi")
    video("d/c.avi")
    Path("list.txt").write_text("a\\b.avi\nd\\c.avi\nx\0.avi\n")
    done = run("--list", "list.txt", "--no-video", expected=1)
    assert [line["video"] for line in done.lines] == ["a\\b.avi", "d/c.avi", "x\0.avi"]
    assert done.labelled == ["a\\b.avi", "d/c.avi"]
    assert done.lines[2]["error"] == "is not the name of a file: it has a zero byte"
