"""A project of its own for tests of the real DVC graph: the code as it is here, tiny videos, small settings."""

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
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


def small_params(repository: Path) -> dict:
    params = only_han(yaml.safe_load((repository / "params.yaml").read_text(encoding="utf-8")))
    params["synthetic"] = None
    params["models"] = ["han"]
    params["dataset"].update(name="tiny", kind="folder", root="../videos", generate=[])
    params["dataset"]["folder"].update(split_by="fraction", test_share=0.4, group_pattern=r"g\d")
    params["flow"]["tvl1"].update(scales=2, warps=2, iterations=20)
    for stream in ("spatial", "temporal"):
        params["finetune"][stream].update(fc_size=16, iterations=0)
    params["cubes"].update(nets="tiny", frames=2)
    params["train"].update(lstm_size=8, epochs=2)
    params["evaluate"]["baselines"] = []
    params["report"]["clips"] = 1
    return params


def copy_linked(source: Path, target: Path) -> None:
    """Copy a folder; times and modes stay, and names of one file are names of one file again."""
    made: dict[int, str] = {}

    def copied(old: str, new: str) -> str:
        inode = os.stat(old).st_ino
        if inode in made:
            os.link(made[inode], new)
        else:
            made[inode] = shutil.copy2(old, new)
        return new

    shutil.copytree(source, target, copy_function=copied, symlinks=True, dirs_exist_ok=True)


class Checkout:
    """A copy of the project with its own videos, DVC cache and clip cache."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "project"
        self.videos = folder / "videos"
        self.params = yaml.safe_load((self.path / "params.yaml").read_text(encoding="utf-8"))
        self.first_dropout = self.params["train"]["dropout"]

    @classmethod
    def make(cls, repository: Path, folder: Path) -> "Checkout":
        """A copy in which nothing has run."""
        path, videos = folder / "project", folder / "videos"
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=repository,
            capture_output=True,
            check=True,
        ).stdout.decode()
        for name in filter(None, listed.split("\0")):
            if (repository / name).is_file() and name != "dvc.lock":
                (path / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(repository / name, path / name)
        for compiled in repository.glob("han_core/**/__pycache__/*.nb[ci]"):  # as Numba left it; else compiled again
            (path / compiled.relative_to(repository)).parent.mkdir(exist_ok=True)
            shutil.copy2(compiled, path / compiled.relative_to(repository))
        for class_name, speed in CLASSES.items():
            for n in range(CLIPS):
                write_video(videos / class_name / f"{class_name}_g{n}.avi", speed, n)
        params = small_params(repository)
        (path / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
        for command in (
            ["init", "-q"],
            ["add", "-A"],
            ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "t"],
        ):
            subprocess.run(["git", *command], cwd=path, check=True)
        return cls(folder)

    @classmethod
    def after_first_run(cls, repository: Path, shared: Path, folder: Path) -> "Checkout":
        """A copy in which everything has run once.

        Args:
            shared: folder of all processes of a test run. The first that asks runs everything there; what the others
                get is a copy of that.
        """
        with (shared / "first_run.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            ready = shared / "first_run"
            if not ready.is_dir():
                made = cls.make(repository, Path(tempfile.mkdtemp(dir=shared)))
                (made.path.parent / "ran.json").write_text(json.dumps(sorted(made.repro()[0])))
                made.path.parent.rename(ready)
        copy_linked(ready, folder)
        copied = cls(folder)
        copied.first_run = set(json.loads((folder / "ran.json").read_text()))
        copied.first_lock = (copied.path / "dvc.lock").read_bytes()
        return copied

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
