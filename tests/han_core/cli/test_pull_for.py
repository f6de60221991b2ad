"""``han pull-for`` where ``dvc.lock`` holds little."""

from pathlib import Path

import pytest
from click.testing import CliRunner
from dvc.repo import Repo

from han_core.cli.main import main

LOCKS = {
    "none": None,
    "of DVC before a stage ran": "schema: '2.0'\n",
    "without stages": "schema: '2.0'\nstages: {}\n",
    "with a stage that was forgotten": "schema: '2.0'\nstages:\n  use: {cmd: forgotten}\n",
}


@pytest.mark.parametrize("lock", LOCKS)
def test_an_input_that_no_lock_knows_is_named(tmp_path, monkeypatch, lock):
    monkeypatch.chdir(tmp_path)
    Repo.init(".", no_scm=True).close()
    Path("dvc.yaml").write_text("stages:\n  use: {cmd: 'true', deps: [nets], outs: [made]}\n")
    if LOCKS[lock] is not None:
        Path("dvc.lock").write_text(LOCKS[lock])
    result = CliRunner().invoke(main, ["pull-for", "use"])
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 1
    assert "nets: not here, and dvc.lock does not know it" in result.output


def test_a_lock_that_cannot_be_read_is_a_plain_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Repo.init(".", no_scm=True).close()
    Path("dvc.yaml").write_text("stages:\n  use: {cmd: 'true', deps: [nets], outs: [made]}\n")
    Path("dvc.lock").write_text("<<<<<<< HEAD\n")
    result = CliRunner().invoke(main, ["pull-for", "use"])
    assert isinstance(result.exception, SystemExit), result.exception
    assert "dvc.lock" in result.output
