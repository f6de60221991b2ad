"""Stages on Dask clusters whose workers and schedulers are killed. Writes benchmarks/cluster.json.

\b
    python -m benchmarks.cluster                                 5.5 minutes of processor time

Each stage that makes a file for each clip runs locally, and then on clusters of a scheduler and two workers, which the
commands `dask scheduler` and `dask worker` start, each time into an empty cache:

\b
    plain        undisturbed
    worker       a third worker and its nanny get SIGKILL once a few files are made
    scheduler    the scheduler gets SIGKILL; the stage must end by itself, plainly, and a second run on a new one go on
    together     two workspaces with a cluster each fill one cache at once; their workers have two threads, where no net
                 computes, whose files name their number

Every output must have the bytes of the local run, `han cache verify` find nothing, and no temporary be left. In the end
calls that do nothing are timed on local processes and on `distributed.LocalCluster` (benchmarks/pools.py).
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import click

from benchmarks.dask_processes import DaskProcesses, dask_processes, kill
from benchmarks.machine import machine
from benchmarks.workspace import (
    NAME,
    Workspace,
    copied,
    counts_of,
    different,
    kill_group,
    orphans,
    scratch_folder,
    scratch_option,
    small_params,
    temporaries,
    tiny_videos,
)

STAGES = {
    "decode": ("frames", "frames"),
    "flow": ("flow", "flow"),
    "steady": ("flow", "steady"),
    "trajectories": ("trajectories", "trajectories"),
    "cubes --stream temporal --split 1": ("cubes", "cubes/temporal-1"),
    "scores --stream spatial --split 1": ("scores", "scores/spatial-1"),
    "fisher --split 1": ("fisher", "fisher/1"),
    "tdd_samples --stream spatial --split 1": ("tdd_samples", "tdd_samples/spatial-1"),
    "tdd --stream spatial --split 1": ("fisher", "tdd/spatial-1"),
}
"""Command -> kind of its files, and their folder below that of the dataset."""
BETWEEN = {
    "trajectories": (
        "finetune --stream spatial --split 1",
        "finetune --stream temporal --split 1",
        "codebook --split 1",
    ),
    "tdd_samples --stream spatial --split 1": ("tdd_codebook --stream spatial --split 1",),
}
"""Command -> what else has to run after it, before later stages can."""
NETS = ("cubes", "scores", "tdd_samples", "tdd")
WORKERS = 2
FILES = 2
"""That are made when something is killed."""
PATIENCE = 60
"""Seconds in which a stage must end whose scheduler is gone."""


def cluster_params(videos: str) -> dict:
    """Of all these stages, in seconds."""
    params = small_params(videos)
    coding = {"splits": [1], "samples": 200, "gaussians": 3, "iterations": 5}
    params["trajectories"] |= {"source": ["flow"], "scales": 2, "most": 200}
    params["fisher"] |= coding
    params["tdd"] |= {**coding, "codebook_clips": 6, "dimensions": 6, "batch": 8, "step": 4}
    for stream in ("spatial", "temporal"):
        params["finetune"][stream]["iterations"] = 1
    params["cubes"]["frames"] = 2
    return params


class Campaign:
    """All stages, disturbed in all ways.

    Args:
        folder: scratch.
        clips: of each of two classes.
        stages: those that are disturbed.
    """

    def __init__(self, folder: Path, clips: int, stages: tuple[str, ...] = tuple(STAGES)) -> None:
        self.folder, self.clips, self.stages = folder, clips, stages
        videos = folder / "videos"
        tiny_videos(videos, 2, clips, frames=20)
        params = cluster_params(str(videos))
        self.local = copied(folder / "local", folder / "local_cache", params)
        params["run"] |= {"executor": "dask", "scheduler": None}
        self.one = copied(folder / "one", folder / "cache", params)
        self.other = copied(folder / "other", folder / "cache", params)
        self.seconds: dict[str, float] = {}
        self._logs = 0

    def prepare(self) -> None:
        """The local run, whose outputs are the inputs of all stages elsewhere."""
        self.local.run("pipeline.prepare")
        last = max(list(STAGES).index(stage) for stage in self.stages)
        for stage in list(STAGES)[: last + 1]:
            began = time.monotonic()
            self.local.run(*_command(stage))
            self.seconds[stage] = round(time.monotonic() - began, 1)
            for command in BETWEEN.get(stage, ()):
                self.local.run(*_command(command))
        for workspace in (self.one, self.other):
            for name in ("data", "models"):
                shutil.rmtree(workspace.path / name, ignore_errors=True)
                if (self.local.path / name).is_dir():
                    shutil.copytree(self.local.path / name, workspace.path / name, copy_function=os.link)

    def disturb(self, stage: str) -> dict:
        """One stage in all ways: what was found, by way."""
        with dask_processes(self.folder, environment=self.one.environment()) as cluster:
            for _ in range(WORKERS):
                cluster.worker()
            cluster.wait_for(WORKERS)
            plain = self._way(stage, lambda: self._undisturbed(stage, cluster))
            worker = self._way(stage, lambda: self._without_a_worker(stage, cluster))
            scheduler = self._way(stage, lambda: self._without_a_scheduler(stage, cluster))
        return {
            "local_seconds": self.seconds[stage],
            "plain": plain,
            "worker": worker,
            "scheduler": scheduler,
            "together": self._way(stage, lambda: self._together(stage)),
        }

    def _way(self, stage: str, disturbed: Callable[[], dict]) -> dict:
        """One way, from an empty cache, and what it left."""
        shutil.rmtree(self.one.cache, ignore_errors=True)
        for workspace in (self.one, self.other):
            shutil.rmtree(workspace.path / "data" / NAME / STAGES[stage][1], ignore_errors=True)
        began = time.monotonic()
        found = disturbed()
        found["seconds"] = round(time.monotonic() - began, 1)
        spaces = (self.one, self.other) if found.pop("both", False) else (self.one,)
        folder = f"data/{NAME}/{STAGES[stage][1]}"
        for space in spaces:
            found["problems"] += [
                f"differs: {name}" for name in different(space.hashes(folder), self.local.hashes(folder))
            ]
            found["problems"] += [f"still runs: {line}" for line in orphans(space)]
        found["problems"] += [f"left over: {name}" for name in temporaries(*spaces)]
        verified = self.one.han("cache", "verify")
        found["problems"] += [verified.stdout] if verified.returncode else []
        return found

    def _undisturbed(self, stage: str, cluster: DaskProcesses) -> dict:
        log = self._log()
        process = self._start(self.one, stage, cluster, log)
        return {"problems": self._ended(process.wait(), log)}

    def _without_a_worker(self, stage: str, cluster: DaskProcesses) -> dict:
        victim = cluster.worker()
        cluster.wait_for(WORKERS + 1)
        log = self._log()
        process = self._start(self.one, stage, cluster, log)
        made = self._wait_for_files(stage, process)
        middle = process.poll() is None
        kill(victim)
        problems = self._ended(process.wait(), log)
        problems += [] if middle else ["the stage ended before its worker was killed"]
        said = self.one.path / "logs" / NAME
        suspects = sum("tried one by one" in path.read_text(encoding="utf-8") for path in said.glob("*.log"))
        return {"files_before": made, "suspects": bool(suspects), "problems": problems}

    def _without_a_scheduler(self, stage: str, cluster: DaskProcesses) -> dict:
        log = self._log()
        process = self._start(self.one, stage, cluster, log)
        made = self._wait_for_files(stage, process)
        middle = process.poll() is None
        kill(cluster.scheduler)
        began = time.monotonic()
        problems = [] if middle else ["the stage ended before its scheduler was killed"]
        try:
            code = process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            kill_group(process)
            code = 1
            problems.append(f"the stage did not end in {PATIENCE} s")
        ended = time.monotonic() - began
        said = log.read_text(encoding="utf-8")
        if not code or "What is done is kept; run the stage again" not in said or "Traceback" in said:
            problems.append(f"not told plainly: {said[-500:]}")
        cluster.stop()
        cluster.start_scheduler()
        for _ in range(WORKERS):
            cluster.worker()
        log = self._log()
        problems += self._ended(self._start(self.one, stage, cluster, log).wait(), log)
        ((reused, _),) = counts_of(log.read_text(encoding="utf-8")).values() or [(0, 0)]
        problems += [f"{made} files were made, {reused} reused"] if reused < made else []
        return {"files_before": made, "ended_after": round(ended, 1), "reused": reused, "problems": problems}

    def _together(self, stage: str) -> dict:
        spaces = {self.one: self._log(), self.other: self._log()}
        with ExitStack() as stack:
            clusters = []
            for space in spaces:
                (space.path / "dask").mkdir(exist_ok=True)
                cluster = dask_processes(space.path / "dask", environment=space.environment())
                clusters.append(stack.enter_context(cluster))
                clusters[-1].worker(threads=1 if stage.split()[0] in NETS else 2)
            for cluster in clusters:
                cluster.wait_for(1)
            processes = [
                self._start(space, stage, cluster, log)
                for (space, log), cluster in zip(spaces.items(), clusters, strict=True)
            ]
            problems = []
            for process, log in zip(processes, spaces.values(), strict=True):
                problems += self._ended(process.wait(), log)
        counts = [next(iter(counts_of(log.read_text(encoding="utf-8")).values()), (0, 0)) for log in spaces.values()]
        return {"computed": [computed for _, computed in counts], "both": True, "problems": problems}

    def _log(self) -> Path:
        self._logs += 1
        return self.folder / f"stage{self._logs}.txt"

    def _start(self, space: Workspace, stage: str, cluster: DaskProcesses, log: Path) -> subprocess.Popen:
        os.environ["DASK_SCHEDULER_ADDRESS"] = cluster.address
        return space.start(_command(stage), log)

    def _ended(self, code: int, log: Path) -> list[str]:
        said = log.read_text(encoding="utf-8")
        return [f"failed: {said[-1000:]}"] if code or "Traceback" in said else []

    def _wait_for_files(self, stage: str, process: subprocess.Popen) -> int:
        """Until a few are made, or the stage ends; how many there are."""
        while self._files(stage) < FILES and process.poll() is None:
            time.sleep(0.005)
        return self._files(stage)

    def _files(self, stage: str) -> int:
        return len(list((self.one.cache / STAGES[stage][0]).glob("*/*.h5")))


def _command(stage: str) -> tuple[str, ...]:
    module, *options = stage.split()
    return (f"pipeline.{module}", *options)


def _pools() -> str:
    """In a process as small as a stage's."""
    command = [sys.executable, "-m", "benchmarks.pools"]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


@click.command(help=__doc__)
@click.option("--clips", default=12, show_default=True, help="In all.")
@click.option("--stage", "stages", multiple=True, type=click.Choice([stage.split()[0] for stage in STAGES]))
@scratch_option
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), default=Path("benchmarks/cluster.json"))
def main(clips: int, stages: tuple[str, ...], scratch: Path | None, out: Path) -> None:
    """Run the campaign and print a table."""
    began = time.monotonic()
    chosen = tuple(stage for stage in STAGES if not stages or stage.split()[0] in stages)
    found = {}
    with scratch_folder(scratch) as folder:
        campaign = Campaign(folder, clips // 2, chosen)
        campaign.prepare()
        click.echo(f"locally: {campaign.seconds}", err=True)
        for stage in chosen:
            found[stage] = campaign.disturb(stage)
            click.echo(f"{stage}: {found[stage]}", err=True)
    click.echo("| stage | locally | plain | a worker dies | the scheduler dies | ended after | two clusters |")
    click.echo("| --- | --- | --- | --- | --- | --- | --- |")
    for stage, ways in found.items():
        seconds = [f"{ways[way]['seconds']} s" for way in ("plain", "worker", "scheduler")]
        cells = [stage.split()[0], f"{ways['local_seconds']} s", *seconds, f"{ways['scheduler']['ended_after']} s"]
        click.echo(f"| {' | '.join(cells)} | {ways['together']['seconds']} s |")
    problems = [
        f"{stage}, {way}: {problem}"
        for stage, ways in found.items()
        for way, one in ways.items()
        if isinstance(one, dict)
        for problem in one["problems"]
    ]
    for problem in problems:
        click.echo(problem)
    report = {
        "machine": machine("cpu"),
        "clips": clips,
        "sound": not problems,
        "stages": found,
        "pools": json.loads(_pools()),
    }
    report["seconds"] = round(time.monotonic() - began)
    click.echo(f"{report['pools']}")
    out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    click.echo(f"{'sound' if report['sound'] else 'NOT SOUND'}, {report['seconds']} s; {out}")
    raise SystemExit(bool(problems))


if __name__ == "__main__":
    main()
