"""The code of a stage: which packages it is, and that a process never takes other code for its own."""

import os
import time
from pathlib import Path

import click
import pytest
import torch

from han_core.cache.fingerprint import fingerprint
from han_core.cache.store import ClipCache
from pipeline.execution import code
from pipeline.execution.code import CodeChanged, code_of_stage, stage_code
from pipeline.execution.resume import run_checkpoint

STAGES = ("decode", "flow", "finetune-spatial", "cubes-temporal", "scores-spatial", "train")


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_that_keeps_files_has_code(stage):
    assert len(stage_code(stage)) == 16
    int(stage_code(stage), 16)
    assert f"pipeline/{stage.split('-')[0]}.py" in code_of_stage(stage)


def test_stages_of_other_rooms_have_other_code():
    assert len({stage_code(stage) for stage in STAGES}) == len(STAGES)
    assert stage_code("cubes-spatial") == stage_code("cubes-temporal")
    assert "han_core/flow" not in code_of_stage("decode")


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A project whose stage ``a`` is one module, loaded before this process started."""
    module = tmp_path / "pipeline" / "a.py"
    name = module.relative_to(tmp_path).as_posix()
    (tmp_path / "dvc.yaml").write_text(f"stages: {{a: {{cmd: x, deps: [data/x, {name}]}}}}")
    module.parent.mkdir()
    module.write_text("x = 1\n")
    os.utime(module, (0, 0))
    monkeypatch.setattr(code, "ROOT", tmp_path)
    stage_code.cache_clear()
    yield module
    stage_code.cache_clear()


def test_a_module_that_was_changed_since_the_start_is_not_believed(elsewhere, monkeypatch):
    first = stage_code("a")
    elsewhere.write_text("x = 2\n")
    assert stage_code("a") == first, "this process still runs what it has loaded"
    stage_code.cache_clear()
    with pytest.raises(CodeChanged, match=r"a\.py was changed while a was starting; run it again"):
        stage_code("a")
    monkeypatch.setattr(code, "_STARTED", time.time() + 1)
    assert stage_code("a") != first


def test_what_cannot_be_read_is_a_plain_error(elsewhere, tmp_path):
    with pytest.raises(click.ClickException, match="does not say what stage b depends on"):
        stage_code("b")
    elsewhere.write_text("def")
    os.utime(elsewhere, (0, 0))
    with pytest.raises(click.ClickException, match="the code of stage a cannot be read: invalid syntax"):
        stage_code("a")
    (tmp_path / "dvc.yaml").unlink()
    with pytest.raises(click.ClickException, match="stages run from a checkout"):
        stage_code("a")


def test_a_state_that_other_code_reached_is_not_gone_on_from_and_that_is_said(tmp_path, capsys):
    cache = ClipCache(tmp_path)
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    old, new = (fingerprint("train", digest, {"seed": 1}, {}) for digest in ("0" * 16, "1" * 16))
    run_checkpoint("train han-1", cache, old, seconds=0).save(model, optimizer, {"epoch": 3})
    assert capsys.readouterr().err == ""
    checkpoint = run_checkpoint("train han-1", cache, new, seconds=0)
    assert checkpoint.restore(model, optimizer) is None
    said = capsys.readouterr().err
    assert "train han-1: the code was changed since an interrupted run left" in said
    assert f"check out the code of {'0' * 16} again" in said
    assert run_checkpoint("train han-1", cache, old, seconds=0).restore(model, optimizer) == {"epoch": 3}
    other = fingerprint("train", "1" * 16, {"seed": 2}, {})
    run_checkpoint("train han-1", cache, other, seconds=0)
    assert capsys.readouterr().err == "", "of another run"


def test_what_a_killed_run_left_of_a_checkpoint_is_swept(tmp_path):
    cache = ClipCache(tmp_path)
    checkpoint = run_checkpoint("train", cache, fingerprint("train", "0" * 16, {}, {}), seconds=0)
    assert checkpoint.path.parent == tmp_path / "checkpoints"
    model = torch.nn.Linear(2, 2)
    checkpoint.save(model, torch.optim.SGD(model.parameters(), 0.1), {})
    assert [path.name for path in Path(tmp_path, "checkpoints").iterdir()] == [checkpoint.path.name]
    assert list((tmp_path / "tmp").iterdir()) == []
