"""What is left of a shaking camera in the flow when a homography was taken out: UT-Interaction set 1, filmed again.

\b
    python -m benchmarks.shake_residue --data FOLDER

FOLDER holds ut_interaction/set1. One clip of each class is filmed by a hand that shakes, as in benchmarks.shake, so the
camera's motion between two frames is known. Of some pairs of frames it measures, in pixels of frames of short side 160:

\b
    camera       the true motion of the camera
    flow         how far TV-L1 is from it where nothing moves (median)
    fitted       how far the homography that is fitted to the flow is from it, over the whole frame (mean)
    removed      what is left of the flow where nothing moves when that homography, and when the true motion, is taken
                 out (mean)
    grain        share of those pixels whose stored level is not the one of no motion; and with the camera's motion
                 taken out as by camera: homography-still0.5

Prints the table and writes it as JSON (--out).
"""

import json
from collections.abc import Iterator
from pathlib import Path

import click
import cv2
import numpy as np

from benchmarks.machine import machine
from benchmarks.shake import MARGIN, SHORT_SIDE, Take, camera_motions, chance, filmed
from han_core.camera.motion import homography, warp_flow
from han_core.camera.steady_field import steady_field
from han_core.camera.storedflow import field_of_levels
from han_core.flow.levels import quantize
from han_core.flow.tvl1.solver import tvl1_flow
from han_core.video.decode import read_video

STRENGTHS = (0, 1, 2, 4)
BOUND = 20.0
STILL = 0.2
"""Pixels: what moves less in the clip as it is stands still."""
STEADY = "homography-still0.5"
STEP, MOST = 6, 8
"""Frames between pairs, and pairs of a clip."""


def moved_by(motion: np.ndarray, width: int, height: int) -> np.ndarray:
    """(2, H, W) flow of a scene that stands still before a camera with this motion (3, 3)."""
    y, x = np.mgrid[:height, :width].astype(np.float64)
    places = np.stack([x, y, np.ones_like(x)])
    there = np.tensordot(motion, places, axes=1)
    return (there[:2] / there[2] - places[:2]).astype(np.float32)


def pairs(path: Path, strength: float) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Flow (2, H, W) as it reads back from its levels, and the true motion of the camera (3, 3), of each pair."""
    frames = list(read_video(path))
    take = Take(shake=strength)
    shot = list(filmed(frames, take, path.stem))
    height, width = shot[0].shape[:2]
    scale = SHORT_SIDE / min(height, width)
    size = (round(width * scale), round(height * scale))
    grey = [cv2.cvtColor(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY) for frame in shot]
    crop = np.array([[1, 0, -MARGIN], [0, 1, -MARGIN], [0, 0, 1.0]])
    shrunk = np.diag([size[0] / width, size[1] / height, 1.0]) @ crop
    motions = camera_motions(take, chance(path.stem), len(frames), *frames[0].shape[1::-1])
    numbers = list(range(10, len(frames) - 1, STEP))[:MOST]
    flow = tvl1_flow(np.stack([grey[n] for n in numbers]), np.stack([grey[n + 1] for n in numbers]), backend="cpu")
    for field, number in zip(flow, numbers, strict=True):
        true = shrunk @ motions[number + 1] @ np.linalg.inv(motions[number]) @ np.linalg.inv(shrunk)
        yield field_of_levels(quantize(field, BOUND), BOUND, "nearest"), true


def size_of(field: np.ndarray) -> np.ndarray:
    """(H, W) length of the vectors."""
    return np.hypot(*field)


def measured(path: Path) -> Iterator[tuple[float, dict[str, float]]]:
    """Strength of the shake, and the figures of a pair."""
    still = [size_of(field) < STILL for field, _ in pairs(path, 0)]
    for strength in STRENGTHS:
        for (flow, true), calm in zip(pairs(path, strength), still, strict=True):
            camera = moved_by(true, *flow.shape[:0:-1])
            found = homography(flow)
            stored = quantize(warp_flow(flow, found), BOUND)
            rest = field_of_levels(stored, BOUND, "nearest")
            shortened = field_of_levels(quantize(steady_field(flow, STEADY), BOUND), BOUND, "nearest")
            yield (
                strength,
                {
                    "camera": float(size_of(camera).mean()),
                    "flow": float(np.median(size_of(flow - camera)[calm])),
                    "fitted": float(size_of(moved_by(found, *flow.shape[:0:-1]) - camera).mean()),
                    "removed": float(size_of(rest)[calm].mean()),
                    "removed, true": float(size_of(warp_flow(flow, true))[calm].mean()),
                    "grain": float((rest != 0).any(axis=0)[calm].mean()),
                    STEADY: float((shortened != 0).any(axis=0)[calm].mean()),
                },
            )


@click.command(help=__doc__)
@click.option("--data", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), default=Path(__file__).with_suffix(".json"))
def main(data: Path, out: Path) -> None:
    found: dict[float, list[dict[str, float]]] = {strength: [] for strength in STRENGTHS}
    for path in sorted((data / "ut_interaction" / "set1").glob("*/*.avi"))[::10]:
        for strength, figures in measured(path):
            found[strength].append(figures)
        click.echo(f"{path.stem}: done", err=True)
    means = {s: {key: float(np.mean([one[key] for one in of])) for key in of[0]} for s, of in found.items()}
    out.write_text(json.dumps({"machine": machine(), "pairs": len(found[0]), "shake": means}, indent=1) + "\n")
    keys = list(means[0])
    click.echo(f"| shake | {' | '.join(keys)} |\n|{' --- |' * (len(keys) + 1)}")
    for strength, figures in means.items():
        click.echo(f"| {strength} | {' | '.join(f'{figures[key]:.3f}' for key in keys)} |")


if __name__ == "__main__":
    main()
