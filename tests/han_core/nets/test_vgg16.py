"""The nets: against torchvision's own VGG-16, input by input, and where their weights come from."""

from pathlib import Path
from urllib.error import URLError

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torchvision.models import VGG16_Weights, vgg16

from han_core.nets.net_file import read_net, write_net
from han_core.nets.preprocess import normalize_flow, spatial_input, temporal_input
from han_core.nets.sampling import sample_frames, stack_fields
from han_core.nets.sealed_net import WeightsError
from han_core.nets.vgg16 import LAYERS, VGG16
from han_core.nets.weights import initial_net, resolve_convention, weights_identity

SMALL = {"classes": 5, "fc_size": 16}


@pytest.fixture(scope="module")
def net() -> VGG16:
    return initial_net("random", **SMALL, seed=3).eval()


@pytest.fixture(scope="module")
def whole_file(net, tmp_path_factory) -> Path:
    """A net of five classes with fc layers, as a file that says its convention."""
    path = tmp_path_factory.mktemp("weights") / "whole.safetensors"
    write_net(path, net, {"input": "torchvision"})
    return path


def images(count: int = 2, channels: int = 3, size: int = 64) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).standard_normal((count, channels, size, size), np.float32))


def torchvision_twin(net: VGG16) -> torch.nn.Module:
    twin = vgg16(num_classes=net.classes, init_weights=False)
    twin.classifier[0] = torch.nn.Linear(512 * 7 * 7, net.fc_size)
    twin.classifier[3] = torch.nn.Linear(net.fc_size, net.fc_size)
    twin.classifier[6] = torch.nn.Linear(net.fc_size, net.classes)
    twin.load_state_dict(net.state_dict())
    return twin.eval()


def test_scores_equal_torchvisions(net):
    torch.testing.assert_close(net(images()), torchvision_twin(net)(images()), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("layer", "end"), [("conv1_1", 2), ("pool1", 5), ("pool4", 24), ("conv5_1", 26), ("conv5_3", 30), ("pool5", 31)]
)
def test_convolutional_layers_are_torchvisions_after_relu(net, layer, end):
    expected = torchvision_twin(net).features[:end](images())
    torch.testing.assert_close(net.extract(images(), (layer,))[layer], expected, rtol=1e-4, atol=1e-4)


def test_fc_layers_are_torchvisions_after_relu_without_dropout(net):
    twin = torchvision_twin(net)
    flat = twin.avgpool(twin.features(images())).flatten(1)
    net.train()  # extract must not drop even so
    found = net.extract(images(), ("fc6", "fc7", "conv5_3"))
    net.eval()
    assert list(found) == ["fc6", "fc7", "conv5_3"]
    torch.testing.assert_close(found["fc6"], twin.classifier[:2](flat), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found["fc7"], twin.classifier[:5](flat), rtol=1e-4, atol=1e-4)


def test_shapes_at_224(net):
    found = net.extract(images(1, size=224), ("conv5_3", "pool4", "pool5", "fc7"))
    assert {name: tuple(value.shape) for name, value in found.items()} == {
        "conv5_3": (1, 512, 14, 14),
        "pool4": (1, 512, 14, 14),
        "pool5": (1, 512, 7, 7),
        "fc7": (1, 16),
    }


def test_one_forward_stops_at_the_deepest_layer(net):
    runs = []
    handles = [m.register_forward_hook(lambda *_, i=i: runs.append(i)) for i, m in enumerate(net.features)]
    net.extract(images(), ("conv2_1", "pool1"))
    for handle in handles:
        handle.remove()
    assert runs == list(range(7))


def test_unknown_layers_are_refused(net):
    with pytest.raises(ValueError, match="no layer 'conv6_1'; layers are conv1_1"):
        net.extract(images(), ("conv6_1",))
    with pytest.raises(ValueError, match="conv6_1"):
        net.freeze("conv6_1")
    assert len(LAYERS) == 13 + 5 + 2


def test_real_frame_gives_sparse_conv5_3(shared_data):
    weights = str(shared_data / "weights" / "vgg16_imagenet_features.safetensors")
    video = next((shared_data / "ucf101_mini" / "UCF-101" / "Punch").glob("*.avi"))
    _, image = cv2.VideoCapture(str(video)).read()
    frame = image[None, ..., ::-1].copy()
    assert resolve_convention(weights) == "caffe"
    cubes = initial_net(weights, **SMALL).extract(spatial_input(frame, "caffe"), ("conv5_3",))["conv5_3"]
    zeros = (cubes == 0).float().mean().item()
    assert 0.90 < zeros < 0.97
    assert 20 < cubes.max() < 1000


# Inputs


def test_sampled_frames_are_equally_spaced_with_both_ends():
    assert sample_frames(100, 25).tolist() == [int(i * 99 / 24 + 0.5) for i in range(25)]
    assert sample_frames(9, 5).tolist() == [0, 2, 4, 6, 8]
    assert sample_frames(9, 1).tolist() == [4]


@pytest.mark.parametrize("count", [1, 2, 7, 24, 25, 26, 1000])
def test_every_clip_gives_exactly_t_frames(count):
    frames = sample_frames(count, 25)
    assert len(frames) == 25
    assert frames[0] == 0
    assert frames[-1] == count - 1
    steps = np.diff(frames)
    assert steps.min() >= 0
    assert steps.max() - steps.min() <= 1


def test_stacks_are_centred_and_clamped():
    assert stack_fields([20], 10, 40).tolist() == [list(range(15, 25))]
    assert stack_fields([0], 4, 40).tolist() == [[0, 0, 0, 1]]
    assert stack_fields([40], 4, 40).tolist() == [[38, 39, 39, 39]]  # 40 fields: frames 0 to 40
    assert stack_fields([3, 5], 1, 40).tolist() == [[3], [5]]
    assert stack_fields([1], 10, 1).tolist() == [[0] * 10]


def test_spatial_input_is_the_whole_frame_in_the_convention():
    frames = np.zeros((2, 30, 40, 3), np.uint8)
    frames[:, :, 20:] = (200, 100, 50)
    caffe = spatial_input(frames, "caffe")
    assert caffe.shape == (2, 3, 224, 224)
    np.testing.assert_allclose(caffe[0, :, 0, 0], [-123.68, -116.779, -103.939], rtol=1e-5)
    np.testing.assert_allclose(caffe[1, :, -1, -1], [200 - 123.68, 100 - 116.779, 50 - 103.939], rtol=1e-5)
    ours = spatial_input(frames, "torchvision")
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    np.testing.assert_allclose(ours[0, :, -1, -1], (np.array([200, 100, 50]) / 255 - mean) / std, rtol=1e-4)


def test_temporal_input_interleaves_x_and_y_and_scales_vectors():
    levels = np.full((4, 2, 56, 112), 127, np.uint8)
    levels[:, 0] = 127 + np.arange(1, 5)[:, None, None]  # x: 0.5, 1.5, 2.5, 3.5 levels of motion
    levels[:, 1] = 137  # y: 9.5
    stacks = temporal_input(levels, np.array([[0, 1, 2], [3, 3, 2]]), "caffe")
    assert stacks.shape == (2, 6, 224, 224)
    # 112 pixels become 224 (vectors twice as long), 56 become 224 (four times).
    expected = np.array([[1, 38, 3, 38, 5, 38], [7, 38, 7, 38, 5, 38]], np.float32)
    np.testing.assert_allclose(stacks[:, :, 100, 100], expected, rtol=1e-5)
    scaled = temporal_input(levels, np.array([[0, 1, 2]]), "torchvision")
    np.testing.assert_allclose(scaled[0, :, 0, 0], expected[0] / (255 * 0.226), rtol=1e-5)


def test_unknown_conventions_are_refused():
    with pytest.raises(ValueError, match="no input convention 'imagenet'"):
        normalize_flow(torch.zeros(1, 2, 4, 4), "imagenet", (1, 1))


# Weights


def test_random_weights_are_he_and_seeded():
    first, again = initial_net("random", **SMALL, seed=1), initial_net("random", **SMALL, seed=1)
    other = initial_net("random", **SMALL, seed=2)
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
        if name.endswith(".weight"):
            assert not torch.equal(value, other.state_dict()[name])
        else:
            assert not value.any()
    conv = first.features[28].weight
    assert conv.std().item() == pytest.approx((2 / (512 * 9)) ** 0.5, rel=0.01)
    flow = initial_net("random", **SMALL, in_channels=20).features[0].weight
    assert flow.std().item() == pytest.approx((2 / (20 * 9)) ** 0.5, rel=0.05)


def test_temporal_net_starts_from_the_averaged_first_layer_and_carries_the_rest(net, whole_file):
    temporal = initial_net(str(whole_file), **SMALL, in_channels=20, seed=9)
    given, taken = net.state_dict(), temporal.state_dict()
    rgb = given["features.0.weight"]
    average = (rgb[:, 0] + rgb[:, 1] + rgb[:, 2]) / 3
    assert taken["features.0.weight"].shape == (64, 20, 3, 3)
    for channel in range(20):
        torch.testing.assert_close(taken["features.0.weight"][:, channel], average)
    others = given.keys() - {"features.0.weight"}
    assert {"classifier.0.weight", "classifier.3.weight", "classifier.6.weight"} < others
    for name in others:
        assert torch.equal(given[name], taken[name]), name


def test_fc8_is_drawn_anew_for_another_number_of_classes(net, whole_file):
    taken = initial_net(str(whole_file), classes=7, fc_size=16).state_dict()
    assert taken["classifier.6.weight"].shape == (7, 16)
    assert torch.equal(taken["classifier.3.weight"], net.state_dict()["classifier.3.weight"])


def test_a_file_may_hold_the_convolutions_only(shared_data):
    path = shared_data / "weights" / "vgg16_imagenet_features.safetensors"
    given = load_file(path)
    first, again = (initial_net(str(path), **SMALL, seed=4).state_dict() for _ in range(2))
    other = initial_net(str(path), **SMALL, seed=5).state_dict()
    for name, value in first.items():
        assert torch.equal(value, given.get(name, again[name]))
    assert not torch.equal(first["classifier.3.weight"], other["classifier.3.weight"])


def test_layers_on_top_of_given_ones_are_drawn_small(net, tmp_path):
    path = tmp_path / "convolutions.safetensors"
    given = {name: value.contiguous() for name, value in net.state_dict().items() if name.startswith("features.")}
    save_file(given, path)
    taken, alone = (initial_net(weights, **SMALL).state_dict() for weights in (str(path), "random"))
    for layer in ("classifier.0", "classifier.3", "classifier.6"):
        assert taken[f"{layer}.weight"].std().item() == pytest.approx(0.01, rel=0.15), layer
        assert not taken[f"{layer}.bias"].any()
    assert alone["classifier.3.weight"].std().item() == pytest.approx((2 / 16) ** 0.5, rel=0.15), "He's rule"


def test_a_temporal_file_starts_a_temporal_net_of_its_own_stack_only(tmp_path):
    path = tmp_path / "temporal.safetensors"
    write_net(path, initial_net("random", **SMALL, in_channels=4), {"input": "caffe"})
    carried = initial_net(str(path), **SMALL, in_channels=4, seed=8)
    assert torch.equal(carried.features[0].weight, load_file(path)["features.0.weight"])
    with pytest.raises(WeightsError, match="another `stack`"):
        initial_net(str(path), **SMALL, in_channels=20)


def test_weights_that_do_not_fit_are_refused(whole_file, tmp_path):
    with pytest.raises(WeightsError, match="fc6 and fc7 have 16 units; set fc_size to that, not to 32"):
        initial_net(str(whole_file), classes=5, fc_size=32)
    save_file({"features.0.weight": torch.zeros(64, 3, 3, 3)}, tmp_path / "part.safetensors")
    with pytest.raises(WeightsError, match=r"lacks features\.0\.bias"):
        initial_net(str(tmp_path / "part.safetensors"), **SMALL)
    (tmp_path / "text.safetensors").write_text("hello")
    with pytest.raises(WeightsError, match="is not a safetensors file"):
        initial_net(str(tmp_path / "text.safetensors"), **SMALL)
    with pytest.raises(WeightsError, match="cannot be read"):
        initial_net(str(tmp_path / "nowhere.safetensors"), **SMALL)
    with pytest.raises(WeightsError, match="cannot be read"):
        weights_identity(str(tmp_path / "nowhere.safetensors"))
    save_file(load_file(whole_file) | {"bn.weight": torch.zeros(1)}, tmp_path / "more.safetensors")
    with pytest.raises(WeightsError, match=r"has bn\.weight"):
        initial_net(str(tmp_path / "more.safetensors"), **SMALL)


def test_imagenet_without_network_says_what_to_do(monkeypatch):
    def no_network(*_: object, **__: object) -> None:
        raise URLError("no route")

    monkeypatch.setattr(type(VGG16_Weights.IMAGENET1K_V1), "get_state_dict", no_network)
    with pytest.raises(WeightsError, match=r"cannot be downloaded .*no route.*copy https://.*safetensors file"):
        initial_net("imagenet", **SMALL)


def test_imagenet_is_torchvisions_download(monkeypatch):
    published = vgg16(init_weights=False).state_dict()
    asked = {}

    def download(self: VGG16_Weights, **options: object) -> dict:
        asked.update(options, which=self)
        return published

    monkeypatch.setattr(VGG16_Weights, "get_state_dict", download)
    net = initial_net("imagenet", classes=5, fc_size=4096)
    assert asked["which"] is VGG16_Weights.IMAGENET1K_V1
    assert asked["weights_only"]
    assert asked["check_hash"]
    assert torch.equal(net.classifier[3].weight, published["classifier.3.weight"])
    assert resolve_convention("imagenet") == "torchvision"


def test_conventions_come_by_name(whole_file, tmp_path):
    assert resolve_convention(str(whole_file)) == "torchvision"
    assert resolve_convention("random") == "torchvision"
    assert resolve_convention("random", "caffe") == "caffe"
    with pytest.raises(WeightsError, match="expect input in the torchvision convention, but input is caffe"):
        resolve_convention(str(whole_file), "caffe")
    save_file({"features.0.weight": torch.zeros(64, 3, 3, 3)}, tmp_path / "silent.safetensors")
    with pytest.raises(WeightsError, match=r"does not say which scale .* set `input`"):
        resolve_convention(str(tmp_path / "silent.safetensors"))
    assert resolve_convention(str(tmp_path / "silent.safetensors"), "caffe") == "caffe"


def test_nets_are_written_and_read_back(net, whole_file):
    again, metadata = read_net(whole_file)
    assert {key: value for key, value in metadata.items() if "sha256" not in key} == {"input": "torchvision"}
    for name, value in net.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
    assert (again.classes, again.fc_size, again.in_channels) == (5, 16, 3)


def test_nets_of_other_shapes_are_refused(whole_file, tmp_path):
    tensors = load_file(whole_file)
    save_file({k: v for k, v in tensors.items() if "classifier" not in k}, tmp_path / "convs.safetensors")
    with pytest.raises(WeightsError, match=r"lacks classifier\.3\.weight"):
        read_net(tmp_path / "convs.safetensors")
    save_file({k: v for k, v in tensors.items() if k != "features.2.bias"}, tmp_path / "hole.safetensors")
    with pytest.raises(WeightsError, match=r"features\.2\.bias"):
        read_net(tmp_path / "hole.safetensors")


def test_a_net_is_the_same_bytes_each_time(net, tmp_path):
    """safetensors itself would put the metadata in the order of a hash map that is seeded afresh for each file."""
    for name in ("first", "second"):
        write_net(tmp_path / name, net, {key: key for key in "zyxwvutsrq"})
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()
    assert b'","q":"q","r":"r"' in (tmp_path / "first").read_bytes()[:200]
