import pytest

from benchmarks.workspace import tiny_videos
from benchmarks.writers import Change, together

CLIPS = 6


def change(new: str) -> Change:
    return Change("decode", "han_core/images/codec.py", "IMWRITE_JPEG_QUALITY, quality", new)


@pytest.mark.long
def test_two_writers_at_once_and_one_has_other_code(tmp_path):
    tiny_videos(tmp_path / "videos", 2, CLIPS // 2)
    lower = change("IMWRITE_JPEG_QUALITY, quality - 5")
    found = together(tmp_path, tmp_path / "videos", 2, stages=("decode",), change=lower)
    assert not found["problems"]
    assert found["files"] == {"decode": 2 * CLIPS}
    assert found["computed"] == {"decode": 2 * CLIPS}


@pytest.mark.slow
def test_a_change_that_changes_nothing_is_no_proof(tmp_path):
    tiny_videos(tmp_path / "videos", 2, CLIPS // 2)
    same = change("IMWRITE_JPEG_QUALITY, quality + 0")
    found = together(tmp_path, tmp_path / "videos", 2, stages=("decode",), change=same)
    assert found["problems"] == ["the other code makes the same bytes: nothing was shown"]
