"""The whole graph on a folder as people have it: videos that are damaged, trimmed, turned, uneven or same-named."""

import csv
from pathlib import Path

import av
import numpy as np
import pytest

from han_core.clipfile.reader import ClipFile
from tests.checkout import FRAMES, Checkout
from tests.make_videos import encode, moving_frames, zeroed

pytestmark = pytest.mark.long


def frames_of(class_name: str, count: int, seed: int) -> np.ndarray:
    frames = moving_frames(count, seed=seed)[..., ::-1]
    return frames if class_name == "right" else frames[::-1]


def trimmed(path: Path, frames: np.ndarray, first: int) -> Path:
    """As ``ffmpeg -ss .. -c copy`` cuts: the packets from the key frame on, and an edit list that hides the first."""
    whole = encode(path.with_suffix(".whole.mp4"), frames, g="250", bf="0")
    with av.open(str(whole)) as old, av.open(str(path), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(old.streams.video[0]):
            if packet.size:
                shift = round(first / 25 / packet.time_base)
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, stream
                new.mux(packet)
    whole.unlink()
    return path


def turned(path: Path, frames: np.ndarray) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        stream.set_display_rotation(90)
        for number, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="module")
def checkout(repository, tmp_path_factory):
    made = Checkout.make(repository, tmp_path_factory.mktemp("odd"))
    for number, name in enumerate(("left", "right")):
        folder = made.videos / name
        zeroed(encode(folder / "damaged_g3.mp4", frames_of(name, 40, 10 + number), g="250", bf="0"), 39)
        trimmed(folder / "trimmed_g4.mp4", frames_of(name, FRAMES + 10, 20 + number), 10)
        turned(folder / "turned_g5.mp4", frames_of(name, FRAMES, 30 + number))
        stamps = [i / 10 for i in range(7)] + [0.7 + i / 50 for i in range(7)]
        encode(folder / "uneven_g6.mp4", frames_of(name, FRAMES, 40 + number), stamps=stamps, bf="0")
        encode(folder / "1_g7.mp4", frames_of(name, FRAMES, 50 + number))
    zeroed(encode(made.videos / "left/ruined_g8.mp4", frames_of("left", 40, 60), g="250", bf="0"), *range(5, 35))
    made.params["dataset"]["allowed_failures"] = 1
    made.write_params()
    made.first_run, made.output = made.repro()
    return made


def test_every_stage_runs_and_every_video_is_as_its_player_shows_it(checkout):
    assert {"prepare", "decode", "flow", "train", "evaluate", "report"} <= checkout.first_run
    table = (checkout.path / "data/tiny/clips.csv").read_text(encoding="utf-8")
    clips = {(row["class"], row["clip"]): row for row in csv.DictReader(table.splitlines())}
    assert {name for class_name, name in clips if class_name == "left"} >= {"1_g7", "damaged_g3", "trimmed_g4"}
    frames = checkout.path / "data/tiny/frames"
    files = {p.relative_to(frames).with_suffix("").as_posix(): ClipFile(p) for p in frames.rglob("*.h5")}
    for class_name in ("left", "right"):
        assert files[f"{class_name}/damaged_g3"].image_count("frames") == 39
        assert clips[class_name, "damaged_g3"]["damaged"] == "1/40"
        assert files[f"{class_name}/trimmed_g4"].image_count("frames") == FRAMES
        assert files[f"{class_name}/turned_g5"].image("frames", 0).shape[:2] == (64, 48)
        assert files[f"{class_name}/uneven_g6"].attributes["even"] == 0
        assert files[f"{class_name}/1_g7"].image_count("frames") == FRAMES


def test_what_is_beyond_use_is_told_by_prepare_and_a_row_of_the_ledger(checkout):
    frames = checkout.path / "data/tiny/frames"
    assert not list(frames.rglob("ruined_g8*"))
    (row,) = csv.DictReader((frames / "failures.csv").read_text(encoding="utf-8").splitlines())
    assert (row["class"], row["clip"]) == ("left", "ruined_g8")
    assert "pictures are damaged (30 not decodable)" in row["reason"]
    assert "ruined_g8" in checkout.output[: checkout.output.index("Running stage 'decode")]
    report = (checkout.path / "report/tiny/report.html").read_text(encoding="utf-8")
    assert "Damaged videos" in report
    assert "left/damaged_g3" in report.replace("<wbr>", "")


def test_it_is_done_once(checkout):
    assert checkout.repro()[0] == set()
