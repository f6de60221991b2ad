"""Clips on a Dask cluster."""

import importlib.util
import logging
import secrets
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.params import Run

if TYPE_CHECKING:
    from distributed import Client

_ANSWER = 10
"""Seconds in which a scheduler must answer."""
_WORKERS = 60
"""Seconds in which a cluster must have a worker: those that a batch system starts come late."""
_LIBRARIES = ("numpy", "torch", "torchvision", "h5py", "av", "opencv-contrib-python", "numba", "zstandard")
"""What decides the bytes of a clip file beside the project's own code, which every call compares by itself."""


@contextmanager
def dask_executor(run: Run, cache: Path) -> Iterator[tuple[Executor, int]]:
    """The cluster at ``run.scheduler`` as an executor, and how many clips it works on at once.

    Args:
        cache: folder of the clip cache, which all workers have to see under the same path as this process does.

    Raises:
        click.ClickException: dask is not installed or does not import, the scheduler does not answer or has no workers,
            or a worker lacks this project, other versions than here, or the cache's folder.
    """
    client = _connected(run)
    with client:
        try:
            client.wait_for_workers(1, timeout=_WORKERS)
        except TimeoutError:
            raise click.ClickException(
                f"run.scheduler: the scheduler at {run.scheduler} has had no worker for {_WORKERS} s; start some with: "
                f"dask worker {run.scheduler}"
            ) from None
        _refuse_unfit(client, cache)
        yield client.get_executor(pure=False, retries=0), max(1, sum(client.nthreads().values()))


def _connected(run: Run) -> "Client":
    if importlib.util.find_spec("distributed") is None:
        raise click.ClickException("run.executor is dask, but dask is not installed: pip install 'han-video[cluster]'")
    try:
        from distributed import Client
    except ImportError as error:
        raise click.ClickException(f"run.executor is dask, which is installed and does not import: {error}") from None
    logging.getLogger("distributed").setLevel(logging.ERROR)  # it retells each lost connection at length
    try:
        return Client(run.scheduler, timeout=f"{_ANSWER}s", set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        raise click.ClickException(f"run.scheduler: no dask scheduler answers at {run.scheduler} ({error})") from None


def versions() -> dict[str, str]:
    """Of Python and the libraries, where this is called."""
    found = {"python": ".".join(map(str, sys.version_info[:3]))}
    for name in _LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "none"
    return found


def look(note: str, written: str) -> tuple[dict[str, str], str]:
    """What a worker has: its versions, and what keeps it from the cache, or "".

    Args:
        note: path of a file in the cache. written: what it holds.
    """
    try:
        seen = Path(note).read_text(encoding="ascii")
    except OSError as error:
        return versions(), error.strerror or str(error)
    return versions(), "" if seen == written else "it is another file there"


def _refuse_unfit(client: "Client", cache: Path) -> None:
    """Look at every worker before any work."""
    written = secrets.token_hex(16)
    note = cache / "tmp" / f"cluster-{written}"
    note.parent.mkdir(parents=True, exist_ok=True)
    note.write_text(written, encoding="ascii")
    try:
        answers = client.run(look, str(note), written, on_error="return")
    finally:
        note.unlink(missing_ok=True)
    unfit = {address: reason for address, answer in answers.items() if (reason := _reason(answer, cache))}
    if unfit:
        said = "\n".join(f"  {address}: {reason}" for address, reason in sorted(unfit.items()))
        raise click.ClickException(f"run.scheduler: {len(unfit)} of {len(answers)} workers cannot do this:\n{said}")


def _reason(answer: Any, cache: Path) -> str:
    """Why a worker is of no use, or ""."""
    if isinstance(answer, ModuleNotFoundError):
        return f"it has not got this project ({answer}); start it in the project's folder, or install the project there"
    if isinstance(answer, BaseException):
        return f"{type(answer).__name__}: {answer}"
    theirs, fault = answer
    if fault:
        return f"it does not see {cache} as this machine does ({fault}); the cache must be on a disk that all share"
    if differ := _differences(versions(), theirs):
        return f"{differ}; install the same versions on all machines (requirements.lock)"
    return ""


def _differences(here: Mapping[str, str], there: Mapping[str, str]) -> str:
    differ = [name for name in here if here[name] != there.get(name)]
    return ", ".join(f"{name} is {there.get(name)} there and {here[name]} here" for name in differ)
