"""A dry run of UCF-101's shape: what every stage costs in seconds, memory and files, and what grows with the clips.
Writes benchmarks/scale.json.

\b
    python -m benchmarks.scale --clips 1332,13320          about 40 minutes on two cores, and 6 GB of disk

The real graph by `dvc repro`: 101 classes, 25 groups, three splits, both streams, HAN. The videos are tiny (7 frames of
32x32, MJPEG, each different), and so are the nets (ShuffleNet at 32 pixels, random weights) and HAN, so that what is
left is the bookkeeping. Left out: the nets' own scores, which only a VGG-16 has, and the systems beside HAN.

\b
    first     `dvc repro`: of every stage its own seconds, what DVC takes around it (hashing and linking its files),
              the most memory of its own process, and the files and bytes that it leaves
    no-op     `dvc repro` again, nothing to do
    reused    the outputs of the clip stages deleted, and each stage run without DVC: all files come from the cache
    restored  the outputs deleted, and `dvc repro`: DVC links them out of its own cache
    one more  one video is added, and decode, flow and cubes run by `dvc repro`

With `--shard` about so many cubes of a class share a file. With several sizes the slopes are told: milliseconds a clip,
and what does not depend on the clips. A folder given with `--scratch` is kept, and a later run goes on in it with the
code of its day: then `first` finds all clips in the cache.
"""

import json
import os
import re
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import click
import cv2
import numpy as np
import yaml

from benchmarks.machine import machine
from benchmarks.watch import Watch
from benchmarks.workspace import Workspace, copied, scratch_folder, small_params
from pipeline.execution.outputs import clear

NAME = "ucf101"
SPLITS = (1, 2, 3)
GROUPS = 25
_TEST_GROUPS = 7  # of a split, as the organisers' lists have it
_FRAMES, _SIDE = 7, 32
_STAGES = re.compile(r"Running stage '(.+?)'")
CLIP_STAGES = ("decode", "flow", "steady", "cubes")
"""Modules of the stages that make a file for each clip here."""


# -- the data


def shape(clips: int) -> list[tuple[str, str]]:
    """(class, group) of each clip: as many classes as UCF-101 has, or fewer, so that each has clips of many groups."""
    classes = min(101, max(2, clips // 13))
    found = []
    for c in range(classes):
        mine = clips // classes + (c < clips % classes)
        found += [(f"Class{c + 1:03d}", f"g{1 + n * GROUPS // mine:02d}") for n in range(mine)]
    return found


def named(clips: Iterable[tuple[str, str]]) -> list[str]:
    """Paths of the videos, ``<class>/v_<class>_gNN_cMM.avi``."""
    seen: dict[tuple[str, str], int] = {}
    paths = []
    for class_name, group in clips:
        seen[class_name, group] = number = seen.get((class_name, group), 0) + 1
        paths.append(f"{class_name}/v_{class_name}_{group}_c{number:02d}.avi")
    return paths


def write_video(path: Path, seed: int) -> None:
    """A disc on a background of its own."""
    rng = np.random.default_rng(seed)
    background = cv2.resize(rng.integers(0, 255, (4, 4, 3), np.uint8), (_SIDE, _SIDE))
    x, y = rng.integers(4, _SIDE - 4, 2)
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25, (_SIDE, _SIDE))
    for t in range(_FRAMES):
        writer.write(cv2.circle(background.copy(), (int(x + t), int(y)), 4, (90, 200, 30), -1))
    writer.release()


def write_lists(folder: Path, paths: Sequence[str]) -> None:
    """The organisers' files: classes, and a train and a test list of each split."""
    folder.mkdir(parents=True, exist_ok=True)
    classes = sorted({path.split("/")[0] for path in paths})
    numbers = {name: number for number, name in enumerate(classes, start=1)}
    (folder / "classInd.txt").write_text("".join(f"{number} {name}\n" for name, number in numbers.items()))
    for split in SPLITS:
        tested = {f"g{group:02d}" for group in range(_TEST_GROUPS * (split - 1) + 1, _TEST_GROUPS * split + 1)}
        train = [path for path in paths if path.split("_")[-2] not in tested]
        lines = (f"{path} {numbers[path.split('/')[0]]}\n" for path in train)
        (folder / f"trainlist{split:02d}.txt").write_text("".join(lines))
        test = (f"{path}\n" for path in paths if path.split("_")[-2] in tested)
        (folder / f"testlist{split:02d}.txt").write_text("".join(test))


def write_net(path: Path) -> None:
    """A ShuffleNet with random weights, at 32 pixels: its stage2 is 48x4x4."""
    import torch
    import torchvision
    from safetensors.torch import save_file

    torch.manual_seed(0)
    said = {"mean": "[0.5, 0.5, 0.5]", "std": "[0.25, 0.25, 0.25]", "size": str(_SIDE)}
    save_file(torchvision.models.shufflenet_v2_x0_5(weights=None).state_dict(), path, said)


def params_of(folder: Path, shard: int = 0) -> dict:
    """UCF-101's three splits and both streams, tiny."""
    params = small_params(str(folder / "videos"))
    params["dataset"].update(name=NAME, kind="ucf101", annotations=str(folder / "lists"))
    params["splits"] = params["finetune"]["splits"] = list(SPLITS)
    params["cubes"].update(nets=NAME, net="shufflenet_v2_x0_5", layer="stage2", shard=shard)
    for stream in ("spatial", "temporal"):
        params["finetune"][stream].update(weights=str(folder / "net.safetensors"), iterations=0)
    params["scores"]["enabled"] = False
    params["camera"] = "none"
    params["train"].update(seeds=[1], epochs=1, batch=128)
    params["cnn_lstm"]["splits"] = params["fisher"]["splits"] = params["trajectories"]["source"] = []
    return params


# -- running commands


class Ran(NamedTuple):
    """A command that was looked at."""

    seconds: float
    cpu_seconds: float
    """Of the command, and of all processes that it started and waited for."""
    megabytes: float
    """Of the command's own process."""
    stages: dict[str, dict[str, float]]
    """Of those that ``dvc repro`` started."""
    said: str


def dvc(workspace: Workspace, *arguments: str) -> Ran:
    """Run ``dvc``, and look at it and the stages that it starts.

    Raises:
        RuntimeError: it fails.
    """
    environment = workspace.environment() | {"PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "dvc", *arguments]
    marks: list[tuple[str, float]] = []
    said = []
    with Watch(workspace.path) as watch:
        began = time.monotonic()
        process = subprocess.Popen(
            command,
            cwd=workspace.path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        for line in process.stdout:
            said.append(line)
            if match := _STAGES.search(line):
                marks.append((match[1], time.monotonic()))
        _, status, used = os.wait4(process.pid, 0)
        ended = time.monotonic()
    text = "".join(said)
    if status:
        raise RuntimeError(f"dvc {' '.join(arguments)}: {text[-3000:]}")
    stages = {}
    for (stage, start), (_, end) in zip(marks, [*marks[1:], ("", ended)], strict=False):
        seen = watch.stage(start, end)
        own = seen.ended - seen.began if seen else 0.0
        stages[stage] = {
            "seconds": round(own, 2),
            "dvc_seconds": round(end - start - own, 2),
            "megabytes": round(seen.megabytes) if seen else 0,
        }
    return Ran(ended - began, used.ru_utime + used.ru_stime, watch.most(" -m dvc"), stages, text)


def alone(workspace: Workspace, *command: str) -> Ran:
    """Run a stage without DVC."""
    with Watch(workspace.path) as watch:
        began, before = time.monotonic(), _cpu_of_children()
        said = workspace.run(*command)
        ended, used = time.monotonic(), _cpu_of_children() - before
    return Ran(ended - began, used, watch.most(f" -m {' '.join(command)}"), {}, said)


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def left(workspace: Workspace) -> dict[str, dict[str, int]]:
    """Stage -> files and bytes of its outputs, as DVC has noted them."""
    lock = yaml.safe_load((workspace.path / "dvc.lock").read_text(encoding="utf-8"))["stages"]
    return {
        name: {
            "files": sum(out.get("nfiles", 1) for out in stage.get("outs", [])),
            "bytes": sum(out.get("size", 0) for out in stage.get("outs", [])),
        }
        for name, stage in lock.items()
    }


# -- the campaign


@dataclass
class Found:
    """What one size took."""

    clips: int
    stages: dict[str, dict[str, float]] = field(default_factory=dict)
    commands: dict[str, dict[str, float]] = field(default_factory=dict)
    reused: dict[str, dict[str, float]] = field(default_factory=dict)

    def note(self, name: str, ran: Ran) -> None:
        """A whole command."""
        self.commands[name] = _figures(ran)
        click.echo(f"{self.clips} clips: {name}: {ran.seconds:.1f} s, {ran.megabytes:.0f} MB", err=True)


def measured(folder: Path, clips: int, shard: int) -> Found:
    """The whole campaign at one size, in a new folder or one of an earlier run."""
    found = Found(clips)
    paths = named(shape(clips))
    extra = named([*shape(clips), shape(clips)[0]])[-1]
    write_lists(folder / "lists", paths)
    if (folder / "work").exists():
        (folder / "videos" / extra).unlink(missing_ok=True)
        workspace = refreshed(folder / "work", folder / "cache")
        (workspace.path / "params.yaml").write_text(yaml.safe_dump(params_of(folder, shard), sort_keys=False))
    else:
        for seed, path in enumerate(paths):
            write_video(folder / "videos" / path, seed)
        write_net(folder / "net.safetensors")
        workspace = copied(folder / "work", folder / "cache", params_of(folder, shard))

    first = dvc(workspace, "repro")
    found.note("first", first)
    (folder / "first.txt").write_text(first.said, encoding="utf-8")
    outputs = left(workspace)
    found.stages = {name: {**ran, **outputs.get(name, {})} for name, ran in first.stages.items()}
    for name in ("no-op", "no-op again"):
        ran = dvc(workspace, "repro")
        if ran.stages:
            click.echo(f"the no-op ran {', '.join(ran.stages)}", err=True)
        found.note(name, ran)
    _reuse(workspace, found)
    found.note("no-op after that", dvc(workspace, "repro"))
    for output in _clip_outputs(workspace):
        clear(workspace.path / output)
    ran = dvc(workspace, "repro")
    found.note("restored", ran)
    found.commands["restored"]["stages run"] = len(ran.stages)

    write_video(folder / "videos" / extra, clips)
    write_lists(folder / "lists", sorted([*paths, extra]))
    targets = [name for name in found.stages if _module(name) in CLIP_STAGES]
    ran = dvc(workspace, "repro", *targets)
    found.note("one more", ran)
    found.commands["one more"]["stages"] = ran.stages
    return found


def refreshed(folder: Path, cache: Path) -> Workspace:
    """A workspace of an earlier run with the code as it is now."""
    beside = copied(folder.with_name("code"), cache, {})
    for name in ("han_core", "pipeline"):
        shutil.rmtree(folder / name)
        shutil.move(beside.path / name, folder / name)
    shutil.copy(beside.path / "dvc.yaml", folder / "dvc.yaml")
    shutil.rmtree(beside.path)
    return Workspace(folder, cache)


def _module(stage: str) -> str:
    return stage.split("@")[0].split("-")[0]


def _clip_outputs(workspace: Workspace) -> list[str]:
    lock = yaml.safe_load((workspace.path / "dvc.lock").read_text(encoding="utf-8"))["stages"]
    return [out["path"] for name, stage in lock.items() if _module(name) in CLIP_STAGES for out in stage["outs"]]


def _reuse(workspace: Workspace, found: Found) -> None:
    """Each clip stage without DVC, its outputs deleted."""
    lock = yaml.safe_load((workspace.path / "dvc.lock").read_text(encoding="utf-8"))["stages"]
    for output in _clip_outputs(workspace):
        clear(workspace.path / output)
    for name, stage in lock.items():
        if _module(name) not in CLIP_STAGES:
            continue
        ran = alone(workspace, *stage["cmd"].split()[2:])
        again = re.search(r"(\d+) clips: (\d+) reused", ran.said)
        if again and again[1] != again[2]:
            raise RuntimeError(f"{name} did not reuse all: {ran.said[-500:]}")
        found.reused[name] = _figures(ran)
    figures = found.reused.values()
    total = {key: round(sum(one[key] for one in figures), 2) for key in ("seconds", "cpu_seconds")}
    found.commands["reused"] = total | {"megabytes": max(one["megabytes"] for one in figures)}
    click.echo(f"{found.clips} clips: reused: {found.commands['reused']}", err=True)


def _figures(ran: Ran) -> dict[str, float]:
    return {
        "seconds": round(ran.seconds, 2),
        "cpu_seconds": round(ran.cpu_seconds, 2),
        "megabytes": round(ran.megabytes),
    }


def slope(small: Mapping[str, float], large: Mapping[str, float], clips: Sequence[int], key: str) -> dict[str, float]:
    """What of a figure grows with the clips (milliseconds, or kilobytes, a clip) and what does not."""
    each = (large[key] - small[key]) / (clips[1] - clips[0])
    return {"a_clip": round(1000 * each, 4), "fixed": round(small[key] - each * clips[0], 2)}


def measured_slopes(small: Found, large: Found) -> dict[str, dict[str, dict[str, float]]]:
    """Of stages and commands, between two sizes."""
    sizes = (small.clips, large.clips)
    told = {}
    for group in ("stages", "commands", "reused"):
        one, other = getattr(small, group), getattr(large, group)
        told[group] = {
            f"{name} {key}": slope(one[name], other[name], sizes, key)
            for name in one.keys() & other.keys()
            for key in ("seconds", "cpu_seconds", "dvc_seconds", "megabytes")
            if key in one[name] and key in other[name]
        }
    return {group: dict(sorted(values.items())) for group, values in told.items()}


def _lines(runs: Sequence[Found]) -> Iterator[str]:
    last = runs[-1]
    yield f"| stage of {last.clips} clips | its own s | DVC's s | MB | files | KB a file |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for name, one in last.stages.items():
        files = one.get("files", 0)
        size = f"{one.get('bytes', 0) / files / 1000:.1f}" if files else ""
        yield f"| {name} | {one['seconds']} | {one['dvc_seconds']} | {one['megabytes']} | {files} | {size} |"
    yield "| command | " + " | ".join(f"{run.clips} clips: s, MB" for run in runs) + " |"
    yield "| --- " * (len(runs) + 1) + "|"
    for name in last.commands:
        cells = (run.commands.get(name, {}) for run in runs)
        yield f"| {name} | " + " | ".join(f"{c.get('seconds', '')}, {c.get('megabytes', '')}" for c in cells) + " |"


@click.command(help=__doc__)
@click.option(
    "--clips", default="1332,13320", show_default=True, help="How many; several numbers, one after the other."
)
@click.option("--shard", type=click.IntRange(min=0), default=0, help="As cubes.shard.")
@click.option(
    "--scratch",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A folder to work in, which is kept; by default a temporary one.",
)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), default=Path("benchmarks/scale.json"))
def main(clips: str, shard: int, scratch: Path | None, out: Path) -> None:
    """Run the campaign and print tables."""
    if not re.fullmatch(r"\d+(,\d+)*", clips):
        raise click.BadParameter("numbers, with commas between them", param_hint="--clips")
    runs: list[Found] = []
    with scratch_folder(scratch) as folder:
        for size in map(int, clips.split(",")):
            place = folder / str(size)
            place.mkdir(exist_ok=True)
            runs.append(measured(place, size, shard))
            _write(out, runs)
            if scratch is None:
                shutil.rmtree(place, ignore_errors=True)
    for line in _lines(runs):
        click.echo(line)


def _write(out: Path, runs: Sequence[Found]) -> None:
    report = {"machine": machine("cpu"), "runs": [vars(run) for run in runs]}
    if len(runs) > 1:
        report["slopes"] = measured_slopes(runs[0], runs[-1])
    out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
