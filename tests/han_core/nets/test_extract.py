"""Cubes of a clip: which frames, in which order, and that they are what the net gives."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from han_core.cache.verify import verify_clip_file
from han_core.clipfile.reader import ClipFile
from han_core.clipfile.writer import ClipFileWriter
from han_core.cubes.cubefile import read_cube, write_cubes
from han_core.devices import TOLERANCE, resolve_precision
from han_core.errors import ClipError
from han_core.nets import extract as module
from han_core.nets.clip_inputs import ClipFrames, read_clip_frames
from han_core.nets.extract import CubeNet
from han_core.nets.preprocess import spatial_input, temporal_input
from han_core.nets.vgg16 import VGG16
from han_core.nets.weights import initial_net


def clip_file(path: Path, kind: str, images: dict[str, list[np.ndarray]]) -> Path:
    with ClipFileWriter(path, kind=kind, clip=path.stem, fingerprint="f" * 64) as file:
        for name, values in images.items():
            appender = file.images(name)
            for value in values:
                appender.append(cv2.imencode(".png", value)[1])
    return path


@pytest.fixture
def frames_file(tmp_path) -> Path:
    """Seven frames; frame i is (10 i, 0, 1) in RGB."""
    bgr = [np.full((12, 16, 3), (1, 0, 10 * i), np.uint8) for i in range(7)]
    return clip_file(tmp_path / "frames.h5", "frames", {"frames": bgr})


@pytest.fixture
def flow_file(tmp_path) -> Path:
    """Six fields, so seven frames; x is i, y is 100 + i."""
    fields = {n: [np.full((12, 16), o + i, np.uint8) for i in range(6)] for n, o in (("x", 0), ("y", 100))}
    return clip_file(tmp_path / "flow.h5", "flow", fields)


@pytest.fixture(autouse=True)
def small_images(monkeypatch):
    """Nothing here depends on the size of the net's input."""
    for name, whole in (("spatial_input", spatial_input), ("temporal_input", temporal_input)):
        monkeypatch.setattr(module, name, partial(whole, size=96))


def net(channels: int = 3) -> VGG16:
    return initial_net("random", classes=2, fc_size=8, in_channels=channels)


def noise(count: int, channels_last: bool = True) -> np.ndarray:
    shape = (count, 20, 20, 3) if channels_last else (count, 2, 20, 20)
    return np.random.default_rng(count).integers(0, 256, shape, dtype=np.uint8)


def test_frames_are_the_equally_spaced_ones_in_rgb(frames_file):
    clip = read_clip_frames(frames_file, 4)
    assert clip.frames.tolist() == [0, 2, 4, 6]
    assert clip.frames.dtype == np.int32
    assert clip.pixels[clip.order, 0, 0].tolist() == [[0, 0, 1], [20, 0, 1], [40, 0, 1], [60, 0, 1]]


def test_a_short_clip_is_read_once_and_repeated(frames_file):
    clip = read_clip_frames(frames_file, 25)
    assert len(clip) == 7
    assert (clip.pixels[clip.order, 0, 0, 0] == 10 * clip.frames).all()
    assert len(clip.order) == 25


def test_both_streams_look_at_the_same_frames(frames_file, flow_file):
    for count in (1, 3, 25):
        spatial, temporal = read_clip_frames(frames_file, count), read_clip_frames(flow_file, count, stack=4)
        assert spatial.frames.tolist() == temporal.frames.tolist()


def test_stacks_hold_the_fields_around_each_frame(flow_file):
    clip = read_clip_frames(flow_file, 3, stack=4)  # frames 0, 3, 6
    x = clip.pixels[clip.fields, 0, 5, 5][clip.order]
    assert x.tolist() == [[0, 0, 0, 1], [1, 2, 3, 4], [4, 5, 5, 5]]
    assert (clip.pixels[clip.fields, 1, 5, 5][clip.order] == x + 100).all()
    assert len(clip.pixels) == 6  # each field once


def test_cubes_are_what_the_net_gives_in_the_order_of_the_frames():
    model, pixels = net(), noise(3)
    clip = ClipFrames(np.arange(5, dtype=np.int32), np.array([0, 0, 1, 2, 2]), pixels)
    expected = model.extract(spatial_input(pixels, "caffe", size=96), ("pool5", "fc6"))
    with CubeNet(model, "caffe", layer="pool5", fc="fc6", batch=2) as cubes:
        found = cubes.compute(clip)
    for layer, shape in (("pool5", (5, 512, 3, 3)), ("fc6", (5, 8))):
        assert found[layer].shape == shape
        assert found[layer].dtype == np.float16
        np.testing.assert_allclose(found[layer], expected[layer][clip.order], rtol=2e-3, atol=2e-3)
    assert found["pool5"].any()


def test_temporal_cubes_do_not_depend_on_how_passes_are_cut():
    model, levels = net(4), noise(4, channels_last=False)
    fields = np.array([[0, 1], [1, 2], [3, 3]])
    clip = ClipFrames(np.arange(3, dtype=np.int32), np.arange(3), levels, fields)
    expected = model.extract(temporal_input(levels, fields, "caffe", size=96), ("conv5_3", "fc7"))
    with CubeNet(model, "caffe", batch=2) as cubes:
        found = cubes.compute(clip)
    np.testing.assert_allclose(found["conv5_3"], expected["conv5_3"], rtol=2e-3, atol=2e-3)


def test_a_clip_does_not_depend_on_its_neighbours():
    clips = [ClipFrames(np.arange(n, dtype=np.int32), np.arange(n), noise(n)) for n in (1, 2)]
    with CubeNet(net(), "caffe", layer="pool5") as cubes, ThreadPoolExecutor(4) as pool:
        alone = [cubes.compute(clip)["pool5"] for clip in clips]
        parallel = list(pool.map(lambda clip: cubes.compute(clip)["pool5"], clips * 2))
    for i, found in enumerate(parallel):
        assert (found == alone[i % 2]).all()


@pytest.mark.parametrize("value", [1e6, float("nan"), float("inf")])
def test_what_float16_cannot_hold_is_an_error(value):
    model = net()
    with torch.no_grad():
        model.features[28].bias[7] = value
    clip = ClipFrames(np.zeros(1, np.int32), np.zeros(1, int), noise(1))
    with CubeNet(model, "caffe") as cubes, pytest.raises(ClipError, match=r"conv5_3 reaches .*float16 ends at 65504"):
        cubes.compute(clip)


def test_bfloat16_is_close_to_float32():
    clip = ClipFrames(np.zeros(1, np.int32), np.zeros(1, int), noise(1))
    found = []
    for precision in ("float32", "bfloat16"):
        with CubeNet(net(), "torchvision", precision=precision) as cubes:
            found.append(cubes.compute(clip)["conv5_3"].astype(np.float32))
    difference = np.linalg.norm(found[1] - found[0]) / np.linalg.norm(found[0])
    assert 0 < difference < 0.05


def test_precision_auto_asks_the_hardware(monkeypatch):
    cpu = torch.device("cpu")
    assert resolve_precision("float16", cpu) == "float16"
    for has, expected in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda has=has: {"avx512_bf16": has}, raising=False)
        assert resolve_precision("auto", cpu) == expected


def test_files_hold_cubes_fc_and_frames(tmp_path):
    values = {
        "conv5_3": np.random.default_rng(0).random((9, 4, 2, 2)).astype(np.float16),
        "fc7": np.ones((9, 8), np.float16),
    }
    facts = {"clip": "a", "fingerprint": "c" * 64, "layer": "conv5_3", "fc": "fc7", "values": values}
    for name in ("a.h5", "b.h5"):
        frames = np.arange(9, dtype=np.int32)
        write_cubes(tmp_path / name, **facts, frames=frames, attributes={"stream": "spatial", "net": "n"})
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    verify_clip_file(tmp_path / "a.h5")
    with ClipFile(tmp_path / "a.h5") as file:
        assert (file.kind, file.clip, file.fingerprint) == ("cubes", "a", "c" * 64)
        assert file.attributes == {"stream": "spatial", "net": "n", "layer": "conv5_3", "fc": "fc7"}
        assert (read_cube(file.path) == values["conv5_3"]).all()
        assert (file.array("fc7") == values["fc7"]).all()
        assert file.array("frames").tolist() == list(range(9))
        assert read_cube(file.path).dtype == np.float16
        assert "32015" in file._h5()["cubes/values"]._filters  # zstd


def test_what_is_done_beside_a_gpu_gives_the_same():
    """The way of a clip to a GPU and back, here with copies that go nowhere: several clips in work, each in the memory
    of its thread, passes that are cut, clips with repeated frames."""
    random = np.random.default_rng(1)
    clips = []
    for frames in (3, 4, 2):
        fields = np.sort(random.integers(0, frames, (frames, 2)), axis=1)
        order = np.arange(frames + 1).clip(0, frames - 1)
        clips.append(ClipFrames(order.astype(np.int32), order, noise(frames, channels_last=False), fields))
    spatial = [ClipFrames(clip.frames, clip.order, noise(len(clip))) for clip in clips]
    for channels, given in ((4, clips), (3, spatial)):
        with CubeNet(net(channels), "caffe", layer="pool2", fc="conv1_2", batch=2) as cubes:
            expected = [cubes.compute(clip) for clip in given]
            cubes._beside = True

            def through(clip: ClipFrames, cubes: CubeNet = cubes) -> dict[str, np.ndarray]:
                pixels = cubes.memory(clip.pixels.shape)
                pixels[...] = clip.pixels
                return cubes.compute(replace(clip, pixels=pixels))

            with ThreadPoolExecutor(3) as pool:
                found = list(pool.map(through, given * 2))
        for number, one in enumerate(found):
            for layer, values in expected[number % len(given)].items():
                np.testing.assert_array_equal(one[layer], values)


def test_beside_a_gpu_too_what_float16_cannot_hold_is_an_error():
    model = net()
    with torch.no_grad():
        model.features[28].bias[7] = float("nan")
    clip = ClipFrames(np.zeros(1, np.int32), np.zeros(1, int), noise(1))
    with CubeNet(model, "caffe") as cubes:
        cubes._beside = True
        with pytest.raises(ClipError, match=r"conv5_3 reaches nan, but float16 ends at"):
            cubes.compute(clip)


@pytest.mark.gpu
@pytest.mark.parametrize("channels", [3, 4])
def test_on_a_gpu_cubes_are_the_cpus(gpu, channels):
    """Within 1e-3 of the largest value (``han_core.devices.TOLERANCE``), of which float16 takes half; and the same
    each time, whatever else is in work."""
    clips = []
    for frames in (3, 7, 5):
        fields = np.arange(frames)[:, None] + np.array([[-1, 0]])
        given = {"fields": fields.clip(0)} if channels == 4 else {}
        clips.append(
            ClipFrames(np.arange(frames, dtype=np.int32), np.arange(frames), noise(frames, not given), **given)
        )
    with CubeNet(net(channels), "caffe", batch=4) as cubes:
        expected = [cubes.compute(clip) for clip in clips]
    with CubeNet(net(channels), "caffe", batch=4, device=gpu) as cubes, ThreadPoolExecutor(4) as pool:
        alone = [cubes.compute(clip) for clip in clips]
        together = list(pool.map(cubes.compute, clips * 4))
    for number, one in enumerate(together):
        for layer, values in expected[number % 3].items():
            np.testing.assert_array_equal(one[layer], alone[number % 3][layer])
            largest = np.abs(values.astype(np.float32)).max()
            np.testing.assert_allclose(one[layer].astype(np.float32), values, rtol=0, atol=TOLERANCE * largest)
