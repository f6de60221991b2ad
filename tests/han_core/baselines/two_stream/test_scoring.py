"""The two-stream ConvNets' test protocol, against crops that are cut, mirrored and averaged by hand."""

from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from han_core.baselines.two_stream.scorefile import read_scores, write_scores
from han_core.baselines.two_stream.scoring import ScoringNet
from han_core.nets.preprocess import normalize_frames
from tests.small_net import SmallVGG16


def noise(channels: int, height: int, width: int, seed: int) -> np.ndarray:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)
    return np.ascontiguousarray(cv2.GaussianBlur(values, (9, 9), 3).transpose(2, 0, 1))


def by_hand(net: SmallVGG16, image: np.ndarray, flow: bool, mirrored: bool, crops: list[tuple[int, int]]) -> np.ndarray:
    """Shorter side 128: crops of 112, enlarged twice, flow vectors with them."""
    found = []
    for mirror in (False, True)[: 1 + mirrored]:
        for top, left in crops:
            values = image[:, top : top + 112, left : left + 112].astype(np.float64)
            values = values - 127.5 if flow else values - np.array([123.68, 116.779, 103.939])[:, None, None]
            if flow:
                values *= 2
            if mirror:
                values = values[:, :, ::-1].copy()
                if flow:
                    values[0::2] *= -1
            one = torch.from_numpy(values).float()[None]
            one = F.interpolate(one, (224, 224), mode="bilinear", antialias=True)
            with torch.no_grad():
                found.append(net.eval()(one)[0].softmax(0).numpy())
    return np.mean(found, axis=0)


CORNERS = [(0, 0), (0, 58), (16, 0), (16, 58)]
CENTRE = (8, 29)


@pytest.mark.parametrize("flow", [False, True])
@pytest.mark.parametrize("crops", [1, 5, 10])
def test_probabilities_are_the_mean_over_the_crops(flow, crops):
    channels = 4 if flow else 3
    images = [noise(channels, 128, 170, seed) for seed in (1, 2)]
    net = SmallVGG16(classes=3, in_channels=channels, seed=3)
    net.classifier[6].weight.data *= 0.02  # small differences count: nothing is near 0 or 1
    expected = [
        by_hand(net, image, flow, crops == 10, [CENTRE] if crops == 1 else [*CORNERS, CENTRE]) for image in images
    ]
    for batch, as_on_a_gpu in ((25, False), (3, False), (3, True)):  # there crops are not cut: a product takes them out
        with ScoringNet(net, "caffe", kind="flow" if flow else "frames", crops=crops, batch=batch) as scoring:
            scoring._beside = as_on_a_gpu
            found = scoring.probabilities(images)
        np.testing.assert_allclose(found, expected, atol=2e-4)
    assert np.ptp(expected, axis=0).max() > 1e-3  # the images differ by more than the tolerance


@pytest.mark.parametrize("batch", [25, 1])
def test_whole_images_are_squeezed_into_a_square(batch):
    images = [noise(3, 128, 170, seed) for seed in (1, 2)]
    net = SmallVGG16(classes=3, seed=3)
    net.classifier[6].weight.data *= 0.02
    pixels = [cv2.resize(image.transpose(1, 2, 0).astype(np.float32), (224, 224)) for image in images]
    whole = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2)
    with ScoringNet(net, "caffe", kind="frames", crops="whole", batch=batch) as scoring:
        found = scoring.probabilities(images)
        with torch.no_grad():
            expected = net(normalize_frames(whole, "caffe")).softmax(1)
    np.testing.assert_allclose(found, expected, atol=2e-4)  # both sides grow, where OpenCV's rescaling is ours
    with ScoringNet(net, "caffe", kind="frames", crops=1) as scoring:
        assert np.abs(scoring.probabilities(images) - found).max() > 1e-3


def test_a_file_of_scores_is_read_as_their_mean(tmp_path):
    path, values = tmp_path / "s.h5", np.array([[0.2, 0.8], [0.6, 0.4]], np.float32)
    write_scores(path, clip="a", fingerprint="e" * 64, frames=np.arange(2), probabilities=values, attributes={})
    np.testing.assert_allclose(read_scores(path), [0.4, 0.6])


@pytest.mark.gpu
@pytest.mark.parametrize(("kind", "channels"), [("frames", 3), ("flow", 4)])
def test_on_a_gpu_the_scores_are_the_cpus(gpu, kind, channels):
    images = [noise(channels, 128, 170, seed) for seed in range(3)]
    found = []
    for device in ("cpu", gpu):
        net = SmallVGG16(classes=3, in_channels=channels, seed=3)
        with ScoringNet(net, "caffe", kind=kind, batch=4, device=device) as scoring, ThreadPoolExecutor(3) as pool:
            alone, *others = pool.map(scoring.probabilities, [images] * 4)
            assert all((other == alone).all() for other in others)
        found.append(alone)
    np.testing.assert_allclose(*found, atol=1e-3)
