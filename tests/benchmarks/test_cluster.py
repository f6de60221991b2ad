"""The campaign on clusters, with one stage: that it is sound, and that it would tell if it were not."""

import pytest

from benchmarks.cluster import Campaign

pytest.importorskip("distributed")


@pytest.mark.long
def test_decode_comes_through_it_and_what_differs_is_told(tmp_path):
    campaign = Campaign(tmp_path, 4, ("decode",))
    campaign.prepare()
    found = campaign.disturb("decode")
    ways = {way: one for way, one in found.items() if isinstance(one, dict)}
    assert list(ways) == ["plain", "worker", "scheduler", "together"]
    assert not [problem for one in ways.values() for problem in one["problems"]]
    assert ways["scheduler"]["reused"] >= ways["scheduler"]["files_before"] >= 2
    path = next((campaign.local.path / "data/tiny/frames").rglob("*.h5"))
    path.unlink()
    (left,) = campaign._way("decode", lambda: {"problems": []})["problems"][:1]
    assert left.startswith("differs: data/tiny/frames/")
