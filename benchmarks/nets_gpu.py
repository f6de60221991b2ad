"""Measure the nets on a GPU: cubes against the bare net, fine-tuning against data in memory. About a minute each.

\b
    python benchmarks/nets_gpu.py                         both, on the GPU; writes benchmarks/nets_gpu.json
    python benchmarks/nets_gpu.py --section cubes --precision bfloat16

It makes its own clips (340x256, JPEG) and nets (random weights: the arithmetic is the same), and needs no project
folder. Where hdf5plugin is installed the clips are files and the cubes are written to files, as in the stages; else the
encoded images lie in memory, and cubes are packed and compressed and not written: `files` says which.

`cubes`: clips a second, from encoded images to compressed cubes, many clips in work, as stage cubes does it in the one
process that it has for a GPU; the same of the net alone on inputs that lie on the GPU; and what reading and packing
alone reach with as many threads. `finetune`: images a second of the step on batches that lie on the GPU, on
samples that are read meanwhile, and of reading alone.
"""

import importlib.util
import json
import tempfile
import time
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import click
import cv2
import numpy as np
import torch
from finetune import CLASSES, SCALES, STACK, loader, turns
from machine import machine

from han_core.clipfile.arrays import compressed
from han_core.clipfile.reader import ImageTable
from han_core.cubes.sparse import SparseRows
from han_core.devices import arithmetic, cores, gpu_fault, resolve_precision
from han_core.finetune.augment import Augmentation
from han_core.finetune.sgd import SGDSchedule
from han_core.images.reader import ImageIndex, ImageReader
from han_core.nets.clip_inputs import FlowClips, FrameClips, read_clip_frames
from han_core.nets.extract import CubeNet
from han_core.nets.vgg16 import VGG16

PRECISIONS = ("float32", "tf32", "bfloat16")
STREAMS = ("spatial", "temporal")
FRAMES = 25
"""T of a clip's cube."""
HAS_FILES = importlib.util.find_spec("hdf5plugin") is not None


@click.command(help=__doc__)
@click.option("--section", "sections", multiple=True, type=click.Choice(["cubes", "finetune"]), help="Only this.")
@click.option("--device", default="cuda", show_default=True)
@click.option("--precision", "precisions", multiple=True, type=click.Choice(PRECISIONS), help="Only this; repeat.")
@click.option("--seconds", default=4.0, show_default=True, help="Of each measurement of cubes.")
@click.option("--threads", default=max(3, cores()), show_default="cores", help="Clips in work; threads that read.")
@click.option("--clips", "count", default=8, show_default=True, help="Different clips.")
@click.option("--length", default=180, show_default=True, help="Frames of a clip.")
@click.option("--batch", default=256, show_default=True, help="Of fine-tuning.")
@click.option("--micro-batch", default=64, show_default=True)
@click.option("--iterations", default=3, show_default=True, help="Of fine-tuning, in a turn.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path(__file__).with_suffix(".json"),
    show_default=True,
)
def main(
    sections: tuple[str, ...],
    device: str,
    precisions: tuple[str, ...],
    seconds: float,
    threads: int,
    count: int,
    length: int,
    batch: int,
    micro_batch: int,
    iterations: int,
    out: Path,
) -> None:
    where = torch.device(device)
    wanted = list(dict.fromkeys(resolve_precision(one, where) for one in precisions or PRECISIONS))
    results = json.loads(out.read_text()) if out.exists() else {}
    results |= {"machine": machine(device), "threads": threads, "files": "on disk" if HAS_FILES else "in memory"}

    def note(section: str, name: str, measure: Callable[[], dict]) -> None:
        """Kept as soon as it is there; what fails does not take the others along."""
        try:
            found = measure()
        except (RuntimeError, ValueError) as error:
            found = {"error": f"{type(error).__name__}: {str(error).splitlines()[0]}"}
            if gpu_fault(error) and not isinstance(error, torch.OutOfMemoryError):
                raise  # from here on nothing would work
        results.setdefault(section, {})[name] = found
        click.echo(f"{section}, {name}: {json.dumps(found)}")
        out.write_text(json.dumps(results, indent=1) + "\n")

    with tempfile.TemporaryDirectory() as folder:
        clips = {stream: made(stream, Path(folder), count, length) for stream in STREAMS}
        for stream in STREAMS:
            for precision in wanted:
                name = f"{stream}, {precision}"
                if "cubes" in (sections or ("cubes",)):
                    note("cubes", name, lambda s=stream, p=precision: cubes(s, clips[s], p, where, seconds, threads))
                if "finetune" in (sections or ("finetune",)):
                    schedule = SGDSchedule(
                        iterations=0,
                        batch=batch,
                        micro_batch=micro_batch,
                        views=Augmentation(SCALES[stream]),
                        precision=precision,
                    )
                    note(
                        "finetune",
                        name,
                        lambda s=stream, plan=schedule: finetune(s, clips[s], plan, where, threads, iterations),
                    )


@dataclass
class MemoryImages(ImageReader):
    """Encoded images that lie in memory, read like those of files: checksums compared, decoded each time."""

    images: dict[tuple[Path, str], list[np.ndarray]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__()

    def _indices(self, path: Path, names: Sequence[str]) -> dict[str, ImageIndex]:
        found = {}
        for name in names:
            encoded = self.images[path, name]
            offsets = np.cumsum([0, *map(len, encoded)])
            checksums = np.array([zlib.crc32(one) for one in encoded], np.uint32)
            found[name] = ImageIndex(ImageTable(offsets, checksums), np.empty(0, np.int64), 1)
        return found

    def encoded(self, path: Path, name: str, first: int, last: int) -> list[np.ndarray]:
        return self.images[path, name][first : last + 1]


@dataclass
class Clips:
    """What is read."""

    paths: list[Path]
    reader: ImageReader | None = None
    """None: they are files."""


def made(stream: str, folder: Path, count: int, length: int) -> Clips:
    """Clips whose images cost about what those of video cost: smooth noise, 20 to 30 KB a frame, 5 KB a field."""
    random = np.random.default_rng(0)
    paths, memory = [], MemoryImages()
    names = ("frames",) if stream == "spatial" else ("x", "y")
    for number in range(count):
        path = folder / stream / f"class{number % CLASSES}" / f"clip{number}.h5"
        path.parent.mkdir(parents=True, exist_ok=True)
        paths.append(path)
        for name in names:
            large = random.integers(0, 256, (64, 85 + length, 3 if stream == "spatial" else 1), np.uint8)
            large = cv2.resize(large, None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC)
            memory.images[path, name] = [
                cv2.imencode(".jpg", np.ascontiguousarray(large[:, at : at + 340]), [cv2.IMWRITE_JPEG_QUALITY, 90])[1]
                for at in range(0, 4 * length, 4)
            ]
        if HAS_FILES:
            write(
                path, {name: memory.images[path, name] for name in names}, "frames" if stream == "spatial" else "flow"
            )
    return Clips(paths, None if HAS_FILES else memory)


def write(path: Path, images: dict[str, list[np.ndarray]], kind: str) -> None:
    from han_core.clipfile.writer import ClipFileWriter

    with ClipFileWriter(path, kind=kind, clip=path.stem, fingerprint="0" * 64) as file:
        for name, encoded in images.items():
            row = file.images(name)
            for one in encoded:
                row.append(one)


def make_net(stream: str) -> VGG16:
    return VGG16(classes=CLASSES, in_channels=3 if stream == "spatial" else 2 * STACK)


def cubes(stream: str, clips: Clips, precision: str, device: torch.device, seconds: float, threads: int) -> dict:
    stack = STACK if stream == "temporal" else 0
    torch.manual_seed(0)
    with (
        CubeNet(make_net(stream), "caffe", batch=FRAMES, precision=precision, device=device) as net,
        tempfile.TemporaryDirectory() as folder,
        ThreadPoolExecutor(threads) as pool,
    ):
        ready = [
            net._input(read_clip_frames(path, FRAMES, stack=stack, reader=clips.reader), slice(None))
            for path in clips.paths
        ]
        values = net.compute(read_clip_frames(clips.paths[0], FRAMES, stack=stack, reader=clips.reader))

        def read(number: int) -> object:
            path = clips.paths[number % len(clips.paths)]
            return read_clip_frames(path, FRAMES, stack=stack, memory=net.memory, reader=clips.reader)

        def keep(number: int, values: dict[str, np.ndarray]) -> None:
            pack(Path(folder, f"{number}.h5"), values, net.layers)

        def bare(number: int) -> None:
            with torch.inference_mode(), arithmetic(net._precision):
                net._net.extract(ready[number % len(ready)], net.layers)

        def alone(count: int) -> None:
            for number in range(count):
                bare(number)
            if device.type == "cuda":
                torch.cuda.synchronize(device)

        def in_threads(work: Callable[[int], object]) -> Callable[[int], object]:
            return lambda count: list(pool.map(work, range(count)))

        found = {
            "bare_clips_s": rate(alone, seconds),
            "stage_clips_s": rate(in_threads(lambda number: keep(number, net.compute(read(number)))), seconds, threads),
            "reading_clips_s": rate(in_threads(read), seconds, threads),
            "packing_clips_s": rate(in_threads(lambda number: keep(number, values)), seconds, threads),
        }
        zeros = float(np.mean(values[net.layers[0]] == 0))
    return {name: round(value, 2) for name, value in found.items()} | {
        "stage_over_bare": round(found["stage_clips_s"] / found["bare_clips_s"], 3),
        "zeros_of_the_cube": round(zeros, 3),
    }


def pack(path: Path, values: dict[str, np.ndarray], layers: tuple[str, str]) -> None:
    """A cube file; without hdf5plugin what makes up most of its cost."""
    maps, fc = (values[layer] for layer in layers)
    if HAS_FILES:
        from han_core.cubes.cubefile import write_cubes

        facts = {"clip": path.stem, "fingerprint": "0" * 64, "layer": layers[0], "fc": layers[1], "attributes": {}}
        path.unlink(missing_ok=True)
        write_cubes(path, frames=np.arange(len(maps), dtype=np.int32), values=values, **facts)
        path.unlink()
        return
    rows = SparseRows.from_dense(maps.reshape(*maps.shape[:2], -1))
    for array, codec in ((rows.counts, "zstd"), (rows.columns, "zstd"), (rows.values, "shuffle-zstd")):
        compressed(np.ascontiguousarray(array), codec)
    compressed(np.ascontiguousarray(fc), "shuffle-zstd")


def rate(work: Callable[[int], object], seconds: float, least: int = 1) -> float:
    """Pieces of work a second, of a run of about so many seconds."""
    work(least)  # warms up
    start = time.perf_counter()
    work(2 * least)
    count = max(2 * least, int(seconds / (time.perf_counter() - start) * 2 * least))
    start = time.perf_counter()
    work(count)
    return count / (time.perf_counter() - start)


def finetune(
    stream: str, clips: Clips, schedule: SGDSchedule, device: torch.device, readers: int, iterations: int
) -> dict:
    labels = [number % CLASSES for number in range(len(clips.paths))]
    reading = {"reader": clips.reader} if clips.reader else {}
    if stream == "spatial":
        source = FrameClips(clips.paths, labels, **reading)
    else:
        source = FlowClips(clips.paths, labels, STACK, **reading)
    with arithmetic(schedule.precision):
        found = turns(stream, source, schedule, device, 4096, readers, iterations, 3, net=make_net(stream))
    return found | {"reading_images_per_second": loader(source, schedule, device, readers, iterations)}


if __name__ == "__main__":
    main()
