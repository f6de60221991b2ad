"""A trained two-stream CNN + LSTM survives its file, and nothing else is taken for one."""

import dataclasses
import json

import pytest
import torch
from safetensors.torch import save_file

from han_core.baselines.cnn_lstm.model import CNNLSTM, CNNLSTMConfig
from han_core.baselines.cnn_lstm.model_file import TrainedCNNLSTM, load_cnn_lstm, save_cnn_lstm
from han_core.han.config import HANConfig
from han_core.han.described import ModelFileError
from han_core.han.model import HAN
from han_core.han.model_file import TrainedHAN, load_model, save_model
from han_core.tensorfile.file import read_tensors, write_tensors
from tests.flips import check_told

CONFIG = CNNLSTMConfig(("spatial", "temporal"), classes=2, channels=3, units=5, layers=2, forget_bias=2.5)


@pytest.fixture
def trained():
    torch.manual_seed(0)
    model = CNNLSTM(CONFIG)
    model.standardize(torch.rand(2, 3), 0.5 + torch.rand(2, 3))
    return TrainedCNNLSTM(model, ("walk", "run"), "fc7")


@pytest.fixture
def path(trained, tmp_path):
    save_cnn_lstm(trained, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


@pytest.mark.parametrize("source", ["fc6", "fc7", "cubes"])
def test_round_trip_and_same_bytes(source, trained, tmp_path):
    trained = dataclasses.replace(trained, source=source)
    save_cnn_lstm(trained, tmp_path / "a" / "m", made_with={"torch": "1"})
    save_cnn_lstm(trained, tmp_path / "b", made_with={"torch": "1"})
    assert (tmp_path / "a" / "m").read_bytes() == (tmp_path / "b").read_bytes()
    loaded = load_cnn_lstm(tmp_path / "b")
    assert dataclasses.replace(loaded, model=trained.model) == trained
    assert loaded.model.config == CONFIG
    assert not loaded.model.training
    assert all(parameter.requires_grad for parameter in loaded.model.parameters())
    features = {s: torch.rand(2, 6, 3, 1) for s in CONFIG.streams}
    assert torch.equal(loaded.model(features), trained.model.eval()(features))


def test_a_han_is_not_taken_for_one_nor_the_other_way_round(path, tmp_path):
    save_model(
        TrainedHAN(HAN(HANConfig(("spatial",), 2, 3, 4, lstm_size=5)), "spatial", ("a", "b"), "cubes"), tmp_path / "han"
    )
    with pytest.raises(ModelFileError, match="is a safetensors file, but not a trained two-stream CNN"):
        load_cnn_lstm(tmp_path / "han")
    with pytest.raises(ModelFileError, match="is a safetensors file, but not a trained HAN"):
        load_model(path)
    with pytest.raises(ModelFileError, match="cannot be read as a trained model"):
        load_cnn_lstm(tmp_path / "missing")


def test_a_flipped_bit_is_told_or_changes_nothing(path):
    def same(found):
        equal = map(torch.equal, found.model.state_dict().values(), whole.model.state_dict().values())
        return all(equal) and dataclasses.replace(found, model=whole.model) == whole

    whole = load_cnn_lstm(path)
    assert check_told(path, lambda: load_cnn_lstm(path), ModelFileError, same, "Train it again", count=500) > 0.9


CHANGES = {
    "config missing": lambda d: d.pop("config"),
    "schema missing": lambda d: d.pop("schema"),
    "schema of another version": lambda d: d.update(schema=2),
    "units huge": lambda d: d["config"].update(units=10**9),
    "units beyond integers": lambda d: d["config"].update(units=10**400),
    "units as text": lambda d: d["config"].update(units="5"),
    "units as truth": lambda d: d["config"].update(units=True),
    "units other": lambda d: d["config"].update(units=4),
    "units zero": lambda d: d["config"].update(units=0),
    "a million layers": lambda d: d["config"].update(layers=10**6),
    "three layers": lambda d: d["config"].update(layers=3),
    "channels other": lambda d: d["config"].update(channels=4),
    "channels huge": lambda d: d["config"].update(channels=10**12),
    "one stream": lambda d: d["config"].update(streams=["spatial"]),
    "a stream twice": lambda d: d["config"].update(streams=["spatial", "spatial"]),
    "a stream of another name": lambda d: d["config"].update(streams=["spatial", "a.b"]),
    "streams as text": lambda d: d["config"].update(streams="spatial"),
    "no stream": lambda d: d["config"].update(streams=[]),
    "dropout above 1": lambda d: d["config"].update(dropout=2),
    "bias NaN": lambda d: d["config"].update(forget_bias=float("nan")),
    "bias infinite": lambda d: d["config"].update(forget_bias=float("inf")),
    "config extra": lambda d: d["config"].update(evil=1),
    "config as list": lambda d: d.update(config=[]),
    "extra": lambda d: d.update(evil=1),
    "classes none": lambda d: d.update(classes=None),
    "classes few": lambda d: d.update(classes=["a"]),
    "a class twice": lambda d: d.update(classes=["a", "a"]),
    "classes as numbers": lambda d: d.update(classes=[1, 2]),
    "source unknown": lambda d: d.update(source="../fc7"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_description_made_to_do_harm_is_refused_sealed_or_not(name, path):
    tensors, metadata = read_tensors(path)
    description = json.loads(metadata["cnn_lstm"])
    CHANGES[name](description)
    tensors = {key: value.clone() for key, value in tensors.items()}
    write_tensors(path, tensors, {"cnn_lstm": json.dumps(description)})
    with pytest.raises(ModelFileError, match="Train it again") as raised:
        load_cnn_lstm(path)
    assert str(path) in str(raised.value)
    assert len(str(raised.value)) < 600
    save_file(tensors, path, {"cnn_lstm": json.dumps(description)})
    with pytest.raises(ModelFileError, match=r"carries no checksum.* Train it again"):
        load_cnn_lstm(path)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000, '{"schema": 1}', "\0"])
def test_what_is_no_description_is_refused(text, path):
    tensors, _ = read_tensors(path)
    write_tensors(path, {key: value.clone() for key, value in tensors.items()}, {"cnn_lstm": text})
    with pytest.raises(ModelFileError, match="does not describe a model"):
        load_cnn_lstm(path)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("classifiers.spatial.bias", None, "lacks classifiers.spatial.bias"),
        ("more", torch.zeros(1), "has more"),
        ("classifiers.spatial.bias", torch.zeros(3), "classifiers.spatial.bias is (3,) of torch.float32"),
        ("classifiers.spatial.bias", torch.zeros(2, dtype=torch.float64), "of torch.float64"),
        ("classifiers.spatial.bias", torch.tensor([0, torch.nan]), "impossible numbers"),
        ("deviation", torch.zeros(2, 3), "impossible numbers"),
    ],
)
def test_weights_that_are_not_the_models_are_refused(name, value, words, path):
    tensors, metadata = read_tensors(path)
    changed = {key: tensor.clone() for key, tensor in tensors.items()} | {name: value}
    write_tensors(path, {key: tensor for key, tensor in changed.items() if tensor is not None}, metadata)
    with pytest.raises(ModelFileError, match="Train it again") as raised:
        load_cnn_lstm(path)
    assert words in str(raised.value)


def test_no_model_is_made_before_all_fits(path):
    """A config of terabytes with the weights of a small model: only shapes are made of it."""
    tensors, metadata = read_tensors(path)
    description = json.loads(metadata["cnn_lstm"])
    description["config"].update(units=65_536, channels=1 << 20)
    write_tensors(path, {key: value.clone() for key, value in tensors.items()}, {"cnn_lstm": json.dumps(description)})
    with pytest.raises(ModelFileError, match=r"is \(20,\) of .* it describes needs \(262144,\)"):
        load_cnn_lstm(path)
