"""``han flow`` on a small generated video."""

import os
import shutil
from importlib import import_module
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from han_core.cli.flow import flow
from han_core.figures.flow import flow_picture
from han_core.flow.flo import read_flo
from han_core.flow.tvl1.solver import tvl1_flow
from tests.han_core.flow.tvl1.flow_pairs import textured_pair


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """Twenty frames (more than one batch) of texture moving right and left in turn."""
    path = tmp_path_factory.mktemp("video") / "moving.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    a, b = textured_pair(48, 64, (2.0, 0.0))
    for i in range(20):
        writer.write(cv2.cvtColor(b if i % 2 else a, cv2.COLOR_GRAY2BGR))
    writer.release()
    return path


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(flow, [*map(str, arguments), "--backend", "cpu"])


def read(path):
    capture = cv2.VideoCapture(str(path))
    frames = []
    while (got := capture.read())[0]:
        frames.append(got[1])
    return frames


def test_a_video_of_every_pair(video, run, tmp_path):
    result = run(video)
    assert result.exit_code == 0, result.output
    assert "flow of 19 pairs" in result.output
    pictures = read(tmp_path / "moving.flow.mp4")
    assert len(pictures) == 19
    assert pictures[0].shape == (48, 128, 3)
    grey = np.stack([cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY) for frame in read(video)])
    for i in (0, 15, 16, 18):  # both sides of the seam between two batches
        expected = flow_picture(tvl1_flow(grey[i : i + 1], grey[i + 1 : i + 2], backend="cpu")[0], 20)
        assert np.abs(pictures[i][:, 64:, ::-1].astype(int) - expected).mean() < 4


def test_pairs_are_solved_as_many_at_once_as_suits_the_back_end(video, run, tmp_path, monkeypatch):
    asked, solved = [], []
    module = import_module("han_core.cli.flow")
    solve = module.tvl1_flow
    monkeypatch.setattr(module, "pairs_at_once", lambda *form: asked.append(form) or 7)
    monkeypatch.setattr(
        module, "tvl1_flow", lambda a, b, backend: solved.append(len(a)) or solve(a, b, backend=backend)
    )
    assert "flow of 19 pairs" in run(video).output
    assert (asked, solved) == ([("cpu", 48, 64)], [7, 7, 5])


def test_the_exact_flow_of_one_pair(video, run, tmp_path):
    assert run(video, "--out", "one.flo", "--frame", 17).exit_code == 0
    found = read_flo(tmp_path / "one.flo")
    assert found.shape == (2, 48, 64)
    assert np.median(found[0]) == pytest.approx(-2.0, abs=0.2)


def test_a_picture_of_one_pair(video, run, tmp_path):
    assert run(video, "--out", "one.png", "--frame", 2, "--short-side", 32).exit_code == 0
    assert cv2.imread(str(tmp_path / "one.png")).shape == (32, 86, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--out", "a.avi"), "must end in .mp4, .png, .jpg or .flo"),
        (("--out", "nowhere/a.png"), "the folder nowhere does not exist"),
        (("--out", "a.png", "--frame", "19"), "frame 19 does not exist, or is the last one"),
        (("--out", "a.png", "--largest", "0"), "--largest"),
    ],
)
def test_wrong_requests_are_told_without_a_traceback(video, run, tmp_path, arguments, message):
    result = run(video, *arguments)
    assert result.exit_code != 0
    assert message in result.output
    assert not list(tmp_path.iterdir())


def test_files_that_are_no_video(run, tmp_path):
    (tmp_path / "text.avi").write_text("no video")
    result = run(tmp_path / "text.avi")
    assert result.exit_code == 1
    assert "text.avi: the file is not a video" in result.output


def test_the_video_itself_is_never_overwritten(video, run, tmp_path):
    before = video.read_bytes()
    video = Path(shutil.copy(video, tmp_path / "a.mp4"))
    assert "is the video itself" in run(video, "--out", video).output
    assert video.read_bytes() == before


@pytest.mark.parametrize("name", [b"n" * 251 + b".avi", b"bad\xff.avi"])
def test_odd_names(video, run, tmp_path, name):
    odd = Path(shutil.copy(video, tmp_path / os.fsdecode(name)))
    result = run(odd)
    assert result.exit_code == 0, (result.output, result.exception)
    (written,) = set(tmp_path.iterdir()) - {odd}
    assert written.name.endswith(".flow.mp4")
    assert written.name[:3] == odd.name[:3]


def test_an_output_whose_name_is_too_long_is_told(video, run):
    for ending in (".mp4", ".png", ".flo"):
        result = run(video, "--out", "n" * 300 + ending)
        assert result.exit_code == 1, (result.output, result.exception)
        assert "cannot be written" in result.output
