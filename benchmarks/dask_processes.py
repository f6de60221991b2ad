"""A Dask cluster of real processes on loopback, started by the commands that its documentation names."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path


class DaskProcesses:
    """A scheduler and workers.

    Args:
        folder: where workers are started, and logs are written.
        port: of the scheduler.
        environment: of all processes; by default that of this one.
    """

    def __init__(self, folder: Path, port: int, environment: Mapping[str, str] = os.environ) -> None:
        self.address = f"tcp://127.0.0.1:{port}"
        self._folder, self._port, self._environment = folder, port, environment
        self._processes: list[subprocess.Popen] = []
        self.scheduler = self.start_scheduler()

    def start_scheduler(self) -> subprocess.Popen:
        """At the same address as one that died."""
        host = ["--host", "127.0.0.1", "--port", str(self._port), "--no-dashboard"]
        self.scheduler = self._start("scheduler", *host)
        return self.scheduler

    def worker(self, *options: str, threads: int = 1) -> subprocess.Popen:
        """One more, in a group of its own with its nanny."""
        fixed = ["--host", "127.0.0.1", "--nthreads", str(threads), "--no-dashboard", "--memory-limit", "0"]
        return self._start("worker", self.address, *fixed, *options)

    def wait_for(self, workers: int, seconds: float = 60) -> None:
        """Until there are so many workers."""
        from distributed import Client

        with Client(self.address, timeout=seconds, set_as_default=False) as client:
            ends = time.monotonic() + seconds
            while len(client.nthreads()) != workers:
                assert time.monotonic() < ends, f"{client.nthreads()}, not {workers} workers"
                time.sleep(0.05)

    def stop(self) -> None:
        """End what is left."""
        for process in self._processes:
            kill(process)

    def _start(self, *command: str) -> subprocess.Popen:
        log = self._folder / f"dask-{command[0]}-{len(self._processes)}.txt"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "dask", *command],
                cwd=self._folder,
                env=self._environment,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._processes.append(process)
        return process


def kill(process: subprocess.Popen, number: int = signal.SIGKILL) -> None:
    """A signal to a process and its children."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)
    process.wait(30)


def free_port() -> int:
    """A TCP port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def dask_processes(folder: Path, port: int = 0, environment: Mapping[str, str] = os.environ) -> Iterator[DaskProcesses]:
    """While the block runs. As :class:`DaskProcesses`; port 0 is any that is free."""
    cluster = DaskProcesses(folder, port or free_port(), environment)
    try:
        yield cluster
    finally:
        cluster.stop()
