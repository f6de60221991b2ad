"""How far each system carries to a camera that moves: UT-Interaction set 1, learnt as it is (or shaken), tested shaken.

\b
    python -m benchmarks.shake --data FOLDER --work WORK

FOLDER holds ut_interaction/set1 and weights. For each condition every clip is filmed again: in made camera shake of
several strengths, in a pan, in other crops, with things that move in the background (CONDITIONS below). A model learns
from the plain clips of nine sequences and is tested on those of the tenth in all conditions, so nothing is learnt of
them but what ``--views`` makes of the plain clips; with ``--learnt "shake 4"`` it learns from clips that shake. The
camera's motion is left in or taken out of the temporal net's flow (``camera``). HAN's nets are not trained, so all
folds share them; with ``--nets`` each fold trains its own, on a shortened schedule, and they are scored by themselves
(the two-stream CNN), in place of all other rows. Prints the number of the 60 clips that each row got right, and writes
it as JSON (--out); what that file holds of other cameras and rows, by as many seeds, stays.
"""

import csv
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import cv2
import numpy as np
import yaml

from benchmarks.graph import run_stages
from benchmarks.machine import machine
from benchmarks.short_nets import SHORT, WHOLE_FRAMES, right_of_nets
from han_core.camera.compensation import Compensation
from han_core.datasets.synthetic.scene import sway
from han_core.video.decode import probe, read_video

REPOSITORY = Path(__file__).resolve().parent.parent
WEIGHTS = "weights/vgg16_imagenet_features.safetensors"
MARGIN = 16
"""Pixels that every condition, the plain one too, cuts off at each side, so that no shake shows the edge."""
SHORT_SIDE = 160
"""Of the decoded frames in pixels: TV-L1 then takes a third of the time that it takes at the clips' own 180 to 300."""
SEQUENCES = range(1, 11)
CAMERAS = ("none", "homography", "homography-still0.5")


@dataclass(frozen=True)
class Take:
    """How a clip is filmed again; pixels of the clip."""

    shake: float = 0.0
    """Root mean square of the camera's shift along x and along y. It turns and zooms with it: a tenth of so many
    degrees, and a half of so many per cent."""
    pan: float = 0.0
    """Pixels a frame along x, turning round so that the camera stays within the margin."""
    crop: float = 0.0
    """Largest shift of the picture, drawn once a clip."""
    things: int = 0
    """Discs that drift through the picture behind nobody: they cover what is there."""


CONDITIONS = {
    "plain": Take(),
    "shake 1": Take(shake=1),
    "shake 2": Take(shake=2),
    "shake 4": Take(shake=4),
    "pan 2": Take(pan=2),
    "crop 16": Take(crop=16),
    "things 3": Take(things=3),
}


def _cameras(_context: click.Context, _option: click.Parameter, names: Sequence[str]) -> Sequence[str]:
    for name in names:
        try:
            Compensation.of(name)
        except ValueError as error:
            raise click.BadParameter(str(error)) from None
    return names


@click.command(help=__doc__)
@click.option("--data", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
@click.option("--work", type=click.Path(file_okay=False, path_type=Path), required=True)
@click.option("--seeds", type=click.IntRange(min=1), default=3, show_default=True, help="Of HAN and its variants.")
@click.option("--condition", "wanted", multiple=True, type=click.Choice(list(CONDITIONS)), help="By default all.")
@click.option(
    "--camera",
    "cameras",
    multiple=True,
    default=CAMERAS,
    show_default=True,
    callback=_cameras,
    help="As `camera` of the params.",
)
@click.option("--learnt", type=click.Choice(list(CONDITIONS)), default="plain", show_default=True)
@click.option(
    "--views",
    multiple=True,
    metavar="shaken1,shaken2",
    help="Further views of the plain clips that HAN learns from; several lists are tried one after the other.",
)
@click.option("--idt/--no-idt", default=True, show_default=True, help="The rows of trajectories.")
@click.option("--nets", is_flag=True, help="The rows of the nets by themselves alone: two nets a fold are trained.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path(__file__).with_suffix(".json"),
    show_default=True,
)
def main(
    data: Path,
    work: Path,
    seeds: int,
    wanted: tuple[str, ...],
    cameras: Sequence[str],
    learnt: str,
    views: tuple[str, ...],
    idt: bool,
    nets: bool,
    out: Path,
) -> None:
    data, work = data.resolve(), work.resolve()
    os.environ["HAN_CACHE"] = str(work / "cache")
    conditions = list(dict.fromkeys([learnt, *(wanted or CONDITIONS)]))
    film(data / "ut_interaction" / "set1", work / "videos", conditions)
    lists = work / ("lists" if learnt == "plain" else f"lists-{_in_name(learnt)}")
    write_lists(work / "videos", lists, conditions, learnt)
    right: dict[str, dict[str, dict[str, float]]] = {}
    if out.exists():
        earlier = json.loads(out.read_text(encoding="utf-8"))
        right = earlier["right"] if earlier["seeds"] == seeds else {}
    for camera in cameras:
        named = camera if learnt == "plain" else f"{camera}, learnt from {learnt}"
        right.setdefault(named, {})
        for further in ("",) if nets else ("", *views):
            folder = work / "-".join([camera, *filter(None, further.split(","))])
            if learnt != "plain":
                folder = folder.with_name(f"{folder.name}-{_in_name(learnt)}")
            if nets:
                folder = folder.with_name(f"{folder.name}-nets")
            folder.mkdir(parents=True, exist_ok=True)
            params = params_of(data, work / "videos", lists, camera, seeds)
            params["cubes"]["views"] = params["train"]["views"] = [view for view in further.split(",") if view]
            # Trajectories take the camera's motion out by themselves, and learn from no further views.
            if not idt or camera != "none" or further:
                params["fisher"]["splits"] = params["trajectories"]["source"] = []
            if further or nets:
                params["evaluate"]["baselines"] = []
            if nets:
                train_nets(params)
            (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
            left_out = ("cubes-*", "train", "classify", "evaluate") if nets else ("scores-*", "two-stream")
            run_stages(folder, without=("generate", "report", *left_out))
            if nets:
                found = right_of_nets(folder / "data/shaken", _condition)
            else:
                found = right_clips(folder / "metrics/shaken/predictions.csv")
            right[named] |= {f"{row} + {further}" if further else row: counts for row, counts in found.items()}
            facts = {"machine": machine(), "clips": 60, "seeds": seeds, "right": right}
            out.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    rows = dict.fromkeys(row for found in right.values() for row in found)
    click.echo(f"\n| right of 60; camera {' / '.join(right)} | {' | '.join(conditions)} |")
    click.echo("|" + " --- |" * (len(conditions) + 1))
    for row in rows:
        cells = [" / ".join(_cell(of.get(row, {}).get(condition)) for of in right.values()) for condition in conditions]
        click.echo(f"| {row} | {' | '.join(cells)} |")


def right_clips(path: Path) -> dict[str, dict[str, float]]:
    """Row -> condition -> clips classified correctly, in the mean over the seeds, of a file ``predictions.csv``."""
    found: dict[str, dict[str, float]] = {}
    seeds: dict[str, set[str]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for line in csv.DictReader(file):
            condition = _condition(line["clip"])
            of_row = found.setdefault(line["model"], {})
            of_row[condition] = of_row.get(condition, 0) + (line["predicted"] == line["class"])
            seeds.setdefault(line["model"], set()).add(line["seed"])
    return {
        row: {condition: count / len(seeds[row]) for condition, count in of_row.items()}
        for row, of_row in found.items()
    }


def _in_name(condition: str) -> str:
    return condition.replace(" ", "_")


def _condition(clip: str) -> str:
    return Path(clip).stem.split("-")[1].replace("_", " ")


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def film(source: Path, target: Path, conditions: Sequence[str]) -> None:
    """Every clip in every condition, ``<class>/<clip>-<condition>.avi``. What is there stays."""
    for path in sorted(source.glob("*/*.avi")):
        frames, rate = list(read_video(path)), probe(path).fps or 30.0
        folder = target / path.parent.name.split("_", 1)[1]
        folder.mkdir(parents=True, exist_ok=True)
        for condition in conditions:
            file = folder / f"{path.stem}-{_in_name(condition)}.avi"
            if not file.exists():
                _write(file.with_suffix(".part.avi"), filmed(frames, CONDITIONS[condition], path.stem), rate)
                file.with_suffix(".part.avi").rename(file)


def filmed(frames: list[np.ndarray], take: Take, name: str) -> Iterator[np.ndarray]:
    """The frames (H, W, 3) uint8 as the camera of a take sees them, without the margin.

    What happens depends on the name, so that every clip is filmed in its own way, and the same way every time; of
    takes that differ in strength alone the motion has the same form.
    """
    height, width = frames[0].shape[:2]
    random = chance(name)
    motions = camera_motions(take, random, len(frames), width, height)
    paths = [_drift(random, len(frames), width, height) for _ in range(3)]
    for number, (frame, motion) in enumerate(zip(frames, motions, strict=True)):
        picture = frame.copy()
        for centre, colour in paths[: take.things]:
            cv2.circle(picture, tuple(int(v) for v in centre(number)), height // 14, colour, -1, cv2.LINE_AA)
        moved = cv2.warpAffine(
            picture, motion[:2], (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
        )
        yield moved[MARGIN : height - MARGIN, MARGIN : width - MARGIN]


def chance(name: str) -> np.random.Generator:
    """What decides how a clip is filmed."""
    return np.random.default_rng([*b"shake", *name.encode()])


def camera_motions(take: Take, random: np.random.Generator, count: int, width: int, height: int) -> list[np.ndarray]:
    """(3, 3) of each frame: maps positions (x, y, 1) of the clip's picture to where the camera sees them."""
    x, y, turn, zoom = (sway(random, count) for _ in range(4))
    shift = random.uniform(-1, 1, 2)
    pan = MARGIN / 2 * _triangle(np.arange(count) * 2 * take.pan / MARGIN)
    motions = []
    for number in range(count):
        motion = np.eye(3)
        motion[:2] = cv2.getRotationMatrix2D(
            (width / 2, height / 2), take.shake * turn[number] / 10, 1 + take.shake * zoom[number] / 200
        )
        motion[:2, 2] += take.shake * np.array([x[number], y[number]]) + take.crop * shift + [pan[number], 0]
        motions.append(motion)
    return motions


def _triangle(phase: np.ndarray) -> np.ndarray:
    """From 0 to 1, back over 0 to -1 and to 0 again as the phase goes from 0 to 4."""
    return 1 - np.abs((phase + 1) % 4 - 2)


def _drift(
    random: np.random.Generator, count: int, width: int, height: int
) -> tuple[Callable[[int], np.ndarray], tuple[int, int, int]]:
    """Where a thing is at each frame, and its colour."""
    start, end = random.uniform(0, [width, height], (2, 2))
    colour = tuple(int(v) for v in random.integers(0, 256, 3))
    return lambda number: start + (end - start) * number / max(count - 1, 1), colour


def _write(path: Path, frames: Iterator[np.ndarray], rate: float) -> None:
    writer = None
    for frame in frames:
        if writer is None:
            writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), rate, frame.shape[1::-1])
            writer.set(cv2.VIDEOWRITER_PROP_QUALITY, 95)
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    writer.release()


def params_of(data: Path, videos: Path, lists: Path, camera: str, seeds: int) -> dict:
    """The preset of UT-Interaction on these videos."""
    params = yaml.safe_load((REPOSITORY / "presets/ut_interaction.yaml").read_text(encoding="utf-8"))
    params["dataset"].update(name="shaken", kind="folder", root=str(videos), annotations=str(lists))
    params["dataset"]["folder"] = {"group_pattern": r"^\d+_(\d+)_", "split_by": "list"}
    params["decode"]["short_side"] = SHORT_SIDE
    params["cubes"] |= {"nets": "shaken", "frames": 10, "precision": "auto", "views": []}
    for stream in ("spatial", "temporal"):
        params["finetune"][stream] |= {"weights": str(data / WEIGHTS), "iterations": 0, "fc_size": 16}
    params |= {"models": ["han", "no_attention", "temporal"], "camera": camera}
    params["scores"]["enabled"] = False
    params["train"] |= {"skip": 2, "seeds": list(range(1, seeds + 1)), "epochs": 20}
    # Plain training, so that only the camera differs.
    params["train"] |= {"views": [], "shift": 0, "region_dropout": 0.0}
    params["train"]["optimizer"] |= {"name": "adadelta", "learning_rate": 1.0}
    params["fisher"] |= {"gaussians": 64, "samples": 50_000}
    for group in ("stacked", "tdd", "tdd_cubes", "cnn_lstm", "slow_fusion"):
        params[group]["splits"] = []
    params["evaluate"] |= {"baselines": ["linear", "linear_mean"], "ensemble": False}
    return params


def train_nets(params: dict) -> None:
    """Let each fold train its two nets, as benchmarks/tuned.py does, and score them."""
    for stream in ("spatial", "temporal"):
        params["finetune"][stream] |= SHORT | WHOLE_FRAMES
    params["scores"] |= {"enabled": True, "frames": 5, "crops": "whole", "precision": "auto"}
    params["fisher"]["splits"] = params["trajectories"]["source"] = []


def write_lists(videos: Path, lists: Path, conditions: Sequence[str], learnt: str = "plain") -> None:
    """Split lists: fold n tests sequence n in all conditions and learns the clips of the others in one."""
    lists.mkdir(parents=True, exist_ok=True)
    names = sorted(f"{path.parent.name}/{path.name}" for path in videos.glob("*/*.avi"))
    names = [name for name in names if _condition(name) in conditions]
    for number in SEQUENCES:
        test = [name for name in names if _sequence(name) == number]
        train = [name for name in names if _sequence(name) != number and _condition(name) == learnt]
        for role, of_role in {"train": train, "test": test}.items():
            (lists / f"{role}list{number:02d}.txt").write_text("\n".join([*of_role, ""]), encoding="utf-8")


def _sequence(name: str) -> int:
    return int(Path(name).stem.split("_")[1])


if __name__ == "__main__":
    main()
