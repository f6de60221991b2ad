"""The real DVC graph in a temporary repository, on tiny videos: what runs after which edit, and after a kill.

The tests of a module share one repository and run in order: each edits something, looks at what ran, and puts it back.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

from tests.checkout import CLASSES, CLIPS, Checkout, write_video


@pytest.fixture(scope="module")
def checkout(repository, tmp_path_factory, shared_tmp_path):
    return Checkout.after_first_run(repository, shared_tmp_path, tmp_path_factory.mktemp("repro"))


DROPOUT = 0.25
AFTER_TRAIN = {"classify", "evaluate", "report"}
AFTER_FLOW = {"steady", "finetune-temporal", "cubes-temporal", "scores-temporal", "train", *AFTER_TRAIN}


def test_one_command_runs_everything(checkout):
    before = {"check", "prepare", "decode", "flow", "finetune-spatial", "cubes-spatial", "scores-spatial", "two-stream"}
    assert checkout.first_run == before | AFTER_FLOW
    for name in ("metrics/tiny/evaluate.json", "report/tiny/report.md", "models/tiny/han/han-1-seed1.safetensors"):
        assert (checkout.path / name).is_file()


def test_a_second_run_does_nothing(checkout):
    assert checkout.repro()[0] == set()


@pytest.mark.long
@pytest.mark.parametrize("target", [[], ["cubes-spatial", "flow"]], ids=["recomputed", "reused"])
def test_a_forced_run_gives_the_same_bytes(checkout, target, tmp_path):
    """All of the graph without the clip cache; then the part that uses the cache, with it."""
    environment = {} if target else {"HAN_CACHE": str(tmp_path / "empty")}
    ran, output = checkout.repro("-f", *target, **environment)
    assert ran == (
        {"check", "prepare", "decode", "flow", "finetune-spatial", "cubes-spatial"} if target else checkout.first_run
    )
    for stage in ("decode", "flow", "cubes-spatial-1"):
        assert f"{stage}: 6 clips: {6 if target else 0} reused, {0 if target else 6} computed, 0 failed" in output
    assert (checkout.path / "dvc.lock").read_bytes() == checkout.first_lock


def test_editing_dropout_runs_train_and_what_follows(checkout):
    assert checkout.first_dropout != DROPOUT
    checkout.params["train"]["dropout"] = DROPOUT
    checkout.write_params()
    assert checkout.repro()[0] == {"check", "train", *AFTER_TRAIN}


def test_reverting_restores_from_the_cache(checkout):
    checkout.params["train"]["dropout"] = checkout.first_dropout
    checkout.write_params()
    assert checkout.repro()[0] == set()
    assert (checkout.path / "dvc.lock").read_bytes() == checkout.first_lock


@pytest.mark.long
def test_editing_the_flow_bound_runs_flow_and_what_follows(checkout):
    checkout.params["flow"]["bound"] = 10
    checkout.write_params()
    assert checkout.repro()[0] == {"check", "flow", *AFTER_FLOW}
    checkout.params["flow"]["bound"] = 20
    checkout.write_params()
    assert checkout.repro()[0] == set()


@pytest.mark.long
def test_one_more_video_computes_one_clip(checkout):
    video = checkout.videos / "left" / f"left_g{CLIPS}.avi"
    write_video(video, CLASSES["left"], CLIPS)
    _, output = checkout.repro("cubes-spatial", "cubes-temporal")
    for stage in ("decode", "flow", "cubes-spatial-1", "cubes-temporal-1"):
        assert f"{stage}: 7 clips: 6 reused, 1 computed, 0 failed" in output
    video.unlink()
    assert checkout.repro()[0] == set()
    assert (checkout.path / "dvc.lock").read_bytes() == checkout.first_lock


@pytest.mark.parametrize("stage", ["decode", "flow", pytest.param("cubes-spatial", marks=pytest.mark.long)])
def test_kill_9_loses_only_the_files_in_flight(checkout, stage, tmp_path):
    """Kill the whole process group when some clips are done; the next run resumes and ends with the same bytes."""
    kind = {"decode": "frames", "flow": "flow", "cubes-spatial": "cubes"}[stage]
    output = {"decode": "frames", "flow": "flow", "cubes-spatial": "cubes/spatial-1"}[stage]
    expected = checkout.hashes(f"data/tiny/{output}")
    cache = tmp_path / "cache"
    shutil.copytree(checkout.path / ".han_cache", cache)
    for path in (cache / kind).rglob("*.h5"):
        path.unlink()
    target = stage if stage != "cubes-spatial" else "cubes-spatial@1"
    running = subprocess.Popen(
        [sys.executable, "-m", "dvc", "repro", "-f", "-s", target],
        cwd=checkout.path,
        env=checkout.environment(HAN_CACHE=str(cache)),
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while not (done := list((cache / kind).rglob("*.h5"))):
        assert running.poll() is None, "the stage ended before it could be killed"
        assert time.monotonic() < deadline, "no clip was finished"
        time.sleep(0.002)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    finished = len([p for p in done if not p.name.startswith(".")])
    _, said = checkout.repro("-f", "-s", target, HAN_CACHE=str(cache))
    reused = int(re.search(r": 6 clips: (\d+) reused", said)[1])
    assert reused >= finished
    assert checkout.hashes(f"data/tiny/{output}") == expected
    assert (checkout.path / "dvc.lock").read_bytes() == checkout.first_lock


def test_a_clip_that_fails_is_named_and_stops_none_of_the_others(checkout):
    broken = checkout.videos / "left" / f"left_g{CLIPS}.avi"
    write_video(broken, CLASSES["left"], CLIPS)
    broken.write_bytes(broken.read_bytes()[:4000])
    failed = subprocess.run(
        [sys.executable, "-m", "dvc", "repro"],
        cwd=checkout.path,
        env=checkout.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    output = failed.stdout + failed.stderr
    assert failed.returncode != 0
    assert f"left_g{CLIPS}" in output
    assert "Traceback" not in output
    checkout.params["dataset"]["allowed_failures"] = 1
    checkout.write_params()
    _, said = checkout.repro("decode")  # what follows is in test_repro_odd_videos.py
    assert f"decode: {2 * CLIPS + 1} clips: {2 * CLIPS} reused, 0 computed, 1 failed" in said
    ledger = (checkout.path / "data/tiny/frames/failures.csv").read_text(encoding="utf-8")
    assert f"left_g{CLIPS}" in ledger
