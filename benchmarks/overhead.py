"""What the bookkeeping of stage decode costs a clip, beside the work itself. Writes benchmarks/overhead.json.

\b
    python -m benchmarks.overhead --clips 3000 [--base REVISION]          about 3 minutes on two cores, 6 with a base

Tiny clips (12 frames of 48x36, MJPEG), so that the bookkeeping is as large a part as it can be:

\b
    pictures    two processes in a plain loop: decode, encode, the JPEGs into a plain file; no HDF5, no cache
    files       the same, but whole clip files with their checksums; no cache
    stage       `python -m pipeline.decode` with run.workers 2 and an empty cache: publishing, claims, links, ledger
    reused      the same when the cache has all: only links are made

Wall and CPU time are those of the whole command, its start included. With ``--base`` the same is done with another
revision, by turns, so that a ratio is of one session. Last, the parts of a clip's way into the cache are timed in one
process.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import click

from benchmarks.machine import machine
from benchmarks.workspace import NAME, Workspace, copied, scratch_folder, scratch_option, small_params, tiny_videos

WAYS = ("pictures", "files", "stage", "reused")
_SCRIPT = "decode_work.py"


def made(folder: Path, videos: Path, revision: str) -> Workspace:
    """A workspace of a revision, its clips listed."""
    workspace = copied(folder, folder.with_name(f"{folder.name}_cache"), _params(videos), revision=revision)
    shutil.copy(Path(__file__).with_name(_SCRIPT), workspace.path / _SCRIPT)
    workspace.run("pipeline.prepare")
    return workspace


def _params(videos: Path) -> dict:
    params = small_params(str(videos))
    params["dataset"]["folder"]["test_share"] = 0.3
    return params


def measured(workspace: Workspace, way: str, clips: int) -> dict[str, float]:
    """Wall and CPU milliseconds a clip of one way."""
    shutil.rmtree(workspace.path / "plain", ignore_errors=True)
    if way in ("stage", "reused"):
        shutil.rmtree(workspace.path / "data" / NAME / "frames", ignore_errors=True)
    if way != "reused":
        shutil.rmtree(workspace.cache, ignore_errors=True)
    command = ["-m", "pipeline.decode"] if way in ("stage", "reused") else [_SCRIPT, way]
    os.sync()
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *command],
        cwd=workspace.path,
        env=workspace.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, used = os.wait4(process.pid, 0)
    wall = time.perf_counter() - began
    if status:
        raise RuntimeError(f"{way} in {workspace.path} failed")
    return {"wall": 1000 * wall / clips, "cpu": 1000 * (used.ru_utime + used.ru_stime) / clips}


def parts(workspace: Workspace, clips: int) -> dict[str, float]:
    """Milliseconds a clip of each part."""
    shutil.rmtree(workspace.path / "plain", ignore_errors=True)
    shutil.rmtree(workspace.cache, ignore_errors=True)
    said = subprocess.run(
        [sys.executable, _SCRIPT, "parts"],
        cwd=workspace.path,
        env=workspace.environment(),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    return {name: round(1000 * seconds / clips, 4) for name, seconds in json.loads(said.splitlines()[-1]).items()}


@click.command(help=__doc__)
@click.option("--clips", default=3000, show_default=True)
@click.option("--base", default="", metavar="REVISION", help="Of Git: compared with the working tree.")
@click.option("--repeats", default=3, show_default=True, help="Turns; medians are shown.")
@scratch_option
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), default=Path("benchmarks/overhead.json"))
def main(clips: int, base: str, repeats: int, scratch: Path | None, out: Path) -> None:
    """Measure, and print two tables."""
    classes = 30 if clips % 30 == 0 else 1
    found: dict[str, dict[str, list]] = {}
    with scratch_folder(scratch) as folder:
        videos = folder / "videos"
        tiny_videos(videos, classes, clips // classes, frames=12, size=(48, 36))
        spaces = {"now": made(folder / "now", videos, "")}
        spaces |= {base: made(folder / "base", videos, base)} if base else {}
        for turn in range(repeats):
            for name, workspace in list(spaces.items())[:: 1 if turn % 2 else -1]:
                for way in WAYS:
                    found.setdefault(name, {}).setdefault(way, []).append(measured(workspace, way, clips))
                    click.echo(f"{name} {way}: {found[name][way][-1]}", err=True)
        shares = {name: parts(workspace, clips) for name, workspace in spaces.items()}
    medians = {
        name: {
            way: {kind: round(statistics.median(run[kind] for run in runs), 3) for kind in ("wall", "cpu")}
            for way, runs in ways.items()
        }
        for name, ways in found.items()
    }
    click.echo("| code | way | wall ms a clip | CPU ms a clip | wall of pictures | CPU of pictures |")
    click.echo("| --- | --- | --- | --- | --- | --- |")
    for name, ways in medians.items():
        for way, run in ways.items():
            ratios = (f"{run[kind] / ways['pictures'][kind]:.2f}" for kind in ("wall", "cpu"))
            click.echo(f"| {name} | {way} | {run['wall']:.2f} | {run['cpu']:.2f} | " + " | ".join(ratios) + " |")
    ratios = {}
    if base:
        for way in WAYS:
            now, before = medians["now"][way], medians[base][way]
            ratios[way] = {kind: round(now[kind] / before[kind], 3) for kind in ("wall", "cpu")}
        click.echo(f"now / {base}: {ratios}")
    for name, share in shares.items():
        click.echo(f"parts of {name}, ms a clip in one process:")
        for part, milliseconds in sorted(share.items(), key=lambda item: -item[1]):
            click.echo(f"  {milliseconds:8.3f}  {part}")
    report = {"machine": machine("cpu"), "clips": clips, "repeats": repeats, "base": base, "medians": medians}
    report |= {"ratios": ratios, "parts": shares, "runs": found}
    out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
