"""Measure HAN's training at the paper's size. Writes benchmarks/han.json.

\b
    python benchmarks/han.py                              on a CPU, about four minutes
    python benchmarks/han.py --device cuda --peer         on a GPU, one to two minutes: an epoch of UCF-101, split 1
    python benchmarks/han.py --tiny --epoch --peer        all of it in seconds, to see that it runs

The features are made up, with the sparsity of real ones (94.6 % zeros in spatial cubes, 85 % in temporal ones). A step
is compared with the matrix products that it must do, of the same shapes and number, in turns in the same run; and with
the plain loop of `han_core/han/model.py` under automatic differentiation. On a GPU a step is measured captured as a
CUDA graph, and launched one by one. ``--epoch`` measures an epoch of 9,537 clips: from the GPU with transposed copies
and without, and, over a part of them, from the memory of the host. ``--peer`` measures an eager loop that a DataLoader
feeds from gzip-ed HDF5, over a part of the clips, and scales it up.

It needs torch, triton, numpy, numba, h5py, click and tqdm, and nothing else of what the project installs.
"""

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import click
import h5py
import numpy as np
import torch
from torch.nn.functional import cross_entropy

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[1])]

from machine import machine  # noqa: E402

from han_core.cubes.features import MemoryFeatures  # noqa: E402
from han_core.cubes.sparse import SparseCubes  # noqa: E402
from han_core.cubes.sparse_torch import numbers  # noqa: E402
from han_core.han.captured import CudaGraphs, StepsOnDevice  # noqa: E402
from han_core.han.config import HANConfig  # noqa: E402
from han_core.han.model import HAN  # noqa: E402
from han_core.han.steps import Steps  # noqa: E402
from han_core.han.training import TrainingSchedule, make_optimizer, train  # noqa: E402
from han_core.runs.processes import Processes  # noqa: E402

ZEROS = {"spatial": 0.946, "temporal": 0.85}


@dataclass(frozen=True)
class Size:
    """Of the model and its training set, symbols as in han_core/han/model.py."""

    clips: int = 9_537
    batch: int = 128
    frames: int = 25
    channels: int = 512
    regions: int = 196
    lstm: int = 1024
    skip: int = 5
    classes: int = 101
    distinct: int = 32
    """Clips that are made; a set of more repeats them."""
    part: int = 512
    """Clips of those measurements that are scaled up."""


TINY = Size(clips=20, batch=8, frames=4, channels=6, regions=9, lstm=8, skip=2, classes=5, distinct=5, part=16)


@click.command(help=__doc__)
@click.option("--device", default="cpu", show_default=True)
@click.option("--precision", type=click.Choice(["float32", "bfloat16"]), default="float32", show_default=True)
@click.option("--threads", type=int, help="Of torch; all cores by default.")
@click.option("--rounds", default=5, show_default=True)
@click.option("--epoch/--no-epoch", default=None, help="Measure a whole epoch; default on a GPU only.")
@click.option("--peer", is_flag=True, help="Measure the eager loop behind a DataLoader too.")
@click.option("--clips", type=int, help="Of the training set; 9,537 by default.")
@click.option("--tiny", is_flag=True, help="Everything as small as can be.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path(__file__).with_suffix(".json"),
    show_default=True,
)
def main(
    device: str,
    precision: str,
    threads: int | None,
    rounds: int,
    epoch: bool | None,
    peer: bool,
    clips: int | None,
    tiny: bool,
    out: Path,
) -> None:
    if threads:
        torch.set_num_threads(threads)
    size = TINY if tiny else Size()
    size = replace(size, clips=clips) if clips else size
    where = torch.device(device)
    results = json.loads(out.read_text()) if out.exists() else {}
    found: dict = {"machine": machine(device), "threads": torch.get_num_threads()}

    def note(name: str, figures: dict) -> None:
        found[name] = figures
        click.echo(json.dumps({name: figures}, indent=1))
        results[f"{device} {precision}"] = found
        out.write_text(json.dumps(results, indent=1) + "\n")  # at once: what follows may fail, or be cut off

    note("step", steps(where, precision, rounds, size))
    if epoch if epoch is not None else where.type == "cuda":
        note("epoch", epochs(where, precision, size))
    if peer:
        figures = peer_epoch(where, size)
        if "epoch" in found:
            figures["ratio"] = figures["epoch_seconds"] / found["epoch"]["epoch_seconds"]
        note("peer", figures)


def features(clips: int, device: torch.device, size: Size, *, across: bool = False) -> MemoryFeatures:
    """A set of ``clips`` in sparse form: few, made on the CPU, and repeated where they are wanted."""
    arrays = {}
    for stream in ZEROS:
        few = distinct(stream, size).to(device)
        times = -(-clips // size.distinct)
        arrays[stream] = repeated(few, times, clips)
        if across:
            columns = repeated(few.with_across().across, times, clips)
            arrays[stream] = replace(arrays[stream], across=columns)
    return MemoryFeatures(arrays, torch.arange(clips) % size.classes)


@cache
def distinct(stream: str, size: Size) -> SparseCubes:
    rng = np.random.default_rng(list(ZEROS).index(stream))
    dense = rng.random((size.distinct, size.frames, size.channels, size.regions), np.float32)
    dense[rng.random(dense.shape, np.float32) < ZEROS[stream]] = 0
    return SparseCubes.from_dense(torch.from_numpy(dense.astype(np.float16)))


def repeated(few: SparseCubes, times: int, clips: int) -> SparseCubes:
    again = lambda tensor, *shape: numbers(tensor).repeat(*shape).view(tensor.dtype)  # noqa: E731
    starts = few.starts.repeat(times, 1)
    order = torch.arange(times, device=few.device) * len(few.values)
    starts += order.repeat_interleave(len(few.counts)).unsqueeze(1)
    return SparseCubes(
        again(few.counts, times, 1, 1), again(few.columns, times), again(few.values, times),
        starts, torch.arange(clips, device=few.device), few.regions,
    )  # fmt: skip


def model(device: torch.device, precision: str, size: Size) -> HAN:
    torch.manual_seed(0)
    config = HANConfig(tuple(ZEROS), size.classes, size.channels, size.regions, lstm_size=size.lstm, skip=size.skip)
    made = HAN(config).to(device)
    made.product_type = None if precision == "float32" else getattr(torch, precision)
    return made.train()


def timed(work: Callable[[], object], device: torch.device, repeats: int = 1) -> float:
    """Seconds of one."""
    start = time.perf_counter()
    for _ in range(repeats):
        work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (time.perf_counter() - start) / repeats


def steps(device: torch.device, precision: str, rounds: int, size: Size) -> dict:
    """One training step: fast path, plain loop, and its matrix products alone, in turns."""
    han = model(device, precision, size)
    schedule = TrainingSchedule(batch=size.batch)
    optimizer = make_optimizer(han, schedule)
    data = features(size.batch, device, size, across=device.type == "cuda")
    numbers = torch.arange(size.batch, device=device)
    labels = data.labels.to(device)
    taken = Steps(han, optimizer, schedule, Processes(device=device))

    def plain() -> None:
        optimizer.zero_grad(set_to_none=True)
        cross_entropy(han(data.batch(numbers), fast=False).logits, labels).backward()
        optimizer.step()

    launched = StepsOnDevice(taken, data, None)
    kinds: dict[str, Callable[[], object]] = {
        "fast": lambda: launched.take(numbers, None, size.batch),
        "products": products(device, precision, size),
        "plain": plain,
    }
    if device.type == "cuda":
        captured = StepsOnDevice(taken, data, CudaGraphs(device))
        for _ in range(2):
            captured.take(numbers, None, size.batch)
        kinds["captured"] = lambda: captured.take(numbers, None, size.batch)
    seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
    repeats = 10 if device.type == "cuda" else 1  # of those that are asked for in a row
    for number in range(rounds + 1):
        for kind, work in kinds.items():
            if kind == "plain" and number > 2:  # four times as long, and only a side figure
                continue
            spent = timed(work, device, 1 if kind == "plain" else repeats)
            if number:
                seconds[kind].append(spent)
    best = "captured" if "captured" in kinds else "fast"
    ratios = [ours / alone for ours, alone in zip(seconds[best], seconds["products"], strict=True)]
    return {
        **{f"{kind}_seconds": statistics.median(seconds[kind]) for kind in ("fast", "captured") if kind in kinds},
        "matrix_products_seconds": statistics.median(seconds["products"]),
        "ratio": statistics.median(ratios),
        "ratio_of_the_fastest": min(seconds[best]) / min(seconds["products"]),
        "plain_over_fast": min(seconds["plain"]) / min(seconds[best]),
        "clips_s": size.batch / statistics.median(seconds[best]),
    }


def products(device: torch.device, precision: str, size: Size) -> Callable[[], None]:
    """The products with weight matrices that a step must do, forward and backward, and nothing else.

    The attention's reading of the cubes is not among them: the fast path does it on sparse rows.
    """
    dtype = getattr(torch, precision)
    new = lambda *shape: torch.randn(*shape, device=device, dtype=dtype)  # noqa: E731
    batch, frames, channels, units, regions = size.batch, size.frames, size.channels, size.lstm, size.regions
    inputs, state, gates = new(batch, channels + units), new(batch, units), new(batch, 4 * units)
    first, upper = new(4 * units, channels + units), new(4 * units, units)
    joint, scores, attention = new(batch, 2 * units), new(batch, regions), new(regions, 2 * units)
    all_inputs, all_gates = new(frames * batch, channels + units), new(frames * batch, 4 * units)
    all_scores, all_joint = new(frames * batch, regions), new(frames * batch, 2 * units)
    slow = frames // size.skip
    slow_states, slow_gates = new(slow * batch, units), new(slow * batch, 4 * units)
    summary, logits, classifier = new(batch, 4 * units), new(batch, size.classes), new(size.classes, 4 * units)

    def work() -> None:
        for _ in range(frames):
            torch.mm(joint, attention.t())
            torch.mm(scores, attention)
            for _ in range(2):
                torch.mm(inputs, first.t())
                torch.mm(gates, first)
        torch.mm(all_scores.t(), all_joint)
        for _ in range(2):
            torch.mm(all_gates.t(), all_inputs)
            torch.mm(slow_states, upper.t())
            for _ in range(slow):
                torch.mm(state, upper.t())
                torch.mm(gates, upper)
            torch.mm(slow_gates, upper)
            for _ in range(2):
                torch.mm(slow_gates.t(), slow_states)
        torch.mm(summary, classifier.t())
        torch.mm(logits, classifier)
        torch.mm(logits.t(), summary)

    return work


def epochs(device: torch.device, precision: str, size: Size) -> dict:
    """Seconds of an epoch over UCF-101 split 1's training clips, from where the features may be."""
    gpu = device.type == "cuda"
    data = features(size.clips, device, size, across=gpu)
    found: dict = {"clips": size.clips, "gigabytes": sum(values.bytes for values in data.arrays.values()) / 1e9}
    if gpu:
        found["gigabytes_across"] = sum(values.across.bytes for values in data.arrays.values()) / 1e9
    found["epoch_seconds"], found["first_epoch_seconds"], _ = whole_epoch(device, precision, size, data)
    if not gpu:
        return found
    alone = {stream: replace(values, across=None) for stream, values in data.arrays.items()}
    data = MemoryFeatures(alone, data.labels)
    found["without_transposed_copies_seconds"], _, _ = whole_epoch(device, precision, size, data)
    found["peak_gigabytes"] = torch.cuda.max_memory_allocated(device) / 1e9
    del data, alone
    torch.cuda.empty_cache()
    part = features(2 * size.part, torch.device("cpu"), size)
    seconds, _, waiting = whole_epoch(device, precision, size, part)
    found["from_memory"] = {
        "clips_measured": len(part.labels),
        "epoch_seconds": seconds * size.clips / len(part.labels),
        "waiting": waiting,
    }
    return found


def whole_epoch(device: torch.device, precision: str, size: Size, data: MemoryFeatures) -> tuple[float, float, float]:
    """Seconds of an epoch, seconds of the first, which compiles and captures, and the share waited for data."""
    paces: list = []
    schedule = TrainingSchedule(epochs=4, batch=size.batch, standardize=False)
    note = lambda epoch, pace: paces.append((len(data.labels) / pace.clips_per_second, pace.waiting))  # noqa: E731
    train(model(device, precision, size), data, schedule, processes=Processes(device=device), on_epoch=note)
    seconds, waiting = min(paces[2:])  # in the second the last, smaller batch is captured
    return seconds, paces[0][0], waiting


class GzipClips(torch.utils.data.Dataset):
    """How such features are usually read: dense float16, gzip-4 and shuffle, one file, h5py in DataLoader workers."""

    def __init__(self, path: Path, size: Size) -> None:
        self.path, self.size = path, size
        self._file: h5py.File | None = None

    def __len__(self) -> int:
        return self.size.part

    def __getitem__(self, index: int) -> tuple[dict[str, np.ndarray], int]:
        if self._file is None:
            self._file = h5py.File(self.path)
        cubes = {stream: self._file[f"{stream}/{index % self.size.distinct}"][()] for stream in ZEROS}
        return cubes, index % self.size.classes


def peer_epoch(device: torch.device, size: Size) -> dict:
    """The usual loop, over some clips: the plain model, a DataLoader with a worker a core, dense batches."""
    han = model(device, "float32", size)
    optimizer = make_optimizer(han, TrainingSchedule())
    made = features(size.distinct, torch.device("cpu"), size)
    dense = {stream: values.dense(torch.float16).numpy() for stream, values in made.arrays.items()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cubes.h5"
        with h5py.File(path, "w") as file:
            for stream, cubes in dense.items():
                for number, cube in enumerate(cubes):
                    name = f"{stream}/{number}"
                    file.create_dataset(name, data=cube, chunks=cube.shape, compression=4, shuffle=True)
        workers = len(os.sched_getaffinity(0))
        loader = torch.utils.data.DataLoader(
            GzipClips(path, size), size.batch, shuffle=True, num_workers=workers, multiprocessing_context="spawn",
            persistent_workers=True, pin_memory=device.type == "cuda",
        )  # fmt: skip
        seconds = []
        for _ in range(2):  # the first starts the workers

            def epoch() -> None:
                for cubes, labels in loader:
                    optimizer.zero_grad(set_to_none=True)
                    values = {stream: cube.to(device, non_blocking=True) for stream, cube in cubes.items()}
                    labels = labels.to(device, non_blocking=True)
                    cross_entropy(han(values, fast=False).logits, labels).backward()
                    optimizer.step()

            seconds.append(timed(epoch, device))
    return {"clips_measured": size.part, "epoch_seconds": seconds[-1] * size.clips / size.part, "workers": workers}


if __name__ == "__main__":
    main()
