"""A new row of a table touches the registry and the row's own room, and everything else knows it from there."""

import json
import os
import shutil
import subprocess
import sys

import yaml

from tests.only_han import only_han
from tests.pipeline.toy_store import FRAMES, write_store

ROW = """    _row("first_state", "Starts from the mean", "classify", table_2="Made-up system [99]", ucf101=12.5),
"""
VARIANT = """    "first_state": Variant(("spatial", "temporal"), fixed={"initial_state": "mean"}),
"""
RUN = """
import sys
from click.testing import CliRunner
from pipeline import classify, train
from pipeline.evaluate import __main__ as evaluate
from pipeline.report import __main__ as report

one = ["--model", "first_state", "--split", "1", "--seed", "1"]
for stage, arguments in ((train, one), (classify, one), (evaluate, []), (report, [])):
    result = CliRunner().invoke(stage.main, arguments)
    if result.exit_code:
        sys.exit(f"{stage.__name__}: {result.output} {result.exception!r}")
"""


def insert(path, before, text):
    whole = path.read_text(encoding="utf-8")
    assert whole.count(before) == 1
    path.write_text(whole.replace(before, text + before), encoding="utf-8")


def test_a_made_up_row_is_trained_classified_evaluated_and_reported(repository, tmp_path):
    code, project = tmp_path / "code", tmp_path / "project"
    for package in ("han_core", "pipeline"):
        shutil.copytree(repository / package, code / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(repository / "dvc.yaml", code)  # says which code a stage's files depend on
    insert(code / "han_core/rows.py", '    _row("linear_spatial"', ROW)
    insert(code / "han_core/han/variants.py", '    "soft_attention_lstm": Variant(', VARIANT)
    params = only_han(yaml.safe_load((repository / "params.yaml").read_text(encoding="utf-8")))
    params |= {"synthetic": None, "models": ["first_state"]}
    params["dataset"].update(name="toy", kind="folder", root="videos", generate=[])
    params["cubes"].update(nets="toy", frames=FRAMES)
    params["train"].update(lstm_size=4, epochs=1)
    params["scores"]["enabled"] = False
    params["evaluate"]["baselines"] = []
    params["report"]["clips"] = 1
    project.mkdir()
    (project / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    write_store(project)
    environment = {**os.environ, "PYTHONPATH": str(code), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", RUN], cwd=project, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads((project / "metrics/toy/evaluate.json").read_text(encoding="utf-8"))
    assert figures["first_state"]["clips"] == 12
    report = (project / "report/toy/report.md").read_text(encoding="utf-8")
    (line,) = [line for line in report.splitlines() if "Made-up system" in line]
    assert f"({figures['first_state']['right']} / 12)" in line
    assert "| 12.5 |" in line
