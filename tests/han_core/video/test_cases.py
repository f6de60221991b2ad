"""Files on which decoding once failed, each with what is right."""

import numpy as np
import pytest

from han_core.video.decode import VideoError, probe, read_video

# name -> (frames, damaged pictures, frames per second, frames equally long)
WHOLE = {
    "00-one-bad-picture/whole.avi": (60, 0, 25.0, True),
    "00-one-bad-picture/mp4_one_bad.mp4": (59, 3, 25.0, True),
    "02-trimmed-by-copy/long.mp4": (100, 0, 25.0, True),
    "02-trimmed-by-copy/trim_late.mp4": (20, 0, 25.0, True),
    "03-sparse-video-dense-audio/sparse.mp4": (60, 0, 60 / 205, False),
    "07-two-video-streams/two_streams_30.mp4": (20, 0, 10.0, True),
    "08-text-after-last-box/tail_text.mp4": (60, 0, 25.0, True),
    "09-time-is-not-index/browser_nodur.webm": (60, 0, 30.0, True),
    "09-time-is-not-index/vfr2.mp4": (60, 0, 17.0, False),
    "10-mirrored-display-matrix/hflip.mp4": (60, 0, 25.0, True),
    "16-bit-errors-in-slices/whole.mp4": (40, 0, 25.0, True),
}
REFUSED = {
    "01-damaged-middle/hole.mp4": "of 53 pictures are damaged",
    "01-damaged-middle/m4_hole_small.avi": "12 of 60 pictures are damaged",
    "15-av1-size-change/sc_av1.mkv": "changes size from 160x120 to 240x200 at picture 8",
    "16-bit-errors-in-slices/bitflips.mp4": "10 of 40 pictures are damaged",
}


@pytest.mark.parametrize("name", WHOLE)
def test_frames_damage_and_rate_are_right(shared_cases, name):
    count, damaged, fps, even = WHOLE[name]
    path = shared_cases / "video" / name
    frames = read_video(path)
    assert sum(1 for _ in frames) == count
    assert frames.damage.damaged == damaged
    info = probe(path)
    assert info.fps == pytest.approx(fps, rel=0.03)
    assert info.even == even


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_damaged_or_changes_size_is_refused_in_plain_words(shared_cases, name):
    with pytest.raises(VideoError, match=REFUSED[name]):
        list(read_video(shared_cases / "video" / name))


def test_a_trimmed_clip_begins_where_it_was_cut(shared_cases):
    long = list(read_video(shared_cases / "video/02-trimmed-by-copy/long.mp4"))
    trimmed = list(read_video(shared_cases / "video/02-trimmed-by-copy/trim_late.mp4"))
    for one, other in zip(trimmed, long[80:], strict=True):
        np.testing.assert_array_equal(one, other)


def test_seconds_are_those_of_the_stamps(shared_cases):
    frames = read_video(shared_cases / "video/09-time-is-not-index/vfr2.mp4")
    list(frames)
    assert frames.times[30] == pytest.approx(3.0, abs=0.05)
    frames = read_video(shared_cases / "video/09-time-is-not-index/browser_nodur.webm")
    list(frames)
    assert frames.times[-1] == pytest.approx(1.95, abs=0.05)


def test_a_mirrored_video_is_mirrored_and_not_turned(shared_cases):
    """The corner marks of these files: red, green, blue, white or the like; what matters is where they go."""
    plain = next(read_video(shared_cases / "video/01-damaged-middle/whole.mp4"))
    mirrored = next(read_video(shared_cases / "video/10-mirrored-display-matrix/hflip.mp4"))
    corners = (slice(0, 12), slice(-12, None))
    for rows in corners:
        left, right = (plain[rows, columns].mean((0, 1)) for columns in corners)
        np.testing.assert_allclose(mirrored[rows, corners[0]].mean((0, 1)), right, atol=12)
        np.testing.assert_allclose(mirrored[rows, corners[1]].mean((0, 1)), left, atol=12)


def test_no_real_clip_is_taken_for_damaged(shared_data):
    """A sample of both sets; all 278 were looked at, see docs/results.md."""
    clips = sorted(shared_data.glob("u*/**/*.avi"))[::7]
    assert len(clips) == 30
    for path in clips:
        frames = read_video(path, damaged_share=0)
        assert sum(1 for _ in frames) > 10
