"""Seconds to push and pull what one stage makes of UCF-101: a folder of 13,320 files. Writes benchmarks/remotes.json.

\b
    python -m benchmarks.remotes          about 12 minutes on two cores

DVC's own commands, to a folder, to an S3 server (moto's, one Python process, which answers a few hundred requests a
second whoever asks) and to an SSH server, all on this machine: so there is no network to wait for, and what is measured
is what DVC, the client and the server do for each file. First all files with the number of jobs that DVC takes by
itself, then fewer files with other numbers.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import click
import numpy as np
import pytest

from benchmarks.machine import machine
from benchmarks.workspace import scratch_folder, scratch_option
from tests.remote_servers import SERVERS, Remote


def dvc(folder: Path, remote: Remote, *arguments: str) -> float:
    """Seconds that a command of DVC takes.

    Raises:
        RuntimeError: it fails.
    """
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=folder,
        env={**os.environ, "DVC_NO_ANALYTICS": "1", "DVC_SITE_CACHE_DIR": str(folder / "site"), **remote.environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"dvc {' '.join(arguments)}: {done.stdout[-3000:]}")
    return time.monotonic() - began


def start(folder: Path, remote: Remote) -> None:
    """A DVC project without Git, with links as in this project."""
    folder.mkdir()
    dvc(folder, remote, "init", "-q", "--no-scm")
    dvc(folder, remote, "config", "cache.type", "hardlink,copy")
    dvc(folder, remote, "remote", "add", "-d", "team", remote.url)
    for option, value in remote.options.items():
        dvc(folder, remote, "remote", "modify", "team", option, value)


def measured(folder: Path, kind: str, files: int, size: int, jobs: int | None) -> dict[str, float]:
    """Seconds of pushing, of pushing again with nothing new, and of pulling into another clone.

    Args:
        folder: that exists; what is made there is removed.
        size: bytes of a file.
        jobs: of DVC; None leaves it to DVC.
    """
    work = folder / "remote"
    work.mkdir()
    how = [] if jobs is None else ["--jobs", str(jobs)]
    with SERVERS[kind](work) as remote:
        owner, other = work / "owner", work / "colleague"
        start(owner, remote)
        (owner / "made").mkdir()
        rng = np.random.default_rng(0)
        for number in range(files):
            (owner / f"made/{number:05d}.h5").write_bytes(rng.bytes(size))
        dvc(owner, remote, "add", "-q", "made")
        seconds = {
            "push": dvc(owner, remote, "push", "-q", *how),
            "push_again": dvc(owner, remote, "push", "-q", *how),
        }
        start(other, remote)
        shutil.copy(owner / "made.dvc", other)
        seconds["pull"] = dvc(other, remote, "pull", "-q", *how)
        if len(list((other / "made").iterdir())) != files:
            raise RuntimeError(f"{kind}: not all files were pulled")
    shutil.rmtree(work)
    return {name: round(value, 1) for name, value in seconds.items()}


def _numbers(text: str, option: str) -> list[int]:
    if not re.fullmatch(r"\d+(,\d+)*", text):
        raise click.BadParameter("numbers, with commas between them", param_hint=option)
    return [int(number) for number in text.split(",")]


@click.command(help=__doc__)
@click.option("--files", default=13_320, show_default=True)
@click.option("--size", default=20_000, show_default=True, help="Bytes of a file.")
@click.option("--fewer", default=2_000, show_default=True, help="Files with other numbers of jobs.")
@click.option("--jobs", default="1,4,8,32", show_default=True, help="Those numbers, with commas between them.")
@scratch_option
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), default=Path("benchmarks/remotes.json"))
def main(files: int, size: int, fewer: int, jobs: str, scratch: Path | None, out: Path) -> None:
    """Measure all remotes and print tables."""
    numbers = _numbers(jobs, "--jobs")
    report: dict = {"machine": machine(), "bytes": size, "files": files, "seconds": {}}
    report |= {"fewer_files": fewer, "seconds_by_jobs": {}}
    click.echo("| remote | files | jobs | push, s | push again, s | pull, s |\n|---|---|---|---|---|---|")
    with scratch_folder(scratch) as folder:
        for kind in SERVERS:
            for count, number in ((files, None), *((fewer, number) for number in numbers)):
                try:
                    seconds = measured(folder, kind, count, size, number)
                except pytest.skip.Exception as absent:
                    click.echo(f"{kind}: {absent}")
                    break
                if number is None:
                    report["seconds"][kind] = seconds
                else:
                    report["seconds_by_jobs"].setdefault(kind, {})[number] = seconds
                shown = " | ".join(map(str, seconds.values()))
                click.echo(f"| {kind} | {count:,} | {number or 'default'} | {shown} |")
    out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
