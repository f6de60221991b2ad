import pytest

from benchmarks.overhead import WAYS, made, measured, parts
from benchmarks.workspace import tiny_videos

CLIPS = 4


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("overhead")
    tiny_videos(folder / "videos", 2, CLIPS // 2, frames=12, size=(48, 36))
    return made(folder / "now", folder / "videos", "")


@pytest.mark.long
def test_every_way_handles_every_clip(workspace):
    for way in WAYS:
        used = measured(workspace, way, CLIPS)
        assert used["cpu"] > 0
        assert used["wall"] > 0
        folder, pattern = ("plain", "*") if way in ("pictures", "files") else ("data/tiny/frames", "*/*.h5")
        assert len(list((workspace.path / folder).glob(pattern))) == CLIPS


def test_the_parts_of_publishing_are_found(workspace):
    """A part that was renamed is looked for in vain, and its time counts as nobody's."""
    found = parts(workspace, CLIPS)
    assert {f"publish: {name}" for name in ("_flush", "verify_written", "make_folder")} <= found.keys()
    assert found["decode, encode, write"] + found["publish"] < found["all"]
    assert sum(found[f"publish: {name}"] for name in ("_flush", "verify_written")) < found["publish"]
