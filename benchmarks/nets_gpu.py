"""Measure the nets on a GPU: cubes against the bare net, fine-tuning against memory. It should take two minutes.

\b
    python benchmarks/nets_gpu.py                         both, on the GPU; the figures go into a JSON file beside it
    python benchmarks/nets_gpu.py --section cubes --precision bfloat16

It makes its own clips (340x256, JPEG) and nets (random weights: the arithmetic is the same), and needs no project
folder. Clips are files and the cubes are written to files, as in the stages.

`cubes`: clips a second of the net alone, on inputs that lie on the GPU; from clip files to cube files, by as
many processes and threads as stage cubes has; and of reading alone.

`finetune`: images a second of the step on batches that lie on the GPU, on samples that are read meanwhile, and of
reading alone.

`layouts`: milliseconds of the convolutions' forward and backward pass with channels last, as the nets have them, and
with channels first.
"""

import json
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import click
import cv2
import numpy as np
import torch
from finetune import CLASSES, SCALES, STACK, loader, turns
from machine import machine

from han_core.clipfile.writer import ClipFileWriter
from han_core.cubes.cubefile import write_cubes
from han_core.devices import arithmetic, autocast, cores, gpu_fault, resolve_precision
from han_core.finetune.augment import Augmentation
from han_core.finetune.loop import repeatable
from han_core.finetune.sgd import SGDSchedule
from han_core.nets.clip_inputs import ClipFrames, FlowClips, FrameClips, read_clip_frames
from han_core.nets.extract import CubeNet
from han_core.nets.preprocess import SIZE
from han_core.nets.vgg16 import VGG16
from pipeline.execution.threaded import ThreadedProcesses

PRECISIONS = ("float32", "tf32", "bfloat16")
STREAMS = ("spatial", "temporal")
SECTIONS = ("cubes", "finetune", "layouts")
FRAMES = 25
"""T of a clip's cube."""


@click.command(help=__doc__)
@click.option("--section", "sections", multiple=True, type=click.Choice(SECTIONS), help="Only this.")
@click.option("--device", default="cuda", show_default=True)
@click.option(
    "--precision", "precisions", multiple=True, type=click.Choice(PRECISIONS), help="Repeat; bfloat16, float32."
)
@click.option("--seconds", default=2.0, show_default=True, help="Of each measurement of cubes.")
@click.option(
    "--clips-in-work",
    "hands",
    default=max(3, min(16, cores())),
    show_default="cores, up to 16",
    help="And threads that read.",
)
@click.option("--processes", type=int, help="For cubes; default one for four clips in work, up to four.")
@click.option("--clips", "count", default=4, show_default=True, help="Different clips.")
@click.option("--length", default=180, show_default=True, help="Frames of a clip.")
@click.option("--batch", default=256, show_default=True, help="Of fine-tuning.")
@click.option("--micro-batch", default=64, show_default=True)
@click.option("--iterations", default=2, show_default=True, help="Of fine-tuning, in a turn.")
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
    hands: int,
    processes: int | None,
    count: int,
    length: int,
    batch: int,
    micro_batch: int,
    iterations: int,
    out: Path,
) -> None:
    where = torch.device(device)
    wanted = list(dict.fromkeys(resolve_precision(one, where) for one in precisions or ("bfloat16", "float32")))
    results = json.loads(out.read_text()) if out.exists() else {}
    processes = processes or min(4, -(-hands // 4))
    results |= {"machine": machine(device), "clips_in_work": hands, "processes": processes}

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
        for stream in STREAMS if "cubes" in (sections or SECTIONS) else ():
            job = CubesJob(stream, Path(folder), count, length, tuple(wanted), device)
            threads = -(-hands // processes)
            with ThreadedProcesses(processes, threads, initializer=start, initargs=(job,)) as pool:
                at_work = AtWork(pool, processes * threads, seconds)
                note("cubes", f"{stream}, reading", lambda work=at_work: {"clips_s": round(work.rate(reading), 2)})
                for precision in wanted:
                    note("cubes", f"{stream}, {precision}", partial(cubes, job, precision, at_work))
        for precision in wanted if "layouts" in (sections or SECTIONS) else ():
            note("layouts", precision, partial(layouts, precision, where, micro_batch))
        for stream in STREAMS if "finetune" in (sections or SECTIONS) else ():
            for precision in wanted:
                schedule = SGDSchedule(
                    iterations=0,
                    batch=batch,
                    micro_batch=micro_batch,
                    views=Augmentation(SCALES[stream]),
                    precision=precision,
                )
                measure = partial(finetune, stream, clips[stream], schedule, where, hands, iterations)
                note("finetune", f"{stream}, {precision}", measure)


def made(stream: str, folder: Path, count: int, length: int) -> list[Path]:
    """Clips whose images cost about what those of video cost: smooth noise, 29 KB a frame, 5 KB a field. Always the
    same; files that are there are not made again."""
    random = np.random.default_rng(0)
    paths = [folder / stream / f"class{number}" / f"clip{number}.h5" for number in range(count)]
    names, colours = (("frames",), 3) if stream == "spatial" else (("x", "y"), 1)
    zoom, lowest, highest = (8, 0, 256) if stream == "spatial" else (16, 118, 138)
    sides = 256 // zoom, -(-(340 + 4 * length) // zoom)
    for path in paths:
        if path.exists():
            continue
        path.parent.mkdir(parents=True)
        kind = "frames" if stream == "spatial" else "flow"
        with ClipFileWriter(path, kind=kind, clip=path.stem, fingerprint="0" * 64) as file:
            for name in names:
                large = random.integers(lowest, highest, (*sides, colours), np.uint8)
                large = cv2.resize(large, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_CUBIC)
                row = file.images(name)
                for at in range(0, 4 * length, 4):
                    seen = np.ascontiguousarray(large[:, at : at + 340])
                    row.append(cv2.imencode(".jpg", seen, [cv2.IMWRITE_JPEG_QUALITY, 90])[1])
    return paths


def make_net(stream: str) -> VGG16:
    torch.manual_seed(0)
    return VGG16(classes=CLASSES, in_channels=3 if stream == "spatial" else 2 * STACK)


@dataclass(frozen=True)
class CubesJob:
    """What a process needs to know."""

    stream: str
    folder: Path
    count: int
    length: int
    precisions: tuple[str, ...]
    device: str

    def open(self) -> "Station":
        clips = made(self.stream, self.folder, self.count, self.length)
        nets = {
            precision: CubeNet(make_net(self.stream), "caffe", batch=FRAMES, precision=precision, device=self.device)
            for precision in self.precisions
        }
        return Station(clips, STACK if self.stream == "temporal" else 0, nets, Path(tempfile.mkdtemp()))


@dataclass
class Station:
    """A process's nets and clips; what is done with the clip of a number."""

    clips: list[Path]
    stack: int
    nets: dict[str, CubeNet]
    folder: Path

    def read(self, number: int, net: CubeNet) -> ClipFrames:
        path = self.clips[number % len(self.clips)]
        return read_clip_frames(path, FRAMES, stack=self.stack, memory=net.memory)

    def pack(self, number: int, values: Mapping[str, np.ndarray], net: CubeNet) -> None:
        """A cube file, written and deleted."""
        layer, fc = net.layers
        path, frames = self.folder / f"{number}.h5", np.arange(len(values[fc]), dtype=np.int32)
        facts = {"clip": "c", "fingerprint": "0" * 64, "layer": layer, "fc": fc, "attributes": {}}
        write_cubes(path, frames=frames, values=values, **facts)
        path.unlink()


_station: Station | None = None


def start(job: CubesJob) -> None:
    """What each process does first."""
    global _station
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    _station = job.open()


def whole(precision: str, number: int) -> None:
    net = _station.nets[precision]
    _station.pack(number, net.compute(_station.read(number, net)), net)


def reading(number: int) -> None:
    _station.read(number, next(iter(_station.nets.values())))


@dataclass(frozen=True)
class AtWork:
    """The processes that stage cubes would have, and for how many seconds each measurement is to take."""

    pool: ThreadedProcesses
    hands: int
    seconds: float

    def rate(self, work: Callable[[int], None]) -> float:
        """Clips a second, by all of them."""

        def do(count: int) -> None:
            for future in [self.pool.submit(work, number) for number in range(count)]:
                future.result()

        return rate(do, self.seconds, self.hands)


def cubes(job: CubesJob, precision: str, at_work: AtWork) -> dict:
    """The net alone in this process, then everything in worker processes, as stage cubes has them."""
    device = torch.device(job.device)
    station = replace(job, precisions=(precision,)).open()
    with station.nets[precision] as net:
        ready = [net._input(station.read(number, net), slice(None)) for number in range(len(station.clips))]
        zeros = float(np.mean(net.compute(station.read(0, net))[net.layers[0]] == 0))

        def alone(count: int) -> None:
            with torch.inference_mode(), arithmetic(precision):
                for number in range(count):
                    net._net.extract(ready[number % len(ready)], net.layers)
            if device.type == "cuda":
                torch.cuda.synchronize(device)

        bare = rate(alone, at_work.seconds)
    stage = at_work.rate(partial(whole, precision))
    return {
        "bare_clips_s": round(bare, 2),
        "stage_clips_s": round(stage, 2),
        "stage_over_bare": round(stage / bare, 3),
        "zeros_of_the_cube": round(zeros, 3),
    }


def layouts(precision: str, device: torch.device, images: int) -> dict:
    """Milliseconds of a pass of so many images, and of its gradients, through the convolutions alone."""
    found = {}
    for name, layout in (("channels_last", torch.channels_last), ("channels_first", torch.contiguous_format)):
        net = torch.nn.Sequential(*make_net("spatial").features).to(device).to(memory_format=layout)
        pixels = torch.randn(images, 3, SIZE, SIZE, device=device).contiguous(memory_format=layout)

        def once(count: int, net: torch.nn.Module = net, pixels: torch.Tensor = pixels) -> None:
            for _ in range(count):
                with autocast(precision, device):
                    net(pixels).float().sum().backward()
            if device.type == "cuda":
                torch.cuda.synchronize(device)

        with repeatable(device), arithmetic(precision):
            found[f"{name}_ms"] = round(1000 / rate(once, 0 if device.type == "cpu" else 1.0), 3)
    return found


def rate(work: Callable[[int], None], seconds: float, least: int = 1) -> float:
    """Pieces of work a second, of a run of about so many seconds."""
    work(least)  # warms up
    began = time.perf_counter()
    work(2 * least)
    count = max(2 * least, int(seconds / (time.perf_counter() - began) * 2 * least))
    began = time.perf_counter()
    work(count)
    return count / (time.perf_counter() - began)


def finetune(
    stream: str, clips: list[Path], schedule: SGDSchedule, device: torch.device, readers: int, iterations: int
) -> dict:
    labels = [number % CLASSES for number in range(len(clips))]
    source = FrameClips(clips, labels) if stream == "spatial" else FlowClips(clips, labels, STACK)
    with repeatable(device), arithmetic(schedule.precision):
        found = turns(stream, source, schedule, device, 4096, readers, iterations, 3, net=make_net(stream))
        return found | {"reading_images_per_second": loader(source, schedule, device, readers, iterations)}


if __name__ == "__main__":
    main()
