"""Decoding: the right number of frames, colours and sizes, and a plain sentence for every video that is broken."""

import subprocess
import sys
from contextlib import suppress
from itertools import pairwise

import cv2
import numpy as np
import pytest

from han_core.video.container import missing_bytes
from han_core.video.decode import VideoError, probe, read_video, shrink
from han_core.video.picture_size import size_reader
from tests.make_videos import (
    make_size_change,
    make_truncated,
    make_video,
    moving_frames,
    write_video,
)

# (frames, width, height), counted with PyAV 17.0 (its own FFmpeg), and equal to the number of samples that the
# containers list, so two decoders and the index agree.
ODD = {
    "fi034.mp4": (39, 640, 360),
    "fi075.mp4": (94, 586, 480),
    "fi099.mp4": (60, 640, 314),
    "fi113.mp4": (31, 400, 216),
    "kinetics_340x256.mp4": (300, 340, 256),
    "nofi005.mp4": (50, 426, 240),
    "nofi090.mp4": (36, 320, 240),
    "v_ApplyEyeMakeup_g01_c01.avi": (164, 320, 240),
    "v_BaseballPitch_g01_c01.avi": (107, 320, 240),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_videos(shared_data, name):
    path = shared_data / "odd_videos" / name
    count, width, height = ODD[name]
    frames = 0
    for frame in read_video(path):
        assert frame.shape == (height, width, 3)
        frames += 1
    assert frames == count
    info = probe(path)
    assert (info.width, info.height, info.packets) == (width, height, count)
    assert 15 <= info.fps <= 30


def test_header_counts_are_not_believed(shared_data):
    """The AVI's header says 123; 121 decode, in PyAV too (packed B-frames)."""
    path = shared_data / "ut_interaction" / "set1" / "0_handshake" / "17_3_0.avi"
    assert probe(path).packets == 123
    assert sum(1 for _ in read_video(path)) == 121


def test_no_real_clip_is_taken_for_damaged(shared_data):
    clips = sorted(shared_data.glob("u*/**/*.avi"))
    assert len(clips) == 210
    assert [path.name for path in clips if missing_bytes(path)] == []


def test_frames_and_colours(tmp_path):
    colours = np.array([[250, 10, 20], [10, 250, 20], [20, 10, 250], [100, 150, 200]])  # BGR
    frames = np.broadcast_to(colours[:, None, None], (4, 48, 64, 3)).astype(np.uint8)
    path = write_video(tmp_path / "a.avi", frames)
    decoded = list(read_video(path))
    assert len(decoded) == 4
    for frame, (blue, green, red) in zip(decoded, colours, strict=True):
        assert frame.dtype == np.uint8
        np.testing.assert_allclose(frame.reshape(-1, 3), [[red, green, blue]] * 48 * 64, atol=6)
    info = probe(path)
    assert (info.width, info.height, info.fps, info.packets, info.codec) == (64, 48, 25.0, 4, "MJPG")


@pytest.mark.parametrize(
    ("fourcc", "suffix"), [("mp4v", ".mp4"), ("XVID", ".avi"), ("VP80", ".webm"), ("PIM1", ".mpg")]
)
def test_codecs(tmp_path, fourcc, suffix):
    path = write_video(tmp_path / f"a{suffix}", moving_frames(9), fourcc=fourcc)
    assert [frame.shape for frame in read_video(path)][:8] == [(48, 64, 3)] * 8
    assert (probe(path).width, probe(path).height) == (64, 48)


@pytest.mark.parametrize("name", ["a:b.avi", "#1 (x) & [y]; %04d.avi", "ü.avi"])
def test_odd_names(tmp_path, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = make_video(tmp_path / "plain.avi", 3).rename(tmp_path / name)
    assert sum(1 for _ in read_video(path.name)) == 3


@pytest.mark.parametrize(
    ("size", "short_side", "expected"),
    [((48, 64), 24, (24, 32)), ((64, 48), 24, (32, 24)), ((48, 64), 48, (48, 64)), ((48, 64), None, (48, 64)),
     ((40, 40), 33, (33, 33)), ((48, 64), 100, (48, 64)), ((33, 101), 32, (32, 98))],
)  # fmt: skip
def test_shrink(size, short_side, expected):
    assert shrink(np.zeros((*size, 3), np.uint8), short_side).shape == (*expected, 3)


def test_short_side(tmp_path):
    frames = list(read_video(make_video(tmp_path / "a.avi", 2), short_side=32))
    assert [frame.shape for frame in frames] == [(32, 43, 3)] * 2


class TestBroken:
    def check(self, path, match):
        for use in (probe, lambda p: list(read_video(p))):
            with pytest.raises(VideoError, match=match) as error:
                use(path)
            assert path.name not in str(error.value)  # the ledger has a column for that

    def test_missing(self, tmp_path):
        self.check(tmp_path / "no.avi", "the video file is missing")

    def test_folder(self, tmp_path):
        self.check(tmp_path, "cannot be read")

    def test_empty(self, tmp_path):
        (tmp_path / "a.avi").touch()
        self.check(tmp_path / "a.avi", "the video file is empty")

    def test_text(self, tmp_path):
        (tmp_path / "a.avi").write_text("This is not a video.\n" * 100)
        self.check(tmp_path / "a.avi", "not a video")

    @pytest.mark.parametrize("suffix", [".avi", ".mp4", ".webm"])
    def test_truncated(self, tmp_path, suffix):
        fourcc = {".avi": "MJPG", ".mp4": "mp4v", ".webm": "VP80"}[suffix]
        path = write_video(tmp_path / f"a{suffix}", moving_frames(20), fourcc=fourcc)
        whole = path.read_bytes()
        assert missing_bytes(path) == 0
        for keep in (len(whole) - 1, len(whole) // 2, 200):
            path.write_bytes(whole[:keep])
            assert missing_bytes(path) > 0
            self.check(path, r"cut off: \d+ of \d+ bytes are missing")

    def test_truncated_real_clips(self, tmp_path, shared_data):
        for name in ODD:
            whole = (shared_data / "odd_videos" / name).read_bytes()
            path = tmp_path / name
            path.write_bytes(whole[: int(0.7 * len(whole))])
            self.check(path, "cut off")

    @pytest.mark.parametrize("name", ["a.mjpeg", "a.avi"])
    def test_size_change(self, tmp_path, name):
        self.check(make_size_change(tmp_path / name), "changes size from 64x48 to 32x40 at picture 6")

    def test_size_change_of_real_h264(self, tmp_path, shared_data):
        """Two H.264 videos as one bare stream. OpenCV alone delivers garbage of the first size."""
        path = tmp_path / "a.h264"
        with path.open("wb") as file:
            for name in ("nofi090.mp4", "fi113.mp4"):
                source = str(shared_data / "odd_videos" / name)
                capture = cv2.VideoCapture(source, cv2.CAP_FFMPEG, [cv2.CAP_PROP_FORMAT, -1])
                while (packet := capture.read())[0]:
                    file.write(packet[1].tobytes())
        self.check(path, "changes size from 320x240 to 400x216 at picture 36")

    def test_damage_in_the_middle(self, tmp_path):
        """Pictures that were wiped out are noticed when they are more than half of the video."""
        path = make_video(tmp_path / "a.avi", 30)
        raw = bytearray(path.read_bytes())
        starts = [i for i in range(len(raw) - 3) if raw[i : i + 3] == b"\xff\xd8\xff"]
        assert len(starts) == 30
        for at, following in pairwise(starts[5:26]):
            raw[at : following - 16] = bytes(following - 16 - at)
        path.write_bytes(raw)
        with pytest.raises(VideoError, match=r"of the 30 pictures in the video can be decoded"):
            list(read_video(path))

    def test_nothing_is_written_to_the_terminal(self, tmp_path):
        """FFmpeg and OpenCV write past Python, so look from outside."""
        (tmp_path / "text.avi").write_text("no video")
        make_truncated(tmp_path / "cut.avi")
        code = (
            "import sys; from han_core.video.decode import *\n"
            "for path in sys.argv[1:]:\n"
            "    try: list(read_video(path))\n"
            "    except VideoError: pass\n"
        )
        paths = [str(path) for path in sorted(tmp_path.iterdir())]
        done = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, check=True, text=True)
        assert done.stdout + done.stderr == ""


def test_one_frame(tmp_path):
    assert len(list(read_video(make_video(tmp_path / "a.avi", 1)))) == 1


class TestPictureSize:
    # Sequence headers written by x264, x265 and FFmpeg's own encoders for known sizes.
    @pytest.mark.parametrize(
        ("codec", "header", "size"),
        [
            ("h264", "00000167640015acd941b1fe4e1000000300100000030320f162d9600000000168eb", (426, 240)),
            ("h264", "00000167f40028919b280f0044fc4c20000003002000000641e30632c00000000168eb", (1920, 1080)),
            ("h264", "0000016764001eacd940b424d08000000300800000190f8a14cb0000000168fb", (720, 576)),
            ("h264", "000001677a000ab6cd94727888f840000003004000000c83c48965800000000168eb", (98, 50)),
            (
                "hevc",
                "00000142010101600000030090000003000003003ca00d880f1c9e5959",
                (426, 240),
            ),
            (
                "hevc",
                "0000014201040408000003009e0800000300001e0000900690739ef2caca56",
                (98, 54),
            ),
            ("VP90", "8249834200061003160038241c184a0000306000", (98, 50)),
            ("VP90", "a249834200035201dec0070483830940000a61f6", (426, 240)),
            ("VP80", "9003009d012a620032002000470885888584", (98, 50)),
            ("mpg2", "000001b306203213ffffe000000001b5148a000100000000", (98, 50)),
            ("FMP4", "000001b001000001b58913000001000000012000c48d8800cd0314065443000001b2", (98, 50)),
        ],
    )
    def test_headers(self, codec, header, size):
        assert size_reader(codec)(bytes.fromhex(header)) == size

    @pytest.mark.parametrize(
        ("codec", "packet"),
        [
            ("h264", "00000001419a21"),
            ("hevc", "0000000102010a"),
            ("FMP4", "000001b6536121"),
            ("mpg2", "00000100005a21"),
            ("MJPG", "ffd8"),
            ("VP80", "9103009d012a62003200"),
            ("VP90", "86004092"),
            ("h264", ""),
        ],
    )
    def test_packets_without_a_size(self, codec, packet):
        assert size_reader(codec)(bytes.fromhex(packet)) is None

    def test_unknown_codec(self):
        assert size_reader("WMV3") is None

    def test_damaged_headers_do_not_crash(self):
        rng = np.random.default_rng(0)
        for codec, start in (("h264", "00000167"), ("hevc", "0000014201"), ("FMP4", "00000120"), ("MJPG", "ffd8")):
            for _ in range(300):
                with suppress(ValueError):  # the one error that is allowed
                    size_reader(codec)(bytes.fromhex(start) + rng.bytes(40))
