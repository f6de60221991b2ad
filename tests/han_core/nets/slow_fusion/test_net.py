"""The layers of Slow Fusion, and what of a clip they see."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from han_core.nets.slow_fusion.net import LAYERS, SlowFusion, local_response_norm
from tests.small_slow_fusion import SmallSlowFusion


def clip(seed: int = 0, count: int = 1) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(0, 60, (count, 3, 10, 170, 170)).astype(np.float32))


@pytest.fixture(scope="module")
def net() -> SmallSlowFusion:
    return SmallSlowFusion().eval()


@torch.no_grad()
def scores(net: SlowFusion, clips: torch.Tensor) -> torch.Tensor:
    return net(clips)


def test_local_response_norm_is_the_papers_sum_over_five_channels():
    """Krizhevsky et al. (2012), section 3.3, in float64; values so large that alpha matters."""
    x = np.random.default_rng(1).normal(0, 200, (2, 7, 1, 3, 2))
    expected = np.empty_like(x)
    for channel in range(7):
        near = x[:, max(0, channel - 2) : min(6, channel + 2) + 1]
        expected[:, channel] = x[:, channel] / (2 + 1e-4 * (near**2).sum(1)) ** 0.5
    found = local_response_norm(torch.from_numpy(x).float())
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-5)
    assert abs(expected).max() < 0.5 * abs(x).max()


def test_local_response_norm_and_its_gradient_are_torchs_with_alpha_times_five():
    x = torch.from_numpy(np.random.default_rng(2).normal(0, 100, (2, 9, 2, 4, 4)).astype(np.float32))
    one, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    ours = local_response_norm(one)
    theirs = F.local_response_norm(other, 5, alpha=5e-4, beta=0.5, k=2.0)
    weights = torch.linspace(-1, 1, ours.numel()).reshape(ours.shape)
    (ours * weights).sum().backward()
    (theirs * weights).sum().backward()
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(one.grad, other.grad)


def test_local_response_norm_of_bfloat16_is_summed_in_float32():
    x = torch.from_numpy(np.random.default_rng(3).normal(0, 100, (1, 9, 1, 4, 4))).bfloat16()
    found = local_response_norm(x)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, local_response_norm(x.float()).bfloat16())


@torch.no_grad()
def test_sizes_are_those_of_the_paper():
    net = SlowFusion(classes=5, fc_size=16).eval()
    x, shapes = clip(), {}
    for layer in LAYERS:
        x = net.after(layer, x)
        shapes[layer] = tuple(x.shape[1:])
    assert shapes == {
        "conv1": (96, 4, 28, 28),
        "conv2": (256, 2, 14, 14),
        "conv3": (384, 1, 14, 14),
        "conv4": (384, 1, 14, 14),
        "conv5": (256, 1, 7, 7),
        "fc6": (16,),
        "fc7": (16,),
        "fc8": (5,),
    }
    assert tuple(net.conv1(clip()).shape) == (1, 96, 4, 57, 57)
    assert tuple(net.conv2.weight.shape) == (256, 96, 2, 5, 5)  # no groups


def test_the_number_of_weights_is_that_of_the_paper():
    with torch.device("meta"):
        net = SlowFusion(classes=101)
    counts = {name: value.numel() for name, value in net.named_parameters() if name.endswith("weight")}
    assert sum(count for name, count in counts.items() if name.startswith("conv")) == pytest.approx(5.35e6, rel=1e-3)
    assert (counts["fc6.weight"], counts["fc7.weight"]) == (12_544 * 4096, 4096**2)


@torch.no_grad()
def test_a_response_of_the_first_layer_is_a_sum_over_four_frames_and_eleven_pixels(net):
    """At some places against a loop in float64: frames 2t to 2t + 3, pixels around 3y, 0 beyond the border."""
    x = clip()
    found = net.conv1(x)[0].numpy()
    padded = np.pad(x[0].numpy().astype(np.float64), ((0, 0), (0, 0), (5, 5), (5, 5)))
    weight, bias = net.conv1.weight.numpy().astype(np.float64), net.conv1.bias.numpy()
    for channel, t, row, column in ((0, 0, 0, 0), (3, 3, 56, 56), (5, 1, 20, 40), (2, 2, 56, 0)):
        seen = padded[:, 2 * t : 2 * t + 4, 3 * row : 3 * row + 11, 3 * column : 3 * column + 11]
        expected = (seen * weight[channel]).sum() + bias[channel]
        assert found[channel, t, row, column] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("frame", range(10))
def test_every_frame_counts(net, frame):
    changed = clip()
    changed[:, :, frame] = clip(1)[:, :, frame]
    assert (scores(net, changed) - scores(net, clip())).abs().max() > 1e-3


def test_a_clip_that_is_shifted_by_a_frame_is_another(net):
    whole = torch.cat([clip(), clip(1)], 2)
    shifted = scores(net, whole[:, :, 1:11])
    assert (shifted - scores(net, whole[:, :, :10])).abs().max() > 1e-3


def test_the_order_of_frames_counts(net):
    assert (scores(net, clip().flip(2)) - scores(net, clip())).abs().max() > 1e-3


@torch.no_grad()
def test_a_still_clip_gives_what_the_single_frame_net_of_summed_kernels_gives(net):
    """The single-frame net in torch's two-dimensional functions: kernels summed over time, no time at all."""
    frame = clip()[:, :, 4]
    still = frame[:, :, None].repeat(1, 1, 10, 1, 1)
    x = frame
    for layer, stride, padding in (("conv1", 3, 5), ("conv2", 1, 2), ("conv3", 1, 1), ("conv4", 1, 1), ("conv5", 1, 1)):
        convolution = net.get_submodule(layer)
        x = F.relu(F.conv2d(x, convolution.weight.sum(2), convolution.bias, stride, padding))
        if layer in ("conv1", "conv2"):
            x = F.local_response_norm(x, 5, alpha=5e-4, beta=0.5, k=2.0)
        if layer in ("conv1", "conv2", "conv5"):
            x = F.max_pool2d(x, 2)
    expected = net.fc8(F.relu(net.fc7(F.relu(net.fc6(x.flatten(1))))))
    found = scores(net, still)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert (found - scores(net, clip())).abs().max() > 1e-3


@pytest.mark.parametrize(("last", "trained"), [(None, LAYERS), ("conv5", LAYERS[5:]), ("fc7", LAYERS[7:])])
def test_frozen_layers_get_no_gradient_and_keep_no_graph(last, trained):
    net = SmallSlowFusion().train()
    seen = {}
    for layer in LAYERS:
        net.get_submodule(layer).register_forward_hook(
            lambda module, given, output, layer=layer: seen.update({layer: output.requires_grad})
        )
    net.freeze(last)
    net(clip()).sum().backward()
    assert {layer for layer, graph in seen.items() if graph} == set(trained)
    moved = {name.split(".")[0] for name, value in net.named_parameters() if value.grad is not None}
    assert moved == set(trained)


def test_a_layer_that_there_is_not_cannot_be_frozen():
    with pytest.raises(ValueError, match="no layer 'conv5_3' to freeze; layers are conv1, conv2"):
        SmallSlowFusion().freeze("conv5_3")


def test_dropout_is_that_of_each_layer_and_on_in_training_only():
    net = SmallSlowFusion(fc_size=4000, dropout=(0.9, 0.5)).train()
    zeros = {}
    for layer in ("fc6", "fc7"):
        x = torch.ones(1, net.get_submodule(layer).in_features)
        net.get_submodule(layer).weight.data.fill_(1)
        zeros[layer] = float((net.after(layer, x) == 0).float().mean())
    assert zeros["fc6"] == pytest.approx(0.9, abs=0.03)
    assert zeros["fc7"] == pytest.approx(0.5, abs=0.05)
    net.eval()
    assert torch.equal(scores(net, clip()), scores(net, clip()))


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_fewer_bits_give_nearly_the_same_on_a_cpu(net, precision):
    """bfloat16 keeps 8 bits: within a few units of the last of scores around 1."""
    exact = scores(net, clip(count=2))
    with torch.autocast("cpu", precision):
        mixed = scores(net, clip(count=2)).float()
    torch.testing.assert_close(mixed, exact, rtol=0.05, atol=0.05 * float(exact.abs().max()))
    assert not torch.equal(mixed, exact)
