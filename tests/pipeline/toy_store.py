"""A made-up store in which only the temporal stream tells the class: cubes, scores, frames and flow of 32 clips."""

import cv2
import numpy as np

from han_core.baselines.two_stream.scorefile import write_scores
from han_core.clipfile.writer import ClipFileWriter
from han_core.clips import Clip, ClipTable, write_clips
from han_core.cubes.cubefile import write_cube

FRAMES, CHANNELS, SIDE, FC = 4, 6, 3, 5
CLASSES = ("left", "right")
ROLES = {1: ["train"] * 8 + ["validation"] * 2 + ["test"] * 6, 2: ["test"] * 6 + ["train"] * 8 + ["validation"] * 2}


def write_store(folder):
    clips = []
    for number in range(32):
        label, place = number % 2, number // 2
        name = f"clip{number:02d}"
        roles = {split: ROLES[split][place] for split in ROLES}
        clips.append(Clip(name, f"{name}.avi", CLASSES[label], label, f"g{place}", roles))
        rng = np.random.default_rng(number)
        for split in (1, 2):
            for stream in ("spatial", "temporal"):
                cubes = rng.random((FRAMES, CHANNELS, SIDE, SIDE))
                fc = rng.random((FRAMES, FC))
                if stream == "temporal":
                    cubes[:, 0] += 2 * label
                    fc[:, 0] += 2 * label
                path = folder / "data/toy/cubes" / f"{stream}-{split}" / CLASSES[label] / f"{name}.h5"
                path.parent.mkdir(parents=True, exist_ok=True)
                with ClipFileWriter(path, kind="cubes", clip=name, fingerprint="f" * 64, attributes={}) as file:
                    write_cube(file, cubes.astype(np.float16))
                    file.array("fc7", fc.astype(np.float16), codec="zstd")
                    file.array("frames", np.arange(FRAMES, dtype=np.int32))
                write_score(folder, stream, split, name, label, rng)
        path = folder / "data/toy/frames" / CLASSES[label] / f"{name}.h5"
        path.parent.mkdir(parents=True, exist_ok=True)
        size = {"width": 32 + label, "height": 24, "count": FRAMES, "fps": 25.0, "quality": 95}
        with ClipFileWriter(path, kind="frames", clip=name, fingerprint="e" * 64, attributes=size) as file:
            images = file.images("frames")
            for t in range(FRAMES):
                images.append(cv2.imencode(".jpg", np.full((24, 32 + label, 3), 40 * t, np.uint8))[1])
        path = folder / "data/toy/flow" / CLASSES[label] / f"{name}.h5"
        path.parent.mkdir(parents=True, exist_ok=True)
        with ClipFileWriter(path, kind="flow", clip=name, fingerprint="d" * 64, attributes={"bound": 20.0}) as file:
            for images in (file.images("x"), file.images("y")):
                for _ in range(FRAMES - 1):
                    images.append(cv2.imencode(".jpg", np.full((24, 32 + label), 128, np.uint8))[1])
    write_clips(ClipTable(tuple(clips), CLASSES, (1, 2)), folder / "data/toy/clips.csv")


def write_score(folder, stream, split, name, label, rng):
    """What a net says of a clip: the temporal one is nearly always right, the spatial one guesses."""
    path = folder / "data/toy/scores" / f"{stream}-{split}" / CLASSES[label] / f"{name}.h5"
    path.parent.mkdir(parents=True, exist_ok=True)
    sure = rng.uniform(0.4, 0.9) if stream == "temporal" else rng.uniform(0.3, 0.7)
    probabilities = np.array([[sure, 1 - sure][:: 1 - 2 * label]] * 2, np.float32)
    write_scores(
        path,
        clip=name,
        fingerprint="c" * 64,
        frames=np.arange(2, dtype=np.int32),
        probabilities=probabilities,
        attributes={"stream": stream},
    )
