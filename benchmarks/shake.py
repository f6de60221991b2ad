"""How far each system carries to a camera that moves: UT-Interaction set 1, learnt as it is, tested shaken.

\b
    python -m benchmarks.shake --data FOLDER --work WORK

FOLDER holds ut_interaction/set1 and weights. For each condition every clip is filmed again: in made camera shake of
several strengths, in a pan, in other crops, with things that move in the background (CONDITIONS below). The training
clips of a fold are those of the plain condition, the test clips those of the condition, so that nothing is learnt of
it. With the camera's motion left in and taken out of the temporal net's flow (``camera``). Nets are not trained, so all
folds share them. Prints the number of the 60 clips that each row got right, and writes it as JSON (--out).
"""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import cv2
import numpy as np
import yaml

from benchmarks.graph import run_stages
from benchmarks.machine import machine
from han_core.video.decode import probe, read_video

REPOSITORY = Path(__file__).resolve().parent.parent
WEIGHTS = "weights/vgg16_imagenet_features.safetensors"
MARGIN = 16
"""Pixels that every condition, the plain one too, cuts off at each side, so that no shake shows the edge."""
SEQUENCES = range(1, 11)
CAMERAS = ("none", "homography")


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


@click.command(help=__doc__)
@click.option("--data", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
@click.option("--work", type=click.Path(file_okay=False, path_type=Path), required=True)
@click.option("--seeds", type=click.IntRange(min=1), default=3, show_default=True, help="Of HAN and its variants.")
@click.option("--condition", "wanted", multiple=True, type=click.Choice(list(CONDITIONS)), help="By default all.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path(__file__).with_suffix(".json"),
    show_default=True,
)
def main(data: Path, work: Path, seeds: int, wanted: tuple[str, ...], out: Path) -> None:
    data, work = data.resolve(), work.resolve()
    os.environ["HAN_CACHE"] = str(work / "cache")
    results = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
    right = results.get("right", {})
    for condition in wanted or CONDITIONS:
        name = condition.replace(" ", "_")
        videos = work / "videos" / name
        film(data / "ut_interaction" / "set1", videos, CONDITIONS[condition])
        for camera in CAMERAS:
            folder = work / name / camera
            folder.mkdir(parents=True, exist_ok=True)
            params = params_of(data, videos, work / "lists", camera, seeds)
            (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
            run_stages(folder, without=("generate", "scores-*", "two-stream", "report"))
            found = json.loads((folder / "metrics/shaken/evaluate.json").read_text(encoding="utf-8"))
            right.setdefault(condition, {})[camera] = {row: _right(figures) for row, figures in found.items()}
            facts = {"machine": machine(), "clips": 60, "seeds": seeds, "right": right}
            out.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    rows = dict.fromkeys(row for cameras in right.values() for found in cameras.values() for row in found)
    click.echo(f"\n| right of 60; camera none / homography | {' | '.join(right)} |\n|{' --- |' * (len(right) + 1)}")
    for row in rows:
        pairs = ([cameras.get(camera, {}).get(row) for camera in CAMERAS] for cameras in right.values())
        click.echo(f"| {row} | {' | '.join(' / '.join(map(_cell, pair)) for pair in pairs)} |")


def _right(figures: dict) -> float:
    """Clips, in the mean over the seeds where there are several."""
    return float(figures["right"])


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"


def film(source: Path, target: Path, take: Take) -> None:
    """Every clip plain, ``<class>/<clip>_plain.avi``, and in the take, ``<class>/<clip>_take.avi``, unless it is the
    plain one. What is there stays."""
    for path in sorted(source.glob("*/*.avi")):
        frames, rate = list(read_video(path)), probe(path).fps or 30.0
        folder = target / path.parent.name.split("_", 1)[1]
        folder.mkdir(parents=True, exist_ok=True)
        for ending, how in {"plain": Take(), ("plain" if take == Take() else "take"): take}.items():
            file = folder / f"{path.stem}_{ending}.avi"
            if not file.exists():
                _write(file.with_suffix(".part.avi"), filmed(frames, how, path.stem), rate)
                file.with_suffix(".part.avi").rename(file)


def filmed(frames: list[np.ndarray], take: Take, name: str) -> Iterator[np.ndarray]:
    """The frames (H, W, 3) uint8 as the camera of a take sees them, without the margin.

    What happens depends on the name, so that every clip is filmed in its own way, and the same way every time; of
    takes that differ in strength alone the motion has the same form.
    """
    height, width = frames[0].shape[:2]
    random = np.random.default_rng([*b"shake", *name.encode()])
    x, y, turn, zoom = (_sway(random, len(frames)) for _ in range(4))
    shift = random.uniform(-1, 1, 2)
    paths = [_drift(random, len(frames), width, height) for _ in range(3)]
    pan = MARGIN / 2 * _triangle(np.arange(len(frames)) * 2 * take.pan / MARGIN)
    for number, frame in enumerate(frames):
        picture = frame.copy()
        for centre, colour in paths[: take.things]:
            cv2.circle(picture, tuple(int(v) for v in centre(number)), height // 14, colour, -1, cv2.LINE_AA)
        motion = cv2.getRotationMatrix2D(
            (width / 2, height / 2), take.shake * turn[number] / 10, 1 + take.shake * zoom[number] / 200
        )
        motion[:, 2] += take.shake * np.array([x[number], y[number]]) + take.crop * shift + [pan[number], 0]
        moved = cv2.warpAffine(
            picture, motion, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
        )
        yield moved[MARGIN : height - MARGIN, MARGIN : width - MARGIN]


def _sway(random: np.random.Generator, count: int) -> np.ndarray:
    """(count,) a smooth motion of a hand, root mean square 1: waves of 0.5 to 6 periods a second at 30 frames."""
    speeds, phases = random.uniform(0.5, 6, 6), random.uniform(0, 2 * np.pi, 6)
    waves = np.sin(2 * np.pi * np.outer(np.arange(count) / 30, speeds) + phases) / np.sqrt(speeds)
    motion = waves.sum(axis=1)
    return motion / max(float(np.sqrt(np.mean(motion**2))), 1e-6)


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
    """The preset of UT-Interaction on these videos: plain clips train, clips of the take are tested."""
    params = yaml.safe_load((REPOSITORY / "presets/ut_interaction.yaml").read_text(encoding="utf-8"))
    _write_lists(videos, lists)
    params["dataset"].update(name="shaken", kind="folder", root=str(videos), annotations=str(lists))
    params["dataset"]["folder"] = {"group_pattern": r"^\d+_(\d+)_", "split_by": "list"}
    params["cubes"] |= {"nets": "shaken", "frames": 10, "precision": "auto"}
    for stream in ("spatial", "temporal"):
        params["finetune"][stream] |= {"weights": str(data / WEIGHTS), "iterations": 0, "fc_size": 16}
    params |= {"models": ["han", "no_attention", "temporal"], "camera": camera}
    params["scores"]["enabled"] = False
    params["train"] |= {"skip": 2, "seeds": list(range(1, seeds + 1))}
    params["fisher"] |= {"gaussians": 64, "samples": 50_000, "splits": params["splits"] if camera == "none" else []}
    for group in ("stacked", "tdd", "tdd_cubes", "cnn_lstm", "slow_fusion"):
        params[group]["splits"] = []
    params["evaluate"]["baselines"] = ["linear", "linear_mean"]
    return params


def _write_lists(videos: Path, lists: Path) -> None:
    """Split lists: fold n tests the takes of sequence n and learns the plain clips of the others."""
    lists.mkdir(parents=True, exist_ok=True)
    names = sorted(f"{path.parent.name}/{path.name}" for path in videos.glob("*/*.avi"))
    taken = "_take.avi" if any(name.endswith("_take.avi") for name in names) else "_plain.avi"
    for number in SEQUENCES:
        for role in ("train", "test"):
            ending = taken if role == "test" else "_plain.avi"
            of_role = [n for n in names if n.endswith(ending) and (_sequence(n) == number) == (role == "test")]
            (lists / f"{role}list{number:02d}.txt").write_text("\n".join([*of_role, ""]), encoding="utf-8")


def _sequence(name: str) -> int:
    return int(Path(name).stem.split("_")[1])


if __name__ == "__main__":
    main()
