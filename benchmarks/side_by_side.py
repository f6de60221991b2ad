"""What stages side by side bring on this machine: the small graph, one stage after another and two at once. Writes
benchmarks/side_by_side.json.

\b
    python -m benchmarks.side_by_side          about five minutes on two cores

`dvc repro` and `python -m pipeline.side_by_side` in workspaces of their own, on the same tiny videos, in turn: the
seconds of each, and whether outputs and dvc.lock are the same.
"""

import json
import os
import time
from pathlib import Path

import click
import yaml

from benchmarks.machine import machine
from benchmarks.workspace import OUTPUTS, copied, different, scratch_folder, scratch_option, small_params, tiny_videos

WAYS = {"dvc repro": ("dvc", "repro"), "side by side": ("pipeline.side_by_side", "--jobs", "2")}


def measured(folder: Path, videos: Path, rounds: int) -> dict:
    """Seconds of each way, and ``problems``."""
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    problems: list[str] = []
    for number in range(rounds):
        spaces = {}
        for way, command in WAYS.items():
            name = f"{way.replace(' ', '_')}{number}"
            spaces[way] = copied(folder / name, folder / f"{name}_cache", small_params(str(videos)))
            began = time.monotonic()
            spaces[way].run(*command)
            seconds[way].append(round(time.monotonic() - began, 1))
        one, other = (space.hashes(*(out for out in OUTPUTS if out != "dvc.lock")) for space in spaces.values())
        problems += different(one, other)
        locks = [yaml.safe_load((space.path / "dvc.lock").read_text(encoding="utf-8")) for space in spaces.values()]
        if locks[0] != locks[1]:
            problems.append("dvc.lock")
    best = {way: min(found) for way, found in seconds.items()}
    return {"seconds": seconds, "ratio": round(best["dvc repro"] / best["side by side"], 2), "problems": problems}


@click.command(help=__doc__)
@click.option("--clips", default=12, show_default=True)
@click.option("--rounds", default=2, show_default=True)
@scratch_option
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), default=Path("benchmarks/side_by_side.json"))
def main(clips: int, rounds: int, scratch: Path | None, out: Path) -> None:
    """Measure and print."""
    load = os.getloadavg()[0]
    with scratch_folder(scratch) as folder:
        tiny_videos(folder / "videos", 2, clips // 2)
        found = measured(folder, folder / "videos", rounds)
    click.echo(json.dumps(found, indent=1))
    report = {"machine": machine(), "load_before": round(load, 1), "clips": clips, **found}
    out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    raise SystemExit(bool(found["problems"]))


if __name__ == "__main__":
    main()
