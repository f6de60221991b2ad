"""A params file is refused before any work, with every problem named."""

import time
import tracemalloc

import pytest
import yaml

from han_core.flow.tvl1.solver import SMALLEST_SIDE
from pipeline.params import ParamsError, load_params
from pipeline.plain_yaml import PlainYamlError, read_plain_yaml


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


@pytest.mark.parametrize("name", ["ucf101", "hmdb51", "ut_interaction", "folder", "list"])
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


@pytest.mark.parametrize("name", ["ucf101", "hmdb51", "ut_interaction"])
def test_the_presets_of_the_papers_make_the_cnn_lstm(repository, name):
    params = load_params(repository / "presets" / f"{name}.yaml")
    assert params.cnn_lstm.splits == params.splits
    assert "deep_lstm" in params.families
    assert params.cnn_lstm.layers == 5
    if name != "ut_interaction":
        assert (params.cnn_lstm.units, params.cnn_lstm.dropout, params.cnn_lstm.features) == (512, 0.5, "fc")


def test_the_cnn_lstm_is_left_out_by_no_splits(tmp_path, default):
    assert "deep_lstm" in load_params(write(tmp_path, default)).families
    default["cnn_lstm"]["splits"] = []
    assert "deep_lstm" not in load_params(write(tmp_path, default)).families


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


@pytest.mark.parametrize("name", ["ucf101", "hmdb51"])
def test_slow_fusion_is_trained_as_its_paper_says(repository, name):
    params = load_params(repository / "presets" / f"{name}.yaml")
    recipe = params.slow_fusion.train
    assert params.slow_fusion.splits == (1, 2, 3)
    assert (recipe.weights, recipe.trained, recipe.fc_size) == ("random", "all", 4096)
    assert (recipe.resize, recipe.flip) == (200, True)
    assert (recipe.batch, recipe.momentum, recipe.weight_decay, recipe.learning_rate) == (32, 0.9, 0.0005, 0.001)
    assert (recipe.iterations, recipe.dropout, params.slow_fusion.scores.windows) == (30000, (0.9, 0.9), 50)


def test_slow_fusion_is_a_row_where_it_has_splits(tmp_path, default):
    assert "slow_fusion" not in load_params(write(tmp_path, default)).families
    default["slow_fusion"]["splits"] = [1]
    assert "slow_fusion" in load_params(write(tmp_path, default)).families


def test_home_folders_are_expanded_and_variables_are_not(tmp_path, default, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    default["dataset"].update(name="mine", kind="list", root="$HOME/all.csv", base="~/videos", generate=[])
    default["cubes"]["nets"] = "mine"
    default["train"]["start"] = "~/{model}.safetensors"
    default["finetune"]["spatial"] = {**default["finetune"]["spatial"], "weights": "~/vgg.safetensors"}
    params = load_params(write(tmp_path, default))
    assert [str(path) for path in (params.dataset.root, params.dataset.base, params.train.start)] == [
        "$HOME/all.csv", "/home/me/videos", "/home/me/{model}.safetensors",
    ]  # fmt: skip
    assert params.finetune.spatial.weights == "/home/me/vgg.safetensors"
    assert params.finetune.temporal.weights == default["finetune"]["temporal"]["weights"]
    default["dataset"].update(root="~/all.csv", base="~nobody_of_this_name/x")
    message = refusal(tmp_path, default)
    assert "dataset.root: must be written out, because DVC watches it and knows no ~: /home/me/all.csv" in message
    assert "dataset.base: there is no home folder '~nobody_of_this_name'" in message


def test_what_is_of_lists_alone_and_what_lists_do_not_have(tmp_path, default):
    default["dataset"].update(kind="list", root="all.csv", generate=[], annotations="lists")
    default["dataset"]["folder"]["group_pattern"] = "x"
    message = refusal(tmp_path, default)
    assert "dataset.annotations: must be null for dataset.kind list" in message
    assert "dataset.folder.group_pattern: must be null for dataset.kind list" in message
    default["dataset"].update(kind="folder", base="videos")
    assert "dataset.base: must be null for dataset.kind folder" in refusal(tmp_path, default)


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
        (lambda p: p["cnn_lstm"].update(splits=[2]), "cnn_lstm.splits: must equal splits, or be [] for none"),
        (lambda p: p["cnn_lstm"].update(splits=[1, 1]), "cnn_lstm.splits: must equal splits, or be [] for none"),
        (
            lambda p: p["train"].update(attention="content", attention_deviation=0.1),
            "train: attention_deviation is of attention: location, but attention is content",
        ),
        (lambda p: p["run"].update(executor="dask"), "run.scheduler: is missing"),
        (lambda p: p["slow_fusion"].update(splits=[2]), "slow_fusion.splits: must equal splits, or be []"),
        (
            lambda p: p["slow_fusion"]["train"].update(trained="top"),
            "slow_fusion.train: trained: top would leave random layers untrained, because weights is random",
        ),
    ],
)
def test_values_that_contradict_each_other(tmp_path, default, change, words):
    change(default)
    assert words in refusal(tmp_path, default)


def test_the_environment_may_name_the_scheduler(tmp_path, default, monkeypatch):
    default["run"].update(executor="dask")
    monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", "tcp://here:1")
    assert load_params(write(tmp_path, default)).run.address == "tcp://here:1"
    default["run"].update(scheduler="tcp://there:2")
    assert load_params(write(tmp_path, default)).run.address == "tcp://there:2"


def test_files_that_are_no_params(tmp_path):
    with pytest.raises(ParamsError, match="cannot be read"):
        load_params(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(ParamsError, match="not valid YAML"):
        load_params(tmp_path / "bad.yaml")
    with pytest.raises(ParamsError, match="must be a mapping"):
        load_params(write(tmp_path, [1]))


def test_seeds_are_a_setting_of_han_s_rows_alone(tmp_path, default):
    default["train"]["seeds"] = [3, 1]
    params = load_params(write(tmp_path, default))
    assert params.seeds_of("han") == (3, 1)
    assert params.seeds_of("linear") == params.seeds_of("deep_lstm") == (None,)


def test_params_cannot_be_changed_after_loading(repository):
    params = load_params(repository / "params.yaml")
    with pytest.raises(ValueError, match="frozen"):
        params.seed = 2


def put(params, key, value):
    """Set ``a.b.c`` in nested dicts."""
    *groups, last = key.split(".")
    for group in groups:
        params = params[group]
    params[last] = value


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("dataset.name", "../../x", "dataset.name: is part of paths"),
        ("dataset.name", "a/b", "dataset.name: is part of paths"),
        ("dataset.name", "x\n", "dataset.name: is part of paths"),
        ("dataset.name", ".", "dataset.name: is part of paths"),
        ("dataset.name", "", "dataset.name: is part of paths"),
        ("dataset.name", "é", "dataset.name: is part of paths"),
        ("dataset.name", "a" * 101, "dataset.name: is part of paths"),
        ("dataset.name", "$(touch pwned)", "dataset.name: is part of paths"),
        ("cubes.nets", "../../x", "cubes.nets: is part of paths"),
        ("cubes.nets", "/etc", "cubes.nets: is part of paths"),
        ("cubes.nets", "x\0", "cubes.nets: is part of paths"),
        ("splits", ["1; touch pwned"], "splits.0: input should be a valid integer, not '1; touch pwned'"),
        ("splits", ["1"], "splits.0: input should be a valid integer"),
        ("splits", [1.5], "splits.0: input should be a valid integer, not 1.5"),
        ("splits", [1.0], "splits.0: input should be a valid integer"),
        ("splits", [True], "splits.0: input should be a valid integer, not True"),
        ("splits", [0], "splits.0: input should be greater than or equal to 1"),
        ("splits", [10_000], "splits.0: input should be less than or equal to 9999"),
        ("splits", [[1]], "splits.0: input should be a valid integer"),
        ("splits", {"a": 1}, "splits: input should be a valid list"),
        ("splits", [], "splits: is empty"),
        ("models", ["han$(touch pwned)"], "models.0: input should be"),
        ("models", [{"$(touch pwned)": 1}], "models.0: input should be"),
        ("evaluate.baselines", ["`touch pwned`"], "evaluate.baselines.0: input should be"),
        ("seed", True, "seed: input should be a valid integer, not True"),
        ("seed", 2**32, "seed: input should be less than"),
        ("train.seeds", [], "train.seeds: is empty"),
        ("train.seeds", 1, "train.seeds: input should be a valid list"),
        ("train.seeds", [1, 2, 1], "train.seeds: holds a value twice"),
        ("train.seeds", [-1], "train.seeds.0: input should be greater than or equal to 0"),
        ("train.seeds", [2**32], "train.seeds.0: input should be less than"),
        ("train.seeds", ["$(touch pwned)"], "train.seeds.0: input should be a valid integer"),
        ("train.attention_rate", -1, "train.attention_rate: input should be greater than or equal to 0"),
        ("train.attention_rate", None, "train.attention_rate: input should be a valid number"),
        ("train.attention_deviation", 0, "train.attention_deviation: input should be greater than 0"),
        ("train.region_dropout", 1, "train.region_dropout: input should be less than 1"),
        ("train.region_dropout", -0.1, "train.region_dropout: input should be greater than or equal to 0"),
        ("evaluate.ensemble", 1, "evaluate.ensemble: input should be a valid boolean"),
        ("cubes.views", ["upside-down"], "cubes.views.0: input should be"),
        ("cubes.views", ["mirrored", "mirrored"], "cubes.views: holds a value twice"),
        ("train.views", ["mirrored"], "train.views: mirrored must be among cubes.views, too"),
        ("train.shift", 7, "train.shift: input should be less than or equal to 6"),
        ("evaluate.samplings", 2, "evaluate.samplings: input should be 1 or 3"),
        ("evaluate.samplings", True, "evaluate.samplings: must not be true"),
        ("evaluate.samplings", 3, "evaluate.samplings: 3 needs shift1 and shift2 among cubes.views"),
        ("camera", "steady", "camera: must be none, mean, homography, still with a share of"),
        ("camera", "homography-still0.50", "camera: must be none, mean, homography, still with a share of"),
        ("camera", "homographystill1", "camera: must be none, mean, homography, still with a share of"),
        ("camera", "still0", "camera: must be none, mean, homography, still with a share of"),
        ("train.dropout", "0.5", "train.dropout: input should be a valid number, not '0.5'"),
        ("train.dropout", False, "train.dropout: input should be a valid number"),
        ("train.dropout", float("nan"), "train.dropout: input should be a finite number"),
        ("train.optimizer.eps", float("inf"), "train.optimizer.eps: input should be a finite number"),
        ("train.standardize", 1, "train.standardize: input should be a valid boolean, not 1"),
        ("flow.tvl1.median", True, "flow.tvl1.median: must not be true"),
        ("scores.crops", True, "scores.crops: must not be true"),
        ("cubes.frames", 10**9, "cubes.frames: input should be less than or equal to"),
        ("train.lstm_size", 10**9, "train.lstm_size: input should be less than or equal to"),
        ("train.layers", 10**6, "train.layers: input should be less than or equal to"),
        ("cnn_lstm", [], "cnn_lstm: must be a group of keys"),
        ("cnn_lstm.splits", ["$(touch pwned)"], "cnn_lstm.splits.0: input should be a valid integer"),
        ("cnn_lstm.features", "fc7", "cnn_lstm.features: input should be 'fc' or 'cubes', not 'fc7'"),
        ("cnn_lstm.units", 10**9, "cnn_lstm.units: input should be less than or equal to"),
        ("cnn_lstm.layers", 0, "cnn_lstm.layers: input should be greater than or equal to 1"),
        ("cnn_lstm.dropout", 1, "cnn_lstm.dropout: input should be less than 1"),
        ("cnn_lstm.forget_bias", "spam", "cnn_lstm.forget_bias: "),
        ("cnn_lstm.clip_gradient", -1, "cnn_lstm.clip_gradient: input should be greater than or equal to 0"),
        ("cnn_lstm.optimizer.name", "lbfgs", "cnn_lstm.optimizer.name: input should be"),
        ("train.batch", 10**9, "train.batch: input should be less than or equal to"),
        ("finetune.spatial.fc_size", 10**9, "finetune.spatial.fc_size: input should be less than or equal to"),
        ("slow_fusion.train.resize", 169, "slow_fusion.train.resize: input should be greater than or equal to 170"),
        ("slow_fusion.train.trained", "top2", "slow_fusion.train.trained: input should be 'all', 'top' or 'top3'"),
        ("slow_fusion.train.dropout", [0.5, 1.0], "slow_fusion.train.dropout.1: input should be less than 1"),
        ("slow_fusion.train.weights", "a\0b", "slow_fusion.train.weights: holds a NUL character"),
        ("slow_fusion.scores.windows", 0, "slow_fusion.scores.windows: input should be greater than or equal to 1"),
        ("synthetic.width", 10**6, "synthetic.width: input should be less than or equal to"),
        ("run.workers", 10**6, "run.workers: input should be less than or equal to"),
        ("stack", 10**6, "stack: input should be less than or equal to"),
        ("dataset.root", "a\0b", "dataset.root: holds a NUL character"),
        ("dataset.root", "", "dataset.root: is empty"),
        ("dataset.root", "s3://bucket/videos", "dataset.root: must be a path on this machine"),
        ("dataset.annotations", "a\0b", "dataset.annotations: holds a NUL character"),
        ("finetune.spatial.weights", "a\0b", "finetune.spatial.weights: holds a NUL character"),
        ("run.scheduler", "a\0b", "run.scheduler: holds a NUL character"),
        ("dataset.folder.group_pattern", "(", "dataset.folder.group_pattern: is not a regular expression"),
        (
            "dataset.folder.group_pattern",
            "a{9999999999999}",
            "dataset.folder.group_pattern: is not a regular expression",
        ),
        ("dataset.folder.group_pattern", "(" * 900, "dataset.folder.group_pattern: is not a regular expression"),
        ("dataset.folder.group_pattern", "(?\x1b[2J)", "dataset.folder.group_pattern: is not a regular expression"),
        ("dataset.folder.group_pattern", "a" * 1001, "dataset.folder.group_pattern: is longer than"),
        ("report.clips", ["../x"], "report.clips.0: must be the name of a clip"),
        ("report.clips", ["/x"], "report.clips.0: must be the name of a clip"),
        ("report.clips", ["a/b/c"], "report.clips.0: must be the name of a clip"),
        ("report.clips", ["a\0"], "report.clips.0: holds a NUL character"),
        ("report.clips", ["a\nb"], "report.clips.0: must be the name of a clip"),
        ("report.clips", -1, "report.clips: input should be greater than or equal to 0"),
        ("train", 3, "train: must be a group of keys, not 3"),
    ],
)
def test_values_that_no_run_can_mean(tmp_path, default, key, value, words):
    put(default, key, value)
    message = refusal(tmp_path, default)
    assert words in message
    assert all(line.isprintable() for line in message.split("\n"))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train.dropout", 0),  # a whole number where any number may stand
        ("train.forget_bias", 1),
        ("train.seeds", [0, 2**32 - 1, 7]),
        ("train.attention_rate", 0),
        ("train.attention_deviation", 0.1),
        ("train.region_dropout", 0.5),
        ("evaluate.ensemble", True),
        ("report.clips", ["a clip (1) #;!", "bow/bow_p1", "ünï"]),
        ("report.clips", 0),
        ("finetune.spatial.weights", "/elsewhere/nets/vgg 16.safetensors"),
        ("dataset.root", "./data/../data/synthetic//raw/"),
    ],
)
def test_values_that_are_allowed(tmp_path, default, key, value):
    put(default, key, value)
    load_params(write(tmp_path, default))


def test_numbers_are_read_as_dvc_reads_them(tmp_path, default):
    """``1e-6`` is text to YAML 1.1."""
    path = write(tmp_path, default)
    text = path.read_text(encoding="utf-8").replace("eps: 1.0e-06", "eps: 1e-6")
    assert "1e-6" in text
    path.write_text(text, encoding="utf-8")
    assert load_params(path).train.optimizer.eps == 1e-6


@pytest.mark.parametrize("number", ["010", "08", "-010", "+07", "0o10", "00", "0_7", "!!int '010'", "[1, 010]"])
def test_numbers_that_dvc_reads_otherwise_are_refused_with_their_line(tmp_path, number):
    (tmp_path / "params.yaml").write_text(f"splits: [1]\ntrain:\n  seeds: {number}\n", encoding="utf-8")
    with pytest.raises(ParamsError, match=r"params\.yaml: line 3: [-+0-9o_]+ is one number .*without the zero"):
        load_params(tmp_path / "params.yaml")


@pytest.mark.parametrize("number", ["1:30", "190:20:30", "-1:30", "1:30.5"])
def test_numbers_of_base_60_are_refused_with_their_line(tmp_path, number):
    (tmp_path / "params.yaml").write_text(f"a: 1\nseed: {number}\n", encoding="utf-8")
    with pytest.raises(ParamsError, match=rf"params\.yaml: line 2: {number} is a number of base 60 to some"):
        load_params(tmp_path / "params.yaml")


def test_every_number_is_what_dvc_reads_or_refused(tmp_path):
    """DVC fills the commands of the stages in with what it reads itself."""
    parse_yaml = pytest.importorskip("dvc.utils.serialize").parse_yaml
    path, read = tmp_path / "a.yaml", []
    signs, numbers = ("", "-", "+"), (
        "0", "7", "10", "07", "010", "08", "0_8", "0o10", "0o8", "0O7", "0b11", "0x1F", "0x1f", "1_000", "1:30", "1:60",
        "01:30", "0:30", "12:30:45", "1:30.5", "1.5", "01.5", "08.5", "5.", "1.e3", "1e5", "1e-6", "08e3", "1.5e3",
        "1.5e+3", "0.5e-3", "2020-01-01", "10.0.0.1:80",
    )  # fmt: skip
    for text in (sign + number for sign in signs for number in numbers):
        path.write_text(f"a: {text}", encoding="utf-8")
        try:
            found = read_plain_yaml(path)
        except PlainYamlError:
            continue
        assert found == parse_yaml(f"a: {text}", "a.yaml"), text
        assert type(found["a"]) is type(parse_yaml(f"a: {text}", "a.yaml")["a"]), text
        read.append(text)
    assert {"0", "7", "-10", "0b11", "0x1F", "1_000", "01.5", "1e-6", "10.0.0.1:80", "01:30"} <= set(read)


def test_quotes_make_text_of_what_looks_like_a_number(tmp_path, default):
    default["dataset"].update(name="010", root="data/010/raw")
    default["cubes"]["nets"] = "010"
    path = write(tmp_path, default)
    assert "name: '010'" in path.read_text(encoding="utf-8")
    assert load_params(path).dataset.name == "010"


def test_flow_is_no_smaller_than_its_solver_takes(tmp_path, default):
    for size in ([SMALLEST_SIDE - 1, 9], [9, SMALLEST_SIDE - 1], [1, 16_384]):
        default["flow"]["size"] = size
        assert f"input should be greater than or equal to {SMALLEST_SIDE}, not" in refusal(tmp_path, default)
    default["flow"]["size"] = [SMALLEST_SIDE, SMALLEST_SIDE]
    assert load_params(write(tmp_path, default)).flow.size == (SMALLEST_SIDE, SMALLEST_SIDE)


@pytest.mark.parametrize(
    "root", ["videos", "/videos", "data/synthetic", "data/synthetic/raw/..", "data/other/raw", "."]
)
def test_videos_are_generated_in_one_place_only(tmp_path, default, root):
    """DVC removes the outputs of a stage before it runs it."""
    default["dataset"]["root"] = root
    assert "dataset.root: must be data/synthetic/raw for dataset.kind synthetic" in refusal(tmp_path, default)


NINEFOLD = [(before, name, ", ".join([f"*{before}"] * 9)) for before, name in zip("abcdefgh", "bcdefghi", strict=True)]
BOMB = "a: &a [x, x, x]\n" + "".join(f"{name}: &{name} [{all_}]\n" for _, name, all_ in NINEFOLD)
BOMB_OF_MERGES = "a: &a {x: 1}\n" + "".join(f"{name}: &{name} {{<<: [{all_}]}}\n" for _, name, all_ in NINEFOLD)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (BOMB, "values, aliases (*name) written out"),
        (BOMB_OF_MERGES, "values, aliases (*name) written out"),
        ("a: &a [*a]", "holds an alias of itself"),
        ("[" * 100_000, "is nested too deeply"),
        ("{a: " * 50_000, "is nested too deeply"),
        ("#" * 300_000, "is larger than 256 KiB"),
        ("seed: !!python/object/apply:os.system ['touch pwned']", "could not determine a constructor for the tag"),
        ("seed: !!bool x", "a value cannot be read"),
        ("seed: !!timestamp x", "a value cannot be read"),
        ("seed: 2020-13-41", "a value cannot be read"),
        ("seed: " + "9" * 5000, "a value cannot be read"),
        ("seed: 0x" + "f" * 50_000, "not a number of thousands of digits"),
        ("seed: 1\nseed: 2", "line 2: 'seed' is given twice"),
        ("seed: 1\n---\nseed: 2", "expected a single document"),
        (r'"\ud800": 1', "is no character"),
        (r'"\e[2J": 1', r"\x1b[2J: unknown key"),
        ("\n".join(f"k{i}: 1" for i in range(5000)), "... and 4963 more"),
        ("x" * 1000 + ": 1", "x: unknown key"),
        ("seed: " + "x" * 100_000, "seed: input should be a valid integer, not 'xxx"),
        (b"seed: \0", "unacceptable character #x0000"),
        (b"seed: \xe9", "is not UTF-8 text (byte 6)"),
        ("seed: 1".encode("utf-16"), "is not UTF-8 text"),
        ("", "must be a mapping"),
    ],
    ids=range(23),
)
def test_hostile_files_are_refused_at_once_in_few_words(tmp_path, monkeypatch, content, words):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "params.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    started = time.monotonic()
    with pytest.raises(ParamsError) as caught:
        load_params(path)
    assert time.monotonic() - started < 10
    assert words in caught.value.message
    assert len(caught.value.message) < 10_000
    assert max(map(len, caught.value.message.splitlines())) < 500
    assert list(tmp_path.iterdir()) == [path]


def test_a_long_value_that_is_repeated_thousands_of_times_is_never_written_out(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(
        f"a: &a {'x' * 40_000}\nsplits: {{{', '.join(f'{i}: *a' for i in range(500))}}}\n", encoding="utf-8"
    )
    tracemalloc.start()
    try:
        with pytest.raises(ParamsError, match="splits: input should be a valid list"):
            load_params(path)
        assert tracemalloc.get_traced_memory()[1] < 10e6
    finally:
        tracemalloc.stop()
