"""Map a function over clips: reuse what the cache has, spread the rest, and account for every clip.

Each clip ends in exactly one of three ways: its file was reused from the cache, it was computed (and is in the cache
from then on), or it is a row of the failure ledger. A clip that fails never stops the others: neither one that cannot
be processed (``ClipError``), nor a bug in the function, nor a worker process that dies.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import click

from han_core.cache.store import ClipCache
from han_core.errors import HanError
from han_core.runs.progress import Progress
from pipeline.execution.cluster import dask_executor
from pipeline.execution.jobs import IN_FLIGHT, Call, ClipTask, Outcome, outcome_of, windowed
from pipeline.execution.ledger import LEDGER, Failure, describe, read_failures, write_failures
from pipeline.execution.local import WorkersDied, with_processes
from pipeline.execution.stagelog import stage_log
from pipeline.execution.workers import worker_count
from pipeline.params import Run
from pipeline.paths import clip_file

__all__ = ["ClipTask", "Summary", "map_clips", "read_failures"]

log = logging.getLogger(__name__)


class CannotGoOn(HanError, RuntimeError):
    """A fault of the machine, such as a full disk, that ends the stage."""


@dataclass(frozen=True)
class Summary:
    """How a map went."""

    stage: str
    reused: int
    computed: int
    failures: tuple[Failure, ...]
    seconds: float

    @property
    def clips(self) -> int:
        return self.reused + self.computed + len(self.failures)

    def __str__(self) -> str:
        return (
            f"{self.stage}: {self.clips} clips: {self.reused} reused, {self.computed} computed, "
            f"{len(self.failures)} failed"
        )


def map_clips(
    stage: str,
    function: Callable[[ClipTask, Path], None],
    tasks: Iterable[ClipTask],
    *,
    kind: str,
    output: Path,
    cache: ClipCache,
    run: Run,
    allowed_failures: int,
    failed: Mapping[str, str] | None = None,
    executor: Executor | None = None,
    gpus: int = 0,
    log_path: Path | None = None,
) -> Summary:
    """Make one file for each task, at ``output/<class>/<clip>.h5``, and the ledger ``output/failures.csv``.

    Args:
        stage: name shown and logged.
        function: writes the clip file of a task to the path it is given; raises ``ClipError`` for a clip that cannot be
            processed. A top-level function, because it is called in other processes.
        tasks: one for each clip.
        kind: of the clip files.
        output: folder of the results. Whatever else is in it is removed: it belongs to the stage.
        cache: where finished files are.
        run: how many workers, and where.
        allowed_failures: more failed clips than this make the stage fail, after all others are done.
        failed: clip's key -> reason, for clips that failed in an earlier stage; their tasks are not run, and they
            count as failed here too.
        executor: used instead of what ``run`` says; it is not shut down.
        gpus: how many GPUs to use, with a few local workers on each, so that one clip is read or written while
            another is computed; 0 uses none.
        log_path: the log; ``logs/<stage>.log`` by default.

    Returns:
        The counts.

    Raises:
        click.ClickException: too many clips failed, or the stage cannot continue (a full disk, no worker survives).
    """
    began = time.perf_counter()
    tasks = sorted(tasks, key=lambda task: (task.clip.class_name, task.clip.name))
    failed = failed or {}
    failures = [
        Failure(task.clip.class_name, task.clip.name, failed[task.clip.key])
        for task in tasks
        if task.clip.key in failed
    ]
    tasks = [task for task in tasks if task.clip.key not in failed]
    _check_unique(tasks)
    cache = ClipCache(cache.root.absolute(), verify=cache.verify_on_use)
    with stage_log(log_path or Path("logs", f"{stage}.log")), Progress(stage, len(tasks)) as progress:
        cache.sweep()
        todo = []
        for task in tasks:
            try:
                cache.link(kind, task.fingerprint, _destination(output, task))
            except FileNotFoundError:
                todo.append(task)
            else:
                progress.advance()
        made = time.perf_counter()
        with (
            _said_plainly(stage),
            closing(_work(function, todo, kind, cache, run, executor, gpus)) as outcomes,
        ):
            for task, outcome in outcomes:
                if outcome.fatal:
                    raise CannotGoOn(outcome.fatal)
                if outcome.reason:
                    failures.append(Failure(task.clip.class_name, task.clip.name, outcome.reason))
                    details = f"\n{outcome.details}" if outcome.details else ""
                    log.info("%s: %s failed: %s%s", stage, task.clip.name, outcome.reason, details)
                else:
                    cache.link(kind, task.fingerprint, _destination(output, task))
                progress.advance()
        _remove_others(output, {_destination(output, task) for task in tasks}, failures)
        write_failures(output, failures)
        now = time.perf_counter()
        lost = {failure.key for failure in failures} - set(failed)
        summary = Summary(stage, len(tasks) - len(todo), len(todo) - len(lost), tuple(sorted(failures)), now - began)
        rate = summary.computed / (now - made)
        log.info("%s (%.1f s, %.2f computed clips/s)", summary, summary.seconds, rate)
    click.echo(f"{summary}; files in {output}")
    if len(failures) > allowed_failures:
        raise click.ClickException(
            f"{stage}: {len(failures)} of {summary.clips} clips failed, {allowed_failures} allowed "
            f"(dataset.allowed_failures):\n"
            f"{describe(failures)}\nAll of them: {output / LEDGER}. The others are done and stay in the cache."
        )
    if failures:
        click.echo(describe(failures), err=True)
    return summary


@contextmanager
def _said_plainly(stage: str) -> Iterator[None]:
    """What stops a whole stage, as a message that also says what becomes of the work that is done."""
    try:
        yield
    except (CannotGoOn, WorkersDied) as error:
        raise click.ClickException(f"{stage}: {error}. What is done is kept; run the stage again.") from None


def _work(
    function: Callable[[ClipTask, Path], None],
    tasks: list[ClipTask],
    kind: str,
    cache: ClipCache,
    run: Run,
    executor: Executor | None,
    gpus: int,
) -> Iterator[tuple[ClipTask, Outcome]]:
    """Run the tasks wherever they are to run; each comes out once, in the order in which they end."""
    if not tasks:
        return
    call = Call(function, kind, cache.root)
    if executor is not None:
        yield from _with_executor(executor, call, tasks, in_flight=IN_FLIGHT)
    elif run.executor == "dask":
        with dask_executor(run) as (cluster, workers):
            yield from _with_executor(cluster, call, tasks, in_flight=IN_FLIGHT * workers)
    else:
        try:
            for task, future in with_processes(call, tasks, min(worker_count(run, gpus), len(tasks)), gpus):
                yield task, outcome_of(future)
        finally:
            cache.sweep()  # workers that were ended in the middle of a file


def _with_executor(
    executor: Executor, call: Call, tasks: list[ClipTask], in_flight: int
) -> Iterator[tuple[ClipTask, Outcome]]:
    """On someone else's executor, which looks after its own workers."""
    for task, future in windowed(executor, call, iter(tasks), in_flight):
        yield task, outcome_of(future)


def _destination(output: Path, task: ClipTask) -> Path:
    return clip_file(output, task.clip.class_name, task.clip.name)


def _check_unique(tasks: list[ClipTask]) -> None:
    """Two clips of one name or one fingerprint would overwrite each other: an error in the stage, not in the data."""
    for what, values in (("clip", [t.clip.key for t in tasks]), ("fingerprint", [t.fingerprint for t in tasks])):
        if len(set(values)) < len(values):
            twice = sorted({value for value in values if values.count(value) > 1})
            raise ValueError(f"{what} occurs twice among the tasks: {', '.join(twice)}")


def _remove_others(output: Path, wanted: set[Path], failures: Iterable[Failure]) -> None:
    """Remove what earlier runs left in the output folder, files of clips that fail now included."""
    wanted = wanted - {clip_file(output, failure.class_name, failure.clip) for failure in failures}
    for path in sorted(output.rglob("*"), reverse=True):  # files before the folders that hold them
        if path.is_dir() and not path.is_symlink():
            if not any(path.iterdir()):
                path.rmdir()
        elif path not in wanted and path != output / LEDGER:
            path.unlink()
