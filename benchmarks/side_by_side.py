"""What stages side by side bring on this machine: a small graph, one stage after another and two at once. Writes
benchmarks/side_by_side.json.

\b
    python -m benchmarks.side_by_side          about four minutes on two cores

`dvc repro` and `python -m pipeline.side_by_side` in copies of their own, on the same six tiny videos, in turn: the
seconds of each, and whether outputs and dvc.lock are the same.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import click
import yaml

from benchmarks.machine import machine
from benchmarks.workspace import REPOSITORY, different, scratch_folder, scratch_option
from tests.checkout import Checkout

WAYS = {"dvc repro": ("dvc", "repro"), "side by side": ("pipeline.side_by_side", "--jobs", "2")}
FOLDERS = ("data", "models", "metrics", "plots", "report")


def ran(folder: Path, command: tuple[str, ...]) -> tuple[Checkout, float]:
    """A copy in which all stages ran, and the seconds that it took.

    Raises:
        RuntimeError: a stage fails.
    """
    copy = Checkout.make(REPOSITORY, folder)
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=copy.path,
        env=copy.environment(PYTHONPATH=str(copy.path), HAN_CACHE=str(folder / "cache")),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stdout[-3000:])
    return copy, time.monotonic() - began


def measured(folder: Path, rounds: int) -> dict:
    """Seconds of each way, and ``problems``."""
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    problems: list[str] = []
    for number in range(rounds):
        copies = []
        for way, command in WAYS.items():
            copy, took = ran(folder / f"{way.replace(' ', '_')}{number}", command)
            seconds[way].append(round(took, 1))
            copies.append(copy)
        for name in FOLDERS:
            problems += different(*(copy.hashes(name) for copy in copies))
        locks = [yaml.safe_load((copy.path / "dvc.lock").read_text(encoding="utf-8")) for copy in copies]
        problems += ["dvc.lock"] if locks[0] != locks[1] else []
    best = {way: min(found) for way, found in seconds.items()}
    ratio = round(best["dvc repro"] / best["side by side"], 2)
    return {"seconds": seconds, "ratio": ratio, "problems": problems}


@click.command(help=__doc__)
@click.option("--rounds", default=2, show_default=True)
@scratch_option
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), default=Path("benchmarks/side_by_side.json"))
def main(rounds: int, scratch: Path | None, out: Path) -> None:
    """Measure and print."""
    load = os.getloadavg()[0]
    with scratch_folder(scratch) as folder:
        found = measured(folder, rounds)
    click.echo(json.dumps(found, indent=1))
    report = {"machine": machine(), "load_before": round(load, 1), **found}
    out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    raise SystemExit(bool(found["problems"]))


if __name__ == "__main__":
    main()
