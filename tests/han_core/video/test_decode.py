"""Decoding: every frame, in order and in its colours; damage is counted; every broken video gets a plain sentence."""

import os
import struct
import subprocess
import sys
from fractions import Fraction

import av
import numpy as np
import pytest

from han_core.video.decode import VideoError, probe, read_video, shrink
from tests.make_videos import (
    copied,
    encode,
    make_size_change,
    make_truncated,
    make_video,
    moving_frames,
    write_video,
    zeroed,
)

# (frames, width, height), counted with FFmpeg's own tools, and equal to the number of samples that the containers list.
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


def numbered(count: int) -> np.ndarray:
    """(count, 48, 64, 3) uint8 RGB: the grey value tells the number, 5 a frame."""
    return np.broadcast_to((5 * np.arange(count))[:, None, None, None], (count, 48, 64, 3)).astype(np.uint8)


def numbers(frames) -> list[int]:
    return [round(float(frame.mean()) / 5) for frame in frames]


@pytest.mark.parametrize("name", ODD)
def test_odd_videos(shared_data, name):
    path = shared_data / "odd_videos" / name
    count, width, height = ODD[name]
    frames = read_video(path)
    assert {frame.shape for frame in frames} == {(height, width, 3)}
    assert len(frames.times) == count
    assert not frames.damage
    info = probe(path)
    assert (info.width, info.height, info.packets) == (width, height, count)
    assert 15 <= info.fps <= 30
    assert info.even


def test_header_counts_are_not_believed(shared_data):
    """The AVI's header says 123; 121 decode, in FFmpeg too (packed B-frames), and nothing is damaged."""
    path = shared_data / "ut_interaction" / "set1" / "0_handshake" / "17_3_0.avi"
    assert probe(path).packets == 123
    frames = read_video(path)
    assert sum(1 for _ in frames) == 121
    assert not frames.damage


@pytest.mark.parametrize(
    ("codec", "suffix"), [("mpeg4", ".mp4"), ("mpeg4", ".avi"), ("libvpx", ".webm"), ("mpeg2video", ".mpg"),
                          ("libx264", ".ts"), ("libx264", ".mkv"), ("mpeg1video", ".mpeg"), ("gif", ".gif")]
)  # fmt: skip
def test_codecs_and_containers(tmp_path, codec, suffix):
    pixels = "rgb8" if codec == "gif" else "yuv420p"
    path = encode(tmp_path / f"a{suffix}", moving_frames(9)[..., ::-1], codec=codec, pixels=pixels)
    assert [frame.shape for frame in read_video(path)] == [(48, 64, 3)] * 9
    assert (probe(path).width, probe(path).height) == (64, 48)


@pytest.mark.parametrize("name", ["a:b.avi", "#1 (x) & [y]; %04d.avi", "ü.avi", "http:x.avi", "concat:a|b.avi"])
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


class TestColours:
    @pytest.mark.parametrize(("matrix", "span"), [(1, 1), (1, 2), (5, 1), (6, 1), (6, 2), (9, 1)])
    def test_the_files_matrix_and_range_are_used(self, tmp_path, matrix, span):
        colour = np.array([200, 40, 90], np.uint8)
        picture = np.broadcast_to(colour, (2, 64, 96, 3))
        path = encode(tmp_path / "a.mkv", picture, codec="ffv1", pixels="yuv444p", colours=(matrix, span))
        for frame in read_video(path):
            np.testing.assert_allclose(
                frame.reshape(-1, 3).astype(int), np.broadcast_to(colour.astype(int), (64 * 96, 3)), atol=2
            )

    def test_a_wrong_matrix_would_be_seen(self, tmp_path):
        """The same numbers under BT.709 and BT.601 differ by more than the tolerance above."""
        picture = np.broadcast_to(np.array([200, 40, 90], np.uint8), (2, 64, 96, 3))
        frames = []
        for matrix in (1, 6):
            path = encode(tmp_path / f"{matrix}.mkv", picture, codec="ffv1", pixels="yuv444p", colours=(matrix, 1))
            with av.open(str(path)) as container:
                frames.append(next(container.decode(video=0)).to_ndarray().astype(int))
        assert np.abs(frames[0] - frames[1]).max() > 10

    def test_ten_bits(self, tmp_path):
        ramp = np.linspace(0, 255, 96).astype(np.uint8)
        picture = np.broadcast_to(ramp[None, None, :, None], (2, 64, 96, 3))
        path = encode(tmp_path / "a.mkv", picture, codec="ffv1", pixels="yuv444p10le", colours=(1, 1))
        for frame in read_video(path):
            assert np.abs(frame.astype(int) - picture[0]).max() <= 2


class TestDamage:
    def test_frames_behind_a_bad_packet_come_out(self, tmp_path):
        path = zeroed(encode(tmp_path / "a.mp4", numbered(40), g="250", bf="0", qp="10"), 20)
        frames = read_video(path)
        assert numbers(frames)[:20] == list(range(20))
        np.testing.assert_allclose(frames.times, [n / 25 for n in range(40) if n != 20], atol=1e-3)
        assert (frames.damage.lost, frames.damage.damaged, frames.damage.pictures) == (1, 1, 40)
        assert str(frames.damage) == "1 of 40 pictures are damaged (1 not decodable)"

    def test_more_than_is_allowed_is_refused_with_the_counts(self, tmp_path):
        path = zeroed(encode(tmp_path / "a.mp4", numbered(40), g="250", bf="0"), 5, 20, 21)
        with pytest.raises(VideoError, match=r"3 of 40 pictures are damaged .*decode\.damaged_share"):
            list(read_video(path))
        assert len(list(read_video(path, damaged_share=0.1))) == 37
        assert len(list(read_video(path, damaged_share=1))) == 37

    def test_zero_refuses_any_damage_and_no_sound_video(self, tmp_path):
        path = encode(tmp_path / "a.mp4", numbered(40), g="250", bf="0")
        assert len(list(read_video(path, damaged_share=0))) == 40
        with pytest.raises(VideoError, match="1 of 40"):
            list(read_video(zeroed(path, 20), damaged_share=0))

    def test_a_packet_that_silently_gives_no_frame_counts(self, tmp_path):
        """A wiped MPEG-4 picture reads as "not coded" to the decoder, which says nothing."""
        frames = read_video(zeroed(encode(tmp_path / "a.avi", moving_frames(30)[..., ::-1], codec="mpeg4"), 10))
        assert len(list(frames)) == 29
        assert frames.damage.damaged == 1

    @pytest.mark.parametrize(("codec", "suffix"), [("mpeg4", ".avi"), ("libvpx-vp9", ".webm"), ("libx265", ".mp4")])
    def test_a_hole_that_the_decoder_plays_counts(self, tmp_path, codec, suffix):
        path = encode(tmp_path / f"a{suffix}", moving_frames(30, width=320, height=240, seed=3)[..., ::-1], codec=codec)
        with av.open(str(path)) as container:
            places = [(p.pos, p.size) for p in container.demux(container.streams.video[0]) if p.size > 400]
        raw = bytearray(path.read_bytes())
        position, size = places[len(places) // 2]
        raw[position + size // 2 : position + size // 2 + 100] = bytes(100)
        path.write_bytes(raw)
        frames = read_video(path)
        list(frames)
        assert frames.damage.damaged >= 1

    def test_chunks_that_an_avi_lost_count(self, tmp_path):
        """Chunks that are wiped with their heads are skipped by the reader; the index at the file's end knows them."""
        path = make_video(tmp_path / "a.avi", 30)
        with av.open(str(path)) as container:
            places = [p.pos for p in container.demux(container.streams.video[0]) if p.size]
        raw = bytearray(path.read_bytes())
        raw[places[10] - 8 : places[13] - 8] = bytes(places[13] - places[10])
        path.write_bytes(raw)
        frames = read_video(path, damaged_share=1)
        count = len(list(frames))
        assert count < 30
        assert frames.damage.missing == 30 - count

    @pytest.mark.parametrize(("before", "behind"), [(100, 0), (0, 100)])
    def test_padding_is_no_hole(self, tmp_path, before, behind):
        source = encode(tmp_path / "a.avi", moving_frames(10)[..., ::-1], codec="mpeg4")
        with av.open(str(source)) as old, av.open(str(tmp_path / "b.avi"), "w") as new:
            stream = new.add_stream_from_template(old.streams.video[0])
            for packet in old.demux(old.streams.video[0]):
                if packet.size:
                    padded = av.Packet(bytes(before) + bytes(packet) + bytes(behind))
                    padded.pts, padded.dts, padded.time_base = packet.pts, packet.dts, packet.time_base
                    padded.stream, padded.is_keyframe = stream, packet.is_keyframe
                    new.mux(padded)
        assert len(list(read_video(tmp_path / "b.avi", damaged_share=0))) == 10

    def test_a_flat_picture_has_no_hole(self, tmp_path):
        for codec, suffix in (("mjpeg", ".avi"), ("mpeg4", ".avi"), ("libx264", ".mp4"), ("libvpx-vp9", ".webm")):
            path = encode(
                tmp_path / f"a{suffix}",
                np.zeros((5, 480, 640, 3), np.uint8),
                codec=codec,
                pixels="yuvj420p" if codec == "mjpeg" else "yuv420p",
            )
            assert len(list(read_video(path, damaged_share=0))) == 5

    def test_a_cut_that_begins_inside_an_open_group_is_sound(self, tmp_path):
        """Its first B-frames refer to a picture before the cut; no decoder shows them, and nothing is damaged."""
        noise = np.random.default_rng(0).integers(0, 256, (40, 48, 64, 3), dtype=np.uint8)
        source = encode(tmp_path / "a.mp4", noise, codec="mpeg4", g="12", bf="2")
        with av.open(str(source)) as container:
            keys = [p.is_keyframe for p in container.demux(container.streams.video[0]) if p.size]
        second = keys.index(True, 1)
        frames = read_video(copied(source, tmp_path / "b.mkv", lambda number: number >= second), damaged_share=0)
        count = sum(1 for _ in frames)
        assert 0 < len(keys) - second - count <= 2
        assert not frames.damage

    def test_flipped_bits_inside_pictures_count(self, tmp_path):
        path = encode(tmp_path / "a.mp4", moving_frames(30, width=320, height=240)[..., ::-1], bf="0")
        with av.open(str(path)) as container:
            places = [(p.pos, p.size) for p in container.demux(container.streams.video[0]) if p.size]
        raw = bytearray(path.read_bytes())
        for position, size in places[10:20]:
            for at in range(position + size // 3, position + size, 7):
                raw[at] ^= 0x55
        path.write_bytes(raw)
        frames = read_video(path, damaged_share=1)
        list(frames)
        assert frames.damage.reported + frames.damage.lost >= 5
        with pytest.raises(VideoError, match="pictures are damaged"):
            list(read_video(path))

    def test_pictures_that_the_index_promises_count(self, tmp_path):
        """The head of the file is whole, the data end early."""
        path = encode(tmp_path / "a.mp4", moving_frames(40, width=320, height=240)[..., ::-1], movflags="faststart")
        with av.open(str(path)) as container:
            positions = [p.pos for p in container.demux(container.streams.video[0]) if p.size]
        whole = path.read_bytes()
        first = min(positions)
        if whole.find(b"moov") > first:  # this FFmpeg takes no options for the container: move the index by hand
            pytest.skip("the index lies behind the data here")
        path.write_bytes(whole[: positions[30]])
        frames = read_video(path, damaged_share=1)
        assert len(list(frames)) <= 31
        assert frames.damage.missing >= 9


class TestWhatIsShown:
    def test_an_edit_list_out_of_the_middle_hides_both_ends_and_damages_nothing(self, tmp_path):
        """As a phone trims: nothing is copied, the list shows 20 of 50 frames from number 25 on."""
        path = encode(tmp_path / "a.mp4", numbered(50), g="10", bf="0", qp="10")
        raw = bytearray(path.read_bytes())
        (scale,) = struct.unpack_from(">I", raw, raw.find(b"mvhd") + 16)
        (media_scale,) = struct.unpack_from(">I", raw, raw.find(b"mdhd") + 16)
        assert raw.count(b"elst") == 1
        struct.pack_into(">Ii", raw, raw.find(b"elst") + 12, 20 * scale // 25, 25 * media_scale // 25)
        path.write_bytes(raw)
        frames = read_video(path, damaged_share=0)
        assert numbers(frames) == list(range(25, 45))
        assert probe(path).packets == 20

    def test_an_edit_list_leaves_the_visible_frames(self, tmp_path):
        source = encode(tmp_path / "a.mp4", numbered(40), g="40", bf="0", qp="10")
        with av.open(str(source)) as old, av.open(str(tmp_path / "b.mp4"), "w") as new:
            stream = new.add_stream_from_template(old.streams.video[0])
            for packet in old.demux(old.streams.video[0]):
                if packet.size:
                    shift = int(1 / packet.time_base)  # one second: 25 frames lie before the time 0
                    packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
                    packet.stream = stream
                    new.mux(packet)
        shown = numbers(read_video(tmp_path / "b.mp4"))
        assert shown == list(range(25, 40))
        assert probe(tmp_path / "b.mp4").packets == 15

    def test_the_default_track_is_taken_and_never_a_cover_picture(self, tmp_path):
        path = tmp_path / "a.mkv"
        with av.open(str(path), "w") as container:
            tracks = []
            for codec, size, rate in (("mjpeg", (32, 32), 1), ("libx264", (64, 48), 25), ("libx264", (96, 64), 25)):
                stream = container.add_stream(codec, rate=rate)
                stream.width, stream.height = size
                stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
                tracks.append(stream)
            tracks[0].disposition = av.stream.Disposition.attached_pic
            tracks[2].disposition = av.stream.Disposition.default
            for stream, count in zip(tracks, (1, 5, 7), strict=True):
                for number in range(count):
                    picture = np.zeros((stream.height, stream.width, 3), np.uint8)
                    frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                    frame.pts = number
                    container.mux(stream.encode(frame))
                container.mux(stream.encode())
        info = probe(path)
        frames = list(read_video(path))
        assert (len(frames), frames[0].shape) == (7, (64, 96, 3))
        assert (info.width, info.height, info.packets) == (96, 64, 7)
        assert any("3 video tracks" in note for note in info.notes)

    @pytest.mark.parametrize(("turn", "size"), [(90, (64, 48)), (180, (48, 64)), (270, (64, 48))])
    def test_rotation_is_obeyed_and_probe_knows_the_size(self, tmp_path, turn, size):
        picture = np.zeros((3, 48, 64, 3), np.uint8)
        picture[:, :24, :32] = 250  # the upper left corner
        path = tmp_path / "a.mp4"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=25)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            stream.set_display_rotation(turn)
            for number, one in enumerate(picture):
                frame = av.VideoFrame.from_ndarray(one, format="rgb24")
                frame.pts = number
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        info = probe(path)
        assert (info.height, info.width) == size
        with av.open(str(path)) as container:
            counter = next(container.decode(video=0)).rotation  # degrees, counter-clockwise
        expected = np.rot90(picture[0], round(counter / 90) % 4)
        for frame in read_video(path):
            assert frame.shape == expected.shape
            assert np.abs(frame.astype(int) - expected).mean() < 5

    def test_stamps_give_rate_and_seconds(self, tmp_path):
        stamps = [i / 10 for i in range(15)] + [1.5 + i / 50 for i in range(15)]
        path = encode(tmp_path / "a.mp4", moving_frames(30)[..., ::-1], stamps=stamps, bf="0")
        info = probe(path)
        assert not info.even
        assert info.fps == pytest.approx(29 / stamps[-1], rel=0.01)
        frames = read_video(path)
        list(frames)
        np.testing.assert_allclose(frames.times, stamps, atol=0.002)

    def test_stamps_in_whole_milliseconds_are_even(self, tmp_path):
        path = encode(tmp_path / "a.webm", moving_frames(60)[..., ::-1], codec="libvpx", rate=30)
        assert probe(path).even
        assert probe(path).fps == pytest.approx(30, rel=0.01)

    def test_pixels_that_are_not_square_get_a_note(self, tmp_path):
        path = tmp_path / "a.mp4"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=25)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
            frame = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
            container.mux(stream.encode())
        assert any("not square (4:3)" in note for note in probe(path).notes)


class TestBroken:
    def check(self, path, match):
        for use in (probe, lambda p: list(read_video(p))):
            with pytest.raises(VideoError, match=match) as error:
                use(path)
            assert path.name not in str(error.value)  # the ledger has a column for that

    def test_missing(self, tmp_path):
        self.check(tmp_path / "no.avi", "the video file is missing")

    def test_folder(self, tmp_path):
        self.check(tmp_path, "cannot be read: it is a folder")

    def test_empty(self, tmp_path):
        (tmp_path / "a.avi").touch()
        self.check(tmp_path / "a.avi", "the video file is empty")

    def test_text(self, tmp_path):
        (tmp_path / "a.avi").write_text("This is not a video.\n" * 100)
        self.check(tmp_path / "a.avi", "not a video")

    def test_sound_alone(self, tmp_path):
        path = tmp_path / "a.mp4"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("aac", rate=8000)
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate = 8000
            container.mux(stream.encode(frame))
            container.mux(stream.encode())
        self.check(path, "no video track")

    @pytest.mark.parametrize(("codec", "suffix"), [("mjpeg", ".avi"), ("mpeg4", ".mp4"), ("libvpx", ".webm")])
    def test_cut_off(self, tmp_path, codec, suffix):
        pixels = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        path = encode(tmp_path / f"a{suffix}", moving_frames(20)[..., ::-1], codec=codec, pixels=pixels)
        whole = path.read_bytes()
        for keep in (len(whole) // 2, 200):
            path.write_bytes(whole[:keep])
            with pytest.raises(VideoError):
                list(read_video(path))

    def test_real_clips_cut_off(self, tmp_path, shared_data):
        for name in ODD:
            whole = (shared_data / "odd_videos" / name).read_bytes()
            path = tmp_path / name
            path.write_bytes(whole[: int(0.7 * len(whole))])
            with pytest.raises(VideoError):
                list(read_video(path))

    @pytest.mark.parametrize("name", ["a.mjpeg", "a.avi"])
    def test_size_change(self, tmp_path, name):
        with pytest.raises(VideoError, match="changes size from 64x48 to 32x40 at picture 6"):
            list(read_video(make_size_change(tmp_path / name)))

    def test_size_change_of_h264(self, tmp_path):
        """Two videos behind each other in one track."""
        parts = [
            encode(tmp_path / f"{n}.h264", moving_frames(4, width=w, height=h)[..., ::-1])
            for n, (w, h) in enumerate(((96, 64), (128, 96)))
        ]
        path = tmp_path / "a.h264"
        path.write_bytes(b"".join(part.read_bytes() for part in parts))
        with pytest.raises(VideoError, match="changes size from 96x64 to 128x96"):
            list(read_video(path, damaged_share=1))

    def test_a_time_limit_ends_a_video_that_takes_too_long(self, tmp_path):
        path = make_video(tmp_path / "a.avi", 30)
        with pytest.raises(VideoError, match=r"longer than the 1e-06 s allowed \(decode\.time_limit\)"):
            list(read_video(path, time_limit=1e-6))
        assert len(list(read_video(path, time_limit=60))) == 30

    def test_nothing_is_written_to_the_terminal(self, tmp_path):
        """FFmpeg writes past Python, so look from outside."""
        (tmp_path / "text.avi").write_text("no video")
        make_truncated(tmp_path / "cut.avi")
        zeroed(encode(tmp_path / "bad.mp4", numbered(40), g="250", bf="0"), 20)
        code = (
            "import sys; from han_core.video.decode import *\n"
            "for path in sys.argv[1:]:\n"
            "    try: list(read_video(path))\n"
            "    except VideoError: pass\n"
        )
        paths = [str(path) for path in sorted(tmp_path.iterdir())]
        done = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, check=True, text=True)
        assert done.stdout + done.stderr == ""


class TestOnlyLocalVideoFiles:
    def refused(self, path, words="not a video|not a file"):
        with pytest.raises(VideoError, match=words):
            list(read_video(path))

    def test_a_pipe_is_refused_at_once(self, tmp_path):
        os.mkfifo(tmp_path / "a.mp4")
        self.refused(tmp_path / "a.mp4", "device or pipe")

    def test_a_device_is_refused(self, tmp_path):
        (tmp_path / "a.mp4").symlink_to("/dev/zero")
        self.refused(tmp_path / "a.mp4", "device or pipe")

    @pytest.mark.parametrize("suffix", [".mp4", ".m3u8", ".avi"])
    def test_playlists_and_scripts_are_not_followed(self, tmp_path, suffix, free_port):
        import socket

        with socket.socket() as listener:
            listener.bind(("127.0.0.1", free_port))
            listener.listen()
            listener.settimeout(0.2)
            make_video(tmp_path / "good.avi", 3)
            url = f"http://127.0.0.1:{free_port}/a.ts"
            texts = {
                "hls": f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{url}\n#EXT-X-ENDLIST\n",
                "local": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\ngood.avi\n#EXT-X-ENDLIST\n",
                "concat": "ffconcat version 1.0\nfile good.avi\n",
                "dash": f'<?xml version="1.0"?><MPD><Period><BaseURL>{url}</BaseURL></Period></MPD>',
                "sdp": f"v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video {free_port} RTP/AVP 96\n",
            }
            for name, text in texts.items():
                path = tmp_path / f"{name}{suffix}"
                path.write_text(text)
                self.refused(path)
            with pytest.raises(TimeoutError):
                listener.accept()


def test_one_frame(tmp_path):
    assert len(list(read_video(make_video(tmp_path / "a.avi", 1)))) == 1


def test_copied_packets_of_a_whole_video_decode_the_same(tmp_path):
    source = write_video(tmp_path / "a.avi", moving_frames(10))
    copy = copied(source, tmp_path / "b.mkv", lambda number: True)
    for one, other in zip(read_video(source), read_video(copy), strict=True):
        np.testing.assert_array_equal(one, other)
