"""Settings are chosen inside the training groups: what is opened, what wins, what is written, and that it is obeyed."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner

from han_core.clips import ClipTable, read_clips, write_clips
from han_core.predictions import probabilities_file, read_predictions
from pipeline import check, classify, select, train
from pipeline.chosen import training_clips
from pipeline.params import load_params
from pipeline.paths import Paths
from pipeline.selection import inner
from pipeline.selection.grid import read_grid
from tests.only_han import only_han
from tests.pipeline.toy_store import CLASSES, FRAMES, write_store

GRID = {"folds": 3, "seeds": [1, 2], "grid": {"epochs": [1, 4], "optimizer.learning_rate": [0.0001, 0.02]}}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """The toy store, made once; tests work on copies."""
    folder = tmp_path_factory.mktemp("store")
    write_store(folder)
    return folder


@pytest.fixture
def project(repository, store, tmp_path, monkeypatch):
    shutil.copytree(store, tmp_path, dirs_exist_ok=True)
    shutil.copytree(repository / "choices", tmp_path / "choices", dirs_exist_ok=True)
    params = only_han(yaml.safe_load((repository / "params.yaml").read_text(encoding="utf-8")))
    params |= {"synthetic": None, "splits": [1, 2], "models": ["han", "temporal"]}
    params["finetune"]["splits"] = [1, 2]
    params["dataset"].update(name="toy", kind="folder", root="videos", generate=[])
    params["cubes"].update(nets="toy", frames=FRAMES)
    params["train"].update(lstm_size=8, dropout=0.3, epochs=3, batch=8)
    params["train"]["optimizer"].update(name="adam", learning_rate=0.02)
    params["run"]["device"] = "cpu"
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HAN_CACHE", raising=False)
    return tmp_path


def run(command, *arguments, expected=0):
    result = CliRunner().invoke(command.main, list(arguments))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == expected, result.output
    return result.output


def choose(grid=GRID, *arguments, expected=0):
    Path("grid.yaml").write_text(yaml.safe_dump(grid, sort_keys=False), encoding="utf-8")
    return run(select, "grid.yaml", *arguments, expected=expected)


def edit(change):
    path = Path("params.yaml")
    params = yaml.safe_load(path.read_text(encoding="utf-8"))
    change(params)
    path.write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")


def written():
    """Name -> bytes of all that select writes."""
    return {path.as_posix(): path.read_bytes() for path in sorted(Path("choices").rglob("*.yaml"))}


def chosen():
    return yaml.safe_load(Path("choices/toy.yaml").read_text(encoding="utf-8"))["chosen"]


def scores(model="han", split=1):
    return yaml.safe_load(Path(f"choices/toy/{model}-{split}.yaml").read_text(encoding="utf-8"))


def test_the_best_combination_of_each_split_is_written_with_the_table_it_was_chosen_by(project):
    output = choose()
    found = scores()
    assert [row["epochs"] for row in found["scores"]] == [1, 1, 4, 4]
    assert [row["optimizer.learning_rate"] for row in found["scores"]] == [0.0001, 0.02] * 2
    assert found["scores"][3]["top1"] > found["scores"][0]["top1"], "the temporal stream tells the class, learnt fast"
    best = max(found["scores"], key=lambda row: (row["top1"], -row["cross_entropy"]))
    assert found["chosen"] == {key: best[key] for key in ("epochs", "optimizer.learning_rate")}
    assert found["seeds"] == [1, 2]
    assert [fold["groups"] for fold in found["folds"].values()] == [3, 3, 2], "eight training groups"
    assert [fold["clips"] for fold in found["folds"].values()] == [6, 6, 4]
    assert chosen()["han"]["split_1"]["settings"] == found["chosen"]
    assert list(chosen()["han"]) == ["split_1", "split_2"]
    assert "han, split 2: 8 training groups in 3 inner folds of 6 + 6 + 4 clips, seeds 1, 2" in output
    assert f"{best['top1']:.2f}" in output
    assert Path("choices/toy.yaml").read_text(encoding="utf-8").startswith("# Settings of HAN chosen inside")


def test_the_same_input_gives_the_same_bytes_with_and_without_kept_scores(project):
    choose()
    before = written()
    choose()
    assert written() == before
    shutil.rmtree(".han_cache")
    shutil.rmtree("choices/toy")
    Path("choices/toy.yaml").unlink()
    choose()
    assert written() == before


def test_clips_that_are_tested_or_validated_on_are_never_opened(project):
    choose(GRID, "--splits", "1")
    before = written()
    shutil.rmtree(".han_cache")
    table = read_clips("data/toy/clips.csv")
    others = [clip for clip in table.clips if clip.roles[1] != "train"]
    assert {clip.roles[1] for clip in others} == {"test", "validation"}
    for clip in others:
        for stream in ("spatial", "temporal"):
            path = Path(f"data/toy/cubes/{stream}-1/{clip.class_name}/{clip.name}.h5")
            path.unlink()
            path.write_bytes(b"nobody may look at this")
    choose(GRID, "--splits", "1")
    assert written() == before


def test_a_changed_training_clip_is_another_choice(project):
    """So that the test above can fail."""
    choose(GRID, "--splits", "1")
    before = scores()["fingerprint"]
    one, other = (
        Path(f"data/toy/cubes/temporal-1/{CLASSES[label]}/clip{label:02d}.h5") for label in (0, 1)
    )  # of group g0
    content = one.read_bytes()
    one.unlink()
    shutil.copy(other, one)
    assert one.read_bytes() != content
    choose(GRID, "--splits", "1")
    assert scores()["fingerprint"] != before


def test_no_group_is_on_both_sides_of_an_inner_fold(project):
    clips = read_clips("data/toy/clips.csv").select(1, "train")
    folds = inner.inner_folds(clips, 3, 1, 1)
    assert len(folds) == len(clips) == 16
    assert len({(clip.group, fold) for clip, fold in zip(clips, folds, strict=True)}) == 8
    assert folds != inner.inner_folds(clips, 3, 2, 1), "another seed deals otherwise"


def test_a_score_is_what_stages_train_and_classify_get_on_the_inner_fold(project):
    """The independent reference: the inner folds as splits of their own, through the stages."""
    choose({"folds": 2, "seeds": [5], "candidates": [{"epochs": 4, "dropout": 0.4}]}, "--splits", "1")
    found = scores()
    table = read_clips("data/toy/clips.csv")
    clips = table.select(1, "train")
    folds = inner.inner_folds(clips, 2, load_params().seed, 1)
    fold_of = {clip.key: fold for clip, fold in zip(clips, folds, strict=True)}
    roles = {
        clip.key: {f: "" if clip.key not in fold_of else "test" if fold_of[clip.key] == f else "train" for f in (1, 2)}
        for clip in table.clips
    }
    dealt = tuple(type(clip)(**{**vars(clip), "roles": roles[clip.key]}) for clip in table.clips)
    write_clips(ClipTable(dealt, table.classes, (1, 2)), "data/toy/clips.csv")
    for stream in ("spatial", "temporal"):  # both splits' cubes are those of split 1
        shutil.rmtree(f"data/toy/cubes/{stream}-2")
        shutil.copytree(f"data/toy/cubes/{stream}-1", f"data/toy/cubes/{stream}-2")
    edit(lambda params: params["train"].update(epochs=4, dropout=0.4, seeds=[5]))
    top1, losses = [], []
    for fold in (1, 2):
        arguments = ["--model", "han", "--split", str(fold), "--seed", "5"]
        run(train, *arguments)
        run(classify, *arguments)
        folder = Paths.of(load_params()).predictions("han", fold, 5)
        answers = read_predictions(probabilities_file(folder, "han"), table.classes)
        held_out = [clip for clip in clips if fold_of[clip.key] == fold]
        assert set(answers) == {clip.key for clip in held_out}
        top1.append(np.mean([answers[clip.key].argmax() == clip.label for clip in held_out]))
        losses.append(np.mean([-np.log(answers[clip.key][clip.label]) for clip in held_out]))
    (row,) = found["scores"]
    assert row["top1"] == pytest.approx(100 * np.mean(top1), abs=0.006)
    assert row["over_folds"] == pytest.approx(100 * np.std(top1), abs=0.006)
    assert row["cross_entropy"] == pytest.approx(np.mean(losses), abs=1e-4)


def test_interrupted_it_goes_on_where_it_was(project, monkeypatch):
    choose(GRID, "--splits", "1")
    before = written()
    shutil.rmtree(".han_cache")
    trained = []
    real = inner.score

    def counted(*arguments):
        if len(trained) == 7:
            raise OSError(28, "No space left on device")
        trained.append(arguments[2:5])
        return real(*arguments)

    monkeypatch.setattr(inner, "score", counted)
    assert "No space left on device" in choose(GRID, "--splits", "1", expected=1)
    monkeypatch.setattr(inner, "score", lambda *a: trained.append(a[2:5]) or real(*a))
    choose(GRID, "--splits", "1")
    assert len(trained) == 4 * 3 * 2, "none twice"
    assert written() == before
    kept = sorted(Path(".han_cache/inner-scores").rglob("*.json"))
    assert len(kept) == 24
    times = kept[0].stat()
    kept[0].chmod(0o644)
    kept[0].write_text(json.dumps({"right": 0, "clips": 6, "cross_entropy": 9.0}), encoding="utf-8")
    os.utime(kept[0], ns=(times.st_atime_ns, times.st_mtime_ns))  # as if the disk had flipped bits
    choose(GRID, "--splits", "1")
    assert len(trained) == 25, "a damaged score is made again"
    assert written() == before


def test_a_combination_that_diverges_is_not_chosen(project):
    wild = {"optimizer.name": "sgd", "optimizer.learning_rate": 1e38}
    output = choose({"candidates": [wild, {"epochs": 1}]}, "--splits", "1")
    assert chosen()["han"]["split_1"]["settings"] == {"epochs": 1}
    assert scores()["scores"][0] == {"diverged": True, **wild}
    assert "diverged" in output
    output = choose({"candidates": [wild]}, "--splits", "1", expected=1)
    assert "the loss of every combination was no longer finite" in output


def test_another_variant_or_split_leaves_the_other_sections_as_they_are(project):
    choose(GRID, "--splits", "2")
    before = chosen()["han"]["split_2"]
    choose({**GRID, "grid": {"epochs": [2]}}, "--splits", "1")
    choose({**GRID, "model": "temporal", "grid": {"epochs": [1, 5]}})
    found = chosen()
    assert list(found) == ["han", "temporal"]
    assert list(found["han"]) == ["split_1", "split_2"]
    assert found["han"]["split_2"] == before
    assert found["han"]["split_1"]["settings"] == {"epochs": 2}


def model(name="han", split=1, seed=1):
    """Bytes of the model that stage train makes."""
    run(train, "--model", name, "--split", str(split), "--seed", str(seed))
    return Paths.of(load_params()).han(name, split, seed).read_bytes()


def write_choice(settings, name="han", split=1, clips=None):
    path = Path("choices/toy.yaml")
    content = yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else {"chosen": {}}
    clips = clips or training_clips(read_clips("data/toy/clips.csv"), split)
    content["chosen"].setdefault(name, {})[f"split_{split}"] = {"settings": settings, "clips": clips}
    path.write_text(yaml.safe_dump(content), encoding="utf-8")


def test_stage_train_takes_what_was_chosen_and_the_model_is_as_if_it_stood_in_the_params(project):
    base = model()
    choose()
    settings = chosen()["han"]["split_1"]["settings"]
    assert settings["epochs"] == 4
    edit(lambda params: params["train"].update(chosen="toy"))
    taken = model()
    assert taken != base
    edit(lambda params: params["train"].update(chosen="none", epochs=settings["epochs"]))
    edit(lambda params: params["train"]["optimizer"].update(learning_rate=settings["optimizer.learning_rate"]))
    assert model() == taken


def test_a_variant_without_choices_of_its_own_takes_those_of_han(project):
    write_choice({"epochs": 2})
    edit(lambda params: params["train"].update(chosen="toy"))
    of_han = model("temporal")
    write_choice({"epochs": 1}, "temporal")
    of_its_own = model("temporal")
    edit(lambda params: params["train"].update(chosen="none", epochs=2))
    assert model("temporal") == of_han != of_its_own


def test_a_choice_leaves_the_seed_and_changes_the_checkpoint(project):
    """The identity of a run is that of its settings: no state of other settings is gone on from."""
    write_choice({"epochs": 2})
    edit(lambda params: params["train"].update(chosen="toy"))
    assert model(seed=1) != model(seed=2)


@pytest.mark.parametrize("missing", ["split", "file", "model"])
def test_what_the_file_does_not_hold_is_told_before_any_work(project, missing, monkeypatch):
    if missing == "split":
        write_choice({"epochs": 2}, split=2)
        wanted = "holds no settings of han: split 1; choose them"
    elif missing == "model":
        write_choice({"epochs": 2}, "temporal")
        wanted = "holds no settings of han: split"
    else:
        wanted = "choices/toy.yaml: cannot be read"
    edit(lambda params: params["train"].update(chosen="toy"))
    monkeypatch.setattr(torch, "manual_seed", lambda seed: pytest.fail("work began"))
    output = run(train, "--model", "han", "--split", "1", "--seed", "1", expected=1)
    assert wanted in output
    assert "train.chosen" in run(check, expected=1)
    assert wanted in run(check, expected=1)


def test_check_is_content_with_a_file_that_holds_all(project):
    for split in (1, 2):
        write_choice({"epochs": 2}, split=split)
    edit(lambda params: params["train"].update(chosen="toy"))
    Path("videos").mkdir()
    assert "is sound" in run(check)


def test_settings_that_were_chosen_on_other_clips_are_refused(project):
    """After another drawing of the split they may have seen its test clips."""
    write_choice({"epochs": 2})
    edit(lambda params: params["train"].update(chosen="toy"))
    model()
    table = read_clips("data/toy/clips.csv")
    first = table.select(1, "test")[0]
    moved = tuple(
        type(clip)(**{**vars(clip), "roles": {**clip.roles, 1: "train"}}) if clip == first else clip
        for clip in table.clips
    )
    write_clips(ClipTable(moved, table.classes, table.splits), "data/toy/clips.csv")
    output = run(train, "--model", "han", "--split", "1", "--seed", "1", expected=1)
    assert "were chosen on other training clips" in output
    assert "python -m pipeline.select" in output


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("chosen: {han: {split_1: {settings: {epochs: many}, clips: '%s'}}}", "chosen.han.split_1.settings.epochs: "),
        ("chosen: {han: {split_1: {settings: {epoch: 1}, clips: '%s'}}}", "unknown key; did you mean epochs?"),
        ("chosen: {han: {split_1: {settings: {seeds: [1]}, clips: '%s'}}}", "seeds: is no setting of a model"),
        ("chosen: {han: {split_1: {settings: {}, clips: '%s', x: 1}}}", "split_1.x: unknown key"),
        ("chosen: {nobody: {}} # %s", "chosen.nobody"),
        ("chosen: {han: {first: {}}} # %s", "chosen.han.first"),
        ("chosen: 5 # %s", "chosen: "),
        ("- 1 # %s", "must be a mapping"),
        ("a: [ # %s", "is not valid YAML"),
    ],
)
def test_a_file_that_cannot_be_used_is_told_plainly(project, content, problem):
    Path("choices/toy.yaml").write_text(content % ("0" * 16), encoding="utf-8")
    edit(lambda params: params["train"].update(chosen="toy"))
    for command in ((train, "--model", "han", "--split", "1", "--seed", "1"), (check,)):
        output = run(*command, expected=1)
        assert problem in output
        assert "choices/toy.yaml" in output
    edit(lambda params: params["train"].update(chosen="none"))
    assert problem in choose(expected=1), "nor does select write over it"


def test_fewer_groups_than_folds_make_as_many_folds_and_one_group_is_an_error(project):
    table = read_clips("data/toy/clips.csv")

    def with_groups(groups):
        clips = tuple(type(c)(**{**vars(c), "group": groups[n % len(groups)]}) for n, c in enumerate(table.clips))
        write_clips(ClipTable(clips, table.classes, table.splits), "data/toy/clips.csv")

    with_groups(["a", "b"])
    choose({**GRID, "grid": {"epochs": [1]}}, "--splits", "1")
    assert len(scores()["folds"]) == 2
    with_groups(["a"])
    output = choose({**GRID, "grid": {"epochs": [1]}}, "--splits", "1", expected=1)
    assert "split 1: its training clips are all of one group, 'a', so none can be held out" in output


@pytest.mark.parametrize("splits", ["3", "", "1,,2", "one", "1;2"])
def test_splits_that_the_params_do_not_have_are_refused(project, splits):
    assert "must be numbers of the params' splits, 1, 2" in choose(GRID, "--splits", splits, expected=2)


def test_a_dataset_that_is_called_as_no_choice_is_refused(project):
    edit(
        lambda params: [params[group].update({key: "none"}) for group, key in (("dataset", "name"), ("cubes", "nets"))]
    )
    assert "dataset.name: none" in choose(expected=1)


def test_before_the_cubes_are_there_it_says_what_to_run(project):
    shutil.rmtree("data/toy/cubes")
    assert "run the cubes stage first" in choose(expected=1)
    Path("data/toy/clips.csv").unlink()
    assert "run stage prepare first" in choose(expected=1)


def test_a_combination_may_start_from_a_model_and_what_cannot_be_is_told_before_any_work(project, monkeypatch):
    run(train, "--model", "han", "--split", "1", "--seed", "1")
    start = str(Path("models/toy/han/han-1-seed1.safetensors"))
    grid = {"folds": 2, "seeds": [1], "candidates": [{"epochs": 1, "start": None}, {"epochs": 1, "start": start}]}
    choose(grid, "--splits", "1")
    assert {row["start"] for row in scores()["scores"]} == {None, start}
    losses = {row["cross_entropy"] for row in scores()["scores"]}
    assert len(losses) == 2

    monkeypatch.setattr("pipeline.selection.inner.score", lambda *_: pytest.fail("a model was trained"))
    grid["candidates"][0]["epochs"] = 2
    grid["candidates"][1]["start"] = "models/elsewhere.safetensors"
    assert "models/elsewhere.safetensors: " in choose(grid, expected=1)
    grid["candidates"][1] |= {"start": start, "lstm_size": 9}
    grid["candidates"][0]["lstm_size"] = 8
    assert "has lstm_size 8, but the model that should start from it has 9" in choose(grid, expected=1)


@pytest.mark.parametrize("grid", ["select_han", "select_shaken", "select_still", "select_stream_dropout"])
def test_the_ready_grids_are_sound_for_every_preset(repository, grid):
    for name in ("ucf101", "ut_interaction", "folder"):
        settings = load_params(repository / "presets" / f"{name}.yaml").train
        assert 1 < len(read_grid(repository / f"presets/{grid}.yaml", settings).combinations) <= 8


def test_the_example_of_the_docs_is_a_grid(repository, tmp_path):
    text = (repository / "docs/selection.md").read_text(encoding="utf-8")
    (tmp_path / "grid.yaml").write_text(text.split("<!-- grid -->\n```yaml\n")[1].split("```")[0], encoding="utf-8")
    assert len(read_grid(tmp_path / "grid.yaml", load_params(repository / "params.yaml").train).combinations) == 8
