"""A clip through a net: which frames and fields it sees, at what size, and where the maps are pooled."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from han_core.baselines.tdd.clip_images import ClipImages, ImageBatch, input_size, net_input
from han_core.baselines.tdd.pooling_net import PoolingNet, served_frames
from han_core.baselines.tdd.tracks import Tracks, TracksError
from han_core.clipfile.trailer import ClipFileError
from han_core.clipfile.writer import ClipFileWriter
from han_core.nets.preprocess import spatial_input, temporal_input
from tests.small_net import SmallVGG16

HEIGHT, WIDTH, FRAMES = 48, 64, 20


def clip_file(path: Path, kind: str, images: dict[str, np.ndarray]) -> Path:
    with ClipFileWriter(path, kind=kind, clip=path.stem, fingerprint="f" * 64) as file:
        for name, values in images.items():
            appender = file.images(name)
            for value in values:
                appender.append(cv2.imencode(".png", np.ascontiguousarray(value))[1])
    return path


def noise(*shape: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


@pytest.fixture
def rgb(tmp_path) -> tuple[np.ndarray, ClipImages]:
    values = noise(FRAMES, HEIGHT, WIDTH, 3)
    return values, ClipImages(clip_file(tmp_path / "frames.h5", "frames", {"frames": values[..., ::-1]}))


@pytest.fixture
def flow(tmp_path) -> tuple[np.ndarray, ClipImages]:
    values = noise(FRAMES - 1, 2, HEIGHT, WIDTH)
    path = clip_file(tmp_path / "flow.h5", "flow", {"x": values[:, 0], "y": values[:, 1]})
    return values, ClipImages(path, stack=3)


def some_tracks(count=30, length=15, frames=FRAMES, seed=3) -> Tracks:
    random = np.random.default_rng(seed)
    points = random.uniform((0, 0), (WIDTH - 1, HEIGHT - 1), (count, length, 2)).astype(np.float32)
    return Tracks(points, random.integers(0, frames - length + 1, count), WIDTH, HEIGHT)


def expected(net, inputs: torch.Tensor, tracks: Tracks, layer: str, stride: int) -> dict[str, np.ndarray]:
    """All maps at once, normalised and then summed, in float64. ``inputs``: one for each frame of the clip."""
    maps = net.extract(inputs, [layer])[layer].double().permute(0, 2, 3, 1).numpy()
    found = {}
    for name, axes in (("st", (0, 1, 2)), ("ch", 3)):
        largest = maps.max(axes, keepdims=True)
        values = maps / np.where(largest > 0, largest, 1)
        sums = np.zeros((len(tracks), maps.shape[3]))
        for i in range(len(tracks)):
            for step in range(tracks.length):
                x, y = np.floor((tracks.points[i, step].astype(float) + 0.5) / stride).astype(int)
                sums[i] += values[tracks.start[i] + step, y, x]
        found[f"{layer}_{name}"] = np.sqrt(sums)
    return found


def close(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    assert found.keys() == wanted.keys()
    for name, values in wanted.items():
        assert values.std(0).max() > 0.05  # tracks differ by more than the tolerance
        np.testing.assert_allclose(found[name], values, rtol=1e-4, atol=1e-4)


def test_frames_come_in_rgb_and_in_batches(rgb):
    values, images = rgb
    assert (images.frames, images.height, images.width) == (FRAMES, HEIGHT, WIDTH)
    found = list(images.batches(range(0, FRAMES, 3), 3))
    assert [list(batch.frames) for batch in found] == [[0, 3, 6], [9, 12, 15], [18]]
    np.testing.assert_array_equal(np.concatenate([batch.pixels for batch in found]), values[::3])
    assert all(batch.fields is None for batch in found)


@pytest.mark.parametrize("step", [1, 2])
def test_a_stack_begins_at_its_frame_and_the_last_field_is_repeated(flow, step):
    values, images = flow
    assert images.frames == FRAMES
    stacks = [
        (frame, batch.pixels[fields])
        for batch in images.batches(range(0, FRAMES, step), 4)
        for frame, fields in zip(batch.frames, batch.fields, strict=True)
    ]
    assert [frame for frame, _ in stacks] == list(range(0, FRAMES, step))
    for frame, stack in stacks:
        np.testing.assert_array_equal(stack, values[np.minimum(frame + np.arange(3), FRAMES - 2)])


def test_a_field_of_two_batches_is_decoded_once(flow, monkeypatch):
    _, images = flow
    decoded, decode = [], images._reader.decode
    monkeypatch.setattr(images._reader, "decode", lambda *a, **k: decoded.append(a[1:3]) or decode(*a, **k))
    list(images.batches(range(FRAMES), 4))
    assert sorted(decoded) == [(name, i) for name in ("x", "y") for i in range(FRAMES - 1)]


def test_sides_of_the_input_are_multiples_of_16():
    assert input_size(240, 320) == (240, 320)
    assert input_size(240, 320, 0.5) == (128, 160)
    assert input_size(240, 320, 2) == (480, 640)
    assert input_size(247, 329) == (240, 336)
    assert input_size(9, 7, 0.5) == (16, 16)


@pytest.mark.parametrize("convention", ["caffe", "torchvision"])
def test_the_input_is_the_nets_own_at_another_shape(convention):
    """Of square images and sizes it is what the cubes are made of."""
    frames, levels, fields = noise(2, 50, 50, 3), noise(4, 2, 50, 50), np.array([[0, 1], [2, 3], [3, 3]])
    for size in (64, 32):
        found = net_input(ImageBatch([0, 1], frames), convention, (size, size))
        torch.testing.assert_close(found, spatial_input(frames, convention, size=size))
        found = net_input(ImageBatch([0, 1, 2], levels, fields), convention, (size, size))
        torch.testing.assert_close(found, temporal_input(levels, fields, convention, size=size))


def test_flow_vectors_grow_with_the_image():
    levels = np.full((1, 2, 16, 32), 137, np.uint8)
    levels[:, 1] = 107
    found = net_input(ImageBatch([0], levels, np.array([[0]])), "caffe", (48, 64))
    torch.testing.assert_close(found[0, 0], torch.full((48, 64), 2 * 9.5))
    torch.testing.assert_close(found[0, 1], torch.full((48, 64), 3 * -20.5))


@pytest.mark.parametrize("batch", [20, 3])
def test_spatial_maps_are_pooled(rgb, batch):
    values, images = rgb
    net, tracks = SmallVGG16(seed=5), some_tracks()
    inputs = net_input(ImageBatch(range(FRAMES), values), "caffe", (HEIGHT, WIDTH))
    with PoolingNet(net, "caffe", layers=["conv4_3", "conv5_3"], batch=batch) as pooling:
        found = pooling.descriptors(images, tracks)
    assert all(descriptors.dtype == np.float32 for descriptors in found.values())
    close(found, expected(net, inputs, tracks, "conv4_3", 8) | expected(net, inputs, tracks, "conv5_3", 16))


def test_temporal_maps_are_pooled(flow):
    values, images = flow
    net, tracks = SmallVGG16(in_channels=6, seed=5), some_tracks()
    fields = np.minimum(np.arange(FRAMES)[:, None] + np.arange(3), FRAMES - 2)
    inputs = net_input(ImageBatch(range(FRAMES), values, fields), "torchvision", (HEIGHT, WIDTH))
    with PoolingNet(net, "torchvision", layers=["conv4_3"], batch=7) as pooling:
        close(pooling.descriptors(images, tracks), expected(net, inputs, tracks, "conv4_3", 8))


def test_points_of_frames_between_use_the_nearest_map(rgb):
    values, images = rgb
    net, tracks = SmallVGG16(seed=5), some_tracks()
    nearest = np.minimum((np.arange(FRAMES) + 2) // 5 * 5, 15)  # 20 frames: 0, 5, 10, 15
    inputs = net_input(ImageBatch(range(FRAMES), values[nearest]), "caffe", (HEIGHT, WIDTH))
    with PoolingNet(net, "caffe", layers=["conv4_3"], batch=3) as pooling:
        close(pooling.descriptors(images, tracks, step=5), expected(net, inputs, tracks, "conv4_3", 8))


@pytest.mark.parametrize("step", [1, 2, 3, 4, 5, 100])
@pytest.mark.parametrize("frames", [1, 7, 20])
def test_each_frame_is_served_by_the_nearest_that_is_looked_at(frames, step):
    looked_at = np.arange(0, frames, step)
    served = list(served_frames(frames, step))
    assert [frame for one in served for frame in one] == list(range(frames))
    for frame, one in zip(looked_at, served, strict=True):
        for other in one:
            assert abs(looked_at - other).argmin() == np.flatnonzero(looked_at == frame)[0]  # the earlier of equals


MEAN = torch.tensor([123.68, 116.779, 103.939])[:, None, None]


class Strided(nn.Module):
    """A net whose layers are 1x1 identities at a stride: cell j has the value 0..255 of pixel stride * j."""

    def __init__(self, **strides: int) -> None:
        super().__init__()
        self.strides = strides

    def extract(self, images, layers):
        pixels = images + MEAN
        return {layer: pixels[..., :: self.strides[layer], :: self.strides[layer]] for layer in layers}


def test_pixels_that_a_strided_identity_keeps_are_found_at_floor_of_x_over_the_stride(tmp_path):
    """Each pixel tells its place: red its column, green its row, blue 240 always, the most there is."""
    column, row = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    picture = np.stack([column, row, np.full_like(row, 240)], axis=2).astype(np.uint8)
    path = clip_file(tmp_path / "a.h5", "frames", {"frames": np.repeat(picture[None, ..., ::-1], 15, axis=0)})
    points = np.stack([column.ravel(), row.ravel()], axis=1)[::7, None].repeat(15, axis=1).astype(np.float32)
    tracks = Tracks(points, np.zeros(len(points), int), WIDTH, HEIGHT)
    with PoolingNet(Strided(s4=4, s16=16), "caffe", layers=["s4", "s16"]) as pooling:
        found = pooling.descriptors(ClipImages(path), tracks)
    for name, stride in (("s4", 4), ("s16", 16)):
        wanted = 15 * (points[:, 0] // stride * stride) / 240
        np.testing.assert_allclose(found[f"{name}_ch"][:, :2] ** 2, wanted, rtol=1e-5, atol=1e-5)


def smooth(count: int, scale: int) -> np.ndarray:
    """Pictures (count, height, width, 3) uint8 without fine detail, at ``scale`` times the size."""
    coarse = np.random.default_rng(8).integers(0, 256, (count, HEIGHT // 16, WIDTH // 16, 3), np.uint8)
    size = (scale * WIDTH, scale * HEIGHT)
    return np.stack([cv2.resize(one, size, interpolation=cv2.INTER_CUBIC) for one in coarse])


def test_a_picture_scaled_by_2_and_a_net_that_halves_it_agree(tmp_path):
    once, twice = (
        ClipImages(clip_file(tmp_path / f"{scale}.h5", "frames", {"frames": smooth(16, scale)})) for scale in (1, 2)
    )
    tracks = some_tracks(frames=16)
    doubled = Tracks(2 * tracks.points + 0.5, tracks.start, 2 * WIDTH, 2 * HEIGHT)
    with PoolingNet(SmallVGG16(seed=5), "caffe", layers=["conv4_3"]) as pooling:
        wanted = pooling.descriptors(once, tracks)
        found = pooling.descriptors(twice, doubled, factor=0.5)
    for name, values in wanted.items():
        assert np.linalg.norm(found[name] - values) < 0.2 * np.linalg.norm(values - values.mean(0))


def test_two_sizes_of_the_input_agree_where_the_net_does_not_mind(tmp_path):
    images = ClipImages(clip_file(tmp_path / "a.h5", "frames", {"frames": smooth(16, 1)}))
    found = {}
    for factor in (1, 2):
        with PoolingNet(Strided(map=8 * factor), "caffe", layers=["map"]) as pooling:
            found[factor] = pooling.descriptors(images, some_tracks(frames=16), factor=factor)
    for name, values in found[1].items():
        assert np.linalg.norm(found[2][name] - values) < 0.05 * np.linalg.norm(values)


def test_a_clip_does_not_depend_on_its_neighbours(tmp_path):
    images = [
        ClipImages(clip_file(tmp_path / f"{n}.h5", "frames", {"frames": noise(n, HEIGHT, WIDTH, 3, seed=n)}))
        for n in (16, 21)
    ]
    tracks = [some_tracks(frames=one.frames) for one in images]
    with PoolingNet(SmallVGG16(), "caffe", layers=["conv5_3"]) as pooling, ThreadPoolExecutor(4) as pool:
        alone = [pooling.descriptors(*one) for one in zip(images, tracks, strict=True)]
        together = list(pool.map(pooling.descriptors, images * 2, tracks * 2))
    for i, found in enumerate(together):
        for name, values in found.items():
            np.testing.assert_array_equal(values, alone[i % 2][name])


def test_bfloat16_is_close_to_float32(rgb):
    _, images = rgb
    found = []
    for precision in ("float32", "bfloat16"):
        with PoolingNet(SmallVGG16(), "caffe", layers=["conv5_3"], precision=precision) as pooling:
            found.append(pooling.descriptors(images, some_tracks())["conv5_3_st"])
    difference = np.linalg.norm(found[1] - found[0]) / np.linalg.norm(found[0])
    assert 0 < difference < 0.05


def test_tracks_beyond_the_clip_are_an_error(rgb):
    _, images = rgb
    tracks = Tracks(np.zeros((1, 15, 2), np.float32), np.array([FRAMES - 14]), WIDTH, HEIGHT)
    with PoolingNet(SmallVGG16(), "caffe", layers=["conv5_3"]) as pooling, pytest.raises(TracksError, match="19"):
        pooling.descriptors(images, tracks)


def test_damaged_images_are_an_error(tmp_path):
    path = clip_file(tmp_path / "a.h5", "frames", {"frames": noise(20, HEIGHT, WIDTH, 3)})
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with PoolingNet(SmallVGG16(), "caffe", layers=["conv4_3"]) as pooling, pytest.raises(ClipFileError, match=r"a\.h5"):
        pooling.descriptors(ClipImages(path), some_tracks())
    with pytest.raises(ClipFileError, match=r"missing\.h5"):
        ClipImages(tmp_path / "missing.h5")


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["rgb", "flow"])
def test_a_gpu_gives_what_the_cpu_gives_and_the_same_bytes_again(gpu, request, monkeypatch, kind):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # what differs is the order of sums alone
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    _, images = request.getfixturevalue(kind)
    found = []
    for device in ("cpu", gpu, gpu):
        net = SmallVGG16(seed=5, in_channels=3 if kind == "rgb" else 6)
        with PoolingNet(net, "caffe", layers=["conv4_3", "conv5_3"], device=device) as pooling:
            found.append(pooling.descriptors(images, some_tracks(), step=2))
    for name, values in found[1].items():
        np.testing.assert_allclose(values, found[0][name], rtol=1e-3, atol=1e-3)  # roots of sums of small values
        np.testing.assert_array_equal(found[2][name], values)
