"""Pushing and pulling that is interrupted: what lies there is whole, and the same command goes on.

A small DVC project of many small files and a few large ones, of which one is likely to be on its way. The README's
recipe on the same remotes: ``tests/test_hand_over.py``.
"""

import hashlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.remote_servers import SERVERS, Remote

SMALL, LARGE = 900, 3
FILES = SMALL + LARGE + 1  # and the list of them, which DVC keeps as a file as well
SIGNALS = {"killed": signal.SIGKILL, "by Ctrl-C": signal.SIGINT}
LONG, SLOW = pytest.mark.long, pytest.mark.slow


@dataclass(frozen=True)
class Project:
    """A folder with a DVC project: stage ``make`` has made the folder ``made``, which stage ``use`` reads."""

    path: Path
    remote: Remote

    def start(self, *command: str) -> subprocess.Popen:
        """Start a command of this environment in a process group of its own, as a shell does."""
        environment = {"DVC_NO_ANALYTICS": "1", "DVC_SITE_CACHE_DIR": str(self.path.parent / "site")}
        return subprocess.Popen(
            [Path(sys.executable).with_name(command[0]), *command[1:]],
            cwd=self.path,
            env={**os.environ, **environment, **self.remote.environment},
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *command: str, fails: bool = False) -> str:
        running = self.start(*command)
        said = running.communicate()[0]
        assert (running.returncode != 0) == fails, said
        return said

    def interrupted(self, sign: signal.Signals, at: Callable[[], int], *command: str) -> str:
        """Start a command, and interrupt it once ``at()`` files are there, some but not all."""
        running = self.start(*command)
        deadline = time.monotonic() + 120
        while not at():
            assert running.poll() is None, f"it ended before it could be interrupted: {running.stdout.read()}"
            assert time.monotonic() < deadline, "no file arrived"
            time.sleep(0.001)
        os.killpg(running.pid, sign)
        said = running.communicate()[0]
        assert running.returncode != 0, f"it ended before it was interrupted: {said}"
        return said

    def cached(self) -> dict[str, Path]:
        """Files of DVC's cache under their final names: {MD5 that they are named by: file}."""
        return {"".join(p.parts[-2:]): p for p in (self.path / ".dvc/cache/files/md5").glob("??/*") if p.name[0] != "."}

    def linked(self) -> list[Path]:
        """Files of the folder under their final names, while DVC makes them."""
        return [path for path in (self.path / "made").glob("*") if path.name[0] != "."]

    def contents(self) -> dict[str, str]:
        return {p.name: md5(p) for p in (self.path / "made").glob("*")}


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def whole(remote: Remote) -> dict[str, int]:
    """Objects under their final names: {MD5 that they are named by: bytes}."""
    found = {}
    for name, size in remote.objects().items():
        *_, folder, rest = name.split("/")
        if not rest.startswith("."):
            found[folder + rest] = size
    return found


def some(found: Sized) -> int:
    return len(found) if len(found) > 3 else 0


def transferred(said: str) -> int:
    """How many files a command says it sent or fetched."""
    return int(re.search(r"(\d+) files? (?:pushed|fetched)", said)[1])


@contextmanager
def owner(kind: str, folder: Path) -> Iterator[Project]:
    """The project in which all was made; nothing was pushed."""
    project = folder / "owner"
    (project / "made").mkdir(parents=True)
    (folder / "server").mkdir()
    rng = random.Random(0)
    for number in range(SMALL + LARGE):
        (project / f"made/{number:04d}").write_bytes(rng.randbytes(2_000 if number >= LARGE else 6_000_000))
    (project / "dvc.yaml").write_text(
        "stages:\n  make:\n    cmd: 'false'\n    outs: [made]\n"
        "  use:\n    cmd: ls made | wc -l > used\n    deps: [made]\n    outs: [used]\n"
    )
    with SERVERS[kind](folder / "server") as remote:
        made = Project(project, remote)
        made.run("dvc", "init", "-q", "--no-scm")
        made.run("dvc", "remote", "add", "-d", "team", remote.url)
        for option, value in remote.options.items():
            made.run("dvc", "remote", "modify", "team", option, value)
        made.run("dvc", "commit", "-q", "-f", "make")
        yield made


def clone(project: Project) -> Project:
    """What Git would bring to somebody else."""
    folder = project.path.parent / "colleague"
    (folder / ".dvc").mkdir(parents=True)
    for name in ("dvc.yaml", "dvc.lock", ".dvc/config"):
        shutil.copy(project.path / name, folder / name)
    return Project(folder, project.remote)


CASES = [
    pytest.param(kind, name, marks=() if (kind, name) == ("folder", "killed") else LONG if name == "killed" else SLOW)
    for kind in SERVERS
    for name in SIGNALS
]


@pytest.mark.parametrize(("kind", "how"), CASES)
def test_an_interrupted_push_goes_on_and_leaves_no_half_file(kind, how, tmp_path):
    with owner(kind, tmp_path) as project:
        sizes = {oid: path.stat().st_size for oid, path in project.cached().items()}
        assert len(sizes) == FILES
        said = project.interrupted(SIGNALS[how], lambda: some(project.remote.objects()), "dvc", "push")
        assert "Traceback" not in said
        there = whole(project.remote)
        assert len(there) < FILES, "it was to be interrupted in the middle"
        assert there == {oid: sizes[oid] for oid in there}, "half a file would be taken for the whole one"
        assert not any(oid.endswith(".dir") for oid in there), "the list comes last: it says that all files are there"

        assert transferred(project.run("dvc", "push")) == FILES - len(there)
        assert whole(project.remote) == sizes
        if project.remote.storage:
            for name in project.remote.objects():
                *_, folder, rest = name.split("/")
                if not rest.startswith("."):
                    assert md5(project.remote.storage / name) == (folder + rest).removesuffix(".dir")
        assert "Everything is up to date" in project.run("dvc", "push")

        colleague = clone(project)
        colleague.run("dvc", "pull", "make")
        assert colleague.contents() == project.contents()


@pytest.mark.parametrize(
    "command",
    [pytest.param(["dvc", "pull", "make"], marks=SLOW), ["han", "pull-for", "use"]],
    ids=["dvc pull", "han pull-for"],
)
@pytest.mark.parametrize(("kind", "how"), CASES)
def test_an_interrupted_pull_goes_on_and_leaves_no_half_file(kind, how, command, tmp_path):
    with owner(kind, tmp_path) as project:
        project.run("dvc", "push")
        colleague = clone(project)
        said = colleague.interrupted(SIGNALS[how], lambda: some(colleague.cached()), *command)
        assert "Traceback" not in said
        there = colleague.cached()
        assert len(there) < FILES, "it was to be interrupted in the middle"
        for oid, path in there.items():
            assert md5(path) == oid.removesuffix(".dir"), "half a file would be taken for the whole one"
        kept = {oid: path.stat().st_mtime_ns for oid, path in there.items()}

        colleague.run(*command)
        assert {oid: colleague.cached()[oid].stat().st_mtime_ns for oid in kept} == kept, "files came a second time"
        assert colleague.contents() == project.contents()
        assert colleague.cached().keys() == project.cached().keys()
        assert "up to date" in colleague.run("dvc", "status", "make")
        colleague.run("dvc", "repro", "-s", "use")
        assert (colleague.path / "used").read_text().strip() == str(SMALL + LARGE)


@pytest.mark.long
def test_a_pull_that_is_killed_as_it_links_goes_on(tmp_path):
    """All files are in the cache, and some of them in the folder."""
    with owner("folder", tmp_path) as project:
        project.run("dvc", "push")
        colleague = clone(project)
        colleague.interrupted(signal.SIGKILL, lambda: some(colleague.linked()), "dvc", "pull", "make")
        assert len(colleague.linked()) < SMALL + LARGE, "it was to be killed in the middle"
        (colleague.path / f"made/.{'A-_z0' * 4}ab.tmp").touch()  # as is left now and then
        assert "--force" in colleague.run("dvc", "pull", "make", fails=True)
        colleague.run("han", "pull-for", "use")
        assert colleague.contents() == project.contents()
