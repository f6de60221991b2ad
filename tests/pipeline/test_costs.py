"""What rows cost, from the logs and the graph."""

import time
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from han_core.clips import Clip, ClipTable, write_clips
from pipeline import costs as command
from pipeline.execution.costs import Cost, counted, read_costs
from pipeline.params import load_params
from pipeline.paths import Paths


@pytest.fixture
def params(tmp_path, monkeypatch, repository):
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text((repository / "params.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    return load_params()


def costs_csv(params):
    return Paths.of(params).logs / "costs.csv"


def test_what_a_block_takes_is_noted(params):
    with counted(params, "train@han-1-1"):
        end = time.process_time() + 0.2
        while time.process_time() < end:
            pass
    with counted(params, "decode", made=0) as cost:
        cost.made = 7
    one, two = read_costs(costs_csv(params))
    assert (one.stage, one.made, two.stage, two.made) == ("train@han-1-1", 1, "decode", 7)
    assert 0.2 <= one.cpu_seconds <= one.seconds + 0.5
    assert two.cpu_seconds < 0.1


def test_what_failed_or_made_nothing_is_not_noted(params):
    with counted(params, "decode", made=0):
        pass
    with pytest.raises(ValueError, match="no"), counted(params, "flow"):
        raise ValueError("no")
    assert read_costs(costs_csv(params)) == []


def test_of_processes_that_train_together_the_first_notes(params, monkeypatch):
    for rank in ("1", "0"):
        monkeypatch.setenv("RANK", rank)
        with counted(params, f"train@han-{rank}"):
            pass
    assert [cost.stage for cost in read_costs(costs_csv(params))] == ["train@han-0"]


def test_every_stage_but_those_that_are_no_method_s_cost_notes_what_it_took(repository, params):
    """In the module of its command, or in what that calls."""
    noting = {"clip_tasks": "do(", "net_training": "make_net(", "costs": "counted("}
    for stage in yaml.safe_load((repository / "dvc.yaml").read_text(encoding="utf-8"))["stages"].items():
        if stage[0] not in command._FREE:
            module = repository / Path(*stage[1]["cmd"].split()[2].split("."))
            code = module.with_suffix(".py").read_text(encoding="utf-8")
            assert any(call in code for call in noting.values()), stage[0]


def test_half_a_line_is_passed_over(params):
    with counted(params, "flow"):
        pass
    path = costs_csv(params)
    path.write_text(path.read_text() + "decode,3,1.0,2.0\nflow,2", encoding="utf-8")
    assert read_costs(path)[-1] == Cost("decode", 3, 1.0, 2.0)


def test_the_stages_are_those_of_dvc(params):
    runs = {run.name: run for run in command.stage_runs(params)}
    assert {"check", "decode", "finetune-spatial@1", "train@han-1-1", "fisher@1", "baselines@linear-1"} <= runs.keys()
    assert runs["train@han-1-1"].outs[0] == Path("models/synthetic/han/han-1-seed1.safetensors")


def test_a_row_stands_on_what_it_is_made_from_and_on_nothing_else(params):
    runs = {run.name: run for run in command.stage_runs(params)}
    idt = set(command.behind(runs, Paths.of(params).predictions("fisher", 1)))
    assert {"fisher-svm@1", "fisher@1", "codebook@1", "trajectories@flow", "flow", "decode"} <= idt
    assert not {name for name in idt if name.startswith(("cubes", "finetune", "train"))}
    spatial = set(command.behind(runs, Paths.of(params).predictions("spatial", 1, 1)))
    assert {"classify@spatial-1-1", "train@spatial-1-1", "cubes-spatial@1"} <= spatial
    assert "train@han-1-1" not in spatial


def test_the_table(params):
    paths = Paths.of(params)
    clips = tuple(Clip(f"c{i}", f"a/c{i}.avi", "a", 0, "g", {1: "train"}, "0" * 64) for i in range(4))
    write_clips(ClipTable(clips, ("a",), (1,)), paths.clips)
    (paths.frames / "a").mkdir(parents=True)
    (paths.frames / "a" / "c0.h5").write_bytes(b"0" * 4_000_000)
    (paths.frames / "failures.csv").write_text("")
    for stage, made, seconds in (("decode", 3, 6.0), ("decode", 1, 6.0), ("fisher-svm@1", 1, 2.0)):
        path = costs_csv(params)
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_text() if path.exists() else "stage,made,cpu_seconds,seconds\n"
        path.write_text(f"{lines}{stage},{made},{seconds},1\n")
    done = CliRunner().invoke(command.main)
    assert done.exit_code == 0, done.output
    row = next(line for line in done.output.splitlines() if line.startswith("| hog, hof, mbh, idt"))
    # 12 s for 4 frames files; 2 s of an SVM for 4 clips; 4 MB for 4 clips.
    assert [cell.strip() for cell in row.split("|")[2:4]] == ["3.5", "1"]
    assert "codebook@1" in row
    assert "generate" not in done.output
    assert (paths.logs / "costs.md").is_file()


def test_the_cubes_of_further_views_count_with_the_plain_ones(params):
    path = costs_csv(params)
    path.parent.mkdir(parents=True)
    lines = ["cubes-spatial@1,4,8.0,1", "cubes-spatial@1-mirrored,4,12.0,1", "cubes-spatial@10,4,99.0,1"]
    path.write_text("\n".join(["stage,made,cpu_seconds,seconds", *lines, ""]), encoding="utf-8")
    (run,) = (run for run in command.stage_runs(params) if run.name == "cubes-spatial@1")
    run.outs[0].mkdir(parents=True)
    (run.outs[0] / "failures.csv").touch()
    assert command.cost_of(params, run, 4)[0] == 5


def test_without_a_table_of_clips_it_says_what_to_run(params):
    done = CliRunner().invoke(command.main)
    assert done.exit_code == 1
    assert "clips.csv" in done.output
    assert done.exception is None or isinstance(done.exception, SystemExit)
