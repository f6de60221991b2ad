"""Nets other than VGG-16: what they give is what torchvision's own model gives, and their files say what they are."""

import json

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import load_file, save_file
from torch import nn
from torchvision.models import get_model

from han_core.nets import torchvision_weights
from han_core.nets.clip_inputs import ClipFrames
from han_core.nets.extract import CubeNet
from han_core.nets.net_file import write_net
from han_core.nets.preprocess import Scale, normalize_flow, normalize_frames, spatial_input, temporal_input
from han_core.nets.sealed_net import WeightsError
from han_core.nets.stream_net import open_net
from han_core.nets.torchvision_file import (
    default_scale,
    fitted_net,
    read_torchvision_net,
    scale_metadata,
    stated_scale,
    write_torchvision_net,
)
from han_core.nets.torchvision_net import TorchvisionNet, drawn_net
from han_core.nets.torchvision_weights import torchvision_identity, torchvision_net, torchvision_scale
from han_core.nets.vgg16 import VGG16

SIZE = 64
SCALE = Scale((0.2, 0.5, 0.7), (0.1, 0.3, 0.2), SIZE)
LAYERS = {"resnet18": "layer3", "mobilenet_v3_small": "features.9", "densenet121": "features.denseblock3"}


def learnt(architecture):
    """Torchvision's own model, random, with statistics of batch normalisation as a trained net has them."""
    torch.manual_seed(3)
    model = get_model(architecture, weights=None)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.2, 0.2)
    return model.eval()


def contents(model):
    return {name: value.contiguous() for name, value in model.state_dict().items()}


def floats(model):
    return {name: value for name, value in model.state_dict().items() if value.is_floating_point()}


@pytest.fixture(scope="module")
def resnet():
    return learnt("resnet18")


@pytest.fixture(scope="module")
def weights(resnet, tmp_path_factory):
    """A file as other programs write it: no seal, whole numbers beside the weights, its own input."""
    path = tmp_path_factory.mktemp("weights") / "resnet18.safetensors"
    said = {"mean": json.dumps(SCALE.mean), "std": json.dumps(SCALE.std), "size": str(SIZE)}
    save_file(contents(resnet), path, said)
    return path


@pytest.fixture
def ours(weights, tmp_path):
    def write(stream="spatial", stack=0, **changes):
        path = tmp_path / f"{stream}-1.safetensors"
        net = torchvision_net("resnet18", str(weights), size=SIZE, in_channels=2 * stack or 3)
        said = scale_metadata("resnet18", SCALE) | {"input": "torchvision", "stream": stream, "stack": str(stack)}
        write_torchvision_net(path, net, said | changes)
        return path

    return write


def noise(*shape):
    return np.random.default_rng(len(shape)).integers(0, 256, shape, np.uint8)


def by_hand(model, layer, image):
    """What torchvision's model gives of one image: a layer's output, and the input of its last linear layer."""
    found = {}
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    hooks = [
        dict(model.named_modules())[layer].register_forward_hook(lambda m, i, o: found.update(map=o.clone())),
        linear.register_forward_pre_hook(lambda m, i: found.update(fc=i[0].clone())),
    ]
    with torch.no_grad():
        model(image[None])
    for hook in hooks:
        hook.remove()
    return found["map"][0], found["fc"][0]


def resized(channel):
    return nn.functional.interpolate(
        torch.from_numpy(channel)[None, None].float(), (SIZE, SIZE), mode="bilinear", antialias=True
    )[0, 0]


@pytest.mark.parametrize("architecture", LAYERS)
def test_spatial_cubes_are_what_torchvision_s_model_gives(architecture, tmp_path):
    model, layer = learnt(architecture), LAYERS[architecture]
    save_file(contents(model), tmp_path / "w")
    net = torchvision_net(architecture, str(tmp_path / "w"), size=SIZE)
    pixels = noise(3, 30, 40, 3)
    found = net.extract(spatial_input(pixels, SCALE), [layer, "fc7"])
    for n, frame in enumerate(pixels):
        channels = [(resized(frame[..., c]) / 255 - SCALE.mean[c]) / SCALE.std[c] for c in range(3)]
        cube, fc = by_hand(model, layer, torch.stack(channels))
        assert float(cube.abs().max()) > 1e-3
        torch.testing.assert_close(found[layer][n], cube, rtol=1e-5, atol=1e-5 * float(cube.abs().max()))
        torch.testing.assert_close(found["fc7"][n], fc, rtol=1e-5, atol=1e-5 * float(fc.abs().max()))
    assert net.require_map(layer) == tuple(cube.shape)


def test_temporal_cubes_are_those_of_the_averaged_first_layer(resnet, weights):
    net = torchvision_net("resnet18", str(weights), size=SIZE, in_channels=4)
    levels, fields = noise(3, 2, 30, 40), np.array([[0, 1], [1, 2]])
    found = net.extract(temporal_input(levels, fields, SCALE), ["layer4", "fc6"])
    model = learnt("resnet18")
    model.conv1 = nn.Conv2d(4, 64, 7, 2, 3, bias=False)
    model.conv1.weight.data = resnet.conv1.weight.data.mean(1, keepdim=True).expand(-1, 4, -1, -1)
    deviation = 255 * sum(SCALE.std) / 3
    for n, (one, two) in enumerate(fields):
        channels = [
            (resized(levels[field, axis]) - 127.5) * SIZE / (40, 30)[axis] / deviation
            for field in (one, two)
            for axis in (0, 1)
        ]
        cube, fc = by_hand(model.eval(), "layer4", torch.stack(channels))
        torch.testing.assert_close(found["layer4"][n], cube, rtol=1e-5, atol=1e-5 * float(cube.abs().max()))
        torch.testing.assert_close(found["fc6"][n], fc, rtol=1e-5, atol=1e-5 * float(fc.abs().max()))


def test_what_follows_a_module_does_not_change_its_output(resnet, weights):
    """``bn2`` of a block is added to in place."""
    net = torchvision_net("resnet18", str(weights), size=SIZE)
    image = spatial_input(noise(1, 30, 40, 3), SCALE)
    found = net.extract(image, ["layer4.1.bn2"])["layer4.1.bn2"]
    cube, _ = by_hand(resnet, "layer4.1.bn2", image[0])
    assert cube.min() < 0
    torch.testing.assert_close(found[0], cube, rtol=1e-5, atol=1e-5)


def test_a_cube_net_runs_it_in_the_order_of_the_frames(weights):
    net = torchvision_net("resnet18", str(weights), size=SIZE)
    pixels = noise(3, 30, 40, 3)
    expected = net.extract(spatial_input(pixels, SCALE), ("layer4", "fc7"))
    clip = ClipFrames(np.arange(4, dtype=np.int32), np.array([0, 1, 1, 2]), pixels)
    with CubeNet(net, SCALE, layer="layer4", batch=2) as cubes:
        found = cubes.compute(clip)
    assert found["layer4"].shape == (4, 512, 2, 2)
    for layer, values in found.items():
        np.testing.assert_allclose(values, expected[layer][clip.order], rtol=2e-3, atol=2e-3)


def test_the_scale_of_imagenet_is_the_convention_torchvision():
    images, levels = torch.rand(2, 3, 4, 4) * 255, torch.rand(2, 4, 4, 4) * 255
    torch.testing.assert_close(normalize_frames(images, Scale()), normalize_frames(images, "torchvision"))
    zoom = (2.0, -3.0)
    torch.testing.assert_close(normalize_flow(levels, Scale(), zoom), normalize_flow(levels, "torchvision", zoom))
    half = Scale(std=(0.1145, 0.112, 0.1125))
    for normalise, values, more in ((normalize_frames, images, ()), (normalize_flow, levels, (zoom,))):
        torch.testing.assert_close(normalise(values, half, *more), 2 * normalise(values, Scale(), *more))
    assert spatial_input(noise(1, 30, 40, 3), SCALE).shape == (1, 3, SIZE, SIZE)


def test_random_weights_are_those_of_the_seed():
    before = torch.random.get_rng_state()
    first, again, other = (
        torchvision_net("resnet18", "random", size=SIZE, seed=seed).state_dict() for seed in (1, 1, 2)
    )
    assert torch.equal(torch.random.get_rng_state(), before), "nobody else's random numbers change"
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["model.conv1.weight"], other["model.conv1.weight"])
    temporal = [torchvision_net("resnet18", "random", size=SIZE, in_channels=6, seed=1) for _ in range(2)]
    assert temporal[0].in_channels == 6
    assert torch.equal(temporal[0].model.conv1.weight, temporal[1].model.conv1.weight)
    assert not torch.equal(temporal[0].model.conv1.weight[:, 0], temporal[0].model.conv1.weight[:, 1])


def test_a_file_is_read_as_it_was_written(ours, weights):
    path = ours()
    net, scale, metadata = read_torchvision_net(path)
    assert scale == SCALE
    assert metadata["architecture"] == "torchvision resnet18"
    for name, value in load_file(weights).items():
        if value.is_floating_point():
            assert torch.equal(net.model.state_dict()[name], value), name
    assert load_file(path).keys() == get_model("resnet18", weights=None).state_dict().keys()
    data = path.read_bytes()
    write_torchvision_net(path, net, {k: v for k, v in metadata.items() if "sha256" not in k})
    assert path.read_bytes() == data


def test_a_stream_s_net_is_opened_with_what_its_file_says(ours):
    path = ours()
    opened = open_net(path, "spatial", stack=2, architecture="resnet18", layer="layer4")
    assert (opened.input, opened.scale, opened.stack) == ("torchvision", SCALE, 0)
    assert opened.identity == opened.metadata["sha256"]
    temporal = ours("temporal", 2)
    assert open_net(temporal, "temporal", stack=2, architecture=None).net.in_channels == 4
    for words, options in (
        ("is a resnet18, but vgg16 is wanted", {}),
        ("is a resnet18, but resnet50 is wanted; set cubes.net to resnet18", {"architecture": "resnet50"}),
        ("`input` must be auto or torchvision, not caffe", {"architecture": None, "convention": "caffe"}),
        ("has no module 'layer5'. Did you mean layer", {"architecture": None, "layer": "layer5"}),
    ):
        with pytest.raises(WeightsError) as raised:
            open_net(path, "spatial", stack=2, **options)
        assert str(raised.value).startswith(f"{path}: ")
        assert words in str(raised.value)
    with pytest.raises(WeightsError, match="takes 4 channels, but the temporal stream has 6"):
        open_net(temporal, "temporal", stack=3, architecture="resnet18")


def test_a_vgg16_is_told_from_the_others(tmp_path):
    path = tmp_path / "net"
    write_net(path, VGG16(classes=2, fc_size=4), {"input": "caffe"})
    opened = open_net(path, "spatial", stack=0, layer="pool4")
    assert (opened.input, opened.scale) == ("caffe", "caffe")
    with pytest.raises(WeightsError, match="is a vgg16, but resnet18 is wanted"):
        open_net(path, "spatial", stack=0, architecture="resnet18")
    with pytest.raises(WeightsError, match="VGG-16 has no layer 'fc7' that gives maps; those are conv1_1"):
        open_net(path, "spatial", stack=0, layer="fc7")


def test_layers_that_give_no_map_are_told_with_those_that_do():
    resnet18 = TorchvisionNet("resnet18", size=SIZE)
    for layer, words in (
        ("fc", "gives 2 x 1000: no map"),
        ("avgpool", "gives 2 x 512 x 1 x 1: no map"),
        ("conv5_3", "has no module 'conv5_3'."),
        ("", "has no module ''."),
    ):
        with pytest.raises(WeightsError) as raised:
            resnet18.require_map(layer)
        assert words in str(raised.value)
        assert "layer3 256 x 4 x 4, layer4 512 x 2 x 2" in str(raised.value)
    swin = TorchvisionNet("swin_t", size=SIZE)
    assert swin.require_map("permute") == (768, 2, 2)
    with pytest.raises(WeightsError, match=r"features.1 of swin_t gives 2 x 16 x 16 x 96: no map"):
        swin.require_map("features.1")
    with pytest.raises(WeightsError, match="does not take images of 32 x 32 pixels"):
        TorchvisionNet("inception_v3", size=32).require_map("Mixed_7c")


def test_names_of_nets_that_there_are_not():
    with pytest.raises(WeightsError, match=r"has no classification model 'resnet51'; did you mean resnet50"):
        torchvision_scale("resnet51", "random")
    with pytest.raises(WeightsError, match=r"has no classification model 'deeplabv3_resnet50'"):
        torchvision_identity("deeplabv3_resnet50", "random")
    with pytest.raises(WeightsError, match=r"has no classification model 'zzz'; it has alexnet, "):
        drawn_net("zzz", seed=1)
    with pytest.raises(WeightsError, match="squeezenet1_0 has no linear layer"):
        drawn_net("squeezenet1_0", seed=1)


CONV1 = "conv1.weight"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({CONV1: None}, "lacks conv1.weight, which resnet18 has"),
        ({"layer1.0.bn1.running_mean": None}, "lacks layer1.0.bn1.running_mean"),
        ({"features.0.weight": torch.zeros(1)}, "has features.0.weight, unknown to torchvision's resnet18"),
        ({CONV1: torch.zeros(64, 5, 7, 7)}, "conv1.weight is (64, 5, 7, 7), but resnet18 needs (64, 3, 7, 7); the"),
        ({CONV1: torch.zeros(64)}, "conv1.weight is (64,)"),
        ({CONV1: torch.full((64, 3, 7, 7), torch.nan)}, "numbers that are not finite"),
        ({"fc.weight": torch.zeros(1000, 511)}, "fc.weight is (1000, 511), but resnet18 needs (1000, 512)"),
        ({"fc.weight": torch.zeros(0, 512)}, "fc.weight is (0, 512), but resnet18 needs (1000, 512)"),
        ({"fc.weight": torch.zeros(1 << 40, 0)}, "but resnet18 needs (1000, 512)"),
        ({"fc.weight": torch.zeros(9, 512)}, "fc.bias is (1000,), but resnet18 needs (9,)"),
        ({CONV1: torch.zeros(64, 3, 7, 7, dtype=torch.int32)}, "torch.int32, not floating point"),
        ({CONV1: torch.zeros(64, 3, 7, 7, dtype=torch.int64)}, "lacks conv1.weight"),
    ],
)
def test_weights_that_are_not_the_net_s_are_refused(changes, words, resnet, tmp_path):
    changed = {name: value for name, value in {**contents(resnet), **changes}.items() if value is not None}
    save_file(changed, tmp_path / "w")
    with pytest.raises(WeightsError) as raised:
        torchvision_net("resnet18", str(tmp_path / "w"), size=SIZE)
    assert str(raised.value).startswith(f"{tmp_path / 'w'}: ")
    assert words in str(raised.value)


def test_the_last_layer_may_be_another_one_or_missing(resnet, tmp_path):
    tensors = contents(resnet)
    fewer = tensors | {"fc.weight": torch.ones(7, 512), "fc.bias": torch.ones(7)}
    without = {name: value for name, value in tensors.items() if not name.startswith("fc.")}
    for name, held, classes in (("fewer", fewer, 7), ("without", without, 1000)):
        save_file(held, tmp_path / name)
        net = torchvision_net("resnet18", str(tmp_path / name), size=SIZE)
        assert net.model.fc.out_features == classes
        assert torch.equal(net.model.layer4[1].conv2.weight, resnet.layer4[1].conv2.weight)
        write_torchvision_net(tmp_path / "ours", net, scale_metadata("resnet18", SCALE))
        assert torch.equal(read_torchvision_net(tmp_path / "ours")[0].model.fc.weight, net.model.fc.weight)
    write_torchvision_net(tmp_path / "ours", net, scale_metadata("resnet18", SCALE))
    cut = {name: value for name, value in load_file(tmp_path / "ours").items() if name != "fc.bias"}
    save_file(cut, tmp_path / "ours", scale_metadata("resnet18", SCALE))
    with pytest.raises(WeightsError, match=r"lacks fc\.bias"):
        read_torchvision_net(tmp_path / "ours")


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"mean": "[1, 2]"}, "`mean` in its metadata must be a JSON list of three numbers"),
        ({"mean": "0.5"}, "`mean` in its metadata must be a JSON list"),
        ({"mean": "[true, 0, 0]"}, "`mean` in its metadata must be a JSON list"),
        ({"mean": "[NaN, 0, 0]"}, "`mean` in its metadata must be a JSON list"),
        ({"mean": "[" * 100_000}, "`mean` in its metadata must be a JSON list"),
        ({"mean": "[123.68, 116.779, 103.939]"}, "`mean` in its metadata must be of values 0..1"),
        ({"std": "[0, 0.2, 0.2]"}, "`std` in its metadata must be of values 0..1 and more than 0"),
        ({"size": "0"}, "`size` in its metadata must be a number of pixels from 32 to 1024"),
        ({"size": "100000"}, "`size` in its metadata must be"),
        ({"size": "[64, 64]"}, "`size` in its metadata must be"),
        ({"size": "²"}, "`size` in its metadata must be"),
    ],
)
def test_an_input_that_cannot_be_is_refused(metadata, words):
    with pytest.raises(WeightsError) as raised:
        stated_scale("the/file", metadata, Scale())
    assert str(raised.value).startswith(f"the/file: {words}")


def test_the_input_is_what_the_file_says_and_imagenet_s_where_it_says_nothing(resnet, weights, tmp_path):
    assert torchvision_scale("resnet18", str(weights)) == SCALE
    save_file({"x": torch.zeros(1)}, tmp_path / "silent")
    assert torchvision_scale("resnet18", str(tmp_path / "silent")) == Scale()
    save_file({"x": torch.zeros(1)}, tmp_path / "part", {"size": "96"})
    assert torchvision_scale("resnet18", str(tmp_path / "part")) == Scale(size=96)
    assert torchvision_scale("inception_v3", str(tmp_path / "silent")).mean == (0.5, 0.5, 0.5)
    assert torchvision_scale("efficientnet_b4", "imagenet").size == 380
    assert torchvision_scale("efficientnet_v2_l", "imagenet").std == (0.5, 0.5, 0.5)
    assert torchvision_scale("inception_v3", "imagenet") == Scale((0.5,) * 3, (0.5,) * 3, 299)
    save_file({"x": torch.zeros(1)}, tmp_path / "other", {"architecture": "torchvision resnet50"})
    with pytest.raises(WeightsError, match="says that it is a resnet50, not a resnet18"):
        torchvision_scale("resnet18", str(tmp_path / "other"))
    with pytest.raises(WeightsError, match="does not say which net it holds"):
        read_torchvision_net(tmp_path / "silent")


def test_torchvision_rescales_the_input_of_its_inception_nets_itself():
    """So its ImageNet weights want 0.5 here."""
    model = get_model("inception_v3", weights=None, init_weights=False)
    model.transform_input = True
    image = torch.rand(1, 3, 8, 8)
    scaled = model._transform_input(normalize_frames(255 * image, "torchvision"))
    torch.testing.assert_close(scaled, normalize_frames(255 * image, default_scale("inception_v3")), rtol=0, atol=1e-5)


def test_imagenet_s_weights_are_torchvision_s_default_ones(resnet, monkeypatch):
    asked = {}

    def get_state_dict(self, **options):
        asked.update(options, url=self.url)
        return resnet.state_dict()

    monkeypatch.setattr(torchvision.models.WeightsEnum, "get_state_dict", get_state_dict)
    net = torchvision_net("resnet18", "imagenet", size=SIZE)
    assert torch.equal(net.model.layer4[1].conv2.weight, resnet.layer4[1].conv2.weight)
    assert asked["weights_only"]
    assert asked["check_hash"]
    assert torchvision_identity("resnet18", "imagenet") == f"torchvision: {asked['url'].rsplit('/', 1)[1]}"


def test_without_a_network_imagenet_s_weights_are_told_plainly(monkeypatch):
    def get_state_dict(self, **options):
        raise OSError("no route to host")

    monkeypatch.setattr(torchvision.models.WeightsEnum, "get_state_dict", get_state_dict)
    with pytest.raises(WeightsError, match=r"weights of resnet18 cannot be downloaded \(no route to host\)\. Without"):
        torchvision_net("resnet18", "imagenet", size=SIZE)


def test_names_under_which_weights_are_published(tmp_path):
    """DenseNets' ImageNet weights have the names of an earlier version, and GoogLeNet's branches for training."""
    model = get_model("densenet121", weights=None)
    old = {n.replace(".norm1.", ".norm.1.").replace(".conv2.", ".conv.2."): value for n, value in floats(model).items()}
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    net = fitted_net("w", "densenet121", old, size=SIZE)
    name = "features.denseblock1.denselayer1.norm1.weight"
    assert torch.equal(net.model.state_dict()[name], model.state_dict()[name])
    model = get_model("mnasnet0_5", weights=None)  # its own loader asks for a version, which safetensors have not
    assert torch.equal(fitted_net("w", "mnasnet0_5", floats(model)).model.layers[0].weight, model.layers[0].weight)
    model = get_model("googlenet", weights=None, init_weights=False)
    held = floats(model)
    assert any(name.startswith("aux1.") for name in held)
    assert torch.equal(fitted_net("w", "googlenet", held).model.fc.weight, model.fc.weight)


def test_a_sealed_file_that_says_what_is_not_so_is_refused(ours):
    for changes, words in (
        ({"architecture": "torchvision resnet9000"}, "has no classification model 'resnet9000'"),
        ({"architecture": "torchvision mobilenet_v2"}, "lacks classifier.1.bias, which mobilenet_v2 has"),
        ({"size": "-1"}, "`size` in its metadata"),
    ):
        path = ours(**changes)
        with pytest.raises(WeightsError) as raised:
            open_net(path, "spatial", stack=0, architecture=None)
        assert str(raised.value).startswith(f"{path}: ")
        assert words in str(raised.value)


def test_identities_tell_weights_apart(weights):
    found = {torchvision_identity("resnet18", name) for name in ("random", "imagenet", str(weights))}
    found.add(torchvision_identity("resnet50", "imagenet"))
    assert len(found) == 4
    assert torchvision_weights.torchvision_identity("resnet18", str(weights)).startswith("sha256: ")
