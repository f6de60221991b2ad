"""Several seeds of HAN and the options of its attention, from the params file to what evaluate says."""

import csv
import json
import shutil

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from han_core.evaluation.attention_quality import effective_regions
from han_core.han.model_file import load_model
from han_core.predictions import attention_file, probabilities_file, read_attention, read_predictions
from pipeline import classify, train
from pipeline.evaluate import __main__ as evaluate
from tests.only_han import only_han
from tests.pipeline.toy_store import CLASSES, FRAMES, write_store

MODELS, SEEDS, SPLITS = ("han", "no_attention"), (4, 2), (1, 2)


@pytest.fixture(scope="module")
def made(repository, tmp_path_factory):
    """A store and its params, one epoch of training: enough for models to differ."""
    folder = tmp_path_factory.mktemp("project")
    params = only_han(yaml.safe_load((repository / "params.yaml").read_text(encoding="utf-8")))
    params |= {"synthetic": None, "splits": list(SPLITS), "models": list(MODELS)}
    params["finetune"]["splits"] = list(SPLITS)
    params["dataset"].update(name="toy", kind="folder", root="videos", generate=[])
    params["cubes"].update(nets="toy", frames=FRAMES)
    params["scores"]["enabled"] = False
    params["train"].update(lstm_size=4, epochs=1, batch=8, seeds=list(SEEDS))
    params["evaluate"] |= {"baselines": [], "ensemble": True}
    write(folder, params)
    write_store(folder)
    return folder, params


@pytest.fixture(scope="module")
def evaluated(made):
    folder, _ = made
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for model, split, seed in ((m, p, s) for m in MODELS for p in SPLITS for s in SEEDS):
            for stage in (train, classify):
                run(stage, "--model", model, "--split", str(split), "--seed", str(seed))
        run(evaluate)
    return folder


def write(folder, params):
    (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")


def run(stage, *arguments):
    result = CliRunner().invoke(stage.main, list(arguments))
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


def rows(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def predicted(folder, model, split, seed):
    """What a model says of its test clips: {clip: probabilities}, from the file itself."""
    return read_predictions(
        probabilities_file(folder / f"data/toy/predictions/{model}-{split}-seed{seed}", model), CLASSES
    )


def right(answers):
    return np.array([CLASSES[chances.argmax()] == clip.split("/")[0] for clip, chances in sorted(answers.items())])


def summary(folder):
    return json.loads((folder / "metrics/toy/evaluate.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("model", MODELS)
def test_the_figures_of_several_seeds_are_those_of_their_files(evaluated, model):
    hits = np.array([[right(predicted(evaluated, model, split, seed)) for split in SPLITS] for seed in SEEDS])
    found = summary(evaluated)[model]
    top1 = hits.mean(axis=2)  # seeds by splits
    assert found["seeds"] == list(SEEDS)
    assert found["over_seeds"]["right"] == {"seed_4": hits[0].sum(), "seed_2": hits[1].sum()}
    first, second = top1.mean(axis=1)
    expected = {"mean": top1.mean(), "std": abs(first - second) / 2, "seed_4": first, "seed_2": second}
    assert found["over_seeds"]["top1"] == pytest.approx(expected, abs=1e-6)
    first, second = top1.mean(axis=0)
    expected = {"mean": top1.mean(), "std": abs(first - second) / 2, "split_1": first, "split_2": second}
    assert found["top1"] == pytest.approx(expected, abs=1e-6)
    assert (found["right"], found["clips"], found["missing"]) == (hits.sum() / 2, 24, 0)


def test_models_of_several_seeds_differ(evaluated):
    one, other = (predicted(evaluated, "han", 1, seed) for seed in SEEDS)
    assert any(not np.allclose(one[clip], other[clip]) for clip in one)


@pytest.mark.parametrize("model", MODELS)
def test_an_ensemble_is_the_mean_of_the_seeds_files(evaluated, model):
    means = []
    for split in SPLITS:
        one, other = (predicted(evaluated, model, split, seed) for seed in SEEDS)
        means.append({clip: (one[clip] + other[clip]) / 2 for clip in one})
    hits = [right(mean) for mean in means]
    found = summary(evaluated)
    joined = found[f"{model}_ensemble"]
    assert list(found).index(f"{model}_ensemble") == list(found).index(model) + 1
    assert joined["right"] == sum(map(sum, hits))
    assert joined["top1"]["mean"] == pytest.approx(np.mean([hit.mean() for hit in hits]), abs=1e-6)
    assert "over_seeds" not in joined
    for row in rows(evaluated / "metrics/toy/predictions.csv"):
        if row["model"] == f"{model}_ensemble":
            chances = means[int(row["split"]) - 1][f"{row['class']}/{row['clip']}"]
            assert (row["seed"], row["predicted"]) == ("", CLASSES[chances.argmax()])
            assert float(row["probability"]) == pytest.approx(chances.max(), abs=1e-4)


def test_every_seed_s_answers_are_told_and_counted_together_by_class(evaluated):
    told = [row for row in rows(evaluated / "metrics/toy/predictions.csv") if row["model"] == "han"]
    assert [row["seed"] for row in told].count("4") == [row["seed"] for row in told].count("2") == 24
    for row in told:
        chances = predicted(evaluated, "han", row["split"], row["seed"])[f"{row['class']}/{row['clip']}"]
        assert row["predicted"] == CLASSES[chances.argmax()]
    by_class = [row for row in rows(evaluated / "plots/toy/per_class.csv") if row["model"] == "han"]
    assert sum(int(row["right"]) for row in by_class) == 2 * summary(evaluated)["han"]["right"]
    assert len(rows(evaluated / "plots/toy/confusion/han.csv")) == 48


def test_attention_is_scored_as_the_mean_over_the_seeds(evaluated):
    spread = []
    for split in SPLITS:
        for seed in SEEDS:
            folder = evaluated / f"data/toy/predictions/han-{split}-seed{seed}"
            maps = read_attention(attention_file(folder, "han")).maps
            spread.append(np.mean([effective_regions(each) for each in maps.values()]))
    found = json.loads((evaluated / "metrics/toy/attention.json").read_text(encoding="utf-8"))["han"]
    assert np.ptp(spread) > 1e-5, "the seeds' maps are alike"
    assert found == {"effective_regions": pytest.approx(np.mean(spread), abs=1e-6), "clips": 24}


@pytest.mark.parametrize("change", [{"seeds": [2]}, {"ensemble": False}], ids=str)
def test_there_is_no_ensemble_of_one_seed_nor_unasked(evaluated, made, change, tmp_path, monkeypatch):
    copy = tmp_path / "project"
    shutil.copytree(evaluated, copy)
    monkeypatch.chdir(copy)
    _, params = made
    params = {**params, "train": {**params["train"]}, "evaluate": {**params["evaluate"]}}
    params["train" if "seeds" in change else "evaluate"].update(change)
    write(copy, params)
    run(evaluate)
    assert list(summary(copy)) == list(MODELS)
    if "seeds" in change:
        found = summary(copy)["han"]
        assert list(found) == ["top1", "right", "clips", "missing"], "a row of one seed is as it always was"
        assert found["right"] == sum(right(predicted(copy, "han", split, 2)).sum() for split in SPLITS)


@pytest.fixture
def trained(made, tmp_path, monkeypatch):
    """Trains a model with other params; its weights and config."""
    folder, params = made
    for name in ("data/toy/cubes", "data/toy/clips.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).symlink_to(folder / name)
    monkeypatch.chdir(tmp_path)

    def make(model="han", seed=4, *, of_all=None, **options):
        write(tmp_path, {**params, **(of_all or {}), "train": {**params["train"], **options}})
        run(train, "--model", model, "--split", "1", "--seed", str(seed))
        found = load_model(tmp_path / f"models/toy/han/{model}-1-seed{seed}.safetensors").model
        return {name: value.numpy() for name, value in found.state_dict().items()}, found.config

    return make


def same(one, other):
    return all(np.array_equal(one[name], other[name]) for name in one)


OF_ATTENTION = {"attention_rate": 5.0, "attention_deviation": 0.5, "region_dropout": 0.5}
OPTIONS = OF_ATTENTION | {"stream_dropout": 0.5}


@pytest.mark.parametrize(("name", "value"), OPTIONS.items())
def test_each_option_reaches_the_model(trained, name, value):
    plain, before = trained()
    changed, config = trained(**{name: value})
    assert not np.array_equal(plain["attention.regions.weight"], changed["attention.regions.weight"])
    own = {} if name == "attention_rate" else {name: value}  # a rate is no part of a model
    assert config.to_dict() == before.to_dict() | own


def test_a_rate_of_nothing_and_a_wide_start_are_seen_in_the_weights(trained):
    still, _ = trained(attention_rate=0.0, attention_deviation=20.0)
    assert 10 < still["attention.regions.weight"].std() < 30


def test_rows_without_attention_take_no_notice_of_its_options(trained):
    plain, before = trained("no_attention")
    changed, config = trained("no_attention", **OF_ATTENTION)
    assert same(plain, changed)
    assert config == before


def test_soft_attention_starts_as_it_is_for_it_does_not_score_by_place(trained):
    _, config = trained("soft_attention_lstm", of_all={"models": ["soft_attention_lstm"]}, **OPTIONS)
    assert (config.attention, config.attention_deviation, config.region_dropout) == ("content", None, 0.5)


def test_a_model_depends_on_its_own_seed_and_not_on_that_of_the_rest(trained):
    plain, _ = trained(seed=4)
    assert same(plain, trained(seed=4, of_all={"seed": 77}, seeds=[9, 4])[0])
    assert not same(plain, trained(seed=5)[0])


def test_a_run_is_known_by_its_seed_and_its_options_and_not_by_the_other_seeds(trained, monkeypatch):
    from pipeline import training

    identities = []
    told = training.run_identity

    def identity(*arguments):
        identities.append(told(*arguments))
        return identities[-1]

    monkeypatch.setattr(training, "run_identity", identity)
    trained()
    trained(seeds=[4, 8, 15])
    assert identities[0] == identities[1]
    trained(seed=5)
    for option, value in OPTIONS.items():
        trained(**{option: value})
    assert len(set(identities)) == len(identities) - 1


@pytest.mark.parametrize("stage", [train, classify])
def test_a_seed_is_asked_for_and_is_one(stage):
    arguments = ["--model", "han", "--split", "1"]
    assert "Missing option '--seed'" in CliRunner().invoke(stage.main, arguments).output
    assert "is not in the range" in CliRunner().invoke(stage.main, [*arguments, "--seed", "-1"]).output
