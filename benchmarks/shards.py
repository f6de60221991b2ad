"""Cubes in shards against one file a clip: what packing takes, and what HAN's training has of it. Writes
benchmarks/shards.json.

\b
    python -m benchmarks.shards          about three minutes on two cores, and 3 GB of disk

Made cubes of conv5_3's shape, T = 25, with 94 % zeros, in 20 classes: once a file each, once about 100 to a shard. The
files are in the machine's page cache. Each figure is the best of three, files and shards by turns.

\b
    index     open the store: names, shapes and places of all clips
    load      read all of it into memory (`run.store: memory`)
    stream    an epoch of batches of 32 in random order, read from the files (`run.store: stream`)

What DVC makes of fewer files: benchmarks/dvc_files.py, and benchmarks/scale.py with `--shard`.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np

from benchmarks.machine import machine
from benchmarks.workspace import scratch_folder, scratch_option
from han_core.cache.store import ClipCache
from han_core.clips import Clip
from han_core.cubes.cubefile import write_cubes
from han_core.cubes.folder import shard_files
from han_core.cubes.store import CubeStore
from pipeline.execution.jobs import ClipTask
from pipeline.execution.sharding import Shards

SHAPE, ZEROS, CLASSES, BATCH = (25, 512, 14, 14), 0.94, 20, 32


@click.command(help=__doc__)
@click.option("--clips", type=click.IntRange(min=100), default=2000, show_default=True)
@click.option("--shard", type=click.IntRange(min=1), default=100, show_default=True, help="As cubes.shard.")
@scratch_option
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), default=Path("benchmarks/shards.json"))
def main(clips: int, shard: int, scratch: Path | None, out: Path) -> None:
    """Make both, measure, print."""
    names = [f"v_{number:05d}" for number in range(clips)]
    table = [Clip(name, "", f"class{n % CLASSES:02d}", n % CLASSES, "g", {}) for n, name in enumerate(names)]
    with scratch_folder(scratch) as folder:
        files, shards = folder / "files", folder / "shards"
        size = write_files(files, table)
        seconds = {"pack": packed(files, shards, table, ClipCache(folder / "cache"), shard)}
        folders = {"files": files, "shards": shards}
        for name, work in WORKS.items():
            for _ in range(3):
                for form, where in folders.items():
                    took = timed(lambda work=work, where=where: work(CubeStore({"spatial": where}, table)))
                    key = f"{name}, {form}"
                    seconds[key] = min(took, seconds.get(key, took))
        found = {
            "machine": machine("cpu"),
            "clips": clips,
            "bytes": size,
            "shards": len(shard_files(shards)),
            "seconds": {key: round(value, 3) for key, value in seconds.items()},
        }
    out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    click.echo(json.dumps(found, indent=1))


def write_files(folder: Path, table: list[Clip]) -> int:
    """A file for each clip; bytes of all of them. Twenty cubes are drawn, which the clips share."""
    rng = np.random.default_rng(0)
    cubes = []
    for _ in range(20):
        cube = rng.random(SHAPE, np.float32).astype(np.float16) + np.float16(0.1)
        cube[rng.random(SHAPE, np.float32) < ZEROS] = 0
        cubes.append(cube)
    size = 0
    for number, clip in enumerate(table):
        path = folder / clip.class_name / f"{clip.name}.h5"
        path.parent.mkdir(parents=True, exist_ok=True)
        cube = cubes[number % len(cubes)]
        write_cubes(
            path,
            clip=clip.name,
            fingerprint=f"{number:064x}",
            frames=np.arange(SHAPE[0], dtype=np.int32),
            layer="conv5_3",
            fc="fc7",
            values={"conv5_3": cube, "fc7": cube[:, :, 0, 0]},
            attributes={},
        )
        size += path.stat().st_size
    return size


def packed(files: Path, shards: Path, table: list[Clip], cache: ClipCache, size: int) -> float:
    """Pack the files as the cubes stage does; seconds."""
    for clip in table:
        path = shards / clip.class_name / f"{clip.name}.h5"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.hardlink_to(files / clip.class_name / f"{clip.name}.h5")
    tasks = [ClipTask(clip, f"{number:064x}-0") for number, clip in enumerate(table)]
    return timed(lambda: Shards(cache, shards, size, tasks).pack({clip.key for clip in table}))


def load(store: CubeStore) -> None:
    """All of it into memory."""
    store.load()


def stream(store: CubeStore) -> None:
    """One epoch of batches."""
    order = np.random.default_rng(1).permutation(len(store))
    for first in range(0, len(order), BATCH):
        store.batch(order[first : first + BATCH])


WORKS: dict[str, Callable[[CubeStore], object]] = {"index": lambda store: None, "load": load, "stream": stream}


def timed(work: Callable[[], object]) -> float:
    """Seconds by the clock."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
