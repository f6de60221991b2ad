"""The real DVC graph in a temporary repository, on tiny videos: what runs after which edit, and after a kill.

The tests of a module share one repository and run in order: each edits something, looks at what ran, and puts it back.
"""

import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from tests.only_han import only_han

CLASSES = {"left": -3, "right": 3}  # a square that moves to one side, in pixels per frame
CLIPS, FRAMES = 3, 14


def write_video(path: Path, speed: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    background = cv2.GaussianBlur(rng.integers(0, 255, (48, 64, 3), dtype=np.uint8), (5, 5), 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25, (64, 48))
    for t in range(FRAMES):
        frame = background.copy()
        x = (28 + speed * t) % 52
        frame[18:30, x : x + 12] = 230
        writer.write(frame)
    writer.release()


def small_params(repository: Path, root: Path) -> dict:
    params = only_han(yaml.safe_load((repository / "params.yaml").read_text(encoding="utf-8")))
    params["synthetic"] = None
    params["models"] = ["han"]
    params["dataset"].update(name="tiny", kind="folder", root=str(root), generate=[])
    params["dataset"]["folder"].update(split_by="fraction", test_share=0.4, group_pattern=r"g\d")
    params["flow"]["tvl1"].update(scales=2, warps=2, iterations=20)
    for stream in ("spatial", "temporal"):
        params["finetune"][stream].update(fc_size=16, iterations=0)
    params["cubes"].update(nets="tiny", frames=2)
    params["train"].update(lstm_size=8, epochs=2)
    params["evaluate"]["baselines"] = []
    params["report"]["clips"] = 1
    return params


class Checkout:
    """A copy of the project with its own videos, DVC cache and clip cache."""

    def __init__(self, repository: Path, folder: Path) -> None:
        self.path = folder / "project"
        self.videos = folder / "videos"
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=repository,
            capture_output=True,
            check=True,
        ).stdout.decode()
        for name in filter(None, listed.split("\0")):
            if (repository / name).is_file() and name != "dvc.lock":
                (self.path / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(repository / name, self.path / name)
        for class_name, speed in CLASSES.items():
            for n in range(CLIPS):
                write_video(self.videos / class_name / f"{class_name}_g{n}.avi", speed, n)
        self.params = small_params(repository, self.videos)
        self.first_dropout = self.params["train"]["dropout"]
        self.write_params()
        for command in (
            ["init", "-q"],
            ["add", "-A"],
            ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "t"],
        ):
            subprocess.run(["git", *command], cwd=self.path, check=True)

    def write_params(self) -> None:
        (self.path / "params.yaml").write_text(yaml.safe_dump(self.params, sort_keys=False), encoding="utf-8")

    def environment(self, **more: str) -> dict[str, str]:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", "DVC_NO_ANALYTICS": "1", **more}

    def dvc(self, *arguments: str, **environment: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "dvc", *arguments],
            cwd=self.path,
            env=self.environment(**environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def han(self, *arguments: str, code: int = 0) -> str:
        command = [Path(sys.executable).with_name("han"), *arguments]
        done = subprocess.run(
            command, cwd=self.path, env=self.environment(), capture_output=True, text=True, check=False
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def edit(self, name: str, before: str, after: str) -> None:
        """Change a line of the code."""
        text = (self.path / name).read_text(encoding="utf-8")
        assert before in text
        (self.path / name).write_text(text.replace(before, after), encoding="utf-8")

    def repro(self, *arguments: str, **environment: str) -> tuple[set[str], str]:
        """Stages that ran (the part after ``@`` left out), and the output."""
        output = self.dvc("repro", *arguments, **environment)
        return {name.split("@")[0] for name in re.findall(r"Running stage '(.+?)'", output)}, output

    def hashes(self, folder: str) -> dict[str, str]:
        root = self.path / folder
        files = sorted(p for p in root.rglob("*") if p.is_file() and p.name != ".gitignore")
        return {p.relative_to(root).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module")
def checkout(repository, tmp_path_factory):
    made = Checkout(repository, tmp_path_factory.mktemp("repro"))
    made.first_run = made.repro()[0]
    made.first_lock = (made.path / "dvc.lock").read_bytes()
    return made


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
    started = time.monotonic()
    assert checkout.repro()[0] == set()
    assert time.monotonic() - started < 30
    assert (checkout.path / "dvc.lock").read_bytes() == checkout.first_lock


def test_editing_the_flow_bound_runs_flow_and_what_follows(checkout):
    checkout.params["flow"]["bound"] = 10
    checkout.write_params()
    assert checkout.repro()[0] == {"check", "flow", *AFTER_FLOW}
    checkout.params["flow"]["bound"] = 20
    checkout.write_params()
    assert checkout.repro()[0] == set()


def test_one_more_video_computes_one_clip(checkout):
    video = checkout.videos / "left" / f"left_g{CLIPS}.avi"
    write_video(video, CLASSES["left"], CLIPS)
    _, output = checkout.repro("cubes-spatial", "cubes-temporal")
    for stage in ("decode", "flow", "cubes-spatial-1", "cubes-temporal-1"):
        assert f"{stage}: 7 clips: 6 reused, 1 computed, 0 failed" in output
    video.unlink()
    assert checkout.repro()[0] == set()
    assert (checkout.path / "dvc.lock").read_bytes() == checkout.first_lock


@pytest.mark.parametrize("stage", ["decode", "flow", "cubes-spatial"])
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
    ran, _ = checkout.repro("train")
    assert "train" in ran
    ledger = (checkout.path / "data/tiny/frames/failures.csv").read_text(encoding="utf-8")
    assert f"left_g{CLIPS}" in ledger
