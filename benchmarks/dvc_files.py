"""What DVC takes for a file of an output folder, and what it would take for the same bytes in shards. Writes
benchmarks/dvc_files.json.

\b
    python -m benchmarks.dvc_files          about five minutes on one core

Folders of 100 classes with small files (3 kB) by the thousand, at two sizes, and the larger one once more with one file
a class: what is left of it if the clips of a class lie in one file. Each is an output of a stage of its own repository
with a remote that is a folder, so no network is in the figures. Commands:

\b
    commit    `dvc commit`: hash the files and link them into DVC's cache
    no-op     `dvc repro` when nothing has changed; also with twenty further stages that read the folder, named as a
              folder (each looks at all files again), and named by one file in it
    checkout  `dvc checkout` after the folder was removed
    push      `dvc push` of everything
    pull      `dvc pull` after folder and cache were removed

Seconds of processor time beside those of the clock, which depend on what else the machine does.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import click
import numpy as np
import yaml

from benchmarks.machine import machine
from benchmarks.watch import Watch
from benchmarks.workspace import scratch_folder, scratch_option

_CLASSES = 100
_BYTES = 3000
_READERS = 20


class Repository:
    """A repository with one stage that made a folder, and others that read it."""

    def __init__(self, folder: Path, files: int, size: int) -> None:
        self._folder = folder
        folder.mkdir()
        rng = np.random.default_rng(files)
        for number in range(files):
            path = folder / "made" / f"class{number % _CLASSES:03d}" / f"{number}.h5"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(rng.bytes(size))
        (folder / "made" / "contents.csv").write_text("the list\n")
        self.dvc("init", "--no-scm", "-q")
        self.dvc("config", "cache.type", "hardlink,copy")
        self.dvc("remote", "add", "-q", "-d", "remote", str(folder.with_name(f"{folder.name}-remote")))
        self.stages(0, "made")

    def stages(self, readers: int, dependency: str) -> None:
        """So many stages besides the one that makes the folder."""
        stages: dict[str, dict] = {"make": {"cmd": "true", "outs": ["made"]}}
        for number in range(readers):
            out = f"read{number}"
            stages[out] = {"cmd": f"echo {number} > {out}", "deps": [dependency], "outs": [out]}
        (self._folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))

    def dvc(self, *arguments: str) -> dict[str, float]:
        """Run DVC; clock and processor seconds, and the most megabytes.

        Raises:
            RuntimeError: it fails.
        """
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = {**os.environ, "DVC_NO_ANALYTICS": "1", "PATH": path}
        log = self._folder.with_name("said.txt")
        began = time.monotonic()
        with log.open("w") as said, Watch(self._folder) as watch:
            process = subprocess.Popen(
                [sys.executable, "-m", "dvc", *arguments],
                cwd=self._folder,
                env=environment,
                stdout=said,
                stderr=subprocess.STDOUT,
            )
            _, status, used = os.wait4(process.pid, 0)
        if status:
            raise RuntimeError(f"dvc {' '.join(arguments)}: {log.read_text()[-2000:]}")
        return {
            "seconds": round(time.monotonic() - began, 2),
            "cpu_seconds": round(used.ru_utime + used.ru_stime, 2),
            "megabytes": round(watch.most(" -m dvc")),
        }

    def forget(self, *names: str) -> None:
        """Remove folders of the repository."""
        for name in names:
            shutil.rmtree(self._folder / name)


def measured(folder: Path, files: int, size: int) -> dict[str, dict[str, float]]:
    """What each command takes for a folder of so many files of so many bytes."""
    repository = Repository(folder, files, size)
    found = {"commit": repository.dvc("commit", "-f", "-q", "make")}
    found["no-op"] = repository.dvc("repro", "-q")
    for what, dependency in (("read as a folder", "made"), ("read by its list", "made/contents.csv")):
        repository.stages(_READERS, dependency)
        repository.dvc("repro", "-q")
        found[f"no-op, {what} by {_READERS}"] = repository.dvc("repro", "-q")
    repository.stages(0, "made")
    repository.forget("made")
    found["checkout"] = repository.dvc("checkout", "-q")
    found["push"] = repository.dvc("push", "-q")
    repository.forget("made", ".dvc/cache")
    found["pull"] = repository.dvc("pull", "-q")
    return found


def a_file(small: dict, large: dict, files: tuple[int, int]) -> dict[str, dict[str, float]]:
    """Milliseconds and kilobytes a file: the slopes between two sizes."""
    difference = files[1] - files[0]
    return {
        command: {
            "ms": round(1000 * (one["seconds"] - small[command]["seconds"]) / difference, 4),
            "cpu_ms": round(1000 * (one["cpu_seconds"] - small[command]["cpu_seconds"]) / difference, 4),
            "kb": round(1000 * (one["megabytes"] - small[command]["megabytes"]) / difference, 3),
        }
        for command, one in large.items()
    }


@click.command(help=__doc__)
@click.option("--files", default="2000,12000", show_default=True, help="Two numbers, ascending.")
@scratch_option
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), default=Path("benchmarks/dvc_files.json"))
def main(files: str, scratch: Path | None, out: Path) -> None:
    """Measure, and print a table."""
    try:
        small, large = map(int, files.split(","))
    except ValueError:
        raise click.BadParameter("two numbers with a comma between them", param_hint="--files") from None
    if not _CLASSES <= small < large:
        raise click.BadParameter(f"two numbers from {_CLASSES} on, ascending", param_hint="--files")
    runs = {}
    with scratch_folder(scratch) as folder:
        for name, count, size in (
            ("small", small, _BYTES),
            ("large", large, _BYTES),
            ("shards", _CLASSES, _BYTES * large // _CLASSES),
        ):
            runs[name] = measured(folder / name, count, size)
            click.echo(f"{name}: {runs[name]}", err=True)
    slopes = a_file(runs["small"], runs["large"], (small, large))
    click.echo(
        f"| command | {small} files: s (CPU) | {large} files | {_CLASSES} files of the same bytes | ms a file (CPU) |"
    )
    click.echo("| --- | --- | --- | --- | --- |")
    for command, slope in slopes.items():
        cells = (f"{run[command]['seconds']:.1f} ({run[command]['cpu_seconds']:.1f})" for run in runs.values())
        click.echo(f"| {command} | " + " | ".join(cells) + f" | {slope['ms']:.3f} ({slope['cpu_ms']:.3f}) |")
    report = {"machine": machine("cpu"), "files": [small, large], "runs": runs, "a_file": slopes}
    out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
