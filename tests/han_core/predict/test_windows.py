"""Sliding windows over videos whose frames tell their number, with nets that only hand it on."""

from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from han_core.camera.steady import steady_images
from han_core.flow.levels import FlowFormat, dequantize, quantize
from han_core.han.config import HANConfig
from han_core.han.feature_settings import FeatureSettings
from han_core.han.model import HAN
from han_core.han.model_file import TrainedHAN
from han_core.images.codec import decode_grey
from han_core.nets.sampling import sample_frames, stack_fields
from han_core.predict.models import Recogniser
from han_core.predict.streaming import FeatureMaker, FrameBuffer
from han_core.predict.windows import Prediction, Segment, Window, predict_video

T, STACK, USUAL = 4, 4, 16
RECIPE = FeatureSettings(
    frames=T, layer="conv5_3", fc="fc7", batch=3, precision="float32", stack=STACK, short_side=None, frame_quality=95,
    flow={"bound": 20.0, "rounding": "nearest", "codec": "png", "quality": 95, "size": None},
    tvl1={"scales": 1, "warps": 1, "iterations": 2}, backend="cpu", clip_frames=USUAL,
)  # fmt: skip


class NumberNet:
    """A cube of 2 x 2 whose channel 0 is the mean of the frame; of stacks, which of its fields are in each."""

    def __init__(self):
        self.seen = []
        self.stacks = []

    def compute(self, clip):
        self.seen += clip.frames.tolist()
        if clip.fields is not None:
            self.stacks += clip.fields.tolist()
        values = np.zeros((len(clip.frames), 3, 2, 2), np.float16)
        if clip.fields is None:
            values[:, 0] = clip.pixels.reshape(len(clip.frames), -1).mean(axis=1)[:, None, None]
        return {"conv5_3": values, "fc7": values[:, :, 0, 0]}


def write_video(path, count):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25, (64, 48))
    for number in range(count):
        writer.write(np.full((48, 64, 3), 2 * number, np.uint8))
    writer.release()
    return path


class LookingNet:
    """Keeps the flow levels that it is shown."""

    def compute(self, clip):
        self.levels = clip.pixels
        return {"conv5_3": np.zeros((len(clip.frames), 3, 2, 2), np.float16)}


def test_the_camera_s_motion_is_taken_out_as_in_the_pipeline(tmp_path):
    """Of a video whose every pixel moves as the camera does nothing is left."""
    picture = cv2.resize(np.random.default_rng(0).integers(0, 256, (24, 40), np.uint8), None, fx=8, fy=8)
    writer = cv2.VideoWriter(str(tmp_path / "v.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 25, (160, 120))
    for number in range(3):
        writer.write(cv2.cvtColor(picture[20 : 20 + 120, 30 + 2 * number : 190 + 2 * number], cv2.COLOR_GRAY2BGR))
    writer.release()
    seen = {}
    for camera in ("none", "mean", "homography", "homography-still1"):
        net, recipe = LookingNet(), replace(RECIPE, camera=camera, tvl1={"scales": 4, "warps": 3, "iterations": 50})
        frames = FrameBuffer(tmp_path / "v.avi", recipe)
        frames.read_to(3)
        FeatureMaker(frames, {"temporal": net}, recipe, "cubes").make([1], 3)
        seen[camera] = np.array([dequantize(levels, 20.0) for levels in net.levels])
    assert abs(seen["none"][:, 0].mean() + 2) < 0.3
    middle = np.s_[:, :, 20:-20, 20:-20]
    grain = {camera: (quantize(fields, 20.0) != 128)[middle].mean() for camera, fields in seen.items()}
    assert grain["homography-still1"] < 0.01 < 0.2 < grain["homography"]
    for camera in ("mean", "homography"):
        assert np.abs(seen[camera][middle]).mean() < 0.3
    form = FlowFormat(**RECIPE.flow)
    for before, after in zip(seen["none"], seen["homography"], strict=True):
        images = steady_images(0, quantize(before, 20.0), form, "homography")[:2]
        np.testing.assert_array_equal(quantize(after, 20.0), [decode_grey(image) for image in images])


def recogniser(streams=("spatial",), attention="location"):
    torch.manual_seed(0)
    model = HAN(HANConfig(streams, 2, 3, 4, attention=attention, lstm_size=4, skip=2)).eval()
    trained = TrainedHAN(model, "han", ("dark", "bright"), "cubes", RECIPE)
    return Recogniser(SimpleNamespace(), trained, {stream: NumberNet() for stream in streams}, torch.device("cpu"))


@pytest.mark.parametrize("count", [1, 3, 16, 2 * USUAL])
def test_a_clip_of_usual_length_is_one_window_of_equally_spaced_frames(tmp_path, count):
    found = predict_video(write_video(tmp_path / "v.avi", count), recogniser())
    assert found.count == count
    (window,) = found.windows
    assert window.frames.tolist() == sample_frames(count, T).tolist()
    assert window.running.shape == (T, 2)
    np.testing.assert_allclose(window.running[-1], window.probabilities)
    assert found.timeline() == [Segment(0, count, int(window.probabilities.argmax()), window.probabilities.max())]


def test_the_running_probability_is_that_of_the_first_frames_alone(tmp_path):
    user = recogniser()
    (window,) = predict_video(write_video(tmp_path / "v.avi", 20), user).windows
    net = NumberNet()
    maker_frames = FrameBuffer(tmp_path / "v.avi", RECIPE)
    maker_frames.read_to(19)
    cubes = FeatureMaker(maker_frames, {"spatial": net}, RECIPE, "cubes").make(window.frames.tolist(), 20)["spatial"]
    for seen in range(1, T + 1):
        with torch.no_grad():
            logits = user.trained.model({"spatial": torch.from_numpy(cubes[:seen]).reshape(1, seen, 3, 4)}).logits
        np.testing.assert_allclose(window.running[seen - 1], torch.softmax(logits, 1)[0].numpy(), atol=1e-6)


@pytest.mark.parametrize("count", [2 * USUAL + 1, 60, 101])
def test_long_videos_slide_by_half_a_window_up_to_the_end(tmp_path, count):
    user = recogniser(("spatial", "temporal"))
    steps = []
    found = predict_video(write_video(tmp_path / "v.avi", count), user, on_frames=steps.append)
    samples = list(range(0, count, 5))  # (USUAL - 1) / (T - 1)
    assert user.nets["spatial"].seen == samples, "every sampled frame goes through a net once"
    starts = list(range(0, len(samples) - T + 1, T // 2))
    expected = [samples[s : s + T] for s in starts]
    if samples[-1] not in expected[-1]:
        expected.append(samples[-T:])
    assert [window.frames.tolist() for window in found.windows] == expected
    assert found.count == count == sum(steps)
    assert all(window.running is None for window in found.windows)


def test_stacks_of_a_long_video_are_those_of_the_whole_one(tmp_path, monkeypatch):
    """Also at its ends, where they are clamped, and whatever the chunks that the video is read in."""
    asked = []
    monkeypatch.setattr(FeatureMaker, "_solve_missing", lambda self, wanted: self._fields.update(
        {i: np.full((2, 48, 64), i, np.uint8) for i in wanted}
    ))  # fmt: skip

    class FieldNet(NumberNet):
        def compute(self, clip):
            asked.extend(clip.pixels[clip.fields][:, :, 0, 0, 0].tolist())
            return super().compute(clip)

    user = recogniser(("temporal",))
    user.nets["temporal"] = FieldNet()
    predict_video(write_video(tmp_path / "v.avi", 60), user)
    assert asked == stack_fields(range(0, 60, 5), STACK, 59).tolist()


def test_memory_holds_a_stretch_of_the_video_alone(tmp_path, monkeypatch):
    most = []
    read_to = FrameBuffer.read_to

    def counting(self, index):
        there = read_to(self, index)
        most.append(len(self._kept))
        return there

    monkeypatch.setattr(FrameBuffer, "read_to", counting)
    user = recogniser(("spatial", "temporal"))
    for count in (60, 120):
        most.clear()
        predict_video(write_video(tmp_path / f"{count}.avi", count), user)
        assert max(most) <= 2 * USUAL + 1


def window(frames, chances):
    return Window(np.array(frames), np.array(chances), None, np.full((len(frames), 4), 0.25, np.float16))


def test_each_window_answers_for_the_frames_nearest_to_its_middle():
    found = Prediction(40, (window([0, 20], [0.9, 0.1]), window([10, 30], [0.2, 0.8]), window([19, 39], [0.4, 0.6])))
    assert found.starts().tolist() == [0, 15, 25]
    first, second = found.timeline()
    assert (first.start, first.end, first.label, first.probability) == (0, 15, 0, 0.9)
    assert (second.start, second.end, second.label) == (15, 40, 1)
    assert second.probability == pytest.approx((10 * 0.8 + 15 * 0.6) / 25)
    np.testing.assert_allclose(found.probabilities, [0.5, 0.5])


def test_without_attention_cubes_are_averaged_as_in_the_store(tmp_path):
    torch.manual_seed(0)
    user = recogniser(attention="uniform")
    (found,) = predict_video(write_video(tmp_path / "v.avi", 20), user).windows
    assert np.isfinite(found.probabilities).all()
