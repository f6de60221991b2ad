"""Stages train-cnn-lstm and classify-cnn-lstm on a made-up store in which only the temporal stream tells the class."""

import csv
import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from safetensors.numpy import load, load_file

from han_core.baselines.cnn_lstm.model import CNNLSTM, CNNLSTMConfig
from han_core.baselines.cnn_lstm.model_file import TrainedCNNLSTM, load_cnn_lstm, save_cnn_lstm
from pipeline import classify_cnn_lstm, train_cnn_lstm
from pipeline.curve import read_curve
from pipeline.evaluate import __main__ as evaluate
from pipeline.execution.ledger import Failure, write_failures
from tests.dvc_links import damaged, hold
from tests.only_han import only_han
from tests.pipeline.toy_store import CLASSES, FC, FRAMES, ROLES, write_store

MODEL, CURVE = "models/toy/cnn_lstm/1.safetensors", "plots/toy/train/deep_lstm-1"
ROWS = ("deep_lstm_spatial", "deep_lstm_temporal", "deep_lstm")


@pytest.fixture(scope="module")
def params(repository):
    made = only_han(yaml.safe_load((repository / "params.yaml").read_text(encoding="utf-8")))
    made.update(synthetic=None, models=["han"])
    made["scores"]["enabled"] = False
    made["evaluate"] = {"baselines": [], "fusion": [1, 3]}
    made["dataset"].update(name="toy", kind="folder", root="videos", generate=[])
    made["cubes"].update(nets="toy", frames=FRAMES)
    made["cnn_lstm"].update(splits=[1], units=8, layers=3, dropout=0.2, epochs=25, batch=5, clip_gradient=1)
    made["cnn_lstm"]["optimizer"].update(name="adam", learning_rate=0.02)
    made["run"].update(device="cpu", checkpoint_seconds=0)
    return made


def use(folder, params, **changes):
    """Write the params, with other values in group ``cnn_lstm`` or, by their names, in others."""
    content = json.loads(json.dumps(params))
    for key, value in changes.items():
        group = next(g for g in ("cnn_lstm", "run", "evaluate") if key in content[g])
        content[group][key] = value
    (folder / "params.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")


def run(stage, *arguments, code=0):
    result = CliRunner().invoke(stage.main, arguments or ("--split", "1"))
    assert result.exit_code == code, (result.output, result.exception)
    assert "Traceback" not in result.output
    return result.output


@pytest.fixture(scope="module")
def project(tmp_path_factory, params):
    folder = tmp_path_factory.mktemp("project")
    write_store(folder)
    use(folder, params)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("HAN_CACHE", str(folder / ".han_cache"))
        run(train_cnn_lstm)
        run(classify_cnn_lstm)
    return folder


@pytest.fixture
def here(project, params, monkeypatch):
    """In the project, and its params as they were afterwards."""
    monkeypatch.chdir(project)
    monkeypatch.setenv("HAN_CACHE", str(project / ".han_cache"))
    kept = {path: path.read_bytes() for path in outputs(project)}
    yield project
    use(project, params)
    for path, content in kept.items():
        path.unlink(missing_ok=True)
        path.write_bytes(content)


def outputs(folder):
    places = (folder / MODEL, folder / CURVE, folder / "data/toy/predictions")
    files = [path for place in places for path in ([place] if place.is_file() else place.rglob("*"))]
    return sorted(path for path in files if path.is_file())


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in outputs(folder)}


def predictions(folder, row):
    with (folder / f"data/toy/predictions/deep_lstm-1/{row}.csv").open(encoding="utf-8", newline="") as file:
        return {line["clip"]: np.array([float(line[name]) for name in CLASSES]) for line in csv.DictReader(file)}


def test_the_rows_are_those_of_the_streams_and_their_weighted_mean(project):
    found = {row: predictions(project, row) for row in ROWS}
    tested = [n for n in range(32) if ROLES[1][n // 2] == "test"]
    share = {}
    for row, answers in found.items():
        assert sorted(answers) == sorted(f"{CLASSES[n % 2]}/clip{n:02d}" for n in tested)
        assert all(p.sum() == pytest.approx(1, abs=1e-5) for p in answers.values())
        share[row] = np.mean([CLASSES[p.argmax()] == clip.split("/")[0] for clip, p in answers.items()])
    assert share["deep_lstm_temporal"] > 0.9
    assert share["deep_lstm_spatial"] < 0.8, "the spatial stream does not show the class"
    for clip, both in found["deep_lstm"].items():
        mean = (found["deep_lstm_spatial"][clip] + 3 * found["deep_lstm_temporal"][clip]) / 4
        np.testing.assert_allclose(both, mean, atol=1e-6)


def test_evaluate_finds_the_rows(here):
    own = here / "data/toy/predictions/deep_lstm-1/deep_lstm.csv"
    han = here / "data/toy/predictions/han-1-seed1/han.csv"  # the params name a model of HAN, too
    han.parent.mkdir()
    han.write_bytes(own.read_bytes())
    run(evaluate, "--params", "params.yaml")
    figures = json.loads((here / "metrics/toy/evaluate.json").read_text(encoding="utf-8"))
    assert list(figures) == ["han", *ROWS]
    right = sum(CLASSES[p.argmax()] == clip.split("/")[0] for clip, p in predictions(here, "deep_lstm").items())
    assert (figures["deep_lstm"]["right"], figures["deep_lstm"]["clips"]) == (right, 12)


def test_the_model_says_what_it_reads_and_how_it_was_made(project, params):
    trained = load_cnn_lstm(project / MODEL)
    config = trained.model.config
    assert (trained.source, trained.classes, config.channels) == ("fc7", CLASSES, FC)
    assert (config.units, config.layers, config.dropout) == (8, 3, 0.2)
    assert config.forget_bias == 0


def test_the_curve_has_a_row_an_epoch_and_the_validation_clips(project):
    loss, top1 = (read_curve(project / CURVE, name) for name in ("loss", "validation_top1"))
    assert list(loss) == list(top1) == list(range(1, 26))
    assert loss[25] < loss[1] - 0.5
    assert "train deep_lstm-1: loss" in (project / "logs/toy/train-deep_lstm-1.log").read_text(encoding="utf-8")


def test_running_again_gives_the_same_bytes_and_writes_into_nothing_that_dvc_holds(here, tmp_path):
    before = contents(here)
    held = {}
    for kind in ("models", "data/toy/predictions"):
        held |= hold(here / kind, tmp_path / "dvc" / kind)
    run(train_cnn_lstm)
    run(classify_cnn_lstm)
    assert contents(here) == before
    assert damaged(held) == []


def test_an_interrupted_run_goes_on_and_ends_with_the_same_bytes(here, monkeypatch):
    before = contents(here)
    seen = []

    def advance(self, steps=1, note=""):
        seen.append(note)
        if len(seen) == 7:
            raise OSError("interrupted")

    (here / MODEL).unlink()
    with monkeypatch.context() as patch:
        patch.setattr("han_core.runs.progress.Progress.advance", advance)
        run(train_cnn_lstm, code=1)
    assert not (here / MODEL).exists()
    assert ", 7 of 25 epochs from an earlier run" in run(train_cnn_lstm)
    assert contents(here) == before
    assert list((here / ".han_cache/checkpoints").iterdir()) == [], "a finished run keeps no checkpoint"


def test_a_checkpoint_of_other_settings_is_not_gone_on_from(here, params, monkeypatch):
    def advance(self, steps=1, note=""):
        raise OSError("interrupted")

    with monkeypatch.context() as patch:
        patch.setattr("han_core.runs.progress.Progress.advance", advance)
        run(train_cnn_lstm, code=1)
    for change in ({"dropout": 0.3}, {"forget_bias": 1.5}, {"features": "cubes"}, {"standardize": False}):
        use(here, params, **change)
        assert "from an earlier run" not in run(train_cnn_lstm)
    use(here, params)
    assert ", 1 of 25 epochs from an earlier run" in run(train_cnn_lstm)


@pytest.mark.long
def test_two_processes_give_the_same_model(here, params, repository):
    alone = load((here / MODEL).read_bytes())
    use(here, params, processes=2)
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.train_cnn_lstm", "--split", "1"],
        env=os.environ | {"PYTHONPATH": str(repository), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "processes: 2, on cpu" in done.stdout
    assert done.stdout.count("train deep_lstm, split 1:") == 1, "only one process speaks"
    for name, values in load_file(here / MODEL).items():
        np.testing.assert_allclose(values, alone[name], rtol=0.02, atol=5e-3, err_msg=name)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"features": "cubes"}, {"source": "cubes", "channels": 6}),
        ({"forget_bias": 0.5}, {"forget_bias": 0.5}),
        ({"forget_bias": "span"}, {"forget_bias": math.log(FRAMES - 1)}),
        ({"layers": 1, "units": 3}, {"layers": 1, "units": 3}),
    ],
)
def test_each_setting_reaches_the_model_and_its_predictions(here, params, changes, expected):
    use(here, params, epochs=1, **changes)
    before = predictions(here, "deep_lstm")
    run(train_cnn_lstm)
    run(classify_cnn_lstm)
    trained = load_cnn_lstm(here / MODEL)
    found = {"source": trained.source, **vars(trained.model.config)}
    assert {key: found[key] for key in expected} == expected
    after = predictions(here, "deep_lstm")
    assert any(not np.allclose(before[clip], after[clip]) for clip in before)


@pytest.mark.parametrize(
    "changes",
    [
        {"dropout": 0.6},
        {"standardize": False},
        {"batch": 7},
        {"clip_gradient": 0.001},
        {"optimizer": {"name": "sgd", "learning_rate": 0.1, "rho": 0.95, "eps": 1e-6, "weight_decay": 0}},
    ],
    ids=str,
)
def test_each_setting_of_the_training_changes_the_weights(here, params, changes):
    use(here, params, epochs=2)
    run(train_cnn_lstm)
    before = (here / MODEL).read_bytes()
    use(here, params, epochs=2, **changes)
    run(train_cnn_lstm)
    assert load(before).keys() == load_file(here / MODEL).keys()
    assert any(not np.array_equal(load(before)[name], values) for name, values in load_file(here / MODEL).items())


def test_a_test_clip_without_cubes_has_no_prediction(here):
    path = here / "data/toy/cubes/temporal-1/left/clip30.h5"
    kept = path.read_bytes()
    path.unlink()
    try:
        assert "1 clips have no cubes, e.g. left/clip30" in run(classify_cnn_lstm, code=1)
        write_failures(path.parents[1], [Failure("left", "clip30", "the video is empty")])
        run(classify_cnn_lstm)
        assert all("left/clip30" not in predictions(here, row) for row in ROWS)
    finally:
        path.write_bytes(kept)
        write_failures(path.parents[1], [])


@pytest.mark.parametrize(
    ("stage", "arguments", "gone", "words"),
    [
        (train_cnn_lstm, ("--split", "9"), None, "split 9 is not in the clips table"),
        (train_cnn_lstm, ("--split", "1"), "data/toy/clips.csv", "run stage prepare"),
        (train_cnn_lstm, ("--split", "1"), "data/toy/cubes", "run the cubes stage first"),
        (classify_cnn_lstm, ("--split", "1"), MODEL, "cannot be read as a trained model"),
        (classify_cnn_lstm, ("--split", "1"), "data/toy/cubes/spatial-1", "run the cubes stage first"),
    ],
)
def test_what_is_missing_is_said_in_plain_words(here, stage, arguments, gone, words):
    if gone:
        (here / gone).rename(here / "hidden")
    try:
        assert words in run(stage, *arguments, code=1).replace("\n", " ")
    finally:
        if gone:
            (here / "hidden").rename(here / gone)


@pytest.mark.parametrize(
    ("channels", "classes", "words"),
    [
        (FC, ("a", "b"), "knows other classes than data/toy/clips.csv"),
        (FC + 1, CLASSES, "reads 6; run the stages again"),
    ],
)
def test_a_model_of_other_classes_or_features_is_refused(here, channels, classes, words):
    config = CNNLSTMConfig(("spatial", "temporal"), classes=2, channels=channels, units=2)
    save_cnn_lstm(TrainedCNNLSTM(CNNLSTM(config), classes, "fc7"), here / MODEL)
    assert words in run(classify_cnn_lstm, code=1).replace("\n", " ")
