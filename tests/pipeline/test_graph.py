"""dvc.yaml names, for each stage, the rooms that decide what it writes: no more and no less."""

import ast
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pipeline.params import CnnLstm, Train
from pipeline.paths import CHECKED

PARAMS_CODE = ("pipeline/params.py", "pipeline/plain_yaml.py", "pipeline/settings/")
PLUMBING = (
    "han_core/cache/",
    "han_core/clips.py",
    "han_core/errors.py",
    "han_core/runs/",
    "pipeline/execution/",
    "pipeline/paths.py",
    *PARAMS_CODE,
)
"""Rooms that order the work, find files, check params or keep the cache. A change to one of them changes no byte of an
output, so no stage depends on them; but for stage ``check``, which is there
for what the code of the params does."""

STAGES = [
    "check",
    "generate",
    "prepare",
    "decode",
    "flow",
    "steady",
    "finetune-spatial",
    "finetune-temporal",
    "cubes-spatial",
    "cubes-temporal",
    "scores-spatial",
    "scores-temporal",
    "train",
    "classify",
    "two-stream",
    "train-cnn-lstm",
    "classify-cnn-lstm",
    "trajectories",
    "codebook",
    "fisher",
    "fisher-svm",
    "stacked-model",
    "stacked",
    "stacked-svm",
    "tdd-samples-spatial",
    "tdd-codebook-spatial",
    "tdd-spatial",
    "tdd-samples-temporal",
    "tdd-codebook-temporal",
    "tdd-temporal",
    "tdd-svm",
    "tdd-cubes-codebook",
    "tdd-cubes",
    "tdd-cubes-svm",
    "finetune-slow-fusion",
    "scores-slow-fusion",
    "slow-fusion",
    "baselines",
    "evaluate",
    "report",
]


def is_plumbing(name: str, decisive: tuple[str, ...] = ()) -> bool:
    """Also the ``__init__`` of packages, which hold a docstring only (tested below).

    Args:
        decisive: starts of names that are not.
    """
    return (name.startswith(PLUMBING) and not name.startswith(decisive)) or name.endswith("/__init__.py")


def imported_files(root: Path, module_file: Path, decisive: tuple[str, ...] = ()) -> set[str]:
    """Project files that a file imports, directly or not, wherever in it the import stands.

    Args:
        decisive: plumbing that counts all the same.
    """
    found: set[str] = set()
    waiting = [module_file]
    while waiting:
        path = waiting.pop()
        name = path.relative_to(root).as_posix()
        if name in found:
            continue
        found.add(name)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            waiting += [
                target
                for target in _targets(root, node)
                if not is_plumbing(target.relative_to(root).as_posix(), decisive)
            ]
    return {name for name in found if not is_plumbing(name, decisive)}


def _targets(root: Path, node: ast.AST) -> list[Path]:
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
        names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    else:
        return []
    paths = []
    for name in names:
        if name.split(".")[0] in ("han_core", "pipeline"):
            base = root / Path(*name.split("."))
            paths += [p for p in (base.with_suffix(".py"), base / "__init__.py") if p.is_file()]
    return paths


def entry_point(root: Path, stage: dict) -> Path:
    """The file that a stage's command runs."""
    module = root / Path(*stage["cmd"].split()[2].split("."))
    return module / "__main__.py" if module.is_dir() else module.with_suffix(".py")


def code_deps(stage: dict) -> list[str]:
    return [dep for dep in stage["deps"] if dep.startswith(("han_core/", "pipeline/"))]


def lies_in(name: str, dep: str) -> bool:
    return name == dep or name.startswith(f"{dep}/")


@pytest.fixture(scope="module")
def graph(repository):
    return yaml.safe_load((repository / "dvc.yaml").read_text(encoding="utf-8"))["stages"]


def test_the_stages_are_these(graph):
    assert list(graph) == STAGES


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_depends_on_exactly_the_rooms_it_imports(name, graph, repository):
    deps = code_deps(graph[name])
    assert [dep for dep in deps if not (repository / dep).exists()] == []
    decisive = PARAMS_CODE if name == "check" else ()
    needed = imported_files(repository, entry_point(repository, graph[name]), decisive)
    assert [file for file in sorted(needed) if not any(lies_in(file, dep) for dep in deps)] == [], "not in dvc.yaml"
    assert [dep for dep in deps if not any(lies_in(file, dep) for file in needed)] == [], "in dvc.yaml, not imported"


def test_editing_the_model_never_runs_flow_again(graph):
    for name in ("prepare", "decode", "flow", "cubes-spatial", "cubes-temporal"):
        assert not any(lies_in("han_core/han/model.py", dep) for dep in code_deps(graph[name]))


def runs_after(graph, key):
    """Stages that run again when a value of the params file is changed, those before them in the file first."""
    changed, outs = [], []
    for name, stage in graph.items():
        watched = [entry for entry in stage.get("params", []) if key == entry or key.startswith(f"{entry}.")]
        made = [next(iter(out)) if isinstance(out, dict) else out for out in outs]
        if watched or any(lies_in(dep, out) or lies_in(out, dep) for dep in stage["deps"] for out in made):
            changed.append(name)
            outs += [*stage.get("outs", []), *stage.get("metrics", []), *stage.get("plots", [])]
    return changed


def test_an_edit_of_the_svm_runs_the_svms_and_what_follows(graph):
    changed = runs_after(graph, "svm.c")
    assert changed == [*(name for name in STAGES if name.endswith("-svm")), "evaluate", "report"]


def test_an_edit_of_the_mixtures_leaves_the_trajectories(graph):
    changed = runs_after(graph, "fisher.gaussians")
    assert {"codebook", "fisher", "fisher-svm", "evaluate", "report"} <= set(changed)
    assert "trajectories" not in changed


def test_an_edit_of_the_trajectories_leaves_cubes_and_han(graph):
    changed = runs_after(graph, "trajectories.stride")
    assert changed[0] == "trajectories"
    assert not {"cubes-spatial", "cubes-temporal", "train", "classify"} & set(changed)


@pytest.mark.parametrize("key", sorted(set(CnnLstm.model_fields) - {"splits"}))
def test_an_edit_of_the_cnn_lstm_runs_its_stages_and_what_follows(key, graph):
    assert runs_after(graph, f"cnn_lstm.{key}") == ["train-cnn-lstm", "classify-cnn-lstm", "evaluate", "report"]


@pytest.mark.parametrize("key", sorted(set(Train.model_fields) - {"seeds"}))
def test_an_edit_of_han_s_training_runs_its_stages_and_what_follows(key, graph):
    assert runs_after(graph, f"train.{key}") == ["train", "classify", "evaluate", "report"]


def test_neither_another_seed_nor_an_ensemble_trains_a_model_again(graph):
    """The stages of the new seed are new items of the matrix."""
    assert runs_after(graph, "train.seeds") == ["evaluate", "report"]
    assert runs_after(graph, "evaluate.ensemble") == ["evaluate", "report"]


def test_the_seed_of_everything_else_leaves_han_where_its_cubes_are_the_same(graph):
    assert "seed" not in graph["train"]["params"]
    assert "seed" in graph["train-cnn-lstm"]["params"]


@pytest.mark.parametrize("name", ["train", "classify"])
def test_each_seed_has_outputs_of_its_own(name, graph):
    for kind in ("outs", "metrics", "plots"):
        for out in graph[name].get(kind, []):
            assert "-seed${item.seed}" in (next(iter(out)) if isinstance(out, dict) else out)


@pytest.mark.long
def test_dvc_trains_the_seeds_that_are_new(graph, dvc, tmp_path, repository):
    params = yaml.safe_load((repository / "params.yaml").read_text(encoding="utf-8"))
    params["models"] = ["han"]
    put_stages(graph, tmp_path, params, "train", keys=("params",))
    shutil.copytree(repository / "choices", tmp_path / "choices")

    def trained(seeds, **others):
        params["train"] |= {"seeds": seeds, **others}
        (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
        (tmp_path / "noted").unlink(missing_ok=True)
        done = dvc("repro")
        assert done.returncode == 0, done.stdout + done.stderr
        noted = tmp_path / "noted"
        lines = noted.read_text().splitlines() if noted.exists() else []
        arguments = [json.loads(line) for line in lines]
        return sorted(int(said[said.index("--seed") + 1]) for said in arguments)

    assert trained([1]) == [1]
    assert trained([1, 5]) == [5]
    assert trained([5, 1]) == []
    assert trained([5, 1], region_dropout=0.25) == [1, 5]
    assert trained([5, 1], stream_dropout=0.25) == [1, 5]
    assert trained([5, 1], attention_deviation=0.25) == [1, 5]


def test_another_split_trains_no_cnn_lstm_again_nor_does_the_weight_of_the_streams(graph):
    assert runs_after(graph, "cnn_lstm.splits") == ["evaluate", "report"]
    changed = runs_after(graph, "evaluate.fusion")
    assert "classify-cnn-lstm" in changed
    assert "train-cnn-lstm" not in changed


def test_neither_code_of_han_and_cnn_lstm_trains_the_other_again(graph):
    own = {"train": "han_core/han/model.py", "train-cnn-lstm": "han_core/baselines/cnn_lstm/model.py"}
    for stage, file in own.items():
        found = {name for name in own if any(lies_in(file, dep) for dep in code_deps(graph[name]))}
        assert found == {stage}
    for name in own:
        assert any(lies_in("han_core/han/training.py", dep) for dep in code_deps(graph[name])), "the loop is shared"


SLOW_FUSION = ("finetune-slow-fusion", "scores-slow-fusion", "slow-fusion")


@pytest.mark.parametrize("module", ["net", "inputs", "net_file", "weights", "scoring"])
def test_editing_slow_fusion_runs_none_of_the_stages_of_the_vgg16_nets_again(graph, repository, module):
    edited = f"han_core/nets/slow_fusion/{module}.py"
    assert (repository / edited).is_file()
    for stream in ("spatial", "temporal"):
        for stage in ("finetune", "cubes", "scores"):
            assert not any(lies_in(edited, dep) for dep in code_deps(graph[f"{stage}-{stream}"])), stage
    for stage, spared in (("finetune-slow-fusion", "scoring"), ("scores-slow-fusion", "weights")):
        assert any(lies_in(edited, dep) for dep in code_deps(graph[stage])) == (module != spared)


def test_editing_the_vgg16_never_trains_slow_fusion_again(graph):
    for name in SLOW_FUSION:
        for edited in ("han_core/nets/vgg16.py", "han_core/nets/net_file.py", "pipeline/finetune.py"):
            assert not any(lies_in(edited, dep) for dep in code_deps(graph[name]))


def test_an_edit_of_the_windows_trains_nothing(graph):
    watched = {name: graph[name].get("params", []) for name in SLOW_FUSION}
    assert [name for name in SLOW_FUSION if "slow_fusion.scores" in watched[name]] == ["scores-slow-fusion"]
    assert [name for name in SLOW_FUSION if "slow_fusion.train" in watched[name]] == ["finetune-slow-fusion"]
    assert not any("slow_fusion" in params or "slow_fusion.splits" in params for params in watched.values())
    for name in ("evaluate", "report"):
        assert any(key in graph[name]["params"] for key in ("slow_fusion", "slow_fusion.splits"))


def test_package_inits_hold_a_docstring_and_nothing_else(repository):
    """So that importing a room runs no code of its parents, which dvc.yaml need not name then. The root's offers names
    of han_core.api, and changes nothing that a stage computes."""
    inits = {*(repository / "han_core").rglob("__init__.py"), *(repository / "pipeline").rglob("__init__.py")}
    for path in sorted(inits - {repository / "han_core" / "__init__.py"}):
        (only,) = ast.parse(path.read_text(encoding="utf-8")).body
        assert isinstance(only, ast.Expr), path


def test_every_folder_with_modules_is_a_package(repository):
    """Setuptools leaves out folders without an ``__init__``."""
    for root in ("han_core", "pipeline"):
        folders = {path.parent for path in (repository / root).rglob("*.py")}
        assert [folder for folder in folders if not (folder / "__init__.py").is_file()] == []


@pytest.mark.parametrize("name", STAGES)
def test_outputs_are_ordinary(name, graph):
    """``persist`` and ``cache: false`` would turn DVC's run cache off."""
    for kind in ("outs", "metrics", "plots"):
        for out in graph[name].get(kind, []):
            options = next(iter(out.values())) if isinstance(out, dict) else {}
            assert "persist" not in options
            assert options.get("cache", True)


def test_nothing_runs_before_the_params_are_checked(graph):
    assert graph["check"]["outs"] == [CHECKED.as_posix()]
    assert "params.yaml" in graph["check"]["deps"]
    for name in STAGES[1:]:
        first = CHECKED.as_posix() if name in ("generate", "prepare") else "data/${dataset.name}/clips.csv"
        assert first in graph[name]["deps"], name


@pytest.mark.parametrize("name", STAGES)
def test_commands_take_values_of_the_params_in_the_quoted_form_only(name, graph):
    """DVC puts ``${item.split}`` into the shell as it is, and quotes the values of ``${item}``."""
    assert set(re.findall(r"\S*\$.*?(?=\s|$)", graph[name]["cmd"])) <= {"${item}"}


@pytest.mark.parametrize("name", STAGES)
def test_the_keys_of_a_matrix_are_options_of_the_command(name, graph):
    command = importlib.import_module(graph[name]["cmd"].split()[2])
    if hasattr(command, "__path__"):
        command = importlib.import_module(f"{command.__name__}.__main__")
    options = {option for parameter in command.main.params for option in parameter.opts}
    taken = graph[name].get("matrix", {}) if "${item}" in graph[name]["cmd"] else {}
    assert {f"--{key}" for key in taken} | set(re.findall(r"--\w+", graph[name]["cmd"])) <= options


@pytest.mark.parametrize("name", STAGES)
def test_outputs_lie_where_no_value_of_the_params_leads_elsewhere(name, graph):
    """DVC removes them before a stage runs, so no folder that a person may choose is among them."""
    for kind in ("outs", "metrics", "plots"):
        for out in graph[name].get(kind, []):
            path = next(iter(out)) if isinstance(out, dict) else out
            keys = set(re.findall(r"\$\{(.*?)\}", path))
            assert keys <= {"dataset.name"} | {f"item.{key}" for key in graph[name].get("matrix", {})}
            assert path.split("/")[0] in ("data", "models", "metrics", "plots", "report")


HOSTILE = [
    "$(touch pwned)",
    "`touch pwned`",
    "'; touch pwned; '",
    '"; touch pwned #',
    "&& touch pwned",
    "\\'; touch pwned",
]


@pytest.fixture
def dvc(tmp_path):
    """Runs DVC in a repository of its own; what it did and said."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "DVC_NO_ANALYTICS": "1"}

    def run(*arguments):
        command = [sys.executable, "-m", "dvc", *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    assert run("init", "--no-scm", "-q").returncode == 0
    return run


def put_stages(graph, folder, params, *names, keys=()):
    """The real commands, of which a script that notes its arguments takes the place of the stage's module."""
    (folder / "note.py").write_text("import json, sys\nprint(json.dumps(sys.argv[1:]), file=open('noted', 'a'))\n")
    stages = {
        name: {
            "matrix": graph[name]["matrix"],
            "cmd": re.sub(r"-m \S+", "note.py", graph[name]["cmd"]),
            **{key: graph[name][key] for key in keys},
        }
        for name in names
    }
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    (folder / "params.yaml").write_text(yaml.safe_dump(params))


def test_values_of_the_params_reach_no_shell(graph, dvc, tmp_path):
    hostile = ["1; touch pwned"]
    params = {"models": HOSTILE, "splits": hostile, "train": {"seeds": hostile}}
    put_stages(graph, tmp_path, params, "train", "two-stream")
    done = dvc("repro")
    assert done.returncode == 0, done.stdout + done.stderr
    noted = [json.loads(line) for line in (tmp_path / "noted").read_text().splitlines()]
    split = ["--split", "1; touch pwned"]
    seed = ["--seed", *hostile]
    assert sorted(noted) == sorted([split, *(["--model", value, *seed, *split] for value in HOSTILE)])
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    "value", ["a\ntouch pwned\n", "a'\ntouch pwned\n'", "\ntouch pwned", "a\u2028touch pwned\u2028"]
)
def test_values_of_several_lines_reach_no_shell_either(graph, dvc, tmp_path, value):
    """DVC runs a command line by line; the first ends within quotes, so the shell refuses it and DVC stops."""
    put_stages(graph, tmp_path, {"models": [value], "splits": [1], "train": {"seeds": [1]}}, "train")
    assert dvc("repro").returncode != 0
    assert not (tmp_path / "pwned").exists()
    assert not (tmp_path / "noted").exists()


@pytest.mark.parametrize("models", [[{"$(touch pwned)": 1}], [["a", {"$(touch pwned)": 1}]], [["$(touch pwned)"]]])
def test_values_that_are_no_text_reach_no_shell_either(graph, dvc, tmp_path, models):
    """Keys are not quoted; but such a value is none that an output's name can hold."""
    kept = {key: graph["train"][key] for key in ("matrix", "cmd", "outs")}
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"train": kept}}))
    params = {"models": models, "splits": [1], "train": {"seeds": [1]}, "dataset": {"name": "x"}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    assert "Cannot interpolate" in dvc("repro").stderr
    assert not (tmp_path / "pwned").exists()


def test_dvc_trains_again_when_other_settings_were_chosen_and_not_when_only_comments_differ(
    graph, dvc, tmp_path, repository
):
    """DVC knows no optional dependency: where nothing is chosen it looks at ``choices/none.yaml``."""
    params = yaml.safe_load((repository / "params.yaml").read_text(encoding="utf-8"))
    params["models"] = ["han"]
    put_stages(graph, tmp_path, params, "train", keys=("params",))
    shutil.copytree(repository / "choices", tmp_path / "choices")

    def runs(chosen, settings=None, comment=""):
        params["train"]["chosen"] = chosen
        (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
        if settings:
            content = {"chosen": {"han": {"split_1": {"settings": settings, "clips": "0" * 16}}}}
            (tmp_path / "choices/toy.yaml").write_text(comment + yaml.safe_dump(content))
        (tmp_path / "noted").unlink(missing_ok=True)
        done = dvc("repro")
        assert done.returncode == 0, done.stdout + done.stderr
        return (tmp_path / "noted").exists()

    assert runs("none")
    assert not runs("none", {"epochs": 20}), "a file that is not named concerns nobody"
    assert runs("toy", {"epochs": 20})
    assert not runs("toy", {"epochs": 20}, "# made by hand\n")
    assert runs("toy", {"epochs": 20, "optimizer.learning_rate": 0.5})
    assert runs("toy", {"epochs": 60, "optimizer.learning_rate": 0.5})
    assert runs("none")
    assert "up to date" in dvc("status").stdout
    assert not runs("none")
