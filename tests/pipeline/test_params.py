"""A params file is refused before any work, with every problem named."""

import pytest
import yaml

from pipeline.params import ParamsError, load_params


@pytest.fixture
def default(repository):
    return yaml.safe_load((repository / "params.yaml").read_text(encoding="utf-8"))


def write(tmp_path, content):
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def refusal(tmp_path, content):
    with pytest.raises(ParamsError) as caught:
        load_params(write(tmp_path, content))
    return caught.value.message


def test_the_default_is_the_embedded_dataset(repository):
    params = load_params(repository / "params.yaml")
    assert params.dataset.kind == "synthetic"
    assert params.dataset.root.as_posix() == "data/synthetic/raw"


def test_every_key_of_the_schema_is_written_out_in_the_default_file(repository, default):
    """So that a reader of params.yaml sees every knob there is."""

    def keys(value, prefix=""):
        if not isinstance(value, dict):
            return {prefix}
        return set().union(*(keys(v, f"{prefix}.{k}" if prefix else k) for k, v in value.items()))

    schema = load_params(repository / "params.yaml").model_dump(by_alias=True)
    assert keys(schema) == keys(default)


@pytest.mark.parametrize("name", ["ucf101", "hmdb51", "ut_interaction", "folder"])
def test_presets_are_valid(repository, name):
    params = load_params(repository / "presets" / f"{name}.yaml")
    assert params.dataset.kind == name
    assert "shared" not in (repository / "presets" / f"{name}.yaml").read_text(encoding="utf-8")


def test_the_recipe_of_good_practices(repository):
    """Every number of Wang et al. 2015 and its released solvers; all but the nets and their fusion is the paper's."""
    presets = repository / "presets"
    paper, practices = (load_params(presets / f"{name}.yaml") for name in ("ucf101", "ucf101_good_practices"))
    nets = {"finetune": True, "evaluate": {"fusion"}}
    assert practices.model_dump(exclude=nets) == paper.model_dump(exclude=nets)
    assert practices.evaluate.fusion == (1, 2)
    spatial, temporal = practices.finetune.spatial, practices.finetune.temporal
    assert (spatial.learning_rate, spatial.steps, spatial.iterations) == (0.001, (4000, 8000), 10000)
    assert (temporal.learning_rate, temporal.steps, temporal.iterations) == (0.005, (10000, 20000), 30000)
    assert (spatial.dropout, temporal.dropout) == ((0.9, 0.9), (0.9, 0.8))
    assert (spatial.scales, temporal.scales) == ((1, 0.875, 0.75, 0.66), (1, 0.875, 0.75))
    for recipe in (spatial, temporal):
        assert (recipe.batch, recipe.weight_decay, recipe.momentum, recipe.gamma) == (256, 0.0005, 0.9, 0.1)
        assert (recipe.weights, recipe.frozen, recipe.fc_size) == ("imagenet", None, 4096)
        assert (recipe.bias_rate, recipe.bias_decay, recipe.rates) == (2, 0, {})
        assert (recipe.corner_crops, recipe.flip, recipe.max_distort) == (True, True, 1)


@pytest.mark.parametrize("name", ["ucf101", "hmdb51"])
def test_the_papers_sizes(repository, name):
    params = load_params(repository / "presets" / f"{name}.yaml")
    assert (params.train.lstm_size, params.train.batch, params.train.optimizer.name) == (1024, 128, "adadelta")
    assert params.splits == (1, 2, 3)
    assert params.cubes.nets == "ucf101"
    if name == "ucf101":
        spatial, temporal = params.finetune.spatial, params.finetune.temporal
        assert (spatial.iterations, temporal.iterations) == (30000, 10000)
        assert (spatial.learning_rate, spatial.steps, spatial.momentum) == (0.01, (10000,), 0.9)
        assert (temporal.learning_rate, temporal.steps) == (0.01, (10000,))
        assert (spatial.batch, spatial.fc_size, spatial.dropout) == (256, 4096, (0.5, 0.5))


def test_all_problems_at_once(tmp_path, default):
    default["train"]["droput"] = 0.1
    default["flow"]["bound"] = -1
    default["seed"] = "x"
    del default["splits"]
    message = refusal(tmp_path, default)
    assert "4 problems" in message
    assert "train.droput: unknown key; did you mean dropout?" in message
    assert "flow.bound: input should be greater than 0, not -1" in message
    assert "seed: " in message
    assert "splits: is missing" in message


def test_rates_of_layers_that_there_are_not(tmp_path, default):
    recipe = default["finetune"]["spatial"]
    default["finetune"]["spatial"] = recipe | {"rates": {"conv": 0.1, "fc": 2, "pool5": 1, "cnv5": 1}}
    default["finetune"]["temporal"] = recipe | {"rates": {"conv": 0}}
    message = refusal(tmp_path, default)
    assert "finetune.spatial.rates: no layer's name starts with cnv5, pool5; layers are conv1_1" in message
    assert "finetune.temporal.rates.conv: input should be greater than 0" in message


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: p["dataset"].update(kind="ucf101"), "dataset.annotations: is missing"),
        (lambda p: p["dataset"].update(generate=[]), "dataset.generate: must be"),
        (lambda p: p.update(synthetic=None), "synthetic: is missing"),
        (lambda p: p.update(splits=[1, 1]), "splits: holds a value twice"),
        (lambda p: p["cubes"].update(nets="ucf101"), "finetune.splits: must be []"),
        (lambda p: p["finetune"].update(splits=[]), "finetune.splits: must equal splits"),
        (lambda p: p["run"].update(executor="dask"), "run.scheduler: is missing"),
    ],
)
def test_values_that_contradict_each_other(tmp_path, default, change, words):
    change(default)
    assert words in refusal(tmp_path, default)


def test_files_that_are_no_params(tmp_path):
    with pytest.raises(ParamsError, match="cannot be read"):
        load_params(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(ParamsError, match="not valid YAML"):
        load_params(tmp_path / "bad.yaml")
    with pytest.raises(ParamsError, match="must be a mapping"):
        load_params(write(tmp_path, [1]))


def test_params_cannot_be_changed_after_loading(repository):
    params = load_params(repository / "params.yaml")
    with pytest.raises(ValueError, match="frozen"):
        params.seed = 2
