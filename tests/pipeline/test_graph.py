"""dvc.yaml names, for each stage, the rooms that decide what it writes: no more and no less."""

import ast
from pathlib import Path

import pytest
import yaml

PLUMBING = (
    "han_core/cache/",
    "han_core/clips.py",
    "han_core/errors.py",
    "han_core/runs/",
    "pipeline/execution/",
    "pipeline/params.py",
    "pipeline/paths.py",
)
"""Rooms that order the work, find files, check params or keep the cache. A change to one of them changes no byte of an
output (or is announced by the stage's VERSION), so no stage depends on them."""

STAGES = [
    "generate",
    "prepare",
    "decode",
    "flow",
    "finetune-spatial",
    "finetune-temporal",
    "cubes-spatial",
    "cubes-temporal",
    "scores-spatial",
    "scores-temporal",
    "train",
    "classify",
    "two-stream",
    "baselines",
    "evaluate",
    "report",
]


def is_plumbing(name: str) -> bool:
    """Also the ``__init__`` of packages, which hold a docstring only (tested below)."""
    return name.startswith(PLUMBING) or name.endswith("/__init__.py")


def imported_files(root: Path, module_file: Path) -> set[str]:
    """Project files that a file imports, directly or not, wherever in it the import stands."""
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
                target for target in _targets(root, node) if not is_plumbing(target.relative_to(root).as_posix())
            ]
    return {name for name in found if not is_plumbing(name)}


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
    needed = imported_files(repository, entry_point(repository, graph[name]))
    assert [file for file in sorted(needed) if not any(lies_in(file, dep) for dep in deps)] == [], "not in dvc.yaml"
    assert [dep for dep in deps if not any(lies_in(file, dep) for file in needed)] == [], "in dvc.yaml, not imported"


def test_editing_the_model_never_runs_flow_again(graph):
    for name in ("prepare", "decode", "flow", "cubes-spatial", "cubes-temporal"):
        assert not any(lies_in("han_core/han/model.py", dep) for dep in code_deps(graph[name]))


def test_package_inits_hold_a_docstring_and_nothing_else(repository):
    """So that importing a room runs no code of its parents, which dvc.yaml need not name then."""
    for path in [*(repository / "han_core").rglob("__init__.py"), *(repository / "pipeline").rglob("__init__.py")]:
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
