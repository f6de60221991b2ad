import hashlib
import os
import signal

import cv2
import numpy as np
import pytest

from han_core.datasets.probing import Inspection, inspect_video, inspect_videos


@pytest.fixture
def video(tmp_path):
    path = tmp_path / "good: #1.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25, (64, 48))
    for value in (0, 100, 200):
        writer.write(np.full((48, 64, 3), value, np.uint8))
    writer.release()
    return path


def test_a_good_video_has_a_hash_and_no_problem(video):
    assert inspect_video(video) == Inspection(hashlib.sha256(video.read_bytes()).hexdigest())


@pytest.mark.parametrize("content", [b"", b"this is text\n" * 50, None])
def test_bad_files_have_a_hash_and_a_reason(video, content):
    bad = video.with_name("bad.avi")
    bad.write_bytes(video.read_bytes()[: video.stat().st_size // 2] if content is None else content)
    found = inspect_video(bad)
    assert found.sha256 == hashlib.sha256(bad.read_bytes()).hexdigest()
    assert found.problem


def test_a_file_that_is_gone_has_a_reason(tmp_path):
    assert inspect_video(tmp_path / "gone.avi") == Inspection(
        "", "the video file cannot be read (No such file or directory)"
    )


def test_odd_real_videos_are_readable(shared_data):
    for path in sorted((shared_data / "odd_videos").iterdir()):
        if path.suffix in (".avi", ".mp4"):
            assert inspect_video(path).problem == "", path.name


def kill_or_name(path):
    """Stands in for a decoder that crashes on one file."""
    if path.name == "crash.avi":
        os.kill(os.getpid(), signal.SIGKILL)
    return Inspection(path.name)


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_the_order_asked_and_each_is_counted(tmp_path, workers):
    names = ["b.avi", "c.avi", "a.avi"]
    counted = []
    found = inspect_videos(tmp_path, names, workers=workers, advance=lambda: counted.append(1), inspect=kill_or_name)
    assert list(found.items()) == [(name, Inspection(name)) for name in names]
    assert len(counted) == 3


def test_a_file_that_kills_its_worker_is_a_finding_and_the_others_go_on(tmp_path):
    names = ["a.avi", "crash.avi", "b.avi", "c.avi"]
    found = inspect_videos(tmp_path, names, workers=2, inspect=kill_or_name)
    assert found["crash.avi"].problem == "decoding it crashes the video library"
    assert [found[name] for name in ("a.avi", "b.avi", "c.avi")] == [Inspection(n) for n in ("a.avi", "b.avi", "c.avi")]
