"""Files of nets: damage is told, weights from elsewhere are read, and what is no net is refused before it is made."""

import hashlib
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from han_core.nets.net_file import read_net, write_net
from han_core.nets.sealed_net import WeightsError, net_identity, read_metadata, read_tensors
from han_core.nets.stream_net import open_net
from han_core.nets.vgg16 import VGG16
from han_core.nets.weights import initial_net, knows_classes, resolve_convention
from han_core.tensorfile.file import write_tensors
from tests.flips import check_told, flipped

OURS = {
    "classes": '["a", "b"]', "classifier": "trained", "fingerprint": "f" * 64, "input": "caffe", "recipe": "{}",
    "stack": "0", "stream": "spatial",
}  # fmt: skip
SIZE = {"classes": 2, "fc_size": 4}


@pytest.fixture(scope="module")
def net():
    return initial_net("random", **SIZE)


@pytest.fixture(scope="module")
def tensors(net):
    return {name: value.contiguous() for name, value in net.state_dict().items()}


@pytest.fixture(scope="module")
def ours(net, tmp_path_factory):
    path = tmp_path_factory.mktemp("nets") / "spatial-1.safetensors"
    write_net(path, net, OURS)
    return path


def header_of(path):
    with path.open("rb") as file:
        return range(8 + int.from_bytes(file.read(8), "little"))


def test_flipped_bits_of_the_weights_are_told(ours):
    """Anywhere in 59 MB; each is read in a tenth of a second."""
    start = len(header_of(ours))
    for bit in flipped(ours, 30, range(start, ours.stat().st_size)):
        with pytest.raises(WeightsError, match=r"is damaged .*Run stage finetune again") as raised:
            read_net(ours)
        assert str(ours) in str(raised.value), bit


def test_flipped_bits_of_the_header_are_told_or_change_nothing(ours, tensors):
    def same(found):
        return found[1]["sha256"] == whole["sha256"] and all(map(torch.equal, found[0].state_dict().values(), values))

    whole, values = read_metadata(ours), list(tensors.values())
    check_told(ours, lambda: read_net(ours), WeightsError, same, "stage finetune", count=60, within=header_of(ours))


def test_flipped_bits_of_the_metadata_change_nothing_that_is_read_of_them(ours):
    def facts():
        metadata = read_metadata(ours)
        identity = net_identity(ours, metadata)
        return metadata, identity, resolve_convention(str(ours)), knows_classes(str(ours), ["a", "b"])

    whole = facts()
    assert whole[1:] == (whole[0]["sha256"], "caffe", True)
    check_told(ours, facts, WeightsError, whole.__eq__, "stage finetune", count=2000, within=header_of(ours))


@pytest.mark.parametrize("key", ["fingerprint", "classifier", "recipe", "stack", "stream"])
def test_a_net_of_ours_without_a_seal_is_refused(key, tensors, tmp_path):
    save_file(tensors, tmp_path / "net", {key: OURS[key]})
    for read in (read_net, read_metadata, read_tensors):
        with pytest.raises(WeightsError, match=rf"net: says {key}, .* carries no checksum.* Run stage finetune again"):
            read(tmp_path / "net")


def test_weights_from_elsewhere_are_read_and_known_by_their_bytes(tensors, tmp_path):
    path = tmp_path / "elsewhere"
    save_file({name: value.half() for name, value in tensors.items()}, path, {"input": "caffe", "classes": '["x"]'})
    opened = open_net(path, "spatial", stack=0)
    assert opened.input == "caffe"
    assert opened.identity == hashlib.sha256(path.read_bytes()).hexdigest()
    assert {value.dtype for value in opened.net.state_dict().values()} == {torch.float32}
    assert not knows_classes(str(path), ["x"])


@pytest.mark.parametrize(("recipe", "fits"), [('{"iterations": 3}', False), ('{"iterations": 0}', True), ("[]", True)])
def test_a_net_that_was_trained_on_flow_with_the_camera_s_motion_is_not_one_for_flow_without(recipe, fits, tmp_path):
    told = {"stream": "temporal", "recipe": recipe, "input": "caffe"}
    for name, known in (("with", {}), ("without", {"camera": "homography"})):
        write_net(tmp_path / name, VGG16(classes=2, in_channels=4, fc_size=4), told | known)
    assert open_net(tmp_path / "with", "temporal", stack=2).stack == 2
    assert open_net(tmp_path / "without", "temporal", stack=2, camera="homography").stack == 2
    if fits:
        assert open_net(tmp_path / "with", "temporal", stack=2, camera="homography").stack == 2
    else:
        with pytest.raises(WeightsError, match="trained on flow with camera: none, not homography"):
            open_net(tmp_path / "with", "temporal", stack=2, camera="homography")
        with pytest.raises(WeightsError, match="trained on flow with camera: homography, not mean"):
            open_net(tmp_path / "without", "temporal", stack=2, camera="mean")


def test_the_identity_is_the_content(ours, net, tmp_path):
    write_net(tmp_path / "same", net, OURS)
    write_net(tmp_path / "other", net, OURS | {"fingerprint": "e" * 64})
    known = [net_identity(path, read_metadata(path)) for path in (ours, tmp_path / "same", tmp_path / "other")]
    assert known[0] == known[1] != known[2]


FC6, FC7, FC8 = ("classifier.0.weight", "classifier.3.weight", "classifier.6.weight")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({FC8: torch.zeros(4)}, "classifier.6.weight has 1 dimensions"),
        ({FC8: torch.tensor(1.0)}, "classifier.6.weight has 0 dimensions"),
        ({FC7: torch.zeros(4, 4, 1)}, "classifier.3.weight has 3 dimensions"),
        ({"features.0.weight": torch.zeros(64)}, "features.0.weight has 1 dimensions"),
        ({FC6: torch.zeros(4)}, "classifier.0.weight is (4,), but a VGG-16 of its size has (4, 25088)"),
        ({FC6: torch.zeros(5, 25088)}, "classifier.0.weight is (5, 25088)"),
        ({FC8: torch.zeros(2, 0)}, "0 units"),
        ({FC8: torch.zeros(0, 4)}, "0 classes"),
        ({FC8: torch.zeros(0, 1 << 40)}, "0 classes"),
        ({FC8: torch.zeros(1_000_001, 1)}, "1000001 classes"),
        ({"features.0.weight": torch.zeros(64, 4097, 1, 1)}, "4097 channels"),
        ({"features.2.bias": None}, "lacks features.2.bias"),
        ({"bn.weight": torch.zeros(1)}, "has bn.weight"),
        ({FC8: torch.zeros(2, 4, dtype=torch.int32)}, "torch.int32, not floating point"),
        ({FC8: torch.zeros(2, 4, dtype=torch.bool)}, "torch.bool, not floating point"),
        ({FC8: torch.full((2, 4), torch.nan)}, "numbers that are not finite"),
        ({FC8: torch.tensor([[0, 0, 0, -torch.inf], [0] * 4])}, "numbers that are not finite"),
    ],
)
def test_what_is_no_net_is_refused_whoever_wrote_it(changes, words, tensors, tmp_path):
    changed = {name: value for name, value in {**tensors, **changes}.items() if value is not None}
    save_file(changed, tmp_path / "elsewhere")
    write_tensors(tmp_path / "sealed", changed, OURS)
    for name in ("elsewhere", "sealed"):
        with pytest.raises(WeightsError) as raised:
            read_net(tmp_path / name)
        assert str(raised.value).startswith(f"{tmp_path / name}: ")
        assert words in str(raised.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (FC6, torch.tensor(1.0)),
        (FC7, torch.zeros(4)),
        (FC8, torch.zeros(2, 4, dtype=torch.int64)),
        ("features.0.weight", torch.zeros(64)),
        ("features.0.weight", torch.full((64, 3, 3, 3), torch.inf)),
    ],
)
def test_initial_weights_of_wrong_shape_or_kind_are_refused(name, value, tensors, tmp_path):
    save_file({**tensors, name: value}, tmp_path / "w")
    with pytest.raises(WeightsError, match="/w: "):
        initial_net(str(tmp_path / "w"), **SIZE)


@pytest.mark.parametrize("classes", ["", "{", "1", '["a", 1]', "null", "[" * 100_000])
def test_a_list_of_classes_that_is_none_is_refused(classes, tensors, tmp_path):
    write_tensors(tmp_path / "w", {}, OURS | {"classes": classes})
    for read in (read_metadata, read_tensors, lambda path: knows_classes(str(path), ["a"])):
        with pytest.raises(WeightsError, match="`classes` in its metadata is not a list of names"):
            read(tmp_path / "w")


def test_other_keys_and_files_are_as_they_were(ours, tmp_path):
    assert json.loads(read_metadata(ours)["classes"]) == ["a", "b"]
    assert load_file(ours).keys() == VGG16(**SIZE).state_dict().keys()
    for name, words in (("nowhere", r"cannot be read \(No such file"), (".", r"cannot be read \(is not a file\)")):
        for read in (read_net, read_metadata, read_tensors):
            with pytest.raises(WeightsError, match=words):
                read(tmp_path / name)
    with pytest.raises(WeightsError, match="cannot be read"):
        net_identity(tmp_path / "nowhere", {})
