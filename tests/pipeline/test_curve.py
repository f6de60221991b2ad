"""A learning curve through DVCLive: what it leaves, wherever it is written."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.curve import Curve, read_curve

DRAW = """
import os, sys
from pathlib import Path
from pipeline.curve import Curve

with Curve(Path("curve")) as curve:
    curve.add(1, {"loss": 2.0, "top1": 0.5})
open_files = [Path(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd")]
print(*{Path(os.readlink(p)).name for p in open_files if p.is_symlink() and "cache.db" in os.readlink(p)})
"""


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def write(folder: Path, steps: int) -> None:
    with Curve(folder) as curve:
        for n in range(1, steps + 1):
            curve.add(n, {"loss": 2 / n, "top1": None if n % 2 else 0.5, "validation": None})


def test_a_curve_is_read_back_without_what_was_not_measured(tmp_path):
    write(tmp_path, 4)
    assert read_curve(tmp_path, "loss") == {1: 2.0, 2: 1.0, 3: 0.666667, 4: 0.5}
    assert read_curve(tmp_path, "top1") == {2: 0.5, 4: 0.5}
    assert read_curve(tmp_path, "validation") == {}
    assert json.loads((tmp_path / "metrics.json").read_text()) == {"loss": 0.5, "top1": 0.5, "step": 4}


def test_steps_can_be_far_apart_and_are_seen_at_once(tmp_path):
    with Curve(tmp_path) as curve:
        for step in (4, 8, 9):
            curve.add(step, {"loss": 1.0})
            assert [*read_curve(tmp_path, "loss")][-1] == step
            assert json.loads((tmp_path / "metrics.json").read_text())["step"] == step


def test_a_new_curve_leaves_nothing_of_a_longer_one_and_no_wall_times(tmp_path):
    write(tmp_path / "anew", 3)
    write(tmp_path / "again", 7)
    write(tmp_path / "again", 3)
    assert files(tmp_path / "again") == files(tmp_path / "anew")


def test_no_steps_leave_the_outputs_that_dvc_asks_for(tmp_path):
    write(tmp_path, 0)
    assert json.loads((tmp_path / "metrics.json").read_text()) == {}
    assert (tmp_path / "plots/metrics/not_trained.tsv").read_text() == "step\tnot_trained\n"
    write(tmp_path, 1)
    assert not (tmp_path / "plots/metrics/not_trained.tsv").exists()


@pytest.mark.parametrize("steps", [0, 1, 4])
def test_without_dvc_the_files_are_the_same(steps, monkeypatch, tmp_path):
    write(tmp_path / "with", steps)
    for name in ("dvc", "dvclive"):
        monkeypatch.setitem(sys.modules, name, None)
    write(tmp_path / "without", 7)  # an earlier curve
    write(tmp_path / "without", steps)
    assert files(tmp_path / "without") == files(tmp_path / "with")


def test_without_dvc_values_that_are_no_numbers_are_written_as_dvclive_does(monkeypatch, tmp_path):
    odd = {"loss": math.nan, "top1": math.inf, "rate": 1e-7}
    for folder in ("with", "without"):
        with Curve(tmp_path / folder) as curve:
            curve.add(3, odd)
        monkeypatch.setitem(sys.modules, "dvclive", None)
    assert files(tmp_path / "without") == files(tmp_path / "with")


@pytest.mark.parametrize("around", ["nothing", "git", "git and dvc", "git with a commit", "git and dvc with a commit"])
def test_it_does_not_matter_what_repository_is_around(around, repository, tmp_path):
    """No words, no repository made, nothing staged, and DVC's databases closed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("DVC", "GIT"))}
    environment |= {"PYTHONPATH": str(repository), "GIT_CEILING_DIRECTORIES": str(tmp_path.parent)}
    environment |= {"DVC_NO_ANALYTICS": "1", "DVC_SITE_CACHE_DIR": str(tmp_path / "site")}

    def said(*command: str) -> str:
        found = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False)
        assert found.returncode == 0, found.stderr
        return found.stdout + found.stderr

    place = tmp_path / "place"
    place.mkdir()
    if "git" in around:
        said("git", "init", "-q")
    if "dvc" in around:
        said(sys.executable, "-m", "dvc", "init", "-q")
    if "commit" in around:
        said("git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-q", "--allow-empty", "-m", "t")
    before = {path.name for path in place.iterdir()}
    assert said(sys.executable, "-c", DRAW).strip() == ""
    assert {path.name for path in place.iterdir()} == before | {"curve"}
    assert read_curve(place / "curve", "loss") == {1: 2.0}
