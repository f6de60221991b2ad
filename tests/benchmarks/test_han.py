"""The benchmark of HAN's training: it runs, as small as can be, and asks for little besides torch."""

import ast
import json
import sys
from pathlib import Path

from click.testing import CliRunner

from benchmarks.han import main

ALLOWED = {"torch", "triton", "numpy", "numba", "llvmlite", "h5py", "click", "tqdm"}
"""llvmlite comes with numba."""


def test_it_runs(tmp_path):
    out = tmp_path / "han.json"
    result = CliRunner().invoke(main, ["--tiny", "--epoch", "--rounds", "1", "--out", str(out)])
    assert result.exit_code == 0, result.output
    (found,) = json.loads(out.read_text()).values()
    assert found["step"]["fast_seconds"] > 0
    assert found["epoch"]["clips"] == 20


def imported(path: Path, root: Path, seen: set[Path]) -> set[str]:
    """Packages that a file and the project's files behind it import as they are imported."""
    if path in seen:
        return set()
    seen.add(path)
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            file = root / Path(*name.split(".")).with_suffix(".py")
            if file.is_file():
                found |= imported(file, root, seen)
            found.add(name.split(".")[0])
    return found


def test_it_needs_only_what_a_machine_with_a_gpu_has(repository):
    own = {"machine", "han_core"}
    found = imported(repository / "benchmarks" / "han.py", repository, set()) - own - set(sys.stdlib_module_names)
    assert {"torch", "numpy", "h5py", "numba"} <= found
    assert found <= ALLOWED, found - ALLOWED
