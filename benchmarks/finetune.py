"""Measure fine-tuning: images per second of the step, of the loader, of both together. Writes benchmarks/finetune.json.

\b
    python benchmarks/finetune.py --frames FOLDER --flow FOLDER                  on a CPU, about fifteen minutes
    python benchmarks/finetune.py --frames FOLDER --flow FOLDER --device cuda    on a GPU

The folders hold clip files, as stages decode and flow leave them (data/<dataset>/frames, data/<dataset>/flow). The
step runs in turns on batches that lie in memory and on samples that are read from the files, so that what else the
machine does falls on both; `ratio` is files over memory. `sample` is what one sample costs a processor core before it
is augmented, and of that what its parts cost, in milliseconds. Sections measured before stay in the file.
"""

import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count, islice
from pathlib import Path

import click
import cv2
import numpy as np
import torch
from machine import machine

from han_core.devices import arithmetic, resolve_precision
from han_core.finetune.augment import Augmentation
from han_core.finetune.batches import Batch, StillImages, batches
from han_core.finetune.samples import draw_sample, training_samples
from han_core.finetune.sgd import SGDSchedule, make_optimizer, train_step
from han_core.nets.clip_inputs import FlowClips, FrameClips, TrainingClips
from han_core.nets.vgg16 import VGG16
from han_core.nets.weights import initial_net
from han_core.runs.processes import Processes

CLASSES = 101
STACK = 10
READ_AHEAD = 2
"""Batches of a step that are read, and waiting, before the step asks for them, at most."""
SCALES = {"spatial": (1.0, 0.875, 0.75, 0.66), "temporal": (1.0, 0.875, 0.75)}


@click.command(help=__doc__)
@click.option("--frames", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Clip files of frames.")
@click.option("--flow", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Clip files of flow.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option(
    "--precision", "precisions", multiple=True, help="Repeat for more; default float32, and auto if it differs."
)
@click.option(
    "--frozen", "frozen", multiple=True, default=("none", "conv4_3"), show_default=True, help="Last frozen layer."
)
@click.option("--batch", type=int, help="Images of an iteration; default 16 on a CPU, 256 on a GPU.")
@click.option("--micro-batch", type=int, help="Images at once; default 8 on a CPU, 64 on a GPU.")
@click.option("--iterations", default=2, show_default=True, help="Of a turn.")
@click.option("--rounds", default=3, show_default=True, help="Turns of each kind.")
@click.option("--loader-only", is_flag=True, help="Measure no step.")
@click.option("--fc-size", default=4096, show_default=True)
@click.option("--readers", default=len(os.sched_getaffinity(0)), show_default="cores", help="Threads that read.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path(__file__).with_suffix(".json"),
    show_default=True,
)
def main(
    frames: Path | None,
    flow: Path | None,
    device: str,
    precisions: tuple[str, ...],
    frozen: tuple[str, ...],
    batch: int | None,
    micro_batch: int | None,
    iterations: int,
    rounds: int,
    loader_only: bool,
    fc_size: int,
    readers: int,
    out: Path,
) -> None:
    where = torch.device(device)
    batch, micro_batch = batch or (256 if device == "cuda" else 16), micro_batch or (64 if device == "cuda" else 8)
    chosen = precisions or dict.fromkeys(("float32", resolve_precision("auto", where)))
    results = json.loads(out.read_text()) if out.exists() else {}
    section = results.setdefault(device, {})
    section["machine"] = machine(device)
    section["settings"] = {
        "batch": batch, "micro_batch": micro_batch, "iterations": iterations, "rounds": rounds,
        "fc_size": fc_size, "readers": readers, "threads": torch.get_num_threads(), "stack": STACK,
    }  # fmt: skip
    for stream, folder in (("spatial", frames), ("temporal", flow)):
        if folder is None:
            continue
        clips = clip_source(stream, folder)
        schedule = SGDSchedule(iterations=0, batch=batch, micro_batch=micro_batch, views=Augmentation(SCALES[stream]))
        measured = section.setdefault(stream, {}) | {"clips": len(clips.labels)}
        section[stream] = measured
        measured["sample"] = sample_cost(clips, schedule)
        measured["loader_images_per_second"] = loader(clips, schedule, where, readers, rounds * iterations)
        click.echo(f"{stream}: {json.dumps(measured)}")
        out.write_text(json.dumps(results, indent=1) + "\n")
        for precision in () if loader_only else chosen:
            for last in frozen:
                name = f"{precision}, " + ("all layers" if last == "none" else f"frozen up to {last}")
                options = {"precision": precision, "frozen": None if last == "none" else last}
                one = SGDSchedule(**vars(schedule) | options)
                with arithmetic(precision):
                    measured[name] = turns(stream, clips, one, where, fc_size, readers, iterations, rounds)
                click.echo(f"{stream}, {name}: {json.dumps(measured[name])}")
                out.write_text(json.dumps(results, indent=1) + "\n")


def clip_source(stream: str, folder: Path) -> TrainingClips:
    """All clip files below a folder, with labels that mean nothing."""
    files = sorted(folder.rglob("*.h5"))
    if not files:
        raise click.ClickException(f"{folder}: holds no clip files (*.h5)")
    labels = [number % CLASSES for number in range(len(files))]
    return FrameClips(files, labels) if stream == "spatial" else FlowClips(files, labels, STACK)


def feed_from_files(
    pool: ThreadPoolExecutor, clips: TrainingClips, schedule: SGDSchedule, device: torch.device
) -> Iterator[Batch]:
    parts = training_samples(
        pool,
        clips,
        schedule.views,
        iterations=count(),
        batch=schedule.batch,
        micro_batch=schedule.micro_batch,
        seed=1,
        readers=pool._max_workers,
    )
    return batches(parts, StillImages(clips.kind, "caffe", schedule.precision), device)


def sample_cost(clips: TrainingClips, schedule: SGDSchedule, samples: int = 200) -> dict[str, float]:
    """Milliseconds of one core for a sample, drawn, read, decoded and cut; for reading alone; for decoding alone."""
    names, grey = (["frames"], False) if clips.kind == "frames" else (["x", "y"], True)
    last = 0 if clips.kind == "frames" else STACK - 1
    paths = [clips.paths[i % len(clips.paths)] for i in range(samples)]
    flag = cv2.IMREAD_GRAYSCALE if grey else cv2.IMREAD_COLOR
    cv2.setNumThreads(1)

    def cost(work: Callable[[int], object]) -> float:
        for number in range(samples):  # the files' indices, and the files, come into memory
            work(number)
        start = time.thread_time()
        for number in range(samples):
            work(number)
        return round(1e3 * (time.thread_time() - start) / samples, 3)

    def read(number: int) -> list[np.ndarray]:
        return [part for name in names for part in clips.reader.encoded(paths[number], name, 0, last)]

    whole = cost(lambda number: draw_sample(clips, schedule.views, schedule.batch, 1, 0, number))
    kept = [read(number) for number in range(samples)]
    decoding = cost(lambda number: [cv2.imdecode(part, flag) for part in kept[number]])
    return {
        "milliseconds": whole,
        "reading": cost(read),
        "decoding": decoding,
        "images": len(kept[0]),
        "bytes_an_image": round(sum(len(part) for parts in kept for part in parts) / len(kept) / len(kept[0])),
    }


def loader(clips: TrainingClips, schedule: SGDSchedule, device: torch.device, readers: int, iterations: int) -> float:
    """Images a second, read, decoded, augmented and on the device, with no net beside it."""
    with ThreadPoolExecutor(readers) as pool:
        feed = feed_from_files(pool, clips, schedule, device)
        each = -(-schedule.batch // schedule.micro_batch)
        first_pass = max(each, len(clips.labels) // schedule.micro_batch)  # in which each file's index is read
        for _ in islice(feed, first_pass):
            wait(device)
        start = time.perf_counter()
        images = sum(len(batch.labels) for batch in islice(feed, max(1, iterations) * each))
        wait(device)
        rate = images / (time.perf_counter() - start)
        feed.close()
    return round(rate, 2)


def turns(
    stream: str,
    clips: TrainingClips,
    schedule: SGDSchedule,
    device: torch.device,
    fc_size: int,
    readers: int,
    iterations: int,
    rounds: int,
    net: VGG16 | None = None,
) -> dict:
    """Images a second of the step on data in memory and on files, in turns."""
    net = net or initial_net(
        "random",
        classes=CLASSES,
        fc_size=fc_size,
        in_channels=3 if stream == "spatial" else 2 * STACK,
        dropout=(0.9, 0.9),
    )
    net.to(device).train()
    net.freeze(schedule.frozen)
    optimizer = make_optimizer(net, schedule)
    scaler = torch.amp.GradScaler(device.type, enabled=schedule.precision == "float16")

    def rate(feed: Iterator[Batch]) -> float:
        start = time.perf_counter()
        for _ in range(iterations):
            # A rate of 0: the arithmetic is the same, and random nets do not diverge.
            train_step(net, optimizer, scaler, feed, schedule, 0.0, 1, Processes(device=device))
        wait(device)
        return iterations * schedule.batch / (time.perf_counter() - start)

    with ThreadPoolExecutor(readers) as pool:
        files = feed_from_files(pool, clips, schedule, device)
        kept = list(islice(files, -(-schedule.batch // schedule.micro_batch)))
        memory = (batch for _ in count() for batch in kept)
        train_step(net, optimizer, scaler, memory, schedule, 0.0, 1, Processes(device=device))  # warms up
        train_step(net, optimizer, scaler, files, schedule, 0.0, 1, Processes(device=device))
        pairs = []
        for _ in range(rounds):
            in_memory = rate(memory)
            # Not timed: what was read ahead meanwhile, a batch and more.
            for _ in range(READ_AHEAD):
                train_step(net, optimizer, scaler, files, schedule, 0.0, 1, Processes(device=device))
            pairs.append((in_memory, rate(files)))
        files.close()
    in_memory, from_files = zip(*pairs, strict=True)
    ratios = [b / a for a, b in pairs]
    return {
        "memory_images_per_second": round(statistics.median(in_memory), 2),
        "files_images_per_second": round(statistics.median(from_files), 2),
        "ratio": round(statistics.median(ratios), 3),
        "ratios": [round(ratio, 3) for ratio in ratios],
    }


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
