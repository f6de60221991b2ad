import hashlib
import os

import cv2
import numpy as np
import pytest

from han_core.datasets.probing import Inspection, inspect_video
from tests.make_videos import encode, make_video, moving_frames, zeroed


@pytest.fixture
def video(tmp_path):
    path = tmp_path / "good: #1.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25, (64, 48))
    for value in (0, 100, 200):
        writer.write(np.full((48, 64, 3), value, np.uint8))
    writer.release()
    return path


def test_a_good_video_has_a_hash_and_no_problem(video):
    found = inspect_video(video)
    assert (found.sha256, found.problem) == (hashlib.sha256(video.read_bytes()).hexdigest(), "")
    assert found.damage is None
    assert (found.info.width, found.info.height, found.info.packets) == (64, 48, 3)


def test_a_picture_is_not_a_video(tmp_path):
    assert inspect_video(make_video(tmp_path / "a.avi", 1)).problem == "the video has one frame; flow needs two"


def test_damage_is_counted_or_refused(tmp_path):
    path = zeroed(encode(tmp_path / "a.mp4", moving_frames(40)[..., ::-1], g="250", bf="0"), 20)
    assert inspect_video(path).damage.damaged >= 1
    assert "of 40 pictures are damaged" in inspect_video(path, damaged_share=0).problem


def test_a_link_out_of_the_root_is_refused_and_one_within_is_not(tmp_path):
    root, outside = tmp_path / "root", make_video(tmp_path / "outside.avi", 3)
    inside = make_video(root / "a.avi", 3)
    (root / "out.avi").symlink_to(outside)
    (root / "in.avi").symlink_to(inside)
    assert "link out of the dataset's folder" in inspect_video(root / "out.avi", root=root).problem
    assert inspect_video(root / "in.avi", root=root).problem == ""


def test_a_pipe_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "a.avi")
    assert "not a regular file" in inspect_video(tmp_path / "a.avi").problem


@pytest.mark.parametrize("content", [b"", b"this is text\n" * 50, None])
def test_bad_files_have_a_hash_and_a_reason(video, content):
    bad = video.with_name("bad.avi")
    bad.write_bytes(video.read_bytes()[: video.stat().st_size // 2] if content is None else content)
    found = inspect_video(bad)
    assert found.sha256 == hashlib.sha256(bad.read_bytes()).hexdigest()
    assert found.problem


def test_a_file_that_is_gone_has_a_reason(tmp_path):
    assert inspect_video(tmp_path / "gone.avi") == Inspection("", "the video file is missing")


def test_odd_real_videos_are_readable(shared_data):
    for path in sorted((shared_data / "odd_videos").iterdir()):
        if path.suffix in (".avi", ".mp4"):
            assert inspect_video(path).problem == "", path.name


def test_a_folder_that_leads_out_of_the_root_is_refused_too(tmp_path):
    make_video(tmp_path / "outside/a.avi", 3)
    (tmp_path / "root").mkdir()
    (tmp_path / "root/train").symlink_to(tmp_path / "outside")
    found = inspect_video(tmp_path / "root/train/a.avi", root=tmp_path / "root")
    assert "link out of the dataset's folder" in found.problem


def test_frames_too_small_for_flow_are_refused(tmp_path):
    path = encode(tmp_path / "narrow.mkv", moving_frames(3, width=2)[..., ::-1], codec="ffv1", pixels="bgr0")
    found = inspect_video(path, smallest_side=3)
    assert found.problem == "the frames are 2x48 pixels; flow needs 3 per side, or set flow.size"
    assert found.sha256
    assert inspect_video(path, smallest_side=2).problem == inspect_video(path).problem == ""
