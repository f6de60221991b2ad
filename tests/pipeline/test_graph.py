"""dvc.yaml names, for each stage, the modules that decide what it writes: no more and no less."""

import ast
from pathlib import Path

import pytest
import yaml

# Modules that order the work, find files, check params or keep the cache. A change to one of them changes no byte of
# an output (or is announced by the stage's VERSION), so no stage depends on them.
PLUMBING = {
    "han_core/__init__.py",
    "han_core/cache.py",
    "han_core/checkpoint.py",
    "han_core/datasets/__init__.py",
    "han_core/datasets/clips.py",
    "han_core/distributed.py",
    "han_core/errors.py",
    "han_core/progress.py",
    "pipeline/__init__.py",
    "pipeline/device.py",
    "pipeline/launch.py",
    "pipeline/outputs.py",
    "pipeline/params.py",
    "pipeline/paths.py",
    "pipeline/ledger.py",
    "pipeline/runner.py",
    "pipeline/stagelog.py",
    "pipeline/workers.py",
}

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
    "evaluate",
    "report",
]


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
                target for target in _targets(root, node) if target.relative_to(root).as_posix() not in PLUMBING
            ]
    return found - PLUMBING


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


def listed_files(root: Path, stage: dict) -> tuple[set[str], set[str]]:
    """Modules that a stage names, and all modules of the packages that it names as a whole."""
    modules: set[str] = set()
    packages: set[str] = set()
    for dep in stage["deps"]:
        if dep.startswith(("han_core/", "pipeline/")):
            path = root / dep
            assert path.exists(), f"{dep} does not exist"
            if path.is_dir():
                packages |= {p.relative_to(root).as_posix() for p in path.rglob("*.py")}
            else:
                modules.add(dep)
    return modules - PLUMBING, packages - PLUMBING


@pytest.fixture(scope="module")
def graph(repository):
    return yaml.safe_load((repository / "dvc.yaml").read_text(encoding="utf-8"))["stages"]


def test_the_stages_are_these(graph):
    assert list(graph) == STAGES


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_depends_on_exactly_the_modules_it_imports(name, graph, repository):
    stage = graph[name]
    module = repository / "pipeline" / f"{stage['cmd'].split()[2].removeprefix('pipeline.')}.py"
    needed = imported_files(repository, module)
    modules, packages = listed_files(repository, stage)
    assert needed - modules - packages == set(), "imported, but not in dvc.yaml"
    assert modules - needed == set(), "in dvc.yaml, but not imported"


@pytest.mark.parametrize("name", STAGES)
def test_outputs_are_ordinary(name, graph):
    """``persist`` and ``cache: false`` would turn DVC's run cache off."""
    for kind in ("outs", "metrics", "plots"):
        for out in graph[name].get(kind, []):
            options = next(iter(out.values())) if isinstance(out, dict) else {}
            assert "persist" not in options
            assert options.get("cache", True)


def test_han_core_never_imports_pipeline(repository):
    for path in (repository / "han_core").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert not (node.module or "").startswith("pipeline"), path
            if isinstance(node, ast.Import):
                assert not any(alias.name.startswith("pipeline") for alias in node.names), path
