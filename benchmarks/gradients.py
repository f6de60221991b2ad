"""What summing gradients of VGG-16 over two processes costs, and what overlap saves. Writes benchmarks/gradients.json.

\b
    python -m benchmarks.gradients          about two minutes on two cores

Two processes on the CPU, joined by gloo, one thread each. Sums: as one flat tensor, and with large gradients where they
lie (han_core/runs/processes.py). Steps, of so many images in micro batches of one: the sum after the last of them, and
DistributedDataParallel, which sums while the last micro batch goes back (``no_sync`` for those before). Ways take
turns, so that what else the machine does meets them alike; the median counts.
"""

import json
import os
import socket
import statistics
import time
from contextlib import nullcontext
from pathlib import Path

import click
import torch
from torch import Tensor, nn
from torchvision.models import vgg16

import han_core.runs.processes as own
from benchmarks.machine import machine

CLASSES = 101


def sums(group: own.Processes, rounds: int) -> dict[str, float]:
    """Seconds of summing gradients that are there."""
    with torch.device("meta"):
        shapes = [value.shape for value in vgg16(num_classes=CLASSES).parameters()]
    values = [nn.Parameter(torch.zeros(shape)) for shape in shapes]
    for value in values:
        value.grad = torch.ones_like(value)
    seconds: dict[str, list[float]] = {"flat": [], "in_place": []}
    in_place = own._LARGE
    for _ in range(rounds):
        for way, large in (("flat", 1 << 60), ("in_place", in_place)):
            own._LARGE = large
            group.barrier()
            began = time.perf_counter()
            group.sum_gradients(values)
            seconds[way].append(time.perf_counter() - began)
    own._LARGE = in_place
    return {way: statistics.median(found) for way, found in seconds.items()}


def steps(group: own.Processes, micro_batches: int, rounds: int) -> dict[str, float]:
    """Seconds of a step without its optimiser, and of the sum that is part of the first way."""
    torch.manual_seed(0)
    net = vgg16(num_classes=CLASSES)
    joined = nn.parallel.DistributedDataParallel(net)
    images, labels = torch.randn(1, 3, 224, 224), torch.tensor([group.rank])
    seconds: dict[str, list[float]] = {"after": [], "sum": [], "overlap": []}
    for _ in range(rounds + 1):
        for way in ("after", "overlap"):
            net.zero_grad(set_to_none=True)
            group.barrier()
            began = time.perf_counter()
            for number in range(micro_batches):
                if way == "after":
                    _learn(net, images, labels)
                    continue
                with joined.no_sync() if number < micro_batches - 1 else nullcontext():
                    _learn(joined, images, labels)
            ended = time.perf_counter()
            if way == "after":
                group.sum_gradients(net.parameters())
                seconds["sum"].append(time.perf_counter() - ended)
            seconds[way].append(time.perf_counter() - began)
    return {way: statistics.median(found[1:]) for way, found in seconds.items()}  # the first warms up


def _learn(net: nn.Module, images: Tensor, labels: Tensor) -> None:
    nn.functional.cross_entropy(net(images), labels).backward()


def _member(rank: int, port: int, rounds: int, out: str) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    with own.processes(torch.device("cpu")) as group:
        found = {"sum": sums(group, 2 * rounds)}
        found["step"] = {number: steps(group, number, rounds) for number in (1, 4)}
        if group.main:
            Path(out).write_text(json.dumps(found), encoding="utf-8")


@click.command(help=__doc__)
@click.option("--rounds", default=4, show_default=True)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), default=Path("benchmarks/gradients.json"))
def main(rounds: int, out: Path) -> None:
    """Measure and print."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    torch.multiprocessing.spawn(_member, (port, rounds, str(out)), nprocs=2)
    found = json.loads(out.read_text(encoding="utf-8"))
    found = {"machine": machine(), "load": os.getloadavg()[0], "seconds": found}
    out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    click.echo(json.dumps(found["seconds"], indent=1))


if __name__ == "__main__":
    main()
