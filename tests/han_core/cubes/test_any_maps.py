"""Maps that are not VGG-16's: of any size, not square, with negative numbers and hardly any zeros."""

import numpy as np
import pytest
import torch

from han_core.clipfile.trailer import read_trailer
from han_core.clips import Clip
from han_core.cubes.cubefile import read_cube, write_cubes
from han_core.cubes.moments import glimpse_statistics
from han_core.cubes.statistics import store_statistics
from han_core.cubes.store import CubeStore
from han_core.han.config import HANConfig
from han_core.han.model import HAN

SHAPES = [(24, 7, 7), (5, 3, 8), (6, 15, 17), (6, 16, 16), (3, 17, 19)]  # 255 and 256 regions: the types' bounds


@pytest.fixture(params=SHAPES, ids=lambda shape: "x".join(map(str, shape)))
def stored(request, tmp_path):
    """Two clips of three frames as a store, and their dense cubes."""
    rng = np.random.default_rng(0)
    cubes, clips = [], []
    for n, name in enumerate("ab"):
        cube = rng.normal(size=(3, *request.param)).astype(np.float16)
        cube[0, 0, 0, :3] = -0.0, 6e-8, -65504
        cube[1, 1] = 0
        cubes.append(cube)
        clips.append(Clip(name, f"{name}.avi", "x", n, name, {1: "train"}))
        path = tmp_path / "x" / f"{name}.h5"
        path.parent.mkdir(exist_ok=True)
        values = {"layer4": cube, "fc7": np.ones((3, 4), np.float16)}
        facts = {"layer": "layer4", "fc": "fc7", "values": values, "attributes": {}}
        write_cubes(path, clip=name, fingerprint="f" * 64, frames=np.arange(3, dtype=np.int32), **facts)
    return CubeStore({"spatial": tmp_path}, clips), cubes, sorted((tmp_path / "x").glob("*.h5"))


def bits(values):
    return np.asarray(values).view(np.uint16)


def test_they_come_back_bit_for_bit(stored):
    store, cubes, paths = stored
    frames, channels, *sides = cubes[0].shape
    assert store.shapes == {"spatial": (frames, channels, np.prod(sides))}
    sparse = store.load().batch([1, 0])["spatial"]
    for n, (path, cube) in enumerate(zip(paths, cubes, strict=True)):
        assert read_cube(path).shape == cube.shape
        np.testing.assert_array_equal(bits(read_cube(path)), bits(cube))
        flat = cube.reshape(frames, channels, -1)
        np.testing.assert_array_equal(bits(store.read(n)["spatial"]), bits(flat))
        np.testing.assert_array_equal(sparse.dense()[1 - n].numpy(), flat.astype(np.float32))


def test_their_statistics_are_those_of_the_dense_numbers(stored):
    store, cubes, paths = stored
    found = store_statistics(map(read_trailer, paths))
    dense = np.stack(cubes)
    assert found.shape == cubes[0].shape
    assert found.zeros == pytest.approx((bits(dense) == 0).mean())
    assert found.raw_bytes == dense.nbytes
    flat = np.clip(dense.reshape(*dense.shape[:3], -1).astype(np.float64), -65504, 65504)
    mean, deviation = glimpse_statistics(store)
    glimpses, regions = flat.mean(3), flat.shape[3]
    energy = (np.square(flat).mean((0, 1, 3)) - np.square(glimpses.mean((0, 1)))) / regions
    np.testing.assert_allclose(mean[0], glimpses.mean((0, 1)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(deviation[0], np.sqrt(np.maximum(glimpses.var((0, 1)), energy)), rtol=1e-3)


def test_han_looks_at_them_as_at_dense_ones(stored):
    store, cubes, _ = stored
    dense = torch.from_numpy(np.stack(cubes)).flatten(3).float()
    torch.manual_seed(0)
    model = HAN(HANConfig(("spatial",), 2, dense.shape[2], dense.shape[3], lstm_size=4, skip=1)).double().eval()
    found = []
    for values in (store.batch([0, 1])["spatial"], dense.double()):
        output = model({"spatial": values})
        model.zero_grad()
        output.logits[:, 0].sum().backward()
        found.append((output.logits, output.attention, [p.grad for p in model.parameters() if p.grad is not None]))
    assert found[0][1].shape == (2, 3, dense.shape[3])
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-5, check_dtype=False)
