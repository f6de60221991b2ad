"""From a frames file and a flow file to a trajectory file."""

import cv2
import numpy as np
import pytest

from han_core.baselines.trajectories.extract import Extractor
from han_core.baselines.trajectories.making import make_trajectories
from han_core.baselines.trajectories.params import TrajectoryParams
from han_core.baselines.trajectories.trajectoryfile import read_facts, read_trajectories
from han_core.camera.storedflow import field_of_levels
from han_core.clipfile.reader import ClipFile
from han_core.clipfile.trailer import ClipFileError
from han_core.clipfile.writer import ClipFileWriter
from han_core.errors import ClipError
from han_core.flow.flowfile import grey_frame, read_flow_levels, write_flow
from han_core.flow.levels import FlowFormat
from han_core.images.frames import write_frames
from tests.han_core.baselines.trajectories.scenes import pan_with_square, texture

IDENTITY = {"clip": "clip", "fingerprint": "ab" * 32}
PARAMS = TrajectoryParams(most=100)


def clip_files(folder, frames, fields, *, size=None, **form):
    """Frames and flow files of a clip whose flow is known."""
    folder.mkdir(exist_ok=True)
    paths = folder / "frames.h5", folder / "flow.h5"
    write_frames((np.stack([f] * 3, -1) for f in frames), paths[0], **IDENTITY, quality=95)
    rest = iter(fields)

    def solve(first, second):
        return np.stack([next(rest) for _ in first])

    form = FlowFormat(bound=20.0, codec="png", size=size, **form)
    write_flow(paths[0], paths[1], **IDENTITY, solver=solve, form=form, batch=4)
    return paths


@pytest.fixture
def clip(tmp_path):
    frames, fields, _ = pan_with_square(20, 120, 160)
    return clip_files(tmp_path / "clip", frames, fields)


@pytest.mark.parametrize("rounding", ["nearest", "floor"])
def test_the_file_holds_what_the_extractor_finds(tmp_path, rounding):
    frames, fields, _ = pan_with_square(20, 120, 160)
    frames_path, flow_path = clip_files(tmp_path, frames, fields, rounding=rounding)
    path = tmp_path / "t.h5"
    count = make_trajectories(
        frames_path, flow_path, path, **IDENTITY, params=PARAMS, seed=5, attributes={"source": "test"}
    )
    extractor = Extractor(120, 160, PARAMS, name="clip", seed=5)
    levels = read_flow_levels(flow_path)
    with ClipFile(frames_path) as file:
        for t in range(20):
            field = field_of_levels(levels[t - 1], 20, rounding) if t else None
            extractor.add(grey_frame(file.image_bytes("frames", t), None), field)
    expected, found = extractor.trajectories(), read_trajectories(path)
    assert count == len(found) == 100 < extractor.counts.kept
    assert all(np.array_equal(getattr(found, name), values) for name, values in vars(expected).items())
    assert read_facts(path).counts == extractor.counts
    assert (read_facts(path).frames, read_facts(path).width, read_facts(path).height) == (20, 160, 120)
    with ClipFile(path) as file:
        assert (file.attributes["source"], file.attributes["seed"], file.kind) == ("test", 5, "trajectories")


def test_the_same_bytes_again_and_others_of_another_seed(tmp_path, clip):
    paths = [tmp_path / f"{i}.h5" for i in range(3)]
    for path, seed in zip(paths, (1, 1, 2), strict=True):
        make_trajectories(*clip, path, **IDENTITY, params=PARAMS, seed=seed)
    assert paths[0].read_bytes() == paths[1].read_bytes() != paths[2].read_bytes()


def test_all_trajectories_depend_on_no_seed(tmp_path, clip):
    paths = [tmp_path / f"{i}.h5" for i in range(2)]
    for path, seed in zip(paths, (1, 2), strict=True):
        make_trajectories(*clip, path, **IDENTITY, params=TrajectoryParams(most=0), seed=seed)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_frames_are_resized_to_the_flow(tmp_path):
    """Frames of twice the size: trajectories are in the flow's pixels."""
    frames, fields, _ = pan_with_square(17, 120, 160)
    large = [cv2.resize(frame, (320, 240), interpolation=cv2.INTER_CUBIC) for frame in frames]
    paths = clip_files(tmp_path, large, fields, size=(160, 120))
    params = TrajectoryParams(camera="none", scales=1)
    make_trajectories(*paths, tmp_path / "t.h5", **IDENTITY, params=params, seed=0)
    found = read_trajectories(tmp_path / "t.h5")
    assert len(found) > 100
    assert found.points[..., 0].max() <= 160
    on_pan = np.abs(np.diff(found.points, axis=1) - [-2, -1]).max((1, 2)) < 0.1
    assert on_pan.mean() > 0.5
    assert (read_facts(tmp_path / "t.h5").width, read_facts(tmp_path / "t.h5").height) == (160, 120)


@pytest.mark.parametrize(
    ("frames", "field"),
    [
        ([texture(64, 80)] * 10, (2.0, 1.0)),
        ([np.zeros((64, 80), np.uint8)] * 20, (2.0, 1.0)),
        ([texture(64, 80)] * 20, (0.0, 0.0)),
        ([texture(64, 80)] * 2, (0.0, 0.0)),
    ],
    ids=["ten frames", "black video", "static camera", "two frames"],
)
@pytest.mark.parametrize("rounding", ["nearest", "floor"])
def test_a_clip_without_a_trajectory_is_no_error(tmp_path, frames, field, rounding):
    fields = [np.broadcast_to(np.array(field, np.float32)[:, None, None], (2, 64, 80))] * (len(frames) - 1)
    paths = clip_files(tmp_path, frames, fields, rounding=rounding)
    assert make_trajectories(*paths, tmp_path / "t.h5", **IDENTITY, params=PARAMS, seed=0) == 0
    found = read_trajectories(tmp_path / "t.h5")
    assert len(found) == 0
    assert read_facts(tmp_path / "t.h5").counts.kept == 0
    assert found.channel("trajectory").shape == (0, 30)


def rewritten(source, path, leave_out=0, **attributes):
    """A flow file with other attributes, or fewer images."""
    with ClipFile(source) as file, ClipFileWriter(path, kind="flow", **IDENTITY) as writer:
        for name in ("x", "y"):
            appender = writer.images(name)
            for i in range(file.image_count(name) - (leave_out if name == "y" else 0)):
                appender.append(file.image_bytes(name, i))
        said = file.attributes | attributes
        writer.attributes |= {name: value for name, value in said.items() if value is not None}
    return path


def test_frames_and_flow_of_different_clips(tmp_path, clip):
    other = clip_files(tmp_path / "other", *pan_with_square(12, 120, 160)[:2])
    for frames, flow, numbers in ((clip[0], other[1], "20 frames and 11"), (other[0], clip[1], "12 frames and 19")):
        with pytest.raises(ClipError, match=numbers):
            make_trajectories(frames, flow, tmp_path / "t.h5", **IDENTITY, params=PARAMS, seed=0)
    assert not (tmp_path / "t.h5").exists()


@pytest.mark.parametrize(
    "attributes",
    [
        {"bound": None},
        {"bound": float("nan")},
        {"bound": -20.0},
        {"bound": "20"},
        {"rounding": "up"},
        {"width": 0},
        {"height": None},
    ],
)
def test_a_flow_file_that_does_not_say_how_it_is_stored(tmp_path, clip, attributes):
    flow = rewritten(clip[1], tmp_path / "flow.h5", **attributes)
    with pytest.raises(ClipFileError, match="does not say how its flow is stored"):
        make_trajectories(clip[0], flow, tmp_path / "t.h5", **IDENTITY, params=PARAMS, seed=0)


def test_damaged_files(tmp_path, clip):
    def refused(frames, flow, text):
        with pytest.raises(ClipFileError, match=text):
            make_trajectories(frames, flow, tmp_path / "t.h5", **IDENTITY, params=PARAMS, seed=0)

    refused(clip[0], rewritten(clip[1], tmp_path / "a.h5", leave_out=1), "18 along y")
    refused(clip[0], rewritten(clip[1], tmp_path / "b.h5", width=80), "is not of 80x120 pixels")
    refused(clip[1], clip[1], "frames")
    refused(clip[0], clip[0], "does not say how its flow is stored")
    refused(tmp_path / "none.h5", clip[1], "cannot be opened")
    too_wide = rewritten(clip[1], tmp_path / "c.h5", width=20_000)
    with pytest.raises(ClipError, match="20000x120"):
        make_trajectories(clip[0], too_wide, tmp_path / "t.h5", **IDENTITY, params=PARAMS, seed=0)
    raw = bytearray(clip[1].read_bytes())
    with ClipFile(clip[1]) as file:
        encoded = file.image_bytes("x", 3)
    raw[raw.index(encoded) + len(encoded) // 2] ^= 255
    (tmp_path / "d.h5").write_bytes(raw)
    refused(clip[0], tmp_path / "d.h5", "image 3 of x does not have its checksum")
