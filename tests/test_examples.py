"""The examples in the docstrings of the library's entry points run and print what they say."""

import doctest
import importlib

import numpy as np
import pytest
import torch

from han_core.cubes.cubefile import write_cubes
from han_core.han.config import HANConfig
from han_core.han.feature_settings import FeatureSettings
from han_core.han.model import HAN
from han_core.han.model_file import TrainedHAN, save_model
from han_core.nets.net_file import write_net
from han_core.nets.vgg16 import VGG16
from tests.make_videos import make_video

ENTRY_POINTS = (
    "han_core.api.videos.extract",
    "han_core.api.videos.flow",
    "han_core.api.videos.frames",
    "han_core.api.models.load_model",
    "han_core.api.stores.open_store",
    "han_core.baselines.cnn_lstm.model.CNNLSTM",
    "han_core.cache.store.ClipCache",
    "han_core.clipfile.writer.ClipFileWriter",
    "han_core.cubes.sparse.SparseRows",
    "han_core.flow.levels.quantize",
    "han_core.flow.tvl1.solver.tvl1_flow",
    "han_core.han.model.HAN",
    "han_core.nets.sampling.sample_frames",
    "han_core.nets.slow_fusion.net.SlowFusion",
    "han_core.nets.weights.initial_net",
    "han_core.predictions.write_predictions",
    "han_core.video.decode.read_video",
)


def write_trained(folder):
    """A spatial net, a HAN on its cubes, and a store of one clip."""
    torch.manual_seed(0)
    write_net(folder / "spatial-1.safetensors", VGG16(classes=2, fc_size=4), {"stream": "spatial", "input": "caffe"})
    recipe = FeatureSettings(
        frames=2, layer="conv5_3", fc="fc7", batch=2, precision="float32", stack=10, short_side=None, frame_quality=95,
        flow={"bound": 20.0, "size": None}, tvl1={}, backend="auto", clip_frames=14,
    )  # fmt: skip
    model = HAN(HANConfig(("spatial",), classes=2, lstm_size=4))
    save_model(TrainedHAN(model, "spatial", ("jump", "wave"), "cubes", recipe), folder / "han.safetensors")
    (folder / "cubes/wave").mkdir(parents=True)
    values = {"conv5_3": np.ones((2, 4, 3, 3), np.float16), "fc7": np.ones((2, 4), np.float16)}
    write_cubes(
        folder / "cubes/wave/clip.h5",
        clip="clip",
        fingerprint="ab" * 32,
        frames=np.array([0, 13], np.int32),
        layer="conv5_3",
        fc="fc7",
        values=values,
        attributes={},
    )


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_the_example_of_an_entry_point_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_video(tmp_path / "clip.avi", 14)
    if name.startswith("han_core.api"):
        write_trained(tmp_path)
    module_name, _, entry = name.rpartition(".")
    module = importlib.import_module(module_name)
    found = doctest.DocTestFinder(recurse=False).find(getattr(module, entry), name, module, globs=dict(vars(module)))
    examples = [test for test in found if test.examples]
    assert examples, "has no example"
    runner = doctest.DocTestRunner()
    for example in examples:
        runner.run(example)
    assert runner.failures == 0
