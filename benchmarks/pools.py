"""What calls that do nothing cost on local processes, and on `distributed.LocalCluster` on this machine. Prints JSON.

\b
    python -m benchmarks.pools

Seconds with the starts of all processes, and of the calls alone; megabytes of the processes that were started, and by
which this one grew. In turns, because other processes may be at work; the least counts.
"""

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future

import click
import psutil

from pipeline.execution.cluster import connected
from pipeline.execution.fitness import Question
from pipeline.execution.local import with_processes
from pipeline.execution.on_cluster import with_cluster
from pipeline.params import Run

Outcomes = Iterator[tuple[int, Future]]


def local_processes(workers: int, calls: int, count: Callable[[Outcomes], None]) -> None:
    """As stages use them."""
    count(with_processes(abs, range(calls), workers))


def local_cluster(workers: int, calls: int, count: Callable[[Outcomes], None]) -> None:
    """As they could."""
    from distributed import LocalCluster

    options = {"n_workers": workers, "threads_per_worker": 1, "dashboard_address": None, "memory_limit": 0}
    with LocalCluster(**options) as cluster:
        run = Run(executor="dask", scheduler=cluster.scheduler_address)
        with connected(run, cache=None, question=Question(), told=click.echo) as connection:
            count(with_cluster(connection, abs, range(calls)))


POOLS = {"local processes": local_processes, "LocalCluster": local_cluster}


def timed(pool: Callable[[int, int, Callable[[Outcomes], None]], None], workers: int, calls: int) -> dict[str, float]:
    """One start, all calls, one end."""
    here = psutil.Process()
    before = _megabytes(here)
    found: dict[str, float] = {}
    first = 0.0

    def count(outcomes: Outcomes) -> None:
        nonlocal first
        for task, future in outcomes:
            if future.result() != task:
                raise RuntimeError(f"{task} came back as {future.result()}")
            first = first or time.monotonic()
            if task == calls - 1:
                found["seconds_of_the_calls"] = time.monotonic() - first
                found["megabytes_here"] = _megabytes(here) - before
                found["megabytes_of_processes"] = sum(map(_megabytes, here.children(recursive=True)))

    began = time.monotonic()
    pool(workers, calls, count)
    return {"seconds": time.monotonic() - began, **found}


def _megabytes(process: psutil.Process) -> float:
    return process.memory_full_info().pss / 1e6


@click.command(help=__doc__)
@click.option("--workers", default=2, show_default=True)
@click.option("--calls", default=400, show_default=True)
@click.option("--rounds", default=2, show_default=True)
def main(workers: int, calls: int, rounds: int) -> None:
    """Time both."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in POOLS}
    for _ in range(rounds):
        for name, pool in POOLS.items():
            found[name].append(timed(pool, workers, calls))
    least = {name: {key: round(min(one[key] for one in all_), 2) for key in all_[0]} for name, all_ in found.items()}
    click.echo(json.dumps({"workers": workers, "calls": calls, **least}))


if __name__ == "__main__":
    main()
