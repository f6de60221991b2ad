"""Clips on a Dask cluster."""

from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager

import click

from pipeline.params import Run


@contextmanager
def dask_executor(run: Run) -> Iterator[tuple[Executor, int]]:
    """The cluster at ``run.scheduler`` as an executor, and how many clips it works on at once.

    Its workers have to see the project's folder and the cache under the same paths as this process.

    Raises:
        click.ClickException: dask is not installed, or the scheduler does not answer.
    """
    try:
        from distributed import Client
    except ImportError:
        raise click.ClickException(
            "run.executor is dask, but dask is not installed: pip install 'han-video[cluster]'"
        ) from None
    try:
        client = Client(run.scheduler, timeout="10s", set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        raise click.ClickException(f"run.scheduler: no dask scheduler answers at {run.scheduler} ({error})") from None
    with client:
        yield client.get_executor(pure=False, retries=0), max(1, sum(client.nthreads().values()))
