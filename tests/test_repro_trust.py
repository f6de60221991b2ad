"""The real DVC graph when code is edited and when bits flip: no file of other code is used, and nothing rotten.

The tests share one repository and run in order, each putting back what it edits.
"""

import os
import re
import shutil
import subprocess
import sys

import pytest

from han_core.clipfile.trailer import read_trailer
from han_core.clips import read_clips
from tests.checkout import Checkout
from tests.test_repro import AFTER_TRAIN, DROPOUT

HAN = "models/tiny/han/han-1-seed1.safetensors"


@pytest.fixture(scope="module")
def checkout(repository, tmp_path_factory, shared_tmp_path):
    return Checkout.after_first_run(repository, shared_tmp_path, tmp_path_factory.mktemp("trust"))


WRITE, READ = "cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)", "cv2.cvtColor(255 - frame, cv2.COLOR_RGB2BGR)"
LOOP, RENAMED = "for frame in images:", "for frame in iter(images):"
FRAMES_CODE = "han_core/images/frames.py"


@pytest.mark.long
def test_the_cache_knows_the_code(checkout):
    """A comment reuses every file; code that does something else makes every file anew, and never takes an old one."""
    expected = checkout.hashes("data/tiny/frames")
    checkout.edit(FRAMES_CODE, LOOP, f"{LOOP}  # one at a time")
    assert "6 clips: 6 reused, 0 computed" in checkout.repro("-s", "decode")[1]
    checkout.edit(FRAMES_CODE, WRITE, READ)
    assert "is not the same: image 0 of frames. Nothing is adopted" in checkout.han("cache", "adopt", "decode", code=1)
    assert "6 clips: 0 reused, 6 computed" in checkout.repro("-s", "decode")[1]
    inverted = checkout.hashes("data/tiny/frames")
    assert not {digest for name, digest in inverted.items() if name.endswith(".h5")} & set(expected.values())
    checkout.edit(FRAMES_CODE, READ, WRITE)
    checkout.edit(FRAMES_CODE, f"{LOOP}  # one at a time", LOOP)
    assert checkout.repro("decode")[0] == set(), "restored by DVC"
    assert checkout.hashes("data/tiny/frames") == expected


@pytest.mark.long
def test_a_refactoring_is_shown_to_change_nothing_and_costs_nothing(checkout):
    before = checkout.hashes("data/tiny/frames")
    checkout.edit(FRAMES_CODE, LOOP, RENAMED)
    said = checkout.han("cache", "adopt", "decode", "flow", "--sample", "2")
    assert re.search(r"decode: code \w+ -> \w+: 2 clips made again, all equal; 6 of 6 files adopted", said)
    assert re.search(r"flow: code \w+ -> \w+: 2 clips made again, all equal; 6 of 6 files adopted", said)
    _, output = checkout.repro("flow")
    for stage in ("decode", "flow"):
        assert f"{stage}: 6 clips: 6 reused, 0 computed" in output
    assert checkout.hashes("data/tiny/frames") == before
    assert "all 6 files are of today's code" in checkout.han("cache", "adopt", "decode")
    checkout.edit(FRAMES_CODE, RENAMED, LOOP)
    assert checkout.repro()[0] == set()
    assert (checkout.path / "dvc.lock").read_bytes() == checkout.first_lock


@pytest.mark.long
def test_a_flipped_bit_is_told_and_repaired_without_a_trace(checkout):
    """In a cube, through all its names, its time unchanged, as on a bad disk; DVC sees nothing."""
    checkout.params["train"]["dropout"] = DROPOUT
    checkout.write_params()
    checkout.repro("train")
    checkout.undamaged = (checkout.path / HAN).read_bytes()
    checkout.params["train"]["dropout"] = checkout.first_dropout
    checkout.write_params()
    checkout.repro()
    shutil.rmtree(checkout.path / ".dvc/cache/runs")  # or DVC would restore the model
    learnt = read_clips(checkout.path / "data/tiny/clips.csv").select(1, "train")[0]
    cube = checkout.path / f"data/tiny/cubes/spatial-1/{learnt.key}.h5"
    before, status = cube.read_bytes(), cube.stat()
    cube.chmod(0o644)
    with cube.open("r+b") as file:
        place = read_trailer(cube).arrays["cubes/values"].offset + 100
        file.seek(place)
        file.write(bytes([before[place] ^ 4]))
    cube.chmod(status.st_mode)
    os.utime(cube, ns=(status.st_atime_ns, status.st_mtime_ns))
    checkout.params["train"]["dropout"] = DROPOUT
    checkout.write_params()
    command = [sys.executable, "-m", "dvc", "repro"]
    failed = subprocess.run(
        command, cwd=checkout.path, env=checkout.environment(), capture_output=True, text=True, check=False
    )
    assert failed.returncode != 0
    assert f"train han-1-seed1: data/tiny/cubes/spatial-1/{learnt.key}.h5: clip {learnt.name}: " in failed.stderr
    assert "run `han cache verify --remove`, then `dvc repro`" in failed.stderr + failed.stdout
    said = checkout.han("cache", "verify", "--remove", code=1)
    assert "1 bad" in said
    assert "made by cubes-spatial@1; may have been read by train@han-1-1 classify@han-1-1 evaluate report" in said
    assert not cube.exists()
    ran, _ = checkout.repro()
    assert ran == {"cubes-spatial", "train", *AFTER_TRAIN}
    assert cube.read_bytes() == before
    assert (checkout.path / HAN).read_bytes() == checkout.undamaged
    assert ", 0 bad" in checkout.han("cache", "verify")


@pytest.mark.long
def test_a_damaged_model_is_told_and_all_that_read_it_made_again(checkout):
    """No file of the cache, but of DVC's own and, by the same inode, of the workspace."""
    model = checkout.path / HAN
    status = model.stat()
    model.chmod(0o644)
    with model.open("r+b") as file:
        file.seek(status.st_size // 2)
        file.write(bytes([checkout.undamaged[status.st_size // 2] ^ 1]))
    model.chmod(status.st_mode)
    os.utime(model, ns=(status.st_atime_ns, status.st_mtime_ns))
    said = checkout.han("cache", "verify", "--remove", "--force-downstream", code=1)
    assert "made by train@han-1-1; may have been read by classify@han-1-1 evaluate report" in said
    assert checkout.repro()[0] == {"train", *AFTER_TRAIN}
    assert model.read_bytes() == checkout.undamaged
    checkout.params["train"]["dropout"] = checkout.first_dropout
    checkout.write_params()
    checkout.repro()
    assert (checkout.path / "dvc.lock").read_bytes() == checkout.first_lock
