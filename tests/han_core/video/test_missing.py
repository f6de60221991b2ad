"""Videos of which much is not there, in containers that have no index to say so."""

import struct

import numpy as np
import pytest

from han_core.video.decode import VideoError, probe, read_video
from tests.make_videos import copied, encode, make_video, zeroed

COUNT = 100
KINDS = {
    "mkv": "libx264",
    "webm": "libvpx",
    "flv": "flv1",
    "wmv": "wmv2",
    "mxf": "mpeg2video",
    "ts": "libx264",
    "mpg": "mpeg2video",
    "gif": "gif",
    "avi": "mpeg4",
}
ENDS = {"mpg", "ts", "gif"}
"""Containers that may end anywhere."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Noise, so that all pictures are about equally large."""
    folder, random = tmp_path_factory.mktemp("whole"), np.random.default_rng(0)
    frames = random.integers(0, 256, (COUNT, 12, 16, 3), np.uint8).repeat(8, 1).repeat(8, 2)

    def path(kind):
        target = folder / f"a.{kind}"
        if not target.exists():
            options = {} if kind == "gif" else {"g": "10", "b": "400k"}
            pixels = "rgb8" if kind == "gif" else "yuv420p"
            encode(target, frames, codec=KINDS[kind], pixels=pixels, **options)
        return target

    return path


def damage_of(path):
    with read_video(path, damaged_share=1.0) as frames:
        count = sum(1 for _ in frames)
    return count, frames.damage


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_missing_from_a_sound_video(whole, kind):
    count, damage = damage_of(whole(kind))
    assert count >= COUNT - 1
    assert not damage


@pytest.mark.parametrize("hole", ["in the middle", "to the end"])
@pytest.mark.parametrize("kind", KINDS)
def test_pictures_in_a_hole_are_missing(whole, tmp_path, kind, hole):
    """As of a download that skipped a part of the file, or never got to its end."""
    data = bytearray(whole(kind).read_bytes())
    first, last = (0.4, 0.6) if hole == "in the middle" else (0.5, 1)
    part = slice(int(first * len(data)), int(last * len(data)))
    data[part] = bytes(part.stop - part.start)
    (path := tmp_path / f"hurt.{kind}").write_bytes(data)
    count, damage = damage_of(path)
    assert count < 0.9 * COUNT
    assert abs(damage.pictures - COUNT) <= 15, damage
    assert damage.damaged >= damage.pictures - count
    with pytest.raises(VideoError, match=r"missing.*decode\.damaged_share"):
        list(read_video(path))


@pytest.mark.parametrize("kind", sorted(KINDS.keys() - ENDS - {"avi"}))
def test_pictures_behind_the_end_of_a_file_are_missing(whole, tmp_path, kind):
    data = whole(kind).read_bytes()
    (path := tmp_path / f"half.{kind}").write_bytes(data[: len(data) // 2])
    count, damage = damage_of(path)
    assert count < 0.6 * COUNT
    assert abs(damage.pictures - COUNT) <= 20, damage


@pytest.mark.parametrize("kind", ["mkv", "webm", "ts", "gif"])
def test_pauses_and_uneven_frames_are_no_damage(whole, tmp_path, kind):
    """As a screen recorder leaves them: nothing says that anything is missing."""
    source = tmp_path / f"even.{kind}"
    frames = np.random.default_rng(1).integers(0, 256, (40, 48, 64, 3), np.uint8)
    options = {} if kind == "gif" else {"g": "1"}
    encode(source, frames, codec=KINDS[kind], pixels="rgb8" if kind == "gif" else "yuv420p", **options)
    target = copied(source, tmp_path / f"paused.{kind}", lambda n: n < 15 or n > 30)
    count, damage = damage_of(target)
    assert 20 <= count <= 25
    assert not damage


def test_a_pause_is_no_damage_where_a_picture_far_from_it_is_damaged(tmp_path):
    frames = np.random.default_rng(1).integers(0, 256, (130, 48, 64, 3), np.uint8)
    source = encode(tmp_path / "even.mkv", frames, g="1", bf="0")
    target = copied(source, tmp_path / "paused.mkv", lambda n: n < 30 or n > 60)
    zeroed(target, 90)
    _, damage = damage_of(target)
    assert damage.damaged == 1
    assert damage.missing == 0


@pytest.mark.parametrize("told", [0, 2**32 - 1])
def test_an_avi_that_was_written_to_a_pipe_is_not_cut_off(tmp_path, told):
    """Nobody went back to fill in its size."""
    data = bytearray(make_video(tmp_path / "a.avi", 12).read_bytes())
    data[4:8] = struct.pack("<I", told)
    (path := tmp_path / "b.avi").write_bytes(data)
    count, damage = damage_of(path)
    assert count == 12
    assert not damage


def test_a_turn_by_no_right_angle_is_noted(tmp_path):
    frames = np.random.default_rng(1).integers(0, 256, (6, 48, 64, 3), np.uint8)
    path = encode(tmp_path / "a.mp4", frames, codec="libx264", pixels="yuv420p")
    assert probe(path).notes == ()
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40  # version and flags, times, number, duration, layer, group, volume
    assert struct.unpack(">9i", data[at : at + 36]) == (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    half = round(0.5**0.5 * (1 << 16))
    data[at : at + 36] = struct.pack(">9i", half, half, 0, -half, half, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    assert any("not a right one" in note for note in probe(path).notes)
    assert damage_of(path)[0] == 6
