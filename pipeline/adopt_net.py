"""``han cache adopt finetune-spatial``: keep a net when the code that makes it was changed and does the same.

A trained net took hours, so it is not made again. Today's code does the first iterations: loss, learning rate and share
of right samples of each must be, digit for digit, those of the record that is kept beside the net. That asks for what
trained it: the same kind of device, and as many torch threads and processes. A net that is not trained (iterations: 0)
is made again, and its tensors are compared.
"""

from collections.abc import Mapping
from contextlib import suppress
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

import click

from han_core.cache.fingerprint import code_of, without_code
from han_core.cache.store import ClipCache
from han_core.runs.progress import Progress
from han_core.tensorfile.file import read_arrays
from han_core.tensorfile.seal import SEAL
from pipeline.curve import read_record, record_row
from pipeline.execution.code import stage_code
from pipeline.net_training import NetJob, facts_of, figures_of, readers_of_each
from pipeline.params import Params

if TYPE_CHECKING:
    from han_core.finetune.loop import Step
    from han_core.runs.processes import Processes

_KIND, _NET, _RECORD = "nets", ".safetensors", ".csv"


def adopt_net(
    job: NetJob, params: Params, cache: ClipCache, group: "Processes", *, iterations: int, origin: str | None = None
) -> bool:
    """Keep the net of the code before.

    Args:
        group: the processes that train together, all of which call this; the main one speaks and writes.
        iterations: that today's code does of its training.
        origin: the code before; by default that of the net that is used now, or the only one that the cache has.

    Returns:
        Whether there was a net to keep.

    Raises:
        click.ClickException: what today's code does differs, or nobody says which of several nets to keep.
    """
    today = job.fingerprint()
    code = stage_code(job.stage)
    if all(cache.find(_KIND, today, suffix) for suffix in (_NET, _RECORD)):
        _say(group, f"{job.stage}@{job.split}: the net is of today's code ({code}); nothing to adopt")
        return False
    origin = origin or _code_before(job, cache, today)
    before = f"{without_code(today)}-{origin}"
    net, record = (cache.find(_KIND, before, suffix) for suffix in (_NET, _RECORD))
    if net is None or record is None:
        _say(group, f"{job.stage}@{job.split}: there is no net of today's code ({code}), nor of another")
        return False
    said = f"{job.stage}@{job.split}: code {origin} -> {code}"
    if job.iterations:
        rows = read_record(record)[: min(iterations, job.iterations)]
        difference, shown = _trained_otherwise(job, params, group, rows), f"the first {len(rows)} iterations"
    else:
        difference, shown = _made_otherwise(job, cache, today, net), "the net made again,"
    if difference:
        raise click.ClickException(f"{said}: {difference}. Nothing is adopted; the stage makes the net again")
    for suffix in (_RECORD, _NET) if group.main else ():
        cache.adopt(_KIND, before, code_of(today), suffix)
    _say(group, f"{said}: {shown} all equal; the net is adopted")
    return True


def _say(group: "Processes", line: str) -> None:
    if group.main:
        click.echo(line)


def _code_before(job: NetJob, cache: ClipCache, today: str) -> str:
    """The code whose net the output is; else the only one of which there is a net; "" where there is none."""
    codes = cache.codes(_KIND, today, _NET)
    for code in codes if job.output.is_file() else ():
        path = cache.find(_KIND, f"{without_code(today)}-{code}", _NET)
        if path is not None and path.read_bytes() == job.output.read_bytes():
            return code
    if len(codes) > 1:
        raise click.ClickException(
            f"{job.stage}@{job.split}: the cache has nets of several codes, {', '.join(codes)}; name one by --from"
        )
    return codes[0] if codes else ""


class _Enough(Exception):
    """All iterations that were asked for are done."""


def _trained_otherwise(job: NetJob, params: Params, group: "Processes", rows: list[Mapping[str, str]]) -> str:
    """The first difference between training and a record; "" if there is none."""
    if not rows:
        return "there is no record of how the net was trained"
    difference = ""
    with Progress(f"compare {job.name}", len(rows), unit="iteration", quiet=not group.main) as progress:

        def on_step(step: "Step") -> None:
            nonlocal difference
            before = rows[step.iteration - 1]
            now = record_row(step.iteration, figures_of(step))
            wrong = (name for name, value in now.items() if before.get(name) != value)
            if name := next(wrong, ""):
                difference = f"iteration {step.iteration}: {name} is {now[name]} and was {before.get(name)}"
            progress.advance()
            if difference or step.iteration == len(rows):
                raise _Enough

        with suppress(_Enough):
            job.train(job.initial(), processes=group, readers=readers_of_each(params.run), on_step=on_step)
    return difference


def _made_otherwise(job: NetJob, cache: ClipCache, today: str, before: Path) -> str:
    """The first difference between the initial net and a file; "" if there is none. Versions of libraries are none."""
    path = cache.temporary("adopt", _NET)
    try:
        job.write(path, job.initial(), facts_of(job, today))
        (tensors, facts), (old_tensors, old_facts) = read_arrays(path), read_arrays(before)
    finally:
        path.unlink(missing_ok=True)
    for name, old_name in zip_longest(sorted(tensors), sorted(old_tensors)):
        if name != old_name:
            return f"the tensors are others ({name} in place of {old_name})"
        if tensors[name].tobytes() != old_tensors[name].tobytes():
            return f"tensor {name} has other values"
    names = sorted((facts.keys() | old_facts.keys()) - {"tools", *SEAL})
    return next(
        (
            f"{name} is {facts.get(name)} and was {old_facts.get(name)}"
            for name in names
            if facts.get(name) != old_facts.get(name)
        ),
        "",
    )
