"""Stages that do not depend on each other, at the same time: ``python -m pipeline.side_by_side [STAGE ..]``.

As ``dvc repro [STAGE ..]``, which runs one stage after another. Here each stage is a ``dvc repro -s`` of its own, which
starts as soon as all that it depends on is done: splits, streams and models share the machine. DVC itself decides
whether a stage has to run, restores it from its cache, and writes ``dvc.lock``; it holds its lock on the project except
while a stage's command runs, and the others wait for it (``--wait-for-lock``).

The GPUs (``CUDA_VISIBLE_DEVICES``) and the cores are dealt among the stages that run at once; a stage with nothing
beside it gets all. Where a stage fails, the others finish, and what depends on it is left out. Ctrl-C ends all.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from types import FrameType
from typing import NoReturn

import click

_PATIENCE = 10.0
"""Seconds that stages have to end once they are told to."""


@click.command(help=__doc__)
@click.argument("targets", nargs=-1, metavar="[STAGE ..]")
@click.option("--jobs", type=click.IntRange(min=1), help="Stages at once; by default one a GPU, and two without.")
def main(targets: tuple[str, ...], jobs: int | None) -> None:
    """Run stages and all that they depend on."""
    from han_core.devices import gpus

    visible = visible_gpus(os.environ, gpus())
    slots = shares(jobs or max(2, len(visible)), visible, cores())
    needs = plan(targets)
    click.echo(f"{len(needs)} stages to run, {len(slots)} at once")
    signal.signal(signal.SIGTERM, _interrupt)
    finished = run(needs, slots)
    if finished.failed or finished.skipped:
        left_out = f"; left out, because they depend on it: {', '.join(finished.skipped)}" if finished.skipped else ""
        raise click.ClickException(f"failed: {', '.join(finished.failed)} (see above){left_out}")


@dataclass(frozen=True)
class Share:
    """What a stage may use."""

    cores: frozenset[int]
    """Numbers of cores; empty where the system cannot bind a process to cores."""
    gpus: tuple[str, ...]
    """As in ``CUDA_VISIBLE_DEVICES``."""


@dataclass
class Finished:
    """How stages ended, in the order in which they did."""

    done: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


def plan(targets: Sequence[str]) -> dict[str, set[str]]:
    """The stages that may have to run: those that changed and all that depend on them, in the order of ``dvc.yaml``.

    Args:
        targets: names as for ``dvc repro``; none for all stages.

    Returns:
        Name of each stage -> the names of those among them that it depends on.

    Raises:
        ClickException: there is no such stage, DVC cannot read its files, or another DVC process is at work here.
    """
    import networkx as nx
    from dvc.exceptions import DvcException
    from dvc.repo import Repo, lock_repo

    try:
        with Repo() as repo, lock_repo(repo):
            graph = repo.index.graph  # from each stage to what it depends on
            wanted = {stage for name in targets for stage in repo.stage.collect(name)} or set(graph)
            wanted |= {needed for stage in wanted for needed in nx.descendants(graph, stage)}
            changed = {stage for stage in wanted if stage.changed()}
            changed |= {later for stage in changed for later in nx.ancestors(graph, stage)} & wanted
            ordered = [stage for stage in repo.index.stages if stage in changed]
            return {
                s.addressing: {needed.addressing for needed in graph.successors(s)} & names(changed) for s in ordered
            }
    except DvcException as error:
        raise click.ClickException(str(error)) from None


def names(stages: set) -> set[str]:
    """As a person types them."""
    return {stage.addressing for stage in stages}


def run(needs: Mapping[str, set[str]], slots: Sequence[Share]) -> Finished:
    """Run stages, each as soon as all that it needs is done.

    Args:
        needs: of each stage, the others that come before it.
        slots: what the stages that run at once get, each one of them.

    Raises:
        KeyboardInterrupt: after all stages have ended.
    """
    finished, waiting, free = Finished(), dict(needs), list(range(len(slots)))
    running: dict[str, tuple[_Running, int]] = {}
    try:
        while waiting or running:
            for name in [n for n in waiting if waiting[n] & {*finished.failed, *finished.skipped}]:
                finished.skipped.append(name)
                del waiting[name]
            ready = [name for name in waiting if waiting[name] <= set(finished.done)]
            alone = not running and len(ready) == 1
            for name in ready[: len(free)]:
                slot = free.pop(0)
                running[name] = _Running(name, together(slots) if alone else slots[slot]), slot
                del waiting[name]
            for name in [name for name, (stage, _) in running.items() if stage.ended()]:
                stage, slot = running.pop(name)
                free.append(slot)
                code = stage.finish()
                (finished.failed if code else finished.done).append(name)
                click.echo(f"[{name}] {'FAILED' if code else 'done'} after {stage.seconds:.0f} s")
            if running:
                time.sleep(0.05)
    except KeyboardInterrupt:
        click.echo(f"interrupted; ending {', '.join(running)}", err=True)
        for stage, _ in running.values():
            stage.tell(signal.SIGINT)
        for stage, _ in running.values():
            stage.end()
        raise
    return finished


class _Running:
    """A stage that runs, in a process group of its own; what it says is passed on line by line, under its name."""

    def __init__(self, name: str, share: Share) -> None:
        self.seconds = 0.0
        self._began = time.monotonic()
        bound = f"{len(share.cores)} core{'s' if len(share.cores) > 1 else ''}" if share.cores else "all cores"
        shown = f"GPU {', '.join(share.gpus)}" if share.gpus else bound
        click.echo(f"[{name}] starts on {shown}")
        environment = {"CUDA_VISIBLE_DEVICES": ",".join(share.gpus)} if share.gpus else {}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "-s", name],
            env={**os.environ, **environment},
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            preexec_fn=partial(os.sched_setaffinity, 0, share.cores) if share.cores else None,
        )
        self._teller = threading.Thread(target=self._pass_on, args=(name,), daemon=True)
        self._teller.start()

    def ended(self) -> bool:
        return self._process.poll() is not None

    def finish(self) -> int:
        """Exit status, once all that it said is shown."""
        self._teller.join(_PATIENCE)
        self.seconds = time.monotonic() - self._began
        return self._process.returncode

    def tell(self, sign: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, sign)

    def end(self) -> None:
        """Wait until it has ended; it is killed where it does not."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_PATIENCE)
        self.tell(signal.SIGKILL)
        self._process.wait()

    def _pass_on(self, name: str) -> None:
        for line in self._process.stdout or ():
            if line.strip():
                click.echo(f"[{name}] {line.rstrip()}")


def visible_gpus(environment: Mapping[str, str], count: int) -> list[str]:
    """The GPUs of this machine that may be used, as ``CUDA_VISIBLE_DEVICES`` names them.

    Args:
        count: how many torch sees.
    """
    named = [name.strip() for name in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return named[:count] if named else [str(number) for number in range(count)]


def shares(jobs: int, gpus: Sequence[str], cores: Sequence[int]) -> list[Share]:
    """Deal GPUs and cores among ``jobs`` stages, in turn. Where there are fewer than stages, some have the same one."""

    def dealt(values: Sequence, number: int) -> Sequence:
        return values[number::jobs] or values[number % len(values) : number % len(values) + 1] if values else ()

    return [Share(frozenset(dealt(cores, number)), tuple(dealt(gpus, number))) for number in range(jobs)]


def together(slots: Sequence[Share]) -> Share:
    """All of the machine."""
    gpus = dict.fromkeys(gpu for slot in slots for gpu in slot.gpus)
    return Share(frozenset().union(*(slot.cores for slot in slots)), tuple(sorted(gpus, key=str)))


def cores() -> list[int]:
    """Numbers of the cores that this process may use; none where the system does not say."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
