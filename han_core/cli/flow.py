"""``han flow``: look at the optical flow of a video."""

import os
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path

import click
import cv2
import numpy as np

from han_core.cli.output import print_line
from han_core.errors import HanError
from han_core.figures.flow import flow_picture
from han_core.flow.flo import write_flo
from han_core.flow.tvl1.solver import BACKENDS, pairs_at_once, resolve_backend, tvl1_flow
from han_core.video.decode import probe, read_video
from han_core.video.encode import VideoWriter, fitting_name


@click.command()
@click.argument("video", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="What to write, by its ending: .mp4 shows every frame beside its flow, .png or .jpg one frame beside its "
    "flow, .flo holds the exact flow of one pair. Default: VIDEO's name with .flow.mp4, here.",
)
@click.option("--frame", default=0, show_default=True, type=click.IntRange(0), help="The frame of a picture or .flo.")
@click.option(
    "--largest",
    default=20.0,
    show_default=True,
    type=click.FloatRange(0, min_open=True),
    help="Length in pixels drawn in full colour.",
)
@click.option("--short-side", type=click.IntRange(32), help="Shrink frames to this many pixels on the shorter side.")
@click.option("--backend", type=click.Choice(["auto", *BACKENDS]), default="auto", show_default=True)
def flow(video: Path, out: Path | None, frame: int, largest: float, short_side: int | None, backend: str) -> None:
    """Show the TV-L1 flow of VIDEO: hue is its direction, strength of colour its length."""
    out = out or Path(fitting_name(video.stem, ".flow.mp4"))
    suffix = out.suffix.lower()
    if suffix not in (".mp4", ".png", ".jpg", ".flo"):
        raise click.BadParameter(f"{out} must end in .mp4, .png, .jpg or .flo", param_hint="--out")
    if not os.path.isdir(out.parent):
        raise click.BadParameter(f"the folder {out.parent} does not exist", param_hint="--out")
    if os.path.exists(out) and out.samefile(video):
        raise click.BadParameter("is the video itself", param_hint="--out")
    try:
        backend = resolve_backend(backend)
        frames = read_video(video, short_side=short_side)
        if suffix == ".mp4":
            count = _write_video(_flows(frames, backend), out, largest, probe(video).fps)
            print_line(f"{out}: flow of {count} pairs of frames (back end {backend})")
        else:
            _write_one(frames, out, frame, largest, backend)
            print_line(f"{out}: flow from frame {frame} to {frame + 1} (back end {backend})")
    except (HanError, ValueError) as error:
        raise click.ClickException(f"{video}: {error}") from None


def _flows(frames: Iterator[np.ndarray], backend: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Each frame (H, W, 3) but the last, with the flow (2, H, W) to the next one."""
    kept = list(islice(frames, 1))
    at_once = pairs_at_once(backend, *kept[0].shape[:2]) if kept else 1
    while batch := list(islice(frames, at_once)):
        kept = [*kept[-1:], *batch]
        grey = np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in kept])
        yield from zip(kept, tvl1_flow(grey[:-1], grey[1:], backend=backend), strict=False)


def _write_one(frames: Iterator[np.ndarray], out: Path, index: int, largest: float, backend: str) -> None:
    found = next(_flows(islice(frames, index, index + 2), backend), None)
    if found is None:
        raise ValueError(f"frame {index} does not exist, or is the last one")
    frame, flow_field = found
    if out.suffix.lower() == ".flo":
        write_flo(out, flow_field)
    elif not cv2.imwrite(str(out), cv2.cvtColor(_beside(frame, flow_field, largest), cv2.COLOR_RGB2BGR)):
        raise ValueError(f"{out} cannot be written")


def _write_video(flows: Iterator[tuple[np.ndarray, np.ndarray]], out: Path, largest: float, fps: float) -> int:
    first = next(flows, None)
    if first is None:
        raise ValueError("the video has one frame; flow needs two")
    with VideoWriter(out, fps) as writer:
        for frame, flow_field in chain([first], flows):
            writer.write(_beside(frame, flow_field, largest))
    return writer.count


def _beside(frame: np.ndarray, flow_field: np.ndarray, largest: float) -> np.ndarray:
    """Frame and flow side by side, RGB."""
    return np.hstack([frame, flow_picture(flow_field, largest)])
