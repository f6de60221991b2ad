"""Stages train, evaluate and report on a made-up store in which only the temporal stream tells the class."""

import csv
import hashlib
import json
import shutil

import cv2
import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from han_core.baselines.two_stream.scorefile import NOT_SCORED, read_scores, write_scores
from pipeline import baselines, classify, train, two_stream
from pipeline.curve import read_curve
from pipeline.evaluate import __main__ as evaluate
from pipeline.execution.ledger import Failure, write_failures
from pipeline.report import __main__ as report
from tests.dvc_links import damaged, hold
from tests.only_han import only_han
from tests.pipeline.toy_store import CLASSES, FRAMES, ROLES, write_store

BASELINES = ["linear", "linear_mean", "frame_size"]
MODELS = ["han", "no_attention", "fc_features", "spatial", "temporal"]


@pytest.fixture(scope="module")
def project(repository, tmp_path_factory):
    folder = tmp_path_factory.mktemp("project")
    params = only_han(yaml.safe_load((repository / "params.yaml").read_text(encoding="utf-8")))
    params["synthetic"] = None
    params["splits"] = params["finetune"]["splits"] = [1, 2]
    params["models"] = MODELS
    params["dataset"].update(name="toy", kind="folder", root="videos", generate=[])
    params["cubes"].update(nets="toy", frames=FRAMES)
    params["train"].update(lstm_size=8, dropout=0.5, epochs=25, batch=8)
    params["train"]["optimizer"].update(name="adam", learning_rate=0.02)
    params["evaluate"] = {"baselines": BASELINES, "fusion": [1, 3]}
    params["report"]["clips"] = 2
    (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    write_store(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for model in MODELS:
            for split in (1, 2):
                run(train, "--model", model, "--split", str(split), "--seed", "1")
        predict()
        run(evaluate)
        run(report)
    return folder


def predict(*models):
    """All stages between train and evaluate; of HAN's variants those given, all by default."""
    for split in ("1", "2"):
        for model in models or MODELS:
            run(classify, "--model", model, "--split", split, "--seed", "1")
        run(two_stream, "--split", split)
        for baseline in () if models else BASELINES:
            run(baselines, "--baseline", baseline, "--split", split)


def run(stage, *arguments, expected=0):
    result = CliRunner().invoke(stage.main, list(arguments), catch_exceptions=True)
    assert result.exit_code == expected, result.output
    return result.output


def summary(project):
    return json.loads((project / "metrics/toy/evaluate.json").read_text(encoding="utf-8"))


def test_the_summary_has_ten_figures_at_most_and_no_parts_of_systems(project):
    shown = json.loads((project / "metrics/toy/summary.json").read_text(encoding="utf-8"))
    whole = [name for name in summary(project) if name not in ("spatial_net", "temporal_net")]
    assert list(shown) == whole[:10]
    assert shown == {name: summary(project)[name]["top1"]["mean"] for name in shown}
    assert len(whole) > 10, "else this shows nothing"


def rows(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_variants_that_see_motion_solve_it_and_the_spatial_one_cannot(project):
    top1 = {model: figures["top1"]["mean"] for model, figures in summary(project).items()}
    for model in (
        "han",
        "no_attention",
        "fc_features",
        "temporal",
        "linear",
        "linear_temporal",
        "linear_mean_temporal",
    ):
        assert top1[model] > 0.9, model
    for model in ("spatial", "linear_spatial", "linear_mean_spatial"):
        assert top1[model] < 0.8, model
    assert top1["frame_size"] == 1.0, "the width of these frames tells the class"


def test_figures_are_those_of_the_predictions(project):
    predicted = rows(project / "metrics/toy/predictions.csv")
    for model, figures in summary(project).items():
        own = [row for row in predicted if row["model"] == model]
        assert figures["clips"] == len(own) == 24
        by_split = []
        for split in ("1", "2"):
            right = [row["class"] == row["predicted"] for row in own if row["split"] == split]
            assert figures["top1"][f"split_{split}"] == pytest.approx(np.mean(right), abs=1e-6)
            by_split.append(np.mean(right))
        assert figures["top1"]["mean"] == pytest.approx(np.mean(by_split), abs=1e-6)
        assert figures["top1"]["std"] == pytest.approx(np.std(by_split), abs=1e-6)
        confusion = rows(project / f"plots/toy/confusion/{model}.csv")
        assert [row["actual"] for row in confusion] == [row["class"] for row in own]
        assert [row["predicted"] for row in confusion] == [row["predicted"] for row in own]


def test_the_nets_have_rows_of_their_own_alone_and_joined(project):
    figures = summary(project)
    assert list(figures)[5:9] == ["spatial_net", "temporal_net", "two_stream", "two_stream_svm"]
    scores = {
        stream: {p.stem: read_scores(p) for p in (project / f"data/toy/scores/{stream}-2").rglob("*.h5")}
        for stream in ("spatial", "temporal")
    }
    predicted = rows(project / "metrics/toy/predictions.csv")
    for model, weights in {"spatial_net": (1, 0), "temporal_net": (0, 1), "two_stream": (1, 3)}.items():
        own = [row for row in predicted if (row["model"], row["split"]) == (model, "2")]
        assert len(own) == 12
        for row in own:
            both = [scores["spatial"][row["clip"]], scores["temporal"][row["clip"]]]
            mean = np.average(both, axis=0, weights=weights)
            assert row["predicted"] == CLASSES[mean.argmax()]
            assert float(row["probability"]) == pytest.approx(mean.max(), abs=1e-4)
    assert figures["two_stream_svm"]["top1"]["mean"] > 0.7 > figures["spatial_net"]["top1"]["mean"]


def test_outputs_that_dvc_holds_are_replaced_and_not_written_into(project, tmp_path, monkeypatch):
    """A stage that is run without DVC finds hard links into DVC's cache where its outputs belong."""
    copy = tmp_path / "project"
    shutil.copytree(project, copy)
    monkeypatch.chdir(copy)
    held = {}
    for kind in ("models", "data/toy/predictions", "metrics", "plots", "report"):
        held |= hold(copy / kind, tmp_path / "dvc" / kind)
    model, figures = copy / "models/toy/han/han-1-seed1.safetensors", copy / "metrics/toy/predictions.csv"
    before = model.read_bytes(), figures.read_bytes()
    params = yaml.safe_load((copy / "params.yaml").read_text(encoding="utf-8"))
    params["train"]["epochs"] = 1
    (copy / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    run(train, "--model", "han", "--split", "1", "--seed", "1")
    predict()
    run(evaluate)
    run(report)
    assert model.read_bytes() != before[0]
    assert figures.read_bytes() != before[1]
    assert damaged(held) == []


def test_nets_that_were_not_scored_have_no_rows(project, monkeypatch):
    monkeypatch.chdir(project)
    before = {path: path.read_bytes() for path in (project / "data/toy/scores/spatial-1").rglob("*.h5")}
    reason = project / "data/toy/scores/spatial-1" / NOT_SCORED
    reason.write_text("its last layer is random\n")
    try:
        predict("han")
        assert "no row spatial_net of split 1: its last layer is random" in run(evaluate)
        found = summary(project)
        assert list(found["temporal_net"]["top1"]) == ["mean", "std", "split_1", "split_2"]
        assert list(found["two_stream"]["top1"]) == ["mean", "std", "split_2"]
    finally:
        reason.unlink()
        predict("han")
        run(evaluate)
    assert all(path.read_bytes() == content for path, content in before.items())


def test_scores_of_another_number_of_classes_are_refused(project, monkeypatch):
    monkeypatch.chdir(project)
    path = project / "data/toy/scores/spatial-1/left/clip30.h5"
    kept = path.read_bytes()
    path.unlink()
    odd = {"frames": np.arange(2, dtype=np.int32), "probabilities": np.full((2, 3), 1 / 3, np.float32)}
    write_scores(path, clip="clip30", fingerprint="c" * 64, attributes={}, **odd)
    try:
        refused = CliRunner().invoke(two_stream.main, ["--split", "1"])
        assert "scores of clips are of several numbers of classes; run stage scores again" in refused.output
    finally:
        path.write_bytes(kept)


def test_only_test_clips_are_scored_and_only_train_clips_learnt_from(project):
    for row in rows(project / "metrics/toy/predictions.csv"):
        place = int(row["clip"].removeprefix("clip")) // 2
        assert ROLES[int(row["split"])][place] == "test"
    log = (project / "logs/toy/train-han-1-seed1.log").read_text(encoding="utf-8")
    assert "train han-1-seed1: loss" in log


def test_the_learning_curve_has_a_row_an_epoch_and_the_validation_clips(project):
    loss, top1 = (read_curve(project / "plots/toy/train/han-1-seed1", name) for name in ("loss", "validation_top1"))
    assert list(loss) == list(top1) == list(range(1, 26))
    assert loss[25] < 0.2 < loss[1]
    assert top1[25] == 1.0
    last = json.loads((project / "plots/toy/train/han-1-seed1/metrics.json").read_text(encoding="utf-8"))
    assert (last["step"], last["loss"]) == (25, loss[25])


def test_the_report_shows_every_model_and_its_pictures_exist(project):
    text = (project / "report/toy/report.md").read_text(encoding="utf-8")
    assert "| Full HAN: spatial cube + temporal cube | 100.0 ± 0.0 (24 / 24) |" in text
    assert "Logistic regression on width and height" in text
    for name in ("attention-1.jpg", "attention-2.jpg"):
        assert f"({name})" in text
        assert cv2.imread(str(project / "report/toy" / name)) is not None
    assert "(curve-validation-loss.svg)" in text


def test_running_again_gives_the_same_bytes(project, monkeypatch):
    monkeypatch.chdir(project)

    def hashes():
        files = sorted(
            p
            for d in ("models", "data/toy/predictions", "metrics", "plots", "report")
            for p in (project / d).rglob("*")
            if p.is_file()
        )
        return {p: hashlib.sha256(p.read_bytes()).hexdigest() for p in files}

    before = hashes()
    run(train, "--model", "han", "--split", "1", "--seed", "1")
    predict()
    run(evaluate)
    run(report)
    assert hashes() == before


def test_a_test_clip_without_cubes_counts_as_wrong(project, monkeypatch):
    monkeypatch.chdir(project)
    before = summary(project)["temporal"]["right"]
    path = project / "data/toy/cubes/temporal-1/left/clip30.h5"
    kept = path.read_bytes()
    path.unlink()
    try:
        refused = CliRunner().invoke(classify.main, ["--model", "temporal", "--split", "1", "--seed", "1"])
        assert "1 clips have no cubes, e.g. left/clip30, and no failure is noted for them" in refused.output
        write_failures(path.parents[1], [Failure("left", "clip30", "the video is empty")])
        predict("temporal")
        run(evaluate)
        run(report)
        figures = summary(project)["temporal"]
        assert (figures["missing"], figures["clips"], figures["right"]) == (1, 24, before - 1)
        assert "count as wrong: 1." in (project / "report/toy/report.md").read_text(encoding="utf-8")
    finally:
        path.write_bytes(kept)
        write_failures(path.parents[1], [])
        predict("temporal")
        run(evaluate)
        run(report)


@pytest.mark.parametrize(
    ("stage", "arguments", "gone", "words"),
    [
        (train, ("--model", "han", "--split", "9", "--seed", "1"), None, "split 9 is not in the clips table"),
        (train, ("--model", "han", "--split", "1", "--seed", "1"), "data/toy/clips.csv", "run stage prepare"),
        (train, ("--model", "han", "--split", "1", "--seed", "1"), "data/toy/cubes", "run the cubes stage first"),
        (
            classify,
            ("--model", "han", "--split", "2", "--seed", "1"),
            "models/toy/han/han-2-seed1.safetensors",
            "be read as a trained model",
        ),
        (two_stream, ("--split", "2"), "data/toy/scores/temporal-2", "cannot be opened"),
        (baselines, ("--baseline", "linear", "--split", "2"), "data/toy/cubes/spatial-2", "run the cubes stage first"),
        (evaluate, (), "data/toy/predictions/han-2-seed1", "run the stage that makes it"),
        (report, (), "metrics/toy/evaluate.json", "run the stages before report"),
    ],
)
def test_what_is_missing_is_said_in_plain_words(project, monkeypatch, stage, arguments, gone, words):
    monkeypatch.chdir(project)
    if gone:
        (project / gone).rename(project / "hidden")
    try:
        said = run(stage, *arguments, expected=1)
    finally:
        if gone:
            (project / "hidden").rename(project / gone)
    assert words in said.replace("\n", " ")
    assert "Traceback" not in said


def test_the_curve_can_be_looked_at_while_the_model_trains(project, monkeypatch):
    monkeypatch.chdir(project)
    folder = project / "plots/toy/train/spatial-1-seed1"
    path = folder / "plots/metrics/loss.tsv"
    whole = path.read_bytes()
    seen = []

    def advance(self, steps=1, note=""):
        seen.append(len(read_curve(folder, "loss")))

    monkeypatch.setattr("han_core.runs.progress.Progress.advance", advance)
    run(train, "--model", "spatial", "--split", "1", "--seed", "1")
    assert seen == list(range(1, 26))
    assert path.read_bytes() == whole
