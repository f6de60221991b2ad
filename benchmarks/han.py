"""Measure HAN's training at the paper's size. Writes benchmarks/han.json.

\b
    python benchmarks/han.py                              on a CPU, about four minutes
    python benchmarks/han.py --device cuda --peer         on a GPU: an epoch of UCF-101, split 1

The features are made up, with the sparsity of real ones (94.6 % zeros in spatial cubes, 85 % in temporal ones). On a
CPU a step is compared with the matrix products that it must do, of the same shapes and number, in turns in the same
run; and with the plain loop of `han_core/han/model.py` under automatic differentiation. ``--epoch`` measures an epoch
of 9,537 clips from the sparse form in memory or on the GPU; ``--peer`` an eager loop that a DataLoader feeds from
gzip-ed HDF5, over a part of the clips, and scales it up.
"""

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
import h5py
import numpy as np
import torch
from machine import machine
from torch.nn.functional import cross_entropy

from han_core.cubes.sparse import SparseCubes
from han_core.cubes.store import MemoryFeatures
from han_core.han.config import HANConfig
from han_core.han.model import HAN
from han_core.han.training import TrainingSchedule, make_optimizer, train
from han_core.runs.processes import Processes

BATCH, FRAMES, CHANNELS, REGIONS, SIZE, SKIP, CLASSES = 128, 25, 512, 196, 1024, 5, 101
CLIPS = 9_537
ZEROS = {"spatial": 0.946, "temporal": 0.85}
DISTINCT = 32  # clips that are made; a set of more repeats them


@click.command(help=__doc__)
@click.option("--device", default="cpu", show_default=True)
@click.option("--precision", type=click.Choice(["float32", "bfloat16"]), default="float32", show_default=True)
@click.option("--threads", type=int, help="Of torch; all cores by default.")
@click.option("--rounds", default=5, show_default=True)
@click.option("--epoch/--no-epoch", default=None, help="Measure a whole epoch; default on a GPU only.")
@click.option("--peer", is_flag=True, help="Measure the eager loop behind a DataLoader too.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path(__file__).with_suffix(".json"),
    show_default=True,
)
def main(
    device: str, precision: str, threads: int | None, rounds: int, epoch: bool | None, peer: bool, out: Path
) -> None:
    if threads:
        torch.set_num_threads(threads)
    where = torch.device(device)
    results = json.loads(out.read_text()) if out.exists() else {}
    found: dict = {"machine": machine(device), "threads": torch.get_num_threads()}
    found["step"] = steps(where, precision, rounds)
    click.echo(json.dumps(found, indent=1))
    if epoch if epoch is not None else where.type == "cuda":
        found["epoch"] = whole_epoch(where, precision)
        click.echo(json.dumps(found["epoch"], indent=1))
    if peer:
        found["peer"] = peer_epoch(where)
        if "epoch" in found:
            found["peer"]["ratio"] = found["peer"]["epoch_seconds"] / found["epoch"]["epoch_seconds"]
        click.echo(json.dumps(found["peer"], indent=1))
    results[f"{device} {precision}"] = found
    out.write_text(json.dumps(results, indent=1) + "\n")


def features(clips: int, device: torch.device) -> MemoryFeatures:
    """A set of ``clips`` in sparse form."""
    rng = np.random.default_rng(0)
    arrays = {}
    for stream, zeros in ZEROS.items():
        dense = rng.random((DISTINCT, FRAMES, CHANNELS, REGIONS), np.float32)
        dense[rng.random(dense.shape, np.float32) < zeros] = 0
        few = SparseCubes.from_dense(torch.from_numpy(dense.astype(np.float16)))
        times = -(-clips // DISTINCT)
        starts = few.starts.repeat(times, 1)
        starts += (torch.arange(times) * len(few.values)).repeat_interleave(DISTINCT).unsqueeze(1)
        arrays[stream] = SparseCubes(
            few.counts.repeat(times, 1, 1), few.columns.repeat(times), few.values.repeat(times),
            starts, torch.arange(clips), REGIONS,
        ).to(device)  # fmt: skip
    return MemoryFeatures(arrays, torch.arange(clips) % CLASSES)


def model(device: torch.device, precision: str) -> HAN:
    torch.manual_seed(0)
    made = HAN(HANConfig(("spatial", "temporal"), CLASSES, CHANNELS, REGIONS, lstm_size=SIZE, skip=SKIP)).to(device)
    made.product_type = None if precision == "float32" else getattr(torch, precision)
    return made.train()


def timed(work: Callable[[], object], device: torch.device) -> float:
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def steps(device: torch.device, precision: str, rounds: int) -> dict:
    """One training step: fast path, plain loop, and its matrix products alone, in turns."""
    han = model(device, precision)
    optimizer = make_optimizer(han, TrainingSchedule())
    data = features(BATCH, device)
    labels = data.labels.to(device)

    def step(fast: bool) -> None:
        optimizer.zero_grad(set_to_none=True)
        values = data.batch(range(BATCH))
        cross_entropy(han(values, fast=fast).logits, labels).backward()
        optimizer.step()

    kinds: dict[str, Callable[[], object]] = {
        "fast": lambda: step(True),
        "products": products(device, precision),
        "plain": lambda: step(False),
    }
    seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
    for number in range(rounds + 1):
        for kind, work in kinds.items():
            if kind == "plain" and number > 2:  # four times as long, and only a side figure
                continue
            spent = timed(work, device)
            if number:
                seconds[kind].append(spent)
    ratios = [fast / alone for fast, alone in zip(seconds["fast"], seconds["products"], strict=True)]
    return {
        "fast_seconds": statistics.median(seconds["fast"]),
        "matrix_products_seconds": statistics.median(seconds["products"]),
        "ratio": statistics.median(ratios),
        "ratio_of_the_fastest": min(seconds["fast"]) / min(seconds["products"]),
        "plain_over_fast": min(seconds["plain"]) / min(seconds["fast"]),
        "clips_s": BATCH / statistics.median(seconds["fast"]),
    }


def products(device: torch.device, precision: str) -> Callable[[], None]:
    """The products with weight matrices that a step must do, forward and backward, and nothing else.

    The attention's reading of the cubes is not among them: the fast path does it on sparse rows.
    """
    dtype = getattr(torch, precision)
    new = lambda *shape: torch.randn(*shape, device=device, dtype=dtype)  # noqa: E731
    inputs, state, gates = new(BATCH, CHANNELS + SIZE), new(BATCH, SIZE), new(BATCH, 4 * SIZE)
    first, upper = new(4 * SIZE, CHANNELS + SIZE), new(4 * SIZE, SIZE)
    joint, scores, attention = new(BATCH, 2 * SIZE), new(BATCH, REGIONS), new(REGIONS, 2 * SIZE)
    all_inputs, all_gates = new(FRAMES * BATCH, CHANNELS + SIZE), new(FRAMES * BATCH, 4 * SIZE)
    all_scores, all_joint = new(FRAMES * BATCH, REGIONS), new(FRAMES * BATCH, 2 * SIZE)
    slow = FRAMES // SKIP
    slow_states, slow_gates = new(slow * BATCH, SIZE), new(slow * BATCH, 4 * SIZE)
    summary, logits, classifier = new(BATCH, 4 * SIZE), new(BATCH, CLASSES), new(CLASSES, 4 * SIZE)

    def work() -> None:
        for _ in range(FRAMES):
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


def whole_epoch(device: torch.device, precision: str) -> dict:
    """Seconds of an epoch over UCF-101 split 1's training clips, from the sparse form."""
    data = features(CLIPS, device)
    paces: list[float] = []
    schedule = TrainingSchedule(epochs=3, batch=BATCH, standardize=False)

    def on_epoch(epoch: object, pace: object) -> None:
        paces.append(CLIPS / pace.clips_per_second)

    train(model(device, precision), data, schedule, processes=Processes(device=device), on_epoch=on_epoch)
    size = sum(values.bytes for values in data.arrays.values())
    return {"clips": CLIPS, "epoch_seconds": min(paces[1:]), "first_epoch_seconds": paces[0], "gigabytes": size / 1e9}


class GzipClips(torch.utils.data.Dataset):
    """How such features are usually read: dense float16, gzip-4 and shuffle, one file, h5py in DataLoader workers."""

    def __init__(self, path: Path, clips: int) -> None:
        self.path, self.clips = path, clips
        self._file: h5py.File | None = None

    def __len__(self) -> int:
        return self.clips

    def __getitem__(self, index: int) -> tuple[dict[str, np.ndarray], int]:
        if self._file is None:
            self._file = h5py.File(self.path)
        return {stream: self._file[f"{stream}/{index % DISTINCT}"][()] for stream in ZEROS}, index % CLASSES


def peer_epoch(device: torch.device, clips: int = 512) -> dict:
    """The usual loop, over some clips: the plain model, a DataLoader with a worker a core, dense batches."""
    han = model(device, "float32")
    optimizer = make_optimizer(han, TrainingSchedule())
    dense = {s: v.dense(torch.float16).numpy() for s, v in features(DISTINCT, torch.device("cpu")).arrays.items()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cubes.h5"
        with h5py.File(path, "w") as file:
            for stream, cubes in dense.items():
                for number, cube in enumerate(cubes):
                    name = f"{stream}/{number}"
                    file.create_dataset(name, data=cube, chunks=cube.shape, compression=4, shuffle=True)
        workers = len(os.sched_getaffinity(0))
        loader = torch.utils.data.DataLoader(
            GzipClips(path, clips), BATCH, shuffle=True, num_workers=workers, multiprocessing_context="spawn",
            persistent_workers=True,
        )  # fmt: skip
        seconds = []
        for _ in range(2):  # the first starts the workers

            def epoch() -> None:
                for cubes, labels in loader:
                    optimizer.zero_grad(set_to_none=True)
                    values = {stream: cube.to(device) for stream, cube in cubes.items()}
                    cross_entropy(han(values, fast=False).logits, labels.to(device)).backward()
                    optimizer.step()

            seconds.append(timed(epoch, device))
    return {"clips_measured": clips, "epoch_seconds": seconds[-1] * CLIPS / clips, "workers": workers}


if __name__ == "__main__":
    main()
