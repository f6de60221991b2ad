"""Nets on fake CUDA tensors: nothing is left on the CPU, and the host never waits while it tells the GPU what to do."""

import numpy as np
import pytest
import torch

from han_core.baselines.two_stream.scoring import ScoringNet
from han_core.finetune.batches import StillImages
from han_core.finetune.samples import Sample
from han_core.nets.beside import PinnedMemory
from han_core.nets.clip_inputs import ClipFrames
from han_core.nets.crops import View
from han_core.nets.extract import CubeNet, _Returning
from han_core.nets.preprocess import Scale
from han_core.nets.slow_fusion.inputs import ClipWindows
from han_core.nets.slow_fusion.net import SlowFusion
from han_core.nets.slow_fusion.scoring import WindowScorer
from han_core.nets.torchvision_net import TorchvisionNet
from han_core.nets.vgg16 import VGG16
from tests.fake_cuda import fake_cuda

FRAMES = 5
ORDER = np.arange(FRAMES)


def clip(channels: int) -> ClipFrames:
    """Five frames, or stacks of ``channels / 2`` fields out of five."""
    if channels == 3:
        return ClipFrames(ORDER.astype(np.int32), ORDER, np.zeros((FRAMES, 60, 80, 3), np.uint8))
    fields = (ORDER[:, None] + np.arange(channels // 2)).clip(0, FRAMES - 1)
    return ClipFrames(ORDER.astype(np.int32), ORDER, np.zeros((FRAMES, 2, 60, 80), np.uint8), fields)


def net(kind: str, channels: int) -> VGG16 | TorchvisionNet:
    """With weights in main memory; to be made outside of fake tensors, which cannot be moved."""
    if kind == "vgg16":
        return VGG16(classes=3, in_channels=channels, fc_size=8)
    return TorchvisionNet("resnet18", size=64, in_channels=channels)  # batch normalisation has buffers


def cube_net(net: VGG16 | TorchvisionNet) -> CubeNet:
    if isinstance(net, VGG16):
        return CubeNet(net, "caffe", batch=2, precision="bfloat16", device="cuda")
    return CubeNet(net, Scale(size=64), layer="layer4", batch=2, device="cuda")


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("kind", ["vgg16", "resnet18"])
def test_cubes_are_computed_on_the_gpu_and_nothing_waits_for_it(kind, channels):
    made = net(kind, channels)
    with fake_cuda() as watch, cube_net(made) as cubes:
        watch.waits.clear()
        watch.launches.clear()
        coming = _Returning({}, PinnedMemory())
        cubes._launch(clip(channels), coming)
        maps = coming.targets[cubes.layers[0]]
        assert (maps.device.type, maps.dtype, len(maps)) == ("cpu", torch.float16, FRAMES)
        assert coming.targets["largest"].shape == (3, 2), "one check of all that a pass gives"
    assert watch.waits == []
    assert watch.launches, "or nothing was watched"


def test_a_net_that_stays_on_the_cpu_would_be_noticed():
    made = net("resnet18", 3)
    with fake_cuda(), cube_net(made) as cubes:
        cubes._net.model.bn1.running_mean = cubes._net.model.bn1.running_mean.cpu()
        with pytest.raises(RuntimeError, match=r"device"):
            cubes._launch(clip(3), _Returning({}, PinnedMemory()))


@pytest.mark.parametrize(("kind", "channels"), [("frames", 3), ("flow", 4)])
def test_scores_are_computed_on_the_gpu_and_nothing_waits_for_it(kind, channels):
    made = net("vgg16", channels)
    with fake_cuda() as watch, ScoringNet(made, "caffe", kind=kind, crops=10, batch=4, device="cuda") as scoring:
        watch.waits.clear()
        found, _ = scoring._launch(torch.zeros(2, channels, 60, 80, dtype=torch.uint8), PinnedMemory())
        assert (found.shape, found.device.type) == ((2, 3), "cpu")
    assert watch.waits == []


def test_windows_are_scored_on_the_gpu_and_nothing_waits_for_it():
    made = SlowFusion(classes=3, fc_size=8)
    with fake_cuda() as watch:
        fields = (np.arange(3)[:, None] + np.arange(10)).clip(0, 11)
        windows = ClipWindows(np.arange(3, dtype=np.int32), np.arange(3), fields, torch.zeros(12, 3, 170, 170))
        with WindowScorer(made, flip=True, batch=2, device="cuda") as scorer:
            watch.waits.clear()
            found, _ = scorer._launch(windows, PinnedMemory())
            assert (found.shape, found.device.type) == ((3, 3), "cpu")
    assert watch.waits == []
    assert watch.launches


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(("kind", "channels"), [("frames", 3), ("flow", 4)])
def test_training_batches_are_made_on_the_gpu_without_waiting_for_it(kind, channels, precision):
    with fake_cuda() as watch:
        sample = Sample(np.zeros((channels, 50, 60), np.uint8), View(0, 0, 50, 60, flip=True), 1)
        made = StillImages(kind, "caffe", precision)
        images = made([sample.pixels] * 3, [sample.view] * 3, torch.device("cuda"))
        assert images.dtype == torch.float32
        assert (images.shape, images.device.type) == ((3, channels, 224, 224), "cuda")
    assert watch.waits == []
