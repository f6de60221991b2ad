"""The examples in the docstrings of the library's entry points run and print what they say."""

import doctest
import importlib

import pytest

from tests.make_videos import make_video

ENTRY_POINTS = (
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


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_the_example_of_an_entry_point_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_video(tmp_path / "clip.avi", 14)
    module_name, _, entry = name.rpartition(".")
    module = importlib.import_module(module_name)
    found = doctest.DocTestFinder(recurse=False).find(getattr(module, entry), name, module, globs=dict(vars(module)))
    examples = [test for test in found if test.examples]
    assert examples, "has no example"
    runner = doctest.DocTestRunner()
    for example in examples:
        runner.run(example)
    assert runner.failures == 0
