import json
import subprocess

import pytest

from benchmarks.kills import CHANCES, RENAMED, STAGES, Campaign, Code
from benchmarks.workspace import copied, small_params


@pytest.mark.long
def test_a_few_kills_of_decode_cost_nothing_but_time(tmp_path):
    campaign = Campaign(tmp_path, 1, videos=2, chances={"comment": 1.0}, second=False, delay=2.0)
    campaign.prepare("decode")
    while not campaign.kill("decode"):
        pass
    campaign.finish("decode")
    assert campaign.found.sound, json.dumps(vars(campaign.found), indent=1)
    assert campaign.found.events["comparisons"]
    assert "data/tiny/frames/failures.csv" in campaign.goal


def test_what_is_found_is_not_sound(tmp_path):
    """A byte that differs, and a temporary that lies about: the campaign says so."""
    campaign = Campaign(tmp_path, 1, videos=2, second=False)
    output = campaign.main.path / "models" / "tiny"
    output.mkdir(parents=True)
    (output / "net").write_bytes(b"1")
    campaign.goal = campaign.main.hashes("models")
    campaign._compare(campaign.main, "now")
    assert campaign.found.sound
    (output / "net").write_bytes(b"2")
    (output / "more").write_bytes(b"3")
    campaign._compare(campaign.main, "now")
    assert campaign.found.different == ["now, main: models/tiny/more", "now, main: models/tiny/net"]
    assert not campaign.found.sound


@pytest.mark.long
def test_edits_change_the_digests_that_they_should(tmp_path):
    workspace = copied(tmp_path / "copy", tmp_path / "cache", small_params("videos"))
    code = Code(workspace)
    assert code.comment("han_core/images/codec.py")
    for module in RENAMED:
        (stage, *_) = workspace.stages_with(module, STAGES)
        before = workspace.digests([stage])
        assert code.rename(module)
        assert workspace.digests([stage]) != before
    code.restore()
    assert not subprocess.run(["git", "diff", "--stat"], cwd=workspace.path, capture_output=True, check=True).stdout


@pytest.mark.parametrize("text", ["", "schema: '2.0'\n", "schema: '2.0'\nstages:\n  check:\n    cmd: 'pyth"])
def test_a_lock_that_was_cut_off_is_removed(text, tmp_path):
    campaign = Campaign(tmp_path, 1, videos=1, second=False)
    lock = campaign.main.path / "dvc.lock"
    lock.write_text("schema: '2.0'\nstages:\n  check:\n    cmd: python\n", encoding="utf-8")
    campaign._mend_lock(campaign.main)
    assert lock.exists()
    lock.write_text(text, encoding="utf-8")
    campaign._mend_lock(campaign.main)
    assert not lock.exists()
    assert campaign.found.locks_cut_off == 1


@pytest.mark.slow
def test_kills_of_the_whole_graph(tmp_path):
    campaign = Campaign(tmp_path, 2, videos=4, chances=dict.fromkeys(CHANCES, 0.3))
    campaign.prepare()
    while sum(campaign.found.kills.values()) < 6:
        campaign.kill()
    campaign.finish()
    assert campaign.found.sound, json.dumps(vars(campaign.found), indent=1)
