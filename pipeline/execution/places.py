"""Where the clips of a stage are worked on: in this process, on local processes or GPUs, or on a cluster."""

from collections.abc import Iterator

import click

from han_core.cache.store import ClipCache
from pipeline.execution.cluster import connected
from pipeline.execution.code import stage_code
from pipeline.execution.fitness import Question, files_in
from pipeline.execution.jobs import IN_FLIGHT, Call, ClipTask, Outcome, outcome_of, windowed
from pipeline.execution.local import with_processes
from pipeline.execution.on_cluster import with_cluster
from pipeline.execution.work import ClipWork, TaskQueue
from pipeline.execution.workers import crew
from pipeline.params import Run


def outcomes_of(work: ClipWork, queue: TaskQueue, cache: ClipCache, run: Run) -> Iterator[tuple[ClipTask, Outcome]]:
    """Do the tasks wherever they are to be done; each comes out once, in the order in which they end."""
    if not len(queue):
        return
    code = stage_code(work.stage) if work.stage else ""
    call = Call(work.function, work.kind, cache.root, work.stage, code)

    def told(what: str) -> None:
        click.echo(f"{work.name}: {what}", err=True)

    if work.executor is not None:
        for task, future in windowed(work.executor, call, queue, IN_FLIGHT):
            yield task, outcome_of(future, own_worker=False)
        return
    try:
        if run.executor == "dask":
            question = _question(work, run)
            with connected(run, cache=cache.root, question=question, told=told) as cluster:
                for task, future in with_cluster(cluster, call, queue, net=work.net, alone=_alone(work)):
                    yield task, outcome_of(future)
            return
        hands = crew(run, work.gpus, net=work.net)
        if hands.told:
            told(hands.told)
        workers = min(hands.processes, len(queue))
        for task, future in with_processes(call, queue, workers, hands.gpus, hands.threads):
            yield task, outcome_of(future)
    finally:
        cache.sweep()  # workers that were ended in the middle of a file


def _question(work: ClipWork, run: Run) -> Question:
    """What the workers of a cluster are asked: of the files, those of one clip stand for all."""
    files = files_in(work.function)
    files += next((found for task in work.tasks if (found := files_in(task.arguments))), ())
    device = run.device if work.net else "cuda" if work.gpus else ""
    return Question(files, stage=work.stage, device=device, precision=work.precision)


def _alone(work: ClipWork) -> bool:
    """Whether a process may do one clip at a time: what computes on a GPU without a net keeps what the GPU needs for
    one clip."""
    return work.gpus > 0 and not work.net
