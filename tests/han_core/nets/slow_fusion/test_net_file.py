"""Files of Slow Fusion: what is written is read, and what is no such net is refused."""

import json

import pytest
import torch
from safetensors.torch import save_file

from han_core.nets import net_file as vgg16_file
from han_core.nets.sealed_net import WeightsError, read_metadata
from han_core.nets.slow_fusion import net_file
from han_core.nets.slow_fusion.inputs import SquareViews
from han_core.nets.slow_fusion.net_file import read_net, write_net
from han_core.tensorfile.file import write_tensors
from tests.flips import check_told, flipped
from tests.small_net import SmallVGG16
from tests.small_slow_fusion import SmallSlowFusion

FACTS = {"classes": '["a", "b"]', "classifier": "trained", "fingerprint": "f" * 64, "recipe": "{}"}
SEEN = {"architecture": "slow fusion", "resize": "220", "flip": "false"}


@pytest.fixture(autouse=True)
def small_nets(monkeypatch):
    monkeypatch.setattr(net_file, "empty_net", SmallSlowFusion)


@pytest.fixture(scope="module")
def net():
    return SmallSlowFusion(seed=3)


@pytest.fixture
def ours(net, tmp_path):
    path = tmp_path / "slow_fusion-1.safetensors"
    write_net(path, net, SquareViews(220, flip=False), FACTS)
    return path


def test_what_is_written_is_read(ours, net):
    found = read_net(ours)
    assert found.views == SquareViews(220, flip=False)
    assert found.metadata.items() >= FACTS.items()
    assert found.identity == read_metadata(ours)["sha256"]
    assert (found.net.classes, found.net.fc_size) == (2, 8)
    state = found.net.state_dict()
    assert all(torch.equal(state[name], value) for name, value in net.state_dict().items())


def test_the_same_net_gives_the_same_bytes(ours, net, tmp_path):
    write_net(tmp_path / "again", net, SquareViews(220, flip=False), dict(reversed(FACTS.items())))
    assert (tmp_path / "again").read_bytes() == ours.read_bytes()
    write_net(tmp_path / "other", net, SquareViews(221, flip=False), FACTS)
    assert read_net(tmp_path / "other").identity != read_net(ours).identity


def header_of(path):
    with path.open("rb") as file:
        return range(8 + int.from_bytes(file.read(8), "little"))


def test_flipped_bits_are_told_or_change_nothing(ours, net):
    def same(found):
        state = found.net.state_dict()
        return found.views == SquareViews(220, flip=False) and all(
            torch.equal(state[name], value) for name, value in net.state_dict().items()
        )

    start = len(header_of(ours))
    check_told(ours, lambda: read_net(ours), WeightsError, same, "stage finetune", count=300, within=header_of(ours))
    for _ in flipped(ours, 30, range(start, ours.stat().st_size)):
        with pytest.raises(WeightsError, match="is damaged"):
            read_net(ours)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"fc8.weight": None}, "has no fc8.weight"),
        ({"fc8.weight": torch.zeros(2)}, "has no fc8.weight of two dimensions"),
        ({"fc8.weight": torch.zeros(0, 8)}, "0 classes"),
        ({"fc8.weight": torch.zeros(2, 0)}, "0 units"),
        ({"fc8.weight": torch.zeros(1_000_001, 1)}, "1000001 classes"),
        ({"fc8.bias": torch.zeros(3)}, "fc8.bias is (3,), but a slow fusion net of its size has (2,)"),
        ({"fc7.weight": torch.zeros(8, 8, 1)}, "fc7.weight is (8, 8, 1)"),
        ({"conv1.weight": torch.zeros(6, 3, 11, 11)}, "conv1.weight is (6, 3, 11, 11)"),
        ({"conv3.bias": None}, "lacks conv3.bias"),
        ({"bn.weight": torch.zeros(1)}, "has 'bn.weight', unknown to a slow fusion net"),
        ({"\x1b[2J": torch.zeros(1)}, r"has '\x1b[2J', unknown"),
        ({"fc8.bias": torch.zeros(2, dtype=torch.int64)}, "torch.int64, not floating point"),
        ({"fc8.bias": torch.tensor([0, torch.inf])}, "numbers that are not finite"),
    ],
)
def test_what_is_no_net_is_refused(changes, words, net, tmp_path):
    tensors = {name: value for name, value in {**net.state_dict(), **changes}.items() if value is not None}
    write_tensors(tmp_path / "net", tensors, FACTS | SEEN)
    with pytest.raises(WeightsError) as raised:
        read_net(tmp_path / "net")
    assert str(raised.value).startswith(f"{tmp_path / 'net'}: ")
    assert words in str(raised.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"architecture": "torchvision vgg16"}, "does not say that it is a slow fusion net"),
        ({"architecture": None}, "does not say that it is a slow fusion net"),
        ({"resize": None}, "does not say how frames are resized"),
        ({"resize": "169"}, "does not say how frames are resized"),
        ({"resize": "99999"}, "does not say how frames are resized"),
        ({"resize": "9" * 5000}, "does not say how frames are resized"),
        ({"resize": "2e2"}, "does not say how frames are resized"),
        ({"resize": "-200"}, "does not say how frames are resized"),
        ({"resize": "٢٠٠"}, "does not say how frames are resized"),
        ({"flip": "True"}, "does not say how frames are resized and mirrored"),
        ({"flip": None}, "does not say how frames are resized and mirrored"),
        ({"classes": "[" * 100_000}, "is not a list of names"),
        ({"classes": "[1]"}, "is not a list of names"),
    ],
)
def test_metadata_that_do_not_say_what_they_should_are_refused(changes, words, net, tmp_path):
    metadata = {name: value for name, value in (FACTS | SEEN | changes).items() if value is not None}
    write_tensors(tmp_path / "net", net.state_dict(), metadata)
    with pytest.raises(WeightsError, match=words):
        read_net(tmp_path / "net")


def test_a_net_of_ours_without_a_seal_is_refused(net, tmp_path):
    save_file(net.state_dict(), tmp_path / "net", FACTS | SEEN)
    with pytest.raises(WeightsError, match="carries no checksum"):
        read_net(tmp_path / "net")


def test_another_net_is_refused(tmp_path):
    metadata = {"architecture": "torchvision vgg16", "classes": json.dumps(["a", "b"])}
    vgg16_file.write_net(tmp_path / "net", SmallVGG16(), metadata)
    with pytest.raises(WeightsError, match="does not say that it is a slow fusion net"):
        read_net(tmp_path / "net")


def test_files_that_are_none(tmp_path):
    with pytest.raises(WeightsError, match="cannot be read"):
        read_net(tmp_path / "nowhere")
    (tmp_path / "text").write_bytes(b"no tensors here")
    with pytest.raises(WeightsError, match="is not a safetensors file"):
        read_net(tmp_path / "text")
