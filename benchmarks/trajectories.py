"""Measure improved dense trajectories: speed, parts, memory, bytes, what a data set takes. Writes
benchmarks/trajectories.json.

\b
    python benchmarks/trajectories.py --data FOLDER          real clips, about five minutes on a CPU
    python benchmarks/trajectories.py                        generated clips, if no data is at hand

``--data`` holds ucf101_mini/, of which some videos a class are decoded and their flow is computed (TV-L1, stored as the
flow stage stores it). All is measured on one thread, in CPU time of the process, so that other work on the machine
counts less, and beside peers in the same run: the same pass written with NumPy and OpenCV (plain_trajectories.py), and
this project's TV-L1.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar
from unittest import mock

import click
import cv2
import numpy as np
import plain_trajectories
from machine import machine

from han_core.baselines.trajectories import extract as extracting
from han_core.baselines.trajectories import judging, kernels, making, pyramid
from han_core.baselines.trajectories.making import make_trajectories
from han_core.baselines.trajectories.params import TrajectoryParams
from han_core.baselines.trajectories.trajectoryfile import read_facts, read_trajectories
from han_core.camera.storedflow import field_of_levels
from han_core.clipfile.reader import ClipFile
from han_core.clipfile.trailer import read_trailer
from han_core.flow.flowfile import grey_frame, read_flow_levels, write_flow
from han_core.flow.levels import FlowFormat
from han_core.flow.tvl1.solver import tvl1_flow
from han_core.images.frames import write_frames
from han_core.video.decode import read_video

CLIPS, FRAMES = 13_320, 180
"""Of UCF-101; frames on average."""

VARIANTS = {
    "most 5000 (the default)": TrajectoryParams(),
    "all": TrajectoryParams(most=0),
    "all, camera corners": TrajectoryParams(most=0, camera="corners"),
    "all, camera none": TrajectoryParams(most=0, camera="none"),
    "all, one scale": TrajectoryParams(most=0, scales=1),
}
PARTS: dict[str, tuple[object, str]] = {
    "decoding frames": (making, "grey_frame"),
    "decoding flow": (making, "_field"),
    "homography": (extracting, "homography"),
    "flow at coarser scales": (pyramid.Level, "flow"),
    "warping": (pyramid, "warp_flow"),
    "median filters": (extracting, "filtered"),
    "describing": (kernels, "describe"),
    "stepping": (kernels, "step"),
    "texture": (cv2, "cornerMinEigenVal"),
    "grid": (kernels, "grid_points"),
    "tests": (judging, "judge"),
    "writing": (making, "write_trajectories"),
}
Result = TypeVar("Result")

PEER_FRAMES = 24
"""That the peer is given: it starts its first trajectories to an end after 16."""


@click.command(help=__doc__)
@click.option("--data", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--work", type=click.Path(file_okay=False, path_type=Path), help="For frames and flow, which stay there.")
@click.option("--clips", "count", default=3, show_default=True, help="Of each class.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path(__file__).with_suffix(".json"),
    show_default=True,
)
def main(data: Path | None, work: Path | None, count: int, out: Path) -> None:
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = work or Path(temporary)
        names = prepare(folder, data, count)
        found = {"machine": machine(), "clips": names if data else f"{len(names)} generated ones"}
        found |= measure(folder, names)
    click.echo(json.dumps(found, indent=1))
    out.write_text(json.dumps(found, indent=1) + "\n")


def prepare(folder: Path, data: Path | None, count: int) -> list[str]:
    """Names of the clips, whose frames and flow lie in the folder then."""
    for kind in ("frames", "flow"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    if data:
        videos = [sorted(path.glob("*.avi")) for path in sorted((data / "ucf101_mini" / "UCF-101").iterdir())]
        chosen = [video for some in videos for video in some[:: max(1, len(some) // count)][:count]]
        sources = {video.stem: partial(decoded, video) for video in chosen}
    else:
        sources = {f"generated{seed}": partial(generated, seed) for seed in range(count)}
    for name, frames in sources.items():
        frames_path, flow_path = (folder / kind / f"{name}.h5" for kind in ("frames", "flow"))
        if flow_path.exists():
            continue
        click.echo(f"{name}: frames and flow ...")
        frames_path.unlink(missing_ok=True)
        identity = {"clip": name, "fingerprint": "0" * 64}
        write_frames(frames(), frames_path, **identity, quality=95)
        unfinished = flow_path.with_suffix(".tmp")
        unfinished.unlink(missing_ok=True)
        solver = partial(tvl1_flow, backend="cpu", threads=1)
        write_flow(frames_path, unfinished, **identity, solver=solver, form=FlowFormat(20.0), batch=16)
        unfinished.rename(flow_path)
    return list(sources)


def decoded(video: Path) -> Iterator[np.ndarray]:
    with read_video(video) as frames:
        yield from frames


def generated(seed: int, count: int = 60) -> Iterator[np.ndarray]:
    """A camera that pans over a picture, and three things that move in it: (240, 320, 3) uint8."""
    random = np.random.default_rng(seed)

    def picture(height: int, width: int) -> np.ndarray:
        noise = cv2.GaussianBlur(random.normal(size=(height, width, 3)).astype(np.float32), (0, 0), 2)
        return cv2.normalize(noise, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)

    background, things = picture(400, 500), [picture(60, 40) for _ in range(3)]
    speeds, places = random.uniform(-3, 3, (3, 2)), random.uniform(60, 160, (3, 2))
    for t in range(count):
        frame = background[t : t + 240, 2 * t : 2 * t + 320].copy()
        for thing, speed, place in zip(things, speeds, places, strict=True):
            x, y = np.clip(place + speed * t, 0, [280, 180]).astype(int)
            frame[y : y + 60, x : x + 40] = thing
        yield frame


def make(folder: Path, name: str, params: TrajectoryParams) -> float:
    """Make a clip's trajectory file ``out.h5``; seconds that it took."""
    path = folder / "out.h5"
    path.unlink(missing_ok=True)
    files = folder / "frames" / f"{name}.h5", folder / "flow" / f"{name}.h5", path
    start = time.process_time()
    make_trajectories(*files, clip=name, fingerprint="1" * 64, params=params, seed=1)
    return time.process_time() - start


def measure(folder: Path, names: list[str]) -> dict:
    make(folder, names[0], VARIANTS["all"])  # compiled, before anything is timed
    seconds: dict[str, list[float]] = {name: [] for name in VARIANTS}
    files: dict[str, dict[str, dict]] = {name: {} for name in VARIANTS}
    frames, solver, peer, ours, kept = [], [], [], [], []
    parts: Counter[str] = Counter()
    for name in names:
        click.echo(f"{name} ...")
        for variant, params in VARIANTS.items():
            seconds[variant].append(min(make(folder, name, params) for _ in range(2)))
            files[variant][name] = size(folder / "out.h5")
        frames.append(read_facts(folder / "out.h5").frames)
        with timed(parts):
            make(folder, name, VARIANTS["most 5000 (the default)"])
        loaded = load(folder, name)
        solver.append(tvl1(loaded[0]))
        of_ours, spent = used(lambda loaded=loaded: extracting.extract(*loaded, VARIANTS["all"]))
        ours.append(spent)
        of_peer, spent = used(lambda loaded=loaded: plain_trajectories.extract(*loaded, VARIANTS["all"]))
        peer.append(spent)
        kept.append((len(of_ours), len(of_peer["points"])))
    total = sum(frames)
    speed = {variant: per_frame(seconds[variant], frames) for variant in VARIANTS}
    flow = statistics.mean(solver) * 1000
    default, everything = "most 5000 (the default)", "all"
    largest = max(names, key=lambda name: files[everything][name]["kept"])
    return {
        "frames": total,
        "milliseconds_a_frame": speed,
        "parts_milliseconds_a_frame": {name: round(parts[name] / total * 1000, 3) for name in PARTS},
        "tvl1": {
            "milliseconds_a_pair": round(flow, 2),
            "times_ours": round(flow / speed[default]["mean"], 2),
        },
        "numpy_and_opencv": {
            "frames_a_clip": PEER_FRAMES,
            "milliseconds_a_frame": round(sum(peer) / len(peer) / PEER_FRAMES * 1000, 1),
            "ours_on_the_same": round(sum(ours) / len(ours) / PEER_FRAMES * 1000, 2),
            "times_ours": round(sum(peer) / sum(ours), 1),
            "trajectories_of_both": kept,
        },
        "files": {variant: files[variant] for variant in (default, everything)},
        "memory_megabytes": {
            "clip": largest,
            **{variant: memory(folder, largest, VARIANTS[variant].most) for variant in (default, everything)},
        },
        "ucf101": {variant: whole(speed[variant], files[variant]) for variant in (default, everything)},
    }


def per_frame(seconds: list[float], frames: list[int]) -> dict:
    each = [1000 * second / count for second, count in zip(seconds, frames, strict=True)]
    mean = 1000 * sum(seconds) / sum(frames)
    rounded = {"mean": mean, "least": min(each), "median": statistics.median(each), "most": max(each)}
    return {name: round(value, 2) for name, value in rounded.items()} | {"frames_a_second": round(1000 / mean, 1)}


def size(path: Path) -> dict:
    """Bytes and numbers of a trajectory file."""
    facts, trailer = read_facts(path), read_trailer(path)
    counts = {name: getattr(facts.counts, name) for name in ("finished", "kept", "static", "erratic", "camera")}
    stored = {name: array.size for name, array in trailer.arrays.items()}
    histograms = sum(stored[name] for name in ("hog", "hof", "mbhx", "mbhy"))
    return {
        "bytes": path.stat().st_size,
        "read_milliseconds": round(1000 * used(lambda: read_trajectories(path))[1], 1),
        "trajectories": facts.count,
        "bytes_of_histograms": histograms,
        "bytes_of_the_rest": sum(stored.values()) - histograms,
        **counts,
    }


def whole(speed: dict, files: dict[str, dict]) -> dict:
    """What all of UCF-101 would take, if its clips were like these."""
    a_clip = statistics.mean(file["bytes"] for file in files.values())
    return {
        "clips": CLIPS,
        "frames_a_clip": FRAMES,
        "hours_on_16_cores": round(CLIPS * FRAMES * speed["mean"] / 1000 / 3600 / 16, 2),
        "gigabytes": round(CLIPS * a_clip / 1e9, 1),
    }


def load(folder: Path, name: str) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The first frames and fields of a clip."""
    with ClipFile(folder / "frames" / f"{name}.h5") as file:
        count = min(PEER_FRAMES, file.image_count("frames"))
        frames = [grey_frame(file.image_bytes("frames", i), None) for i in range(count)]
    levels = read_flow_levels(folder / "flow" / f"{name}.h5", range(count - 1))
    return frames, list(field_of_levels(levels, 20.0, "nearest"))


def tvl1(frames: list[np.ndarray]) -> float:
    """Seconds that the flow of one pair takes."""
    first, second = np.stack(frames[:-1:6]), np.stack(frames[1::6])
    return used(lambda: tvl1_flow(first, second, backend="cpu", threads=1))[1] / len(first)


def used(work: Callable[[], Result]) -> tuple[Result, float]:
    """What some work gives, and CPU seconds that this process spends on it: the better of two times."""
    seconds = []
    for _ in range(2):
        start = time.process_time()
        result = work()
        seconds.append(time.process_time() - start)
    return result, min(seconds)


@contextmanager
def timed(parts: Counter) -> Iterator[None]:
    """Add what the parts of the work take."""

    def counted(name: str, function: Callable) -> Callable:
        def call(*args: object, **options: object) -> object:
            start = time.process_time()
            result = function(*args, **options)
            parts[name] += time.process_time() - start
            return result

        return call

    with ExitStack() as stack:
        for name, (owner, function) in PARTS.items():
            stack.enter_context(mock.patch.object(owner, function, counted(name, getattr(owner, function))))
        yield


MEMORY = """
import sys
from han_core.baselines.trajectories.making import make_trajectories
from han_core.baselines.trajectories.params import TrajectoryParams

def peak():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024

frames, flow, path, most = sys.argv[1:]
before = peak()
params = TrajectoryParams(most=int(most))
make_trajectories(frames, flow, path, clip="clip", fingerprint="1" * 64, params=params, seed=1)
print(before, peak())
"""


def memory(folder: Path, name: str, most: int) -> dict:
    """Megabytes that a process takes at most: once all is imported, and with this clip."""
    path = folder / "memory.h5"
    path.unlink(missing_ok=True)
    files = [str(folder / kind / f"{name}.h5") for kind in ("frames", "flow")]
    command = [sys.executable, "-c", MEMORY, *files, str(path), str(most)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    before, peak = map(float, done.stdout.split())
    return {"imported": round(before), "peak": round(peak)}


if __name__ == "__main__":
    main()
