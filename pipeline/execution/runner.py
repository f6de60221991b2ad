"""Map a function over clips: reuse what the cache has, spread the rest, and account for every clip.

Each clip ends in exactly one of four ways: its file was reused from the cache (or made by someone else meanwhile), it
was computed (and is in the cache from then on), it is a row of the failure ledger, or it could not be done for a reason
that does not lie in it. A clip that fails never stops the others: neither one that cannot be processed (``ClipError``),
nor a worker process that dies of it, nor a damaged file of an earlier stage or a bug, which are not noted against the
clip: the stage then ends in an error whatever is allowed. A fault of the machine (a full disk, no permission) stops the
stage at once and is noted against nobody.
"""

import logging
import os
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence, Set
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import click

from han_core.cache.folders import CacheUnusable, probe
from han_core.cache.store import ClipCache
from han_core.clipfile.trailer import ClipFileError, Trailer
from han_core.clips import Clip
from han_core.errors import HanError
from han_core.runs.progress import Progress
from pipeline.execution.accesses import each
from pipeline.execution.contents import write_contents
from pipeline.execution.deaths import WorkersDied
from pipeline.execution.jobs import DIED, ClipTask, machine_fault
from pipeline.execution.ledger import LEDGER, Failure, describe, read_failures, write_failures
from pipeline.execution.places import outcomes_of
from pipeline.execution.sharding import Shards
from pipeline.execution.stagelog import stage_log
from pipeline.execution.work import ClipWork, TaskQueue
from pipeline.params import Run
from pipeline.paths import clip_file

__all__ = ["ClipTask", "ClipWork", "Summary", "map_clips", "read_failures"]

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
    work: ClipWork, *, cache: ClipCache, run: Run, allowed_failures: int, log_path: Path | None = None
) -> Summary:
    """Make one file for each task, at ``<output>/<class>/<clip>.h5``, the ledger ``<output>/failures.csv``, and the
    list ``<output>/contents.csv`` of all of them. Where the work asks for shards, clips share files
    (:mod:`pipeline.execution.sharding`).

    Args:
        cache: where finished files are.
        run: how many workers, and where.
        allowed_failures: more failed clips than this make the stage fail, after all others are done.
        log_path: the log; ``logs/<name>.log`` by default.

    Returns:
        The counts.

    Raises:
        click.ClickException: too many clips failed, something else than a clip is at fault, or the stage cannot
            continue (a full disk, no worker survives).
    """
    stage = work.name
    cache = ClipCache(cache.root.absolute(), verify=cache.verify_on_use)
    try:
        with stage_log(log_path or Path("logs", f"{stage}.log")):
            summary, faults = _mapped(work, cache, run)
    except ClipFileError as error:  # a clip that was to be packed into a shard
        raise click.ClickException(f"{stage}: {error}") from None
    except (CannotGoOn, WorkersDied, CacheUnusable) as error:
        raise click.ClickException(f"{stage}: {error}. {_KEPT}") from None
    except OSError as error:
        raise click.ClickException(f"{stage}: {machine_fault(error, cache.root)}. {_KEPT}") from None
    failures = summary.failures
    click.echo(f"{summary}; files in {work.output}")
    if faults:
        raise click.ClickException(
            f"{stage}: {len(faults)} of {len(work.tasks)} clips could not be done, through no fault of theirs:\n"
            f"{describe(faults)}\nNo failure is noted against them. {_KEPT}"
        )
    if len(failures) > allowed_failures:
        raise click.ClickException(
            f"{stage}: {len(failures)} of {summary.clips} clips failed, {allowed_failures} allowed "
            f"(dataset.allowed_failures):\n"
            f"{describe(failures)}\nAll of them: {work.output / LEDGER}. The others are done and stay in the cache."
        )
    if failures:
        click.echo(describe(failures), err=True)
    return summary


_KEPT = "What is done is kept; run the stage again"


def _mapped(work: ClipWork, cache: ClipCache, run: Run) -> tuple[Summary, list[Failure]]:
    """The map; its counts, and what could not be done for reasons that do not lie in the clip."""
    stage, output, kind = work.name, work.output, work.kind
    began = time.perf_counter()
    tasks = sorted(work.tasks, key=lambda task: (task.clip.class_name, task.clip.name))
    failures = [_failure(task, work.failed[task.clip.key]) for task in tasks if task.clip.key in work.failed]
    faults = [_failure(task, work.faults[task.clip.key]) for task in tasks if task.clip.key in work.faults]
    everything = len(tasks)
    tasks = [task for task in tasks if task.clip.key not in work.failed and task.clip.key not in work.faults]
    _check_unique(tasks)
    with Progress(stage, len(tasks)) as progress:
        probe(cache.root)
        cache.sweep()
        made: dict[str, tuple[Clip, str]] = {}
        todo = []
        shards = Shards(cache, output, work.shard, tasks) if work.shard else None
        for task, trailer in _in_cache(tasks, cache, kind, output, shards):
            if trailer is None:
                todo.append(task)
            else:
                made[task.clip.key] = task.clip, trailer.content
                work.noticed(trailer)
                progress.advance()
        if todo:
            work.before()
        linked = time.perf_counter()
        computed = 0
        attempts: Counter[str] = Counter()
        queue = TaskQueue(_from_anywhere(todo))
        with closing(outcomes_of(work, queue, cache, run)) as outcomes:
            for task, outcome in outcomes:
                if outcome.what == "fatal":
                    raise CannotGoOn(outcome.reason)
                if outcome.what == "busy":
                    queue.put_back(replace(task, patient=False))
                    continue
                if outcome.what == "failed":
                    if outcome.reason == DIED:
                        probe(cache.root)  # HDF5 may crash on a full disk
                    failures.append(_failure(task, outcome.reason))
                elif outcome.what == "fault":
                    faults.append(_failure(task, outcome.reason))
                else:
                    trailer = _link(task, cache, kind, output)
                    if trailer is None:  # pruned since
                        attempts[task.clip.key] += 1
                        if attempts[task.clip.key] > _ATTEMPTS:
                            raise CannotGoOn(f"finished files vanish from {cache.root}; is it being pruned?")
                        queue.put_back(task)
                        continue
                    made[task.clip.key] = task.clip, trailer.content
                    work.noticed(trailer)
                    computed += outcome.what == "made"
                if outcome.reason:
                    details = f"\n{outcome.details}" if outcome.details else ""
                    log.info("%s: %s %s: %s%s", stage, task.clip.name, outcome.what, outcome.reason, details)
                progress.advance()
        files = {clip_file(output, clip.class_name, clip.name) for clip, _ in made.values()}
        if shards:
            files = files | shards.files if faults else shards.pack(made)
        _remove_others(output, {str(file) for file in files})
        if not faults:
            write_failures(output, failures)
            write_contents(output, made, failures)
        now = time.perf_counter()
        reused = everything - computed - len(faults) - len(failures)
        summary = Summary(stage, reused, computed, tuple(sorted(failures)), now - began)
        log.info("%s (%.1f s, %.2f computed clips/s)", summary, summary.seconds, computed / (now - linked))
    return summary, faults


_ATTEMPTS = 3


def _from_anywhere(tasks: list[ClipTask]) -> list[ClipTask]:
    """The tasks from some place on, and then those before it: people who start at once do not do the same clips."""
    start = random.randrange(len(tasks)) if tasks else 0
    return tasks[start:] + tasks[:start]


def _failure(task: ClipTask, reason: str) -> Failure:
    return Failure(task.clip.class_name, task.clip.name, reason)


def _in_cache(
    tasks: Sequence[ClipTask], cache: ClipCache, kind: str, output: Path, shards: Shards | None
) -> Iterator[tuple[ClipTask, Trailer | None]]:
    """As :func:`_linked`, after the shards that are there."""
    if shards:
        yield from shards.found()
        tasks = shards.rest()
    yield from _linked(tasks, cache, kind, output)


def _linked(
    tasks: Sequence[ClipTask], cache: ClipCache, kind: str, output: Path
) -> Iterator[tuple[ClipTask, Trailer | None]]:
    """Give the tasks their files out of the cache, as far as it has them: each task, in order, with the trailer of its
    file, or None.
    """
    return each(lambda task: _link(task, cache, kind, output), tasks)


def _link(task: ClipTask, cache: ClipCache, kind: str, output: Path) -> Trailer | None:
    """Give a task its file out of the cache; the file's trailer, or None where there is none."""
    try:
        return cache.link(kind, task.fingerprint, clip_file(output, task.clip.class_name, task.clip.name))
    except FileNotFoundError:
        return None


def _check_unique(tasks: list[ClipTask]) -> None:
    """Two clips of one name or one fingerprint would overwrite each other: an error in the stage, not in the data."""
    for what, values in (("clip", [t.clip.key for t in tasks]), ("fingerprint", [t.fingerprint for t in tasks])):
        if len(set(values)) < len(values):
            twice = sorted({value for value in values if values.count(value) > 1})
            raise ValueError(f"{what} occurs twice among the tasks: {', '.join(twice)}")


def _remove_others(output: Path, wanted: Set[str]) -> None:
    """Remove what earlier runs left in the output folder, files of clips that fail now included.

    Args:
        wanted: paths of the files that stay, besides the ledger.
    """
    wanted = wanted | {str(output / LEDGER)}
    for folder, folders, files in os.walk(output, topdown=False):
        for name in files:
            path = os.path.join(folder, name)
            if path not in wanted:
                os.unlink(path)
        for name in folders:
            path = os.path.join(folder, name)
            if os.path.islink(path):
                os.unlink(path)
            elif not any(os.scandir(path)):
                os.rmdir(path)
