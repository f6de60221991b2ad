"""Where the clips of a stage are worked on: in this process, on local processes or GPUs, or on a cluster."""

from collections.abc import Iterator
from concurrent.futures import Executor

import click

from han_core.cache.store import ClipCache
from pipeline.execution.cluster import dask_executor
from pipeline.execution.code import stage_code
from pipeline.execution.jobs import IN_FLIGHT, Call, ClipTask, EndingWorker, Outcome, outcome_of, windowed
from pipeline.execution.local import with_processes
from pipeline.execution.work import ClipWork, TaskQueue
from pipeline.execution.workers import crew
from pipeline.params import Run


def outcomes_of(work: ClipWork, queue: TaskQueue, cache: ClipCache, run: Run) -> Iterator[tuple[ClipTask, Outcome]]:
    """Do the tasks wherever they are to be done; each comes out once, in the order in which they end."""
    if not len(queue):
        return
    code = stage_code(work.stage) if work.stage else ""
    call = Call(work.function, work.kind, cache.root, work.stage, code)
    if work.executor is not None:
        if run.executor == "dask":
            click.echo(f"{work.name}: its net runs in this process, whatever run.executor says", err=True)
        yield from _with_executor(work.executor, call, queue, in_flight=IN_FLIGHT)
    elif run.executor == "dask":
        with dask_executor(run, cache.root) as (cluster, workers):
            yield from _with_executor(cluster, EndingWorker(call), queue, in_flight=IN_FLIGHT * workers)
    else:
        hands = crew(run, work.gpus, net=work.net)
        if hands.told:
            click.echo(f"{work.name}: {hands.told}", err=True)
        workers = min(hands.processes, len(queue))
        try:
            for task, future in with_processes(call, queue, workers, hands.gpus, hands.threads):
                yield task, outcome_of(future)
        finally:
            cache.sweep()  # workers that were ended in the middle of a file


def _with_executor(
    executor: Executor, call: Call | EndingWorker, queue: TaskQueue, in_flight: int
) -> Iterator[tuple[ClipTask, Outcome]]:
    """On someone else's executor, which looks after its own workers; or has none, and works in this process."""
    for task, future in windowed(executor, call, queue, in_flight):
        yield task, outcome_of(future, own_worker=False)
