"""What it costs an epoch that every array that is read is compared with its checksum.

Two stores of equal cubes of the paper's size (T = 25, 512 x 14 x 14, 94 % zeros), one as it is written, one without
checksums and read without any check; both are read through ``CubeStore`` in batches, out of the system's memory, in
turns, and the medians compared. Beside it an epoch of HAN (lstm_size 1024) that streams from the first.

    python -m benchmarks.checks --clips 64 --rounds 21
"""

import json
import statistics
import tempfile
import time
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from unittest.mock import patch

import click
import numpy as np
import torch
import zstandard

from benchmarks.machine import machine
from han_core.clipfile import arrays
from han_core.clips import Clip
from han_core.cubes.cubefile import write_cubes
from han_core.cubes.sparse import SparseRows
from han_core.cubes.store import CubeStore
from han_core.han.config import HANConfig
from han_core.han.model import HAN
from han_core.han.training import TrainingSchedule, train

T, CHANNELS, SIDE, ZEROS = 25, 512, 14, 0.94
OUT = Path(__file__).with_suffix(".json")


def write_store(folder: Path, clips: list[Clip]) -> None:
    """Cubes as conv5_3 gives them: non-negative, most of them zero, in patches."""
    for clip in clips:
        random = np.random.default_rng(clip.label + int(clip.name))
        values = random.gamma(1.0, 4.0, (T, CHANNELS, SIDE, SIDE)).astype(np.float16)
        values[random.random((T, CHANNELS, SIDE, SIDE)) < ZEROS] = 0
        fc7 = np.zeros((T, 4096), np.float16)
        path = folder / clip.class_name / f"{clip.name}.h5"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_cubes(
            path,
            clip=clip.name,
            fingerprint="0" * 64,
            frames=np.arange(T, dtype=np.int32),
            layer="conv5_3",
            fc="fc7",
            values={"conv5_3": values, "fc7": fc7},
            attributes={},
        )


def without_checksums() -> ExitStack:
    """As if files had none, and nobody looked."""
    stack = ExitStack()
    plain = zstandard.ZstdCompressor(level=arrays.LEVEL, write_checksum=False, write_content_size=True)
    stack.enter_context(patch.object(arrays._thread, "compressor", plain, create=True))
    stack.enter_context(patch.object(SparseRows, "contradiction", lambda self: ""))
    return stack


def epoch(store: CubeStore, batch: int = 16) -> float:
    """Seconds that one epoch of a store takes to read."""
    began = time.perf_counter()
    for start in range(0, len(store), batch):
        store.batch(range(start, min(start + batch, len(store))))
    return time.perf_counter() - began


def training(store: CubeStore) -> float:
    """Seconds of an epoch of HAN on one stream, read batch by batch while it trains."""
    _, channels, regions = store.shapes["spatial"]
    torch.manual_seed(1)
    model = HAN(HANConfig(("spatial",), classes=2, channels=channels, regions=regions))
    began: list[float] = []
    train(
        model,
        store,
        TrainingSchedule(epochs=3, batch=32, standardize=False),
        on_epoch=lambda *_: began.append(time.perf_counter()),
    )
    return min(b - a for a, b in pairwise(began))


@click.command()
@click.option("--clips", default=64, show_default=True)
@click.option("--rounds", default=21, show_default=True)
@click.option("--out", default=OUT, show_default=True, type=click.Path(dir_okay=False, path_type=Path))
def main(clips: int, rounds: int, out: Path) -> None:
    """Read both stores in turns."""
    table = [Clip(str(n), f"{n}.avi", "x", 0, str(n), {1: "train"}) for n in range(clips)]
    with tempfile.TemporaryDirectory() as folder:
        checked, plain = Path(folder, "checked"), Path(folder, "plain")
        write_store(checked, table)
        with without_checksums():
            write_store(plain, table)
        one, two = CubeStore({"spatial": checked}, table), CubeStore({"spatial": plain}, table)
        epoch(one)
        seconds: dict[str, list[float]] = {"checked": [], "plain": []}
        for _ in range(rounds):
            seconds["checked"].append(epoch(one))
            with without_checksums():
                seconds["plain"].append(epoch(two))
        trained = training(one)
    ratios = [a / b for a, b in zip(seconds["checked"], seconds["plain"], strict=True)]
    found = {
        "clips": clips,
        "rounds": rounds,
        "milliseconds_a_clip": {name: 1000 * statistics.median(s) / clips for name, s in seconds.items()},
        "overhead_of_reading": statistics.median(ratios) - 1,
        "epoch_of_training_milliseconds_a_clip": 1000 * trained / clips,
    }
    cost = found["milliseconds_a_clip"]["checked"] - found["milliseconds_a_clip"]["plain"]
    found["overhead_of_an_epoch"] = cost / found["epoch_of_training_milliseconds_a_clip"]
    out.write_text(json.dumps(machine() | found, indent=1) + "\n", encoding="utf-8")
    for name, value in found["milliseconds_a_clip"].items():
        click.echo(f"{name:8} {value:.2f} ms a clip")
    click.echo(f"overhead {100 * found['overhead_of_reading']:.1f} % of reading (median of {rounds} ratios)")
    click.echo(
        f"an epoch of training takes {found['epoch_of_training_milliseconds_a_clip']:.1f} ms a clip: "
        f"{100 * found['overhead_of_an_epoch']:.2f} % of it"
    )


if __name__ == "__main__":
    main()
