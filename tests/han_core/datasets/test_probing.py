import hashlib

import cv2
import numpy as np
import pytest

from han_core.datasets.probing import Inspection, inspect_video


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
