"""Several workspaces fill one cache at once. Writes benchmarks/writers.json.

\b
    python -m benchmarks.writers --writers 4 --clips 80          about 3 minutes on two cores

Stages decode and flow run in all workspaces at the same time. The last one has other code of flow, which makes other
bytes. What is looked at: how many files each computed and reused, against the number of files that there are; whether
outputs of equal code are equal, and those of the other code are what it makes alone; `han cache verify`; temporaries
and claims that are left. Then one writer is killed in the middle of flow, and the next must do the rest at once.
"""

import json
import re
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import click

from benchmarks.machine import machine
from benchmarks.workspace import (
    NAME,
    Workspace,
    copied,
    counts_of,
    different,
    kill_group,
    scratch_folder,
    scratch_option,
    small_params,
    temporaries,
    tiny_videos,
)

KINDS = {"decode": "frames", "flow": "flow"}
"""Stage -> kind of its files, and name of their folder."""


class Change(NamedTuple):
    """An edit of the code of a stage after which it makes other bytes."""

    stage: str
    module: str
    old: str
    new: str

    def make(self, workspace: Workspace) -> None:
        """Edit a workspace.

        Raises:
            RuntimeError: the module no longer has the text that is replaced.
        """
        path = workspace.path / self.module
        text = path.read_text(encoding="utf-8")
        if self.old not in text:
            raise RuntimeError(f"{self.module} has no {self.old!r}; name another change")
        path.write_text(text.replace(self.old, self.new, 1), encoding="utf-8")


CHANGE = Change("flow", "han_core/flow/levels.py", "LEVELS / (2 * bound)", "LEVELS / (3 * bound)")
"""Flow is stored at another scale."""


def made(folder: Path, cache: Path, videos: Path, listed: Workspace | None = None) -> Workspace:
    """A workspace whose clips are listed, as ``listed`` has them if it is given."""
    workspace = copied(folder, cache, small_params(str(videos)))
    if listed is None:
        workspace.run("pipeline.prepare")
        return workspace
    table = Path("data", NAME, "clips.csv")
    (workspace.path / table).parent.mkdir(parents=True)
    (workspace.path / table).write_bytes((listed.path / table).read_bytes())
    return workspace


def at_once(workspaces: Sequence[Workspace], stages: Sequence[str]) -> list[dict[str, tuple[int, int]]]:
    """Run stages in all workspaces; of each, {stage: (reused, computed)}."""

    def run(workspace: Workspace) -> dict[str, tuple[int, int]]:
        return counts_of("".join(workspace.run(f"pipeline.{stage}") for stage in stages))

    with ThreadPoolExecutor(len(workspaces)) as pool:
        return list(pool.map(run, workspaces))


def entries(cache: Path, kind: str) -> int:
    """Files of a kind in a cache."""
    return len(list((cache / kind).glob("*/*.h5")))


def together(
    folder: Path, videos: Path, writers: int, *, stages: Sequence[str] = tuple(KINDS), change: Change = CHANGE
) -> dict:
    """All writers at once; what they did, and ``problems``.

    Args:
        stages: that each of them runs.
        change: of the last one's code.
    """
    cache = folder / "cache"
    first = made(folder / "writer1", cache, videos)
    spaces = [first, *(made(folder / f"writer{n}", cache, videos, first) for n in range(2, writers + 1))]
    alone = made(folder / "alone", folder / "alone_cache", videos, first)
    for workspace in (spaces[-1], alone):
        change.make(workspace)
    began = time.monotonic()
    counts = at_once(spaces, stages)
    seconds = time.monotonic() - began
    at_once([alone], stages)
    outputs = [f"data/{NAME}/{KINDS[stage]}" for stage in stages]
    found = [space.hashes(*outputs) for space in spaces]
    wanted = alone.hashes(*outputs)
    problems = [f"writer {n}: {name}" for n, mine in enumerate(found[:-1], 1) for name in different(mine, found[0])]
    problems += [f"writer {writers}: {name}" for name in different(found[-1], wanted)]
    if writers > 1 and found[0] == wanted:
        problems.append("the other code makes the same bytes: nothing was shown")
    verified = first.han("cache", "verify")
    if verified.returncode:
        problems.append(verified.stdout)
    problems += [f"left over: {name}" for name in temporaries(*spaces)]
    clips = len(list(videos.glob("*/*")))
    files = {stage: entries(cache, KINDS[stage]) for stage in stages}
    codes = {stage: min(writers, 1 + (place >= stages.index(change.stage))) for place, stage in enumerate(stages)}
    if files != {stage: clips * codes[stage] for stage in stages}:
        problems.append(f"the cache holds {files} files of {clips} clips, of {codes} codes")
    return {
        "writers": [
            {stage: {"reused": reused, "computed": computed} for stage, (reused, computed) in one.items()}
            for one in counts
        ],
        "files": files,
        "computed": {stage: sum(count[stage][1] for count in counts) for stage in stages},
        "seconds": round(seconds, 1),
        "verified": verified.stdout.strip().splitlines()[-1:],
        "problems": problems,
    }


def after_a_kill(folder: Path, videos: Path, *, finished: int = 3) -> dict:
    """A writer is killed once it has made ``finished`` flow files, and another one does the rest."""
    cache = folder / "killed_cache"
    killed = made(folder / "killed", cache, videos)
    killed.run("pipeline.decode")
    process = killed.start(("pipeline.flow",), folder / "killed.txt")
    while entries(cache, "flow") < finished and process.poll() is None:
        time.sleep(0.005)
    in_the_middle = process.poll() is None
    kill_group(process)
    made_before = entries(cache, "flow")
    left = temporaries(killed)
    heir = made(folder / "heir", cache, videos, killed)
    began = time.monotonic()
    (counts,) = at_once([heir], tuple(KINDS))
    reused, computed = counts["flow"]
    problems = [] if in_the_middle else ["the writer ended before it could be killed"]
    if (reused, computed) != (made_before, entries(cache, "flow") - made_before):
        problems.append(f"{made_before} files were finished, but {reused} reused and {computed} computed")
    problems += [f"left over: {name}" for name in temporaries(heir)]
    claims = sum(name.endswith(".claim") for name in left)
    return {
        "finished_before": made_before,
        "claims_left": claims,
        "temporaries_left": len(left) - claims,
        "reused": reused,
        "computed": computed,
        "seconds": round(time.monotonic() - began, 1),
        "problems": problems,
    }


@click.command(help=__doc__)
@click.option("--writers", default="2,4", show_default=True, help="How many; several numbers, one after the other.")
@click.option("--clips", default=80, show_default=True)
@scratch_option
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), default=Path("benchmarks/writers.json"))
def main(writers: str, clips: int, scratch: Path | None, out: Path) -> None:
    """Run the campaign and print tables."""
    if not re.fullmatch(r"\d+(,\d+)*", writers):
        raise click.BadParameter("numbers, with commas between them", param_hint="--writers")
    runs = {}
    with scratch_folder(scratch) as folder:
        videos = folder / "videos"
        tiny_videos(videos, 2, clips // 2)
        for number in map(int, writers.split(",")):
            (folder / str(number)).mkdir()
            runs[number] = together(folder / str(number), videos, number)
        killed = after_a_kill(folder, videos)
    click.echo("| writers | writer | decode: reused, computed | flow: reused, computed |\n| --- | --- | --- | --- |")
    for number, run in runs.items():
        for place, one in enumerate(run["writers"], start=1):
            cells = (f"{one[stage]['reused']}, {one[stage]['computed']}" for stage in KINDS)
            click.echo(f"| {number} | {place} | " + " | ".join(cells) + " |")
        cells = (f"{run['computed'][stage]} computed, {files} files" for stage, files in run["files"].items())
        click.echo(f"| {number} | all | " + " | ".join(cells) + f" | {run['seconds']} s {run['verified']}")
    click.echo(f"after a kill: {killed}")
    problems = [problem for run in (*runs.values(), killed) for problem in run["problems"]]
    for problem in problems:
        click.echo(problem)
    report = {"machine": machine("cpu"), "clips": clips, "sound": not problems, "together": runs, "killed": killed}
    out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    raise SystemExit(bool(problems))


if __name__ == "__main__":
    main()
