"""Scratch copies of the project in which campaigns kill, edit and damage as they like. The user's project and cache
are never touched: a workspace has its own code, videos, params, DVC cache and ``HAN_CACHE``."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import cv2
import numpy as np
import yaml

from han_core.cache.code import code_digest

REPOSITORY = Path(__file__).resolve().parents[1]
OUTPUTS = ("data", "models", "metrics", "plots", "report", "dvc.lock")
_LEFT_OUT = ("tests/", "docs/", "benchmarks/", "dvc.lock")
NAME = "tiny"
"""Of the dataset."""


scratch_option = click.option(
    "--scratch",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="An empty folder to work in, which is kept; by default a temporary one.",
)


@contextmanager
def scratch_folder(kept: Path | None) -> Iterator[Path]:
    """The folder of a campaign, removed in the end unless it is given; without links in its path."""
    with nullcontext(kept) if kept else TemporaryDirectory() as folder:
        yield Path(folder).resolve()


@dataclass(frozen=True)
class Workspace:
    """A copy of the project's code, in which stages run on that code alone."""

    path: Path
    cache: Path
    """``HAN_CACHE``; may be shared with other workspaces."""

    def environment(self) -> dict[str, str]:
        """Of its processes."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        own = {"PYTHONPATH": str(self.path), "HAN_CACHE": str(self.cache), "PATH": path}
        return {**os.environ, **own, "OMP_NUM_THREADS": "1", "DVC_NO_ANALYTICS": "1"}

    def start(self, command: Sequence[str], log: Path) -> subprocess.Popen:
        """Start ``python -m <command>`` in a process group of its own; what it says is appended to ``log``."""
        with log.open("a", encoding="utf-8") as file:
            return subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=self.path,
                env=self.environment(),
                start_new_session=True,
                stdout=file,
                stderr=subprocess.STDOUT,
            )

    def run(self, *command: str) -> str:
        """Run ``python -m <command>`` and return what it says.

        Raises:
            RuntimeError: it fails.
        """
        done = self.tried(*command)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stdout[-3000:]}")
        return done.stdout

    def tried(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run ``python -m <command>``, whether or not it fails."""
        return subprocess.run(
            [sys.executable, "-m", *command],
            cwd=self.path,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )

    def han(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the command ``han``, whether or not it fails."""
        return subprocess.run(
            [sys.executable, "-c", "from han_core.cli.main import main; main()", *arguments],
            cwd=self.path,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )

    def digests(self, stages: Iterable[str]) -> dict[str, str]:
        """Digest of the code of some stages, as it stands in the files now."""
        return {stage: code_digest(self.path, names) for stage, names in self._code(stages).items()}

    def stages_with(self, module: str, stages: Iterable[str]) -> list[str]:
        """Those of some stages whose code a module is part of."""
        return [stage for stage, names in self._code(stages).items() if any(map(module.startswith, names))]

    def _code(self, stages: Iterable[str]) -> dict[str, list[str]]:
        """Stage -> packages and modules that ``dvc.yaml`` names for it."""
        graph = yaml.safe_load((self.path / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
        own = ("han_core/", "pipeline/")
        return {stage: sorted(dep for dep in graph[stage]["deps"] if dep.startswith(own)) for stage in stages}

    def hashes(self, *folders: str) -> dict[str, str]:
        """SHA-256 of every file below some folders (or of files), by its path.

        Of dvc.lock what it says: DVC appends stages in the order in which they ran, which differs where a single stage
        ran first after a lock was cut off and removed.
        """
        found = {}
        for folder in folders:
            root = self.path / folder
            for path in [root] if root.is_file() else sorted(root.rglob("*")):
                if path.is_file() and path.name not in (".gitignore", ".gitkeep"):
                    name = path.relative_to(self.path).as_posix()
                    content = path.read_bytes()
                    if name == "dvc.lock":
                        content = json.dumps(yaml.safe_load(content), sort_keys=True).encode()
                    found[name] = hashlib.sha256(content).hexdigest()
        return found


def copied(folder: Path, cache: Path, params: Mapping, *, revision: str = "") -> Workspace:
    """A new workspace with the code of the working tree, or of a revision.

    Args:
        folder: to be made.
        cache: ``HAN_CACHE``.
        params: written as ``params.yaml``.
        revision: that Git knows; "" is the working tree as it is, new files included.
    """
    folder.mkdir(parents=True)
    if revision:
        packed = subprocess.run(["git", "archive", revision], cwd=REPOSITORY, stdout=subprocess.PIPE, check=True).stdout
        with tarfile.open(fileobj=BytesIO(packed)) as archive:
            archive.extractall(folder, filter="data")
    else:
        listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(listed, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, check=True).stdout.split("\0")
        for name in filter(None, names):
            if not name.startswith(_LEFT_OUT) and (REPOSITORY / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes((REPOSITORY / name).read_bytes())
    (folder / "params.yaml").write_text(yaml.safe_dump(dict(params), sort_keys=False), encoding="utf-8")
    for command in (["init", "-q"], ["add", "-A"], ["-c", "user.name=b", "-c", "user.email=b@b", "commit", "-qm", "b"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    return Workspace(folder, cache)


def small_params(videos: str) -> dict:
    """Params under which every stage on the way to HAN runs, in seconds."""
    params = yaml.safe_load((REPOSITORY / "presets" / "folder.yaml").read_text(encoding="utf-8"))
    params["dataset"].update(name=NAME, root=videos)
    params["dataset"]["folder"]["test_share"] = 0.34
    params["cubes"]["nets"] = NAME
    params |= {"models": ["han"], "stack": 2}
    params["run"].update(checkpoint_seconds=0, device="cpu", workers=2)
    params["flow"]["tvl1"].update(scales=2, warps=1, iterations=10, settle=0)
    net = {"weights": "random", "iterations": 3, "batch": 2, "micro_batch": 2, "learning_rate": 0.001, "fc_size": 16}
    for stream in ("spatial", "temporal"):
        params["finetune"][stream] = {**params["finetune"][stream], **net, "steps": [], "flip": False}
    params["cubes"].update(frames=2, batch=2)
    params["scores"].update(frames=1, crops=1, batch=8)
    params["train"].update(lstm_size=16, skip=1, epochs=8, batch=4)
    params["train"]["optimizer"].update(name="adam", learning_rate=0.002)
    params["evaluate"]["baselines"] = []
    params["report"]["clips"] = 1
    return params


def tiny_videos(root: Path, classes: int, clips: int, *, frames: int = 14, size: tuple[int, int] = (96, 72)) -> None:
    """Videos of a disc that moves at a speed of its class, MJPEG in AVI, ``class<c>/c<c>n<n>.avi``.

    Args:
        clips: of each class.
        size: width and height in pixels.
    """
    width, height = size
    for c in range(classes):
        folder = root / f"class{c}"
        folder.mkdir(parents=True)
        for n in range(clips):
            rng = np.random.default_rng([c, n])
            background = cv2.resize(rng.integers(0, 255, (8, 8, 3), np.uint8), size)
            x, y = rng.integers(0, width // 2), rng.integers(0, height // 2)
            code = cv2.VideoWriter_fourcc(*"MJPG")
            writer = cv2.VideoWriter(str(folder / f"c{c}n{n:04d}.avi"), code, 25, size)
            for t in range(frames):
                centre = (int(x + t * (1 + c)), int(y + t))
                writer.write(cv2.circle(background.copy(), centre, max(3, height // 8), (90, 200, 30), -1))
            writer.release()


def different(one: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    """Names of files that are not the same in both, or in one alone."""
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


def temporaries(*workspaces: Workspace) -> list[str]:
    """Files of the project that were never finished: in the caches, and beside the outputs."""
    found: set[Path] = set()
    for workspace in workspaces:
        found |= set((workspace.cache / "tmp").glob("*"))
        for folder in OUTPUTS:
            found |= set((workspace.path / folder).rglob("*.tmp"))
    return sorted(path.name for path in found)


def kill_group(process: subprocess.Popen) -> None:
    """SIGKILL to a process and all of its group."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def orphans(workspace: Workspace, patience: float = 3.0) -> list[str]:
    """Command lines of the processes that still work in a workspace, which should be none; waits for the last ones.

    Args:
        patience: seconds in which they may end.
    """
    ends = time.monotonic() + patience
    while (found := _working_in(workspace.path)) and time.monotonic() < ends:
        time.sleep(0.05)
    return found


def _working_in(folder: Path) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            state = (process / "stat").read_text().rpartition(")")[2].split()[0]
            if state != "Z" and Path(os.readlink(process / "cwd")) == folder:
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:100])
    return found


def stages_of(said: str) -> list[str]:
    """The stages that ``dvc repro`` started, in order."""
    return re.findall(r"Running stage '(.+?)'", said)


def counts_of(said: str) -> dict[str, tuple[int, int]]:
    """Stage -> clips reused and computed, as the stages say themselves at their end."""
    lines = re.findall(r"^([\w-]+): \d+ clips: (\d+) reused, (\d+) computed", said, re.M)
    return {stage: (int(reused), int(computed)) for stage, reused, computed in lines}
