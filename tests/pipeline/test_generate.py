from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from han_core.datasets.synthetic.generate import BOXES, CLASSES
from pipeline.generate import main
from tests.dvc_links import damaged, hold


@pytest.fixture
def params(repository, tmp_path, monkeypatch):
    """The default params with two tiny groups, in a folder of their own."""
    monkeypatch.chdir(tmp_path)
    params = yaml.safe_load((repository / "params.yaml").read_text(encoding="utf-8"))
    params["synthetic"].update(groups=2, frames=12, width=64, height=64)
    return params


def run(params):
    Path("params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    return CliRunner().invoke(main, [])


def test_writes_every_class_to_the_root_and_says_so(params):
    result = run(params)
    assert result.exit_code == 0, result.output
    root = Path("data/synthetic/raw")
    assert "16 videos in data/synthetic/raw" in result.output
    assert sorted(path.name for path in root.iterdir()) == sorted([*CLASSES, BOXES])
    assert len(list(root.rglob("*.avi"))) == 16


def test_videos_that_dvc_holds_are_replaced_and_not_written_into(params, tmp_path):
    run(params)
    root = Path("data/synthetic/raw")
    held = hold(root, tmp_path / "dvc")
    before = {path: path.read_bytes() for path in root.rglob("*.avi")}
    params["seed"] = 2
    assert run(params).exit_code == 0
    assert any(path.read_bytes() != content for path, content in before.items())
    assert damaged(held) == []


def test_other_kinds_are_refused_in_plain_words(params):
    params["dataset"].update(kind="folder", generate=[])
    result = run(params)
    assert result.exit_code == 1
    assert "only synthetic videos are generated" in result.output
    assert not Path("data").exists()


def test_a_root_with_other_files_is_refused_in_plain_words(params):
    stranger = Path("data/synthetic/raw/mine.txt")
    stranger.parent.mkdir(parents=True)
    stranger.write_text("keep me")
    result = run(params)
    assert result.exit_code == 1
    assert "Error: generate:" in result.output
    assert "mine.txt" in result.output
    assert stranger.read_text() == "keep me"
