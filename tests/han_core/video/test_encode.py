"""Videos that the library writes: what FFmpeg reads back from them, whatever a browser needs included."""

import os
from pathlib import Path

import av
import numpy as np
import pytest

from han_core.video import encode
from han_core.video.decode import probe, read_video
from han_core.video.encode import EncodeError, VideoWriter, check_folder, encode_video, fitting_name
from tests.make_videos import moving_frames


def frames_of(count=12, **options):
    """Frames in RGB that are grey but for one red block: 4:2:0 halves the resolution of colours."""
    frames = np.repeat(moving_frames(count, **options)[..., :1], 3, axis=3)
    frames[:, 8:24, 8:24] = (200, 30, 40)
    return frames


def decoded(path):
    return np.stack(list(read_video(path, damaged_share=0)))


def written(path, frames, fps=25.0):
    with VideoWriter(path, fps) as video:
        for frame in frames:
            video.write(frame)
    return path


def atoms(raw):
    """Names of an MP4's outermost boxes in their order."""
    names, at = [], 0
    while at < len(raw):
        names.append(raw[at + 4 : at + 8].decode())
        at += int.from_bytes(raw[at : at + 4], "big")
    return names


def test_it_is_what_browsers_play(tmp_path):
    path = written(tmp_path / "new" / "a.mp4", frames_of())
    with av.open(str(path)) as container:
        (stream,) = container.streams.video
        assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
        assert (stream.codec_context.colorspace, stream.codec_context.color_range) == (1, 1)  # BT.709, limited
    names = atoms(path.read_bytes())
    assert names.index("moov") < names.index("mdat"), "else nothing plays before all is loaded"
    assert [file.name for file in path.parent.iterdir()] == ["a.mp4"]


def test_the_frames_come_back_in_their_order_and_at_their_rate(tmp_path):
    frames = frames_of()
    path = written(tmp_path / "a.mp4", frames, 30000 / 1001)
    got = decoded(path)
    assert got.shape == frames.shape
    assert np.abs(got.astype(int) - frames).mean() < 4
    assert got[:, 16, 16] == pytest.approx(np.array([[200, 30, 40]] * 12), abs=8), "colours as they were"
    assert probe(path).fps == pytest.approx(30000 / 1001)
    assert probe(path).even


def test_the_same_frames_give_the_same_bytes_and_in_memory_too(tmp_path):
    frames = frames_of()
    once, twice = (written(tmp_path / name, frames).read_bytes() for name in ("a.mp4", "b.mp4"))
    assert once == twice
    assert encode_video(frames, 25, quality=18) == once
    assert len(encode_video(frames, 25, quality=40)) < len(once)


def test_odd_sizes_are_filled_up_by_a_row_and_a_column(tmp_path):
    frames = frames_of(width=63, height=47)
    got = decoded(written(tmp_path / "a.mp4", frames))
    assert got.shape[1:3] == (48, 64)
    assert np.abs(got[:, :47, :63].astype(int) - frames).mean() < 4
    assert np.abs(got[:, 47, :63].astype(int) - frames[:, 46]).mean() < 8


@pytest.mark.parametrize("fps", [0, 1e-9])
def test_a_rate_that_no_one_knows_is_a_rate_all_the_same(tmp_path, fps):
    assert probe(written(tmp_path / "a.mp4", frames_of(2), fps)).fps > 0


def test_without_h264_it_is_vp9(tmp_path, monkeypatch):
    monkeypatch.setattr(encode, "ENCODERS", ("no_such_encoder", "libvpx-vp9"))
    frames = frames_of()
    path = written(tmp_path / "a.mp4", frames)
    assert probe(path).codec == "vp9"
    assert np.abs(decoded(path).astype(int) - frames).mean() < 4
    assert encode_video(frames, 25, quality=18) == path.read_bytes()


def test_without_any_encoder_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(encode, "ENCODERS", ("no_such_encoder",))
    with pytest.raises(EncodeError, match=r"none of the encoders no_such_encoder.*pip install"):
        VideoWriter(tmp_path / "a.mp4", 25)
    assert not list(tmp_path.iterdir())


def test_an_error_in_between_leaves_what_was_there(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_text("earlier")
    frames = frames_of()
    for wrong, message in (
        ([frames[0], frames[0, :24]], "among frames of"),
        ([], "needs a frame"),
        ([frames[0] / 255], "uint8"),
    ):
        with pytest.raises(ValueError, match=message):
            written(path, wrong)
    assert [file.read_text() for file in tmp_path.iterdir()] == ["earlier"]


def test_a_place_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(EncodeError, match=r"a\.mp4: cannot be written .*folder"):
        VideoWriter(tmp_path / "file" / "a.mp4", 25)
    (tmp_path / "a.mp4").mkdir()
    with pytest.raises(EncodeError, match=r"cannot be written \(Is a directory\)"):
        written(tmp_path / "a.mp4", frames_of(2))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.mp4", "file"]


@pytest.mark.parametrize("letter", ["n", "ä", "語", "😀"])
def test_names_that_are_too_long_are_shortened_between_letters(letter):
    assert fitting_name("short", ".flow.mp4") == "short.flow.mp4"
    for shift in range(4):
        stem = "x" * shift + letter * 300
        name = fitting_name(stem, ".flow.mp4")
        assert name == fitting_name(stem, ".flow.mp4")
        assert name.endswith(".flow.mp4")
        assert 252 <= len(name.encode()) <= 255
        assert set(name.split("-")[0]) <= {"x", letter}
        assert name != fitting_name(stem + letter, ".flow.mp4")
    exact = "n" * 251
    assert fitting_name(exact, ".mp4") == exact + ".mp4"
    assert len(fitting_name(exact + "n", ".mp4")) == 255
    assert os.fsencode(fitting_name(os.fsdecode(b"\xbf" * 300), ".mp4"))[:200] == b"\xbf" * 200


def test_a_name_as_long_as_may_be_is_written(tmp_path):
    path = written(tmp_path / ("n" * 251 + ".mp4"), frames_of(2))
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(EncodeError, match=r"cannot be written \(File name too long\)"):
        written(tmp_path / ("n" * 252 + ".mp4"), frames_of(2))
    assert list(tmp_path.iterdir()) == [path]


def test_frames_that_the_encoder_refuses_are_not_blamed_on_the_disk(tmp_path):
    with pytest.raises(EncodeError, match=r"does the encoder libx264 take frames of 16400 x 16\?"):
        written(tmp_path / "a.mp4", np.zeros((1, 16, 16400, 3), np.uint8))
    assert not list(tmp_path.iterdir())


def test_whether_a_folder_takes_files(tmp_path):
    check_folder(tmp_path / "new" / "folder")
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    for place in (tmp_path / "file", tmp_path / "file" / "in" / "it", tmp_path / "link", Path("/proc/none")):
        with pytest.raises(EncodeError, match=f"{place}: no video can be written there"):
            check_folder(place)
