"""A Dask cluster: its scheduler, and those of its workers that are fit for the work.

Every worker is looked at before it gets work. Those that are there at the start must all be fit; of those that join
later, the unfit get nothing, which is said once.
"""

import importlib.util
import logging
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.execution.deaths import WorkersDied
from pipeline.execution.fitness import Answer, Question, look, why_unfit
from pipeline.params import Run

if TYPE_CHECKING:
    from distributed import Client, Future

log = logging.getLogger(__name__)

_ANSWER = 10
"""Seconds in which a scheduler must answer."""
_LOOK = 120
"""Seconds in which workers must: they import torch, perhaps over a network."""
_WORKERS = 60
"""Seconds in which a cluster must have a worker: those that a batch system starts come late."""
_TICK = 1.0
"""Seconds between two looks at who is there."""


class SchedulerLost(WorkersDied):
    """The scheduler does not answer any more, or is another one."""


class Cluster:
    """The scheduler and its workers, as far as they concern one map.

    Args:
        client: of the scheduler.
        address: as the params have it.
        question: what workers are asked.
        told: gets a line about workers that are refused.
    """

    def __init__(self, client: "Client", address: str, question: Question, told: Callable[[str], object]) -> None:
        self.client, self.address = client, address
        self._question, self._told = question, told
        self._here = look(question)
        self._refused: dict[str, str] = {}
        self._said: set[str] = set()
        self._without = time.monotonic()  # since when there is no worker
        self._seen = 0.0
        self.threads: Mapping[str, int] = {}
        """Address -> threads, of the fit workers that there are."""

    def start(self) -> None:
        """Wait for the first workers, and look at all that are there.

        Raises:
            click.ClickException: there are none, or some are not fit.
        """
        try:
            self.client.wait_for_workers(1, timeout=_WORKERS)
        except TimeoutError:
            raise click.ClickException(f"run.scheduler: {self._nobody()}") from None
        there = self._ask(self.client.nthreads)
        reasons = self._look_at(list(there))
        unfit = [f"  {address}: {reason}" for address, reason in sorted(reasons.items()) if reason]
        if unfit:
            said = "\n".join(unfit)
            raise click.ClickException(f"run.scheduler: {len(unfit)} of {len(reasons)} workers cannot do this:\n{said}")
        self.threads = {address: there[address] for address in reasons}

    def look_again(self, *, now: bool = False) -> bool:
        """See who came and who went, unless that was just done; whether it was.

        Args:
            now: in any case.

        Raises:
            WorkersDied: there has been no worker for too long, or the scheduler is lost.
        """
        if time.monotonic() < self._seen + _TICK and not now:
            return False
        there = self._ask(self.client.nthreads)
        new = [address for address in there if address not in self.threads and address not in self._refused]
        if new:
            for address, reason in self._look_at(new).items():
                if reason:
                    self.refuse(address, reason)
                else:
                    log.info("worker %s joins with %d threads", address, there[address])
        came = {address for address in new if address not in self._refused}
        self.threads = {
            address: threads
            for address, threads in there.items()
            if address in came or (address in self.threads and address not in self._refused)
        }
        self._seen = time.monotonic()
        if self.threads:
            self._without = self._seen
        elif self._seen > self._without + _WORKERS:
            raise WorkersDied(self._nobody())
        return True

    def refuse(self, address: str, reason: str) -> None:
        """Give a worker no more work, and say why, once for each reason."""
        self._refused[address] = reason
        self.threads = {one: threads for one, threads in self.threads.items() if one != address}
        log.info("worker %s gets no work: %s", address, reason)
        if reason not in self._said:
            self._said.add(reason)
            self._told(f"worker {address} gets no work: {reason}")

    def left(self, address: str) -> bool:
        """Whether a worker that is gone took its leave, and did not die."""
        events = self._ask(self.client.get_events, address) or ()
        gone = [event for _, event in events if isinstance(event, dict) and event.get("action") == "remove-worker"]
        return bool(gone) and bool(gone[-1].get("expected", False))

    def cancel(self, futures: "list[Future]") -> None:
        """Take back what was handed out, as far as the scheduler is there."""
        if futures and self.client.status == "running":
            with suppress(SchedulerLost):
                self._ask(self.client.cancel, futures)

    def lost(self, error: object = "the connection broke") -> SchedulerLost:
        """An error that says so."""
        return SchedulerLost(f"the dask scheduler at {self.address} was lost ({error})")

    def results(self, futures: "list[Future]", seconds: float) -> list[object]:
        """Of futures that are finished; fewer, if some are so no longer.

        Raises:
            SchedulerLost: they do not come in so many seconds.
        """
        return self._ask(partial(self.client.gather, errors="skip"), futures, seconds=seconds)

    def _ask(self, question: Callable[..., Any], *arguments: object, seconds: float | None = None) -> Any:
        if self.client.status != "running":
            raise self.lost()
        try:
            return self.client.sync(_awaited, question, *arguments, callback_timeout=seconds or _ANSWER)
        except (OSError, TimeoutError, RuntimeError, ValueError, CancelledError) as error:
            raise self.lost(error or f"no answer in {seconds or _ANSWER} s") from None

    def _look_at(self, addresses: list[str]) -> dict[str, str]:
        """Address -> why it is not fit, "" if it is; those that went meanwhile are missing."""
        with _note(self._question) as question:
            try:
                answers: dict[str, Answer | BaseException] = self.client.run(
                    look, question, workers=addresses, on_error="return", callback_timeout=_LOOK
                )
            except TimeoutError:
                return dict.fromkeys(addresses, f"it, or one that came with it, does not answer in {_LOOK} s")
            except OSError as error:
                raise self.lost(error) from None
        gone = {address for address, answer in answers.items() if isinstance(answer, OSError)}
        return {
            address: why_unfit(answer, self._here, self._question)
            for address, answer in answers.items()
            if address not in gone
        }

    def _nobody(self) -> str:
        return (
            f"the scheduler at {self.address} has had no worker for {_WORKERS} s; start some with: "
            f"dask worker {self.address}"
        )


async def _awaited(question: Callable[..., Any], *arguments: object) -> Any:
    return await question(*arguments)


@contextmanager
def connected(run: Run, *, cache: Path | None, question: Question, told: Callable[[str], object]) -> Iterator[Cluster]:
    """The cluster at ``run.address``, whose workers are all fit.

    Args:
        cache: folder of the clip cache, which all workers have to see under the same path as this process does; None
            where they need none.
        question: what else they must have.
        told: gets a line about workers that join later and are refused.

    Raises:
        click.ClickException: dask is not installed or does not import, the scheduler does not answer or has no workers,
            or a worker lacks this project, its code or versions, a file, the cache's folder or what the net is to run
            on.
        WorkersDied: the scheduler is lost.
    """
    if cache is not None:
        question = replace(question, note=str(cache / "tmp" / f"cluster-{secrets.token_hex(16)}"))
    client = _client(run)
    try:
        cluster = Cluster(client, run.address, question, told)
        cluster.start()
        yield cluster
    finally:
        with suppress(OSError, TimeoutError, RuntimeError):
            client.close(timeout=_ANSWER)


@contextmanager
def _note(question: Question) -> Iterator[Question]:
    """The question with a file in the cache while it is asked, that only who sees the same disk can know."""
    if not question.note:
        yield question
        return
    note, written = Path(question.note), secrets.token_hex(16)
    note.parent.mkdir(parents=True, exist_ok=True)
    note.write_text(written, encoding="ascii")
    try:
        yield replace(question, written=written)
    finally:
        note.unlink(missing_ok=True)


def _client(run: Run) -> "Client":
    if importlib.util.find_spec("distributed") is None:
        raise click.ClickException("run.executor is dask, but dask is not installed: pip install 'han-video[cluster]'")
    try:
        from distributed import Client
    except ImportError as error:
        raise click.ClickException(f"run.executor is dask, which is installed and does not import: {error}") from None
    for name in list(logging.root.manager.loggerDict):  # they retell each lost connection at length
        if name.partition(".")[0] == "distributed":
            logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        return Client(run.address, timeout=f"{_ANSWER}s", set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        raise click.ClickException(f"run.scheduler: no dask scheduler answers at {run.address} ({error})") from None
