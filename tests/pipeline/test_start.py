"""A HAN that starts from the weights of one that was trained on other data."""

from pathlib import Path

import pytest
import torch
import yaml
from click.testing import CliRunner

from han_core.clips import read_clips
from han_core.han.config import HANConfig
from han_core.han.model import HAN
from han_core.han.model_file import TrainedHAN, load_model, save_model, start_from
from pipeline import train
from pipeline.params import Train
from pipeline.selection.inner import SelectionError, trained_by
from pipeline.train import initial_model
from tests.only_han import only_han
from tests.pipeline.toy_store import CHANNELS, FRAMES, SIDE, write_store

CONFIG = HANConfig(("spatial", "temporal"), 2, CHANNELS, SIDE * SIDE, lstm_size=4, skip=2)


def save(path, seed=5, **changes):
    """A model of three other classes."""
    torch.manual_seed(seed)
    values = {**vars(CONFIG), "classes": 3, **changes}
    model = HAN(HANConfig(**values))
    model.standardize(torch.ones_like(model.mean), torch.full_like(model.deviation, 2.0))
    save_model(TrainedHAN(model, "han", ("x", "y", "z"), "cubes"), path)
    return model


@pytest.fixture
def project(repository, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    params = only_han(yaml.safe_load((repository / "params.yaml").read_text(encoding="utf-8")))
    params |= {"synthetic": None, "splits": [1], "models": ["han"]}
    params["dataset"].update(name="toy", kind="folder", root="videos", generate=[])
    params["cubes"].update(nets="toy", frames=FRAMES)
    params["train"].update(lstm_size=4, epochs=1, batch=8, skip=2)
    params["train"]["optimizer"]["learning_rate"] = 1e-9  # so that what comes out is what training started from
    write_store(tmp_path)

    def run(start, expected=0):
        params["train"]["start"] = start
        Path("params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
        done = CliRunner().invoke(train.main, ["--model", "han", "--split", "1", "--seed", "1"])
        assert done.exit_code == expected, (done.output, done.exception)
        return load_model(Path("models/toy/han/han-1-seed1.safetensors")).model if not expected else done.output

    return run


def test_all_weights_but_the_classifier_s_come_from_the_file_and_statistics_from_the_clips(project):
    other = save(Path("other-han.safetensors"))
    own = project(None)
    started = project("other-{model}.safetensors")
    for name, value in started.state_dict().items():
        if name.startswith("classifier.") or name in ("mean", "deviation"):
            torch.testing.assert_close(value, own.state_dict()[name], atol=1e-6, rtol=0)
        else:
            torch.testing.assert_close(value, other.state_dict()[name], atol=1e-6, rtol=0)
            assert not torch.allclose(value, own.state_dict()[name], atol=1e-3), name


def test_a_model_of_another_shape_or_none_is_told_in_a_line(project):
    assert "nowhere.safetensors cannot be read" in project("nowhere.safetensors", expected=1)
    save(Path("other.safetensors"), lstm_size=5)
    said = project("other.safetensors", expected=1)
    assert "other.safetensors: has lstm_size 5, but the model that should start from it has 4" in said
    assert read_clips("data/toy/clips.csv")


def test_another_file_is_another_identity(tmp_path):
    found = []
    for seed in (1, 2):
        save(tmp_path / "other.safetensors", seed=seed)
        found.append(start_from(HAN(CONFIG), tmp_path / "other.safetensors"))
    assert found[0] != found[1]
    save(tmp_path / "other.safetensors", seed=1)
    assert start_from(HAN(CONFIG), tmp_path / "other.safetensors") == found[0]


def test_a_choice_is_of_the_file_that_models_started_from(tmp_path):
    save(tmp_path / "a-han.safetensors", seed=1)
    save(tmp_path / "b-han.safetensors", seed=2)
    plain, one, two = (
        trained_by(Train(start=start and str(tmp_path / start)), "han")
        for start in (None, "a-{model}.safetensors", "b-{model}.safetensors")
    )
    assert "start" not in plain
    assert one["start"] != two["start"]
    with pytest.raises(SelectionError, match=r"no-han.*cannot be read .*train.start names it"):
        trained_by(Train(start=str(tmp_path / "no-{model}.safetensors")), "han")
    model, start = initial_model(Train(start=str(tmp_path / "a-{model}.safetensors")), CONFIG, "han", 1)
    assert start["start"]
    torch.testing.assert_close(
        model.attention.regions.weight, load_model(tmp_path / "a-han.safetensors").model.attention.regions.weight
    )
