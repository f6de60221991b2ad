"""A trained model survives its file, and nothing else is taken for one."""

import dataclasses
import json
import struct

import pytest
import torch
from safetensors.torch import save_file

from han_core.han.config import HANConfig
from han_core.han.described import ModelFileError
from han_core.han.feature_settings import FeatureSettings
from han_core.han.model import HAN
from han_core.han.model_file import TrainedHAN, load_model, save_model
from han_core.tensorfile.file import read_tensors, write_tensors
from tests.flips import check_told

CONFIG = HANConfig(("spatial", "temporal"), classes=2, channels=3, regions=4, lstm_size=5, initial_state="mean")


def test_round_trip_and_same_bytes(tmp_path):
    model = HAN(CONFIG)
    model.standardize(torch.rand(2, 3), torch.rand(2, 3))
    trained = TrainedHAN(model, "han", ("walk", "run"), "cubes")
    save_model(trained, tmp_path / "a" / "model.safetensors")
    save_model(trained, tmp_path / "b.safetensors")
    assert (tmp_path / "a" / "model.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    loaded = load_model(tmp_path / "b.safetensors")
    assert dataclasses.replace(loaded, model=model) == trained
    assert loaded.model.config == CONFIG
    cubes = {s: torch.rand(1, 6, 3, 4) for s in CONFIG.streams}
    torch.testing.assert_close(loaded.model(cubes).logits, model.eval()(cubes).logits, rtol=0, atol=0)


def test_options_of_later_stand_in_the_file_where_they_are_used_and_only_there(tmp_path):
    """So models without them keep the bytes that they had before there were such options."""
    assert not {"attention_deviation", "region_dropout", "stream_dropout"} & CONFIG.to_dict().keys()
    options = {"attention_deviation": 0.25, "region_dropout": 0.5, "stream_dropout": 0.3}
    config = dataclasses.replace(CONFIG, **options)
    assert config.to_dict() == CONFIG.to_dict() | options
    save_model(TrainedHAN(HAN(config), "han", ("walk", "run"), "cubes"), tmp_path / "m")
    assert load_model(tmp_path / "m").model.config == config


def test_what_is_no_model_is_refused_in_plain_words(tmp_path):
    with pytest.raises(ModelFileError, match="cannot be read as a trained model"):
        load_model(tmp_path / "missing.safetensors")
    (tmp_path / "text.safetensors").write_text("no model")
    with pytest.raises(ModelFileError, match="cannot be read as a trained model"):
        load_model(tmp_path / "text.safetensors")
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ModelFileError, match="not a trained HAN"):
        load_model(tmp_path / "other.safetensors")


RECIPE = FeatureSettings(
    frames=2, layer="conv5_3", fc="fc7", batch=2, precision="float32", stack=2, short_side=None, frame_quality=95,
    flow={"bound": 20.0, "size": (32, 24), "codec": "png"}, tvl1={"lambda_": 0.2, "warps": 3}, backend="auto",
    clip_frames=9, nets={"spatial": "s", "temporal": "t"}, inputs={"spatial": "caffe"},
)  # fmt: skip


@pytest.fixture
def path(tmp_path):
    torch.manual_seed(0)
    save_model(TrainedHAN(HAN(CONFIG), "han", ("walk", "run"), "cubes", RECIPE), tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


@pytest.mark.parametrize("attention", ["location", "content", "uniform"])
@pytest.mark.parametrize("initial_state", ["zeros", "mean"])
def test_each_kind_of_model_computes_what_it_did(attention, initial_state, tmp_path):
    config = dataclasses.replace(
        CONFIG, attention=attention, initial_state=initial_state, forget_bias=(1.0, 0.5), dropout=0
    )
    model = HAN(config).eval()
    save_model(TrainedHAN(model, "han", ("walk", "run"), "fc7", RECIPE), tmp_path / "m")
    loaded = load_model(tmp_path / "m")
    assert loaded.recipe == RECIPE
    assert loaded.source == "fc7"
    assert not loaded.model.training
    assert all(parameter.requires_grad for parameter in loaded.model.parameters())
    assert {str(value.device) for value in loaded.model.state_dict().values()} == {"cpu"}
    cubes = {s: torch.rand(1, 6, 3, 4) for s in config.streams}
    assert torch.equal(loaded.model(cubes).logits, model(cubes).logits)


def test_a_flipped_bit_is_told_or_changes_nothing(path):
    def same(found):
        equal = map(torch.equal, found.model.state_dict().values(), whole.model.state_dict().values())
        return all(equal) and dataclasses.replace(found, model=whole.model) == whole

    whole = load_model(path)
    whole = dataclasses.replace(whole, model=HAN(CONFIG))
    whole.model.load_state_dict(load_model(path).model.state_dict())
    assert check_told(path, lambda: load_model(path), ModelFileError, same, "Train it again", count=2000) > 0.9


CHANGES = {
    "config missing": lambda d: d.pop("config"),
    "schema missing": lambda d: d.pop("schema"),
    "schema of another version": lambda d: d.update(schema=1),
    "schema as text": lambda d: d.update(schema="2"),
    "variant missing": lambda d: d.pop("variant"),
    "variant as number": lambda d: d.update(variant=1),
    "lstm huge": lambda d: d["config"].update(lstm_size=10**9),
    "lstm beyond integers": lambda d: d["config"].update(lstm_size=10**400),
    "lstm as text": lambda d: d["config"].update(lstm_size="5"),
    "lstm as truth": lambda d: d["config"].update(lstm_size=True),
    "lstm as fraction": lambda d: d["config"].update(lstm_size=5.0),
    "lstm other": lambda d: d["config"].update(lstm_size=4),
    "lstm zero": lambda d: d["config"].update(lstm_size=0),
    "a million layers": lambda d: d["config"].update(layers=10**6),
    "three layers": lambda d: d["config"].update(layers=3),
    "features other": lambda d: d["config"].update(features=4),
    "regions huge": lambda d: d["config"].update(regions=10**12),
    "regions other": lambda d: d["config"].update(regions=5),
    "skip zero": lambda d: d["config"].update(skip=0),
    "one stream": lambda d: d["config"].update(streams=["spatial"]),
    "a stream twice": lambda d: d["config"].update(streams=["spatial", "spatial"]),
    "streams as text": lambda d: d["config"].update(streams="spatial"),
    "no stream": lambda d: d["config"].update(streams=[]),
    "attention other": lambda d: d["config"].update(attention="content"),
    "attention unknown": lambda d: d["config"].update(attention="os.system"),
    "state other": lambda d: d["config"].update(initial_state="zeros"),
    "regions dropped, all": lambda d: d["config"].update(region_dropout=1.0),
    "streams dropped, more than all": lambda d: d["config"].update(stream_dropout=1.5),
    "regions dropped, as text": lambda d: d["config"].update(region_dropout="0.5"),
    "deviation zero": lambda d: d["config"].update(attention_deviation=0.0),
    "deviation of another attention": lambda d: d["config"].update(attention="content", attention_deviation=0.1),
    "dropout above 1": lambda d: d["config"].update(dropout=2),
    "dropout NaN": lambda d: d["config"].update(dropout=float("nan")),
    "biases too few": lambda d: d["config"].update(forget_bias=[1.0]),
    "biases infinite": lambda d: d["config"].update(forget_bias=[float("inf"), 1]),
    "config extra": lambda d: d["config"].update(evil=1),
    "config as list": lambda d: d.update(config=[]),
    "extra": lambda d: d.update(evil=1),
    "classes none": lambda d: d.update(classes=None),
    "classes few": lambda d: d.update(classes=["a"]),
    "a class twice": lambda d: d.update(classes=["a", "a"]),
    "classes as numbers": lambda d: d.update(classes=[1, 2]),
    "source unknown": lambda d: d.update(source="fc9"),
    "recipe wild": lambda d: d.update(recipe={"x": 1}),
    "recipe as text": lambda d: d.update(recipe="x"),
    "recipe extra": lambda d: d["recipe"].update(x=1),
    "recipe lacks": lambda d: d["recipe"].pop("flow"),
    "recipe frames huge": lambda d: d["recipe"].update(frames=10**12),
    "recipe flow wild": lambda d: d["recipe"].update(flow={"x": 1}),
    "recipe flow huge": lambda d: d["recipe"]["flow"].update(size=[10**9, 10**9]),
    "recipe flow size": lambda d: d["recipe"]["flow"].update(size=[1]),
    "recipe tvl1 wild": lambda d: d["recipe"].update(tvl1={"scales": "5"}),
    "recipe tvl1 unknown": lambda d: d["recipe"].update(tvl1={"lambda": 1.0}),
    "recipe inputs": lambda d: d["recipe"].update(inputs={"spatial": "x"}),
    "recipe nets": lambda d: d["recipe"].update(nets={"../x": "y"}),
    "recipe layer": lambda d: d["recipe"].update(layer="../x"),
    "recipe backend": lambda d: d["recipe"].update(backend="x"),
    "recipe camera": lambda d: d["recipe"].update(camera="homography-still0.5; x"),
    "recipe camera of another kind": lambda d: d["recipe"].update(camera="steady"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_description_made_to_do_harm_is_refused_sealed_or_not(name, path):
    tensors, metadata = read_tensors(path)
    description = json.loads(metadata["han"])
    CHANGES[name](description)
    tensors = {key: value.clone() for key, value in tensors.items()}
    write_tensors(path, tensors, {"han": json.dumps(description)})
    with pytest.raises(ModelFileError, match="Train it again") as raised:
        load_model(path)
    assert str(path) in str(raised.value)
    assert len(str(raised.value)) < 600
    save_file(tensors, path, {"han": json.dumps(description)})
    with pytest.raises(ModelFileError, match=r"carries no checksum.* Train it again"):
        load_model(path)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "1", "[" * 100_000, '{"schema": 2}', "\0"])
def test_what_is_no_description_is_refused(text, path):
    tensors, _ = read_tensors(path)
    write_tensors(path, {key: value.clone() for key, value in tensors.items()}, {"han": text})
    with pytest.raises(ModelFileError, match="does not describe a model"):
        load_model(path)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("classifier.bias", None, "lacks classifier.bias"),
        ("more", torch.zeros(1), "has more"),
        ("classifier.bias", torch.zeros(3), r"classifier.bias is (3,) of torch.float32, but .* needs (2,)"),
        ("classifier.bias", torch.zeros(2, 1), "classifier.bias is (2, 1)"),
        ("classifier.bias", torch.zeros(2, dtype=torch.float64), "of torch.float64"),
        ("classifier.bias", torch.zeros(2, dtype=torch.int32), "of torch.int32"),
        ("classifier.bias", torch.tensor([0, torch.nan]), "impossible numbers"),
        ("mean", torch.full((2, 3), torch.inf), "impossible numbers"),
        ("deviation", torch.zeros(2, 3), "impossible numbers"),
    ],
)
def test_weights_that_are_not_the_models_are_refused(name, value, words, path):
    tensors, metadata = read_tensors(path)
    changed = {key: tensor.clone() for key, tensor in tensors.items()} | {name: value}
    write_tensors(path, {key: tensor for key, tensor in changed.items() if tensor is not None}, metadata)
    with pytest.raises(ModelFileError, match="Train it again") as raised:
        load_model(path)
    assert words.split(" .* ")[0] in str(raised.value)


def test_no_model_is_made_before_all_fits(path, monkeypatch):
    """A config of 10 TB with the weights of a small model: only shapes are made of it."""
    tensors, metadata = read_tensors(path)
    description = json.loads(metadata["han"])
    description["config"].update(lstm_size=65_536, regions=1 << 20, features=1 << 20, layers=2)
    write_tensors(path, {key: value.clone() for key, value in tensors.items()}, {"han": json.dumps(description)})
    with pytest.raises(ModelFileError, match=r"is \(4, 10\) of .* it describes needs \(1048576, 131072\)"):
        load_model(path)


@pytest.mark.parametrize(
    "data", [b"", b"\x80\x04cos\nsystem\n(S'touch pwned'\ntR.", struct.pack("<Q", 1 << 62) + b"{}"], ids=str
)
def test_other_files_are_refused(data, tmp_path):
    (tmp_path / "f").write_bytes(data)
    with pytest.raises(ModelFileError, match=r"cannot be read as a trained model.*Train it again"):
        load_model(tmp_path / "f")
    with pytest.raises(ModelFileError, match="cannot be read as a trained model"):
        load_model(tmp_path)
