"""The params are checked before any stage runs, and no file is removed while they are wrong."""

import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from han_core.clips import Clip, ClipTable, write_clips
from han_core.datasets.synthetic.generate import BOXES, CLASSES
from pipeline import check
from pipeline.check import main
from pipeline.paths import CHECKED
from tests.dvc_links import damaged, hold


@pytest.fixture
def params(repository, tmp_path, monkeypatch):
    """The default params, in a folder of their own."""
    monkeypatch.chdir(tmp_path)
    return yaml.safe_load((repository / "params.yaml").read_text(encoding="utf-8"))


def run(params):
    Path("params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    result = CliRunner().invoke(main, [])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_what_is_written_is_the_same_for_all_sound_params(params, repository, monkeypatch):
    monkeypatch.setattr(check, "CHECKS", check.CHECKS[:3])  # the presets name data and weights that are not here
    assert run(params).exit_code == 0
    first = CHECKED.read_bytes()
    for preset in sorted(set((repository / "presets").glob("*.yaml")) - set((repository / "presets").glob("select_*"))):
        assert run(yaml.safe_load(preset.read_text(encoding="utf-8"))).exit_code == 0, preset
        assert CHECKED.read_bytes() == first


def test_wrong_params_leave_nothing_behind_and_are_all_told(params):
    run(params)
    params["dataset"]["name"] = "../../x"
    params["cubes"]["nets"] = "../y"
    result = run(params)
    assert result.exit_code == 1
    assert "2 problems" in result.output
    assert sorted(path.as_posix() for path in Path().rglob("*")) == ["data", "params.yaml"]


def test_a_file_that_dvc_holds_is_not_written_into(params, tmp_path):
    run(params)
    held = hold(CHECKED.parent, tmp_path / "dvc")
    held |= dict.fromkeys(held, b"another version's")
    next(iter(held)).write_bytes(b"another version's")
    assert run(params).exit_code == 0
    assert damaged(held) == []


@pytest.mark.parametrize("name", ["mine.txt", "bow/bow_p1.avi", f"{CLASSES[0]}/holiday.avi", f"{CLASSES[0]}/x/y.avi"])
def test_videos_of_a_person_where_generated_ones_belong_are_refused(params, name):
    root = Path("data/synthetic/raw")
    for file in (BOXES, f"{CLASSES[0]}/{CLASSES[0]}_g01_t01.avi"):
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    assert run(params).exit_code == 0
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).touch()
    result = run(params)
    assert result.exit_code == 1
    assert f"dataset.root: data/synthetic/raw holds 1 files that are not of the generated dataset, e.g. '{name}'" in (
        result.output
    )
    assert not CHECKED.exists()


def test_the_problems_of_all_checks_come_in_one_report(params, monkeypatch):
    monkeypatch.setattr(
        check, "CHECKS", (lambda params: ["a: is odd"], lambda params: [], lambda params: ["b: is even"])
    )
    result = run(params)
    assert result.exit_code == 1
    assert result.output == "Error: params.yaml: 2 problems\n  a: is odd\n  b: is even\n"


def test_a_clip_to_show_that_is_not_tested_is_told_once_there_is_a_table(params):
    clip = Clip("a", "bow/a.avi", "bow", 0, "g", {1: "test"}, "0" * 64)
    params["report"]["clips"] = ["a", "b"]
    assert run(params).exit_code == 0
    write_clips(ClipTable((clip,), ("bow",), (1,)), "data/synthetic/clips.csv")
    result = run(params)
    assert result.exit_code == 1
    assert "report.clips: b: no test clip of splits 1 has this name" in result.output


class Project:
    """The real stages ``check``, ``generate`` and ``prepare`` in a DVC repository, with videos of a person."""

    def __init__(self, repository, folder):
        self.path = folder
        self.environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(repository),
            "DVC_NO_ANALYTICS": "1",
        }
        graph = yaml.safe_load((repository / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
        stages = {name: graph[name] for name in ("check", "generate", "prepare")}
        for stage in stages.values():
            stage["deps"] = [dep for dep in stage["deps"] if not dep.startswith(("han_core", "pipeline"))]
        (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}, sort_keys=False), encoding="utf-8")
        params = yaml.safe_load((repository / "params.yaml").read_text(encoding="utf-8"))
        params["run"]["workers"] = 1
        params["synthetic"].update(groups=2, frames=12, width=64, height=64)
        params["dataset"].update(name="mine", kind="folder", root="videos", generate=[])
        params["cubes"]["nets"] = "mine"
        self.params = params
        for place in ("videos", "data/mine/raw"):
            for name in ("a/1.avi", "a/2.avi", "b/3.avi", "b/4.avi"):
                write_video(folder / place / name, int(name[2]))
        done = subprocess.run([sys.executable, "-m", "dvc", "init", "--no-scm", "-q"], cwd=folder, env=self.environment)
        assert done.returncode == 0

    def repro(self, **dataset):
        """Stages that ran, and the output."""
        content = self.params | {"dataset": self.params["dataset"] | dataset}
        (self.path / "params.yaml").write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        command = [sys.executable, "-m", "dvc", "repro"]
        done = subprocess.run(command, cwd=self.path, env=self.environment, capture_output=True, text=True, check=False)
        output = done.stdout + done.stderr
        return {name.split("@")[0] for name in re.findall(r"Running stage '(.+?)'", output)}, output

    def files(self):
        names = (path.relative_to(self.path) for path in self.path.rglob("*") if path.is_file())
        return {name.as_posix() for name in names if name.parts[0] in ("videos", "data", "models")}


def write_video(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25, (64, 48))
    for i in range(3):
        writer.write(np.full((48, 64, 3), 20 * value + i, np.uint8))
    writer.release()


@pytest.fixture(scope="module")
def project(repository, tmp_path_factory):
    made = Project(repository, tmp_path_factory.mktemp("check"))
    made.first = made.repro()
    made.kept = made.files() - {CHECKED.as_posix()}
    return made


def test_sound_params_run_the_stages_and_an_edit_those_that_it_concerns(project):
    ran, output = project.first
    assert ran == {"check", "prepare"}, output
    assert {CHECKED.as_posix(), "data/mine/clips.csv"} <= project.files()
    dropout = project.params["train"]["dropout"]
    project.params["train"]["dropout"] = 0.1
    assert project.repro()[0] == {"check"}
    project.params["train"]["dropout"] = dropout
    assert project.repro()[0] == set()


@pytest.mark.parametrize(
    ("dataset", "words"),
    [
        ({"validation_share": "x", "allowed_failures": True}, "2 problems"),
        ({"name": "../../x"}, "dataset.name: is part of paths"),
        ({"kind": "synthetic", "generate": ["synthetic"]}, "dataset.root: must be data/mine/raw"),
        ({"kind": "synthetic", "generate": ["synthetic"], "root": "data/mine/raw"}, "and would be removed"),
        ({"generate": ["synthetic"], "root": "data/mine/raw"}, "dataset.generate: must be"),
    ],
    ids=["values", "name", "videos", "raw", "generate"],
)
def test_while_the_params_are_wrong_nothing_runs_and_no_file_is_removed(project, dataset, words):
    ran, output = project.repro(**dataset)
    assert words in output
    assert ran == {"check"}
    assert "Traceback" not in output
    assert project.files() >= project.kept
