"""Weights that Slow Fusion starts from."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from han_core.nets.sealed_net import WeightsError
from han_core.nets.slow_fusion import weights as module
from han_core.nets.slow_fusion.inputs import SquareViews
from han_core.nets.slow_fusion.net import LAYERS
from han_core.nets.slow_fusion.net_file import write_net
from han_core.nets.slow_fusion.weights import initial_net, knows_classes, weights_identity
from tests.small_slow_fusion import SmallSlowFusion

GIVEN = SmallSlowFusion(classes=3, seed=5).state_dict()


@pytest.fixture
def small_nets(monkeypatch):
    monkeypatch.setattr(module, "empty_net", SmallSlowFusion)


def file(path, *layers, **changes):
    """A file of weights that holds these layers."""
    kept = {name: value for name, value in GIVEN.items() if name.split(".")[0] in layers}
    save_file(kept | changes, path)
    return str(path)


def layers_equal_to_given(net):
    state = net.state_dict()
    same = {
        name for name, value in GIVEN.items() if value.shape == state[name].shape and torch.equal(state[name], value)
    }
    return [layer for layer in LAYERS if {f"{layer}.weight", f"{layer}.bias"} <= same]


def test_random_weights_are_half_of_hes_and_small_at_the_top():
    net = initial_net("random", classes=101, fc_size=64)
    for layer in LAYERS:
        weight, bias = net.get_submodule(layer).weight.detach(), net.get_submodule(layer).bias
        expected = 0.01 if layer == "fc8" else 0.5 * np.sqrt(2 / weight[0].numel())
        assert float(weight.std()) == pytest.approx(expected, rel=0.03)
        assert not bias.any()


@torch.no_grad()
def test_random_weights_take_pixels_down_to_scores_near_0():
    net = initial_net("random", classes=5, fc_size=256).eval()
    pixels = np.random.default_rng(0).integers(0, 256, (1, 3, 1, 17, 17)).repeat(10, 2).repeat(10, 3).repeat(10, 4)
    x = torch.from_numpy(pixels.astype(np.float32)) - 117
    sizes = {}
    for layer in LAYERS:
        x = net.after(layer, x)
        sizes[layer] = float(x.square().mean().sqrt())
    assert sizes["conv1"] > 5
    assert 0.05 < sizes["fc7"] < 1
    assert sizes["fc8"] < 0.5


@pytest.mark.usefixtures("small_nets")
def test_each_seed_has_its_own_random_weights_and_a_layers_do_not_depend_on_others_shapes():
    one, again, other = (initial_net("random", classes=2, fc_size=8, seed=seed).state_dict() for seed in (1, 1, 2))
    wide = initial_net("random", classes=7, fc_size=9, seed=1).state_dict()
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not any(torch.equal(one[name], other[name]) for name in one if name.endswith("weight"))
    assert torch.equal(one["conv4.weight"], wide["conv4.weight"])


@pytest.mark.usefixtures("small_nets")
def test_a_file_fills_the_layers_that_it_holds(tmp_path):
    whole = initial_net(file(tmp_path / "a", *LAYERS), classes=3, fc_size=8)
    assert layers_equal_to_given(whole) == list(LAYERS)
    other_classes = initial_net(file(tmp_path / "b", *LAYERS), classes=4, fc_size=8)
    assert layers_equal_to_given(other_classes) == list(LAYERS[:-1])
    assert float(other_classes.fc8.weight.detach().std()) == pytest.approx(0.01, rel=0.5)
    lower = initial_net(file(tmp_path / "c", *LAYERS[:5]), classes=3, fc_size=9)
    assert layers_equal_to_given(lower) == list(LAYERS[:5])
    assert float(lower.fc6.weight.detach().std()) == pytest.approx(0.01, rel=0.2)
    half = {name: value.half() for name, value in GIVEN.items()}
    assert initial_net(file(tmp_path / "d", **half), classes=3, fc_size=8).conv1.weight.dtype == torch.float32


@pytest.mark.usefixtures("small_nets")
@pytest.mark.parametrize(
    ("held", "trained", "lacking"),
    [
        (LAYERS[:5], "all", None),
        (LAYERS[:5], "top3", None),
        (LAYERS[:5], "top", "fc6.weight"),
        (LAYERS[:7], "top", None),
    ],
)
def test_layers_that_stay_as_they_are_must_be_given(tmp_path, held, trained, lacking):
    weights = file(tmp_path / "a", *held)
    if lacking is None:
        net = initial_net(weights, classes=2, fc_size=8, trained=trained)
        assert all(value.requires_grad for value in net.parameters())  # training freezes, nobody else
    else:
        with pytest.raises(WeightsError, match=f"a: lacks {lacking}, which `trained: {trained}` would leave random"):
            initial_net(weights, classes=2, fc_size=8, trained=trained)


@pytest.mark.usefixtures("small_nets")
def test_random_weights_cannot_stay_as_they_are():
    with pytest.raises(WeightsError, match=r"random: lacks conv1\.weight"):
        initial_net("random", classes=2, fc_size=8, trained="top3")


@pytest.mark.usefixtures("small_nets")
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"conv1.weight": torch.zeros(6, 3, 11, 11)}, r"conv1\.weight is \(6, 3, 11, 11\)"),
        ({"fc7.weight": torch.zeros(5, 5)}, "fc6 and fc7 have 5 units; set fc_size to that, not to 8"),
        ({"fc6.weight": torch.tensor(1.0)}, r"fc6\.weight is \(\)"),
        ({"features.0.weight": torch.zeros(1)}, "has 'features.0.weight', unknown"),
        ({"fc8.bias": torch.zeros(9)}, r"fc8\.bias is \(9,\)"),
    ],
)
def test_weights_that_do_not_fit_are_refused(tmp_path, changes, words):
    with pytest.raises(WeightsError, match=words):
        initial_net(file(tmp_path / "a", *LAYERS, **changes), classes=3, fc_size=8)


@pytest.mark.usefixtures("small_nets")
def test_a_convolution_that_is_missing_is_told(tmp_path):
    with pytest.raises(WeightsError, match=r"lacks conv5\.weight; all convolutions"):
        initial_net(file(tmp_path / "a", *LAYERS[:4]), classes=3, fc_size=8)
    with pytest.raises(WeightsError, match="cannot be read"):
        initial_net(str(tmp_path / "nowhere"), classes=3, fc_size=8)


def test_the_identity_of_weights_is_their_content(tmp_path):
    one, other = file(tmp_path / "a", *LAYERS), file(tmp_path / "b", *LAYERS[:5])
    assert len({weights_identity(name) for name in ("random", one, other)}) == 3
    assert weights_identity(file(tmp_path / "c", *LAYERS)) == weights_identity(one)


def test_only_a_net_that_learnt_the_same_classes_knows_them(tmp_path):
    facts = {"classes": '["a", "b"]', "classifier": "trained"}
    write_net(tmp_path / "net", SmallSlowFusion(), SquareViews(), facts)
    assert knows_classes(str(tmp_path / "net"), ["a", "b"])
    assert not knows_classes(str(tmp_path / "net"), ["a", "c"])
    assert not knows_classes(file(tmp_path / "a", *LAYERS), ["a", "b"])
    assert not knows_classes("random", ["a", "b"])
