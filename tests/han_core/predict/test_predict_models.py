"""Which model and which nets are taken, and what is said where they do not fit."""

import dataclasses
import os

import pytest
import torch

from han_core.han.config import HANConfig
from han_core.han.feature_settings import FeatureSettings
from han_core.han.model import HAN
from han_core.han.model_file import TrainedHAN, save_model
from han_core.nets.net_file import write_net
from han_core.nets.sealed_net import WeightsError, net_identity, read_metadata
from han_core.nets.vgg16 import VGG16
from han_core.predict.models import PredictError, find_model, find_net, load_recogniser

RECIPE = FeatureSettings(
    frames=2, layer="conv5_3", fc="fc7", batch=2, precision="float32", stack=2, short_side=None, frame_quality=95,
    flow={"bound": 20.0, "size": [32, 24]}, tvl1={}, backend="auto", clip_frames=9,
    nets={"spatial": "right"}, inputs={"spatial": "caffe"},
)  # fmt: skip


def save(path, streams=("spatial",), recipe=RECIPE, age=0):
    model = HAN(HANConfig(streams, 2, 512, 196, lstm_size=2))
    save_model(TrainedHAN(model, "han", ("a", "b"), "cubes", recipe), path)
    os.utime(path, (1_000_000 - age, 1_000_000 - age))
    return path


@pytest.fixture(scope="module")
def net():
    return VGG16(classes=2, fc_size=4)


def test_the_recipe_survives_the_file(tmp_path):
    found = load_model_recipe(save(tmp_path / "m.safetensors"))
    assert found == dataclasses.replace(RECIPE, flow={"bound": 20.0, "size": (32, 24)})
    assert load_model_recipe(save(tmp_path / "old.safetensors", recipe=None)) is None


def load_model_recipe(path):
    from han_core.han.model_file import load_model

    return load_model(path).recipe


def test_the_last_dataset_and_there_the_full_han_is_taken(tmp_path):
    with pytest.raises(PredictError, match="holds no trained model"):
        find_model(tmp_path)
    save(tmp_path / "models/old/han/han-1-seed1.safetensors", age=100)
    last = save(tmp_path / "models/new/han/temporal-2-seed1.safetensors", age=1)
    assert find_model(tmp_path) == last
    save(tmp_path / "models/new/han/han-1.safetensors", age=60)  # of an earlier version
    assert find_model(tmp_path) == last
    names = ("2-seed1", "1-seed10", "1-seed9")
    full = [save(tmp_path / f"models/new/han/han-{name}.safetensors", age=50) for name in names]
    assert find_model(tmp_path) == full[2]


def identity(path):
    return net_identity(path, read_metadata(path))


def test_the_net_is_the_one_with_the_same_content(tmp_path, net):
    folder = tmp_path / "models/x/nets"
    folder.mkdir(parents=True)
    (folder / "spatial-0.safetensors").write_text("damaged")
    for name, fingerprint in (("spatial-1", "wrong"), ("spatial-2", "right"), ("temporal-1", "right")):
        write_net(folder / f"{name}.safetensors", net, {"fingerprint": fingerprint})
    right = identity(folder / "temporal-1.safetensors")
    assert find_net(tmp_path, "spatial", right, tmp_path / "m") == folder / "spatial-2.safetensors"
    with pytest.raises(PredictError, match=r"none of .* made the features .*--spatial-net"):
        find_net(tmp_path, "spatial", "another", tmp_path / "m")
    with pytest.raises(PredictError, match="does not say which spatial net"):
        find_net(tmp_path, "spatial", None, tmp_path / "m")


def test_nets_that_do_not_fit_are_refused(tmp_path, net):
    model = save(tmp_path / "m.safetensors")
    other, wide = tmp_path / "other.safetensors", tmp_path / "wide.safetensors"
    write_net(other, net, {"fingerprint": "wrong", "input": "caffe"})
    write_net(wide, VGG16(classes=2, in_channels=4, fc_size=4), {"fingerprint": "right", "input": "caffe"})
    for path, error, words in (
        (other, PredictError, "did not make the spatial features that"),
        (wide, WeightsError, "takes 4 channels"),
    ):
        with pytest.raises(error, match=words):
            load_recogniser(model, {"spatial": path}, workspace=tmp_path)
    with pytest.raises(PredictError, match="does not use a temporal net"):
        load_recogniser(model, {"temporal": other}, workspace=tmp_path)
    no_share = save(tmp_path / "share.safetensors", recipe=dataclasses.replace(RECIPE, camera="homography-still0"))
    with pytest.raises(PredictError, match="its flow cannot be made: camera must be none, mean"):
        load_recogniser(no_share, {}, workspace=tmp_path)
    with pytest.raises(PredictError, match="train it again"):
        load_recogniser(save(tmp_path / "old.safetensors", recipe=None), {}, workspace=tmp_path)


def test_a_net_that_fits_is_loaded(tmp_path, net):
    write_net(tmp_path / "net.safetensors", net, {"fingerprint": "right", "input": "caffe"})
    recipe = dataclasses.replace(RECIPE, nets={"spatial": identity(tmp_path / "net.safetensors")})
    loaded = load_recogniser(
        save(tmp_path / "m.safetensors", recipe=recipe), {"spatial": tmp_path / "net.safetensors"}, workspace=tmp_path
    )
    try:
        assert loaded.nets["spatial"].layers == ("conv5_3", "fc7")
        assert loaded.device == torch.device("cpu")
    finally:
        loaded.close()
