"""A trained model survives its file, and nothing else is taken for one."""

import dataclasses

import pytest
import torch
from safetensors.torch import save_file

from han_core.han.config import HANConfig
from han_core.han.model import HAN
from han_core.han.model_file import ModelFileError, TrainedHAN, load_model, save_model

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


def test_what_is_no_model_is_refused_in_plain_words(tmp_path):
    with pytest.raises(ModelFileError, match="cannot be read as a trained model"):
        load_model(tmp_path / "missing.safetensors")
    (tmp_path / "text.safetensors").write_text("no model")
    with pytest.raises(ModelFileError, match="cannot be read as a trained model"):
        load_model(tmp_path / "text.safetensors")
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ModelFileError, match="not a trained HAN"):
        load_model(tmp_path / "other.safetensors")
