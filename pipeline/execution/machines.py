"""Several machines that train one model, started by ``torchrun`` on each: whether they have what that takes.

Every process answers the questions that workers of a cluster are asked (:mod:`pipeline.execution.fitness`), and the
answers are compared with the first process's before anything is trained. A machine with another cache would start from
another checkpoint, or reuse a net that the others train, and all would wait for each other.
"""

import hashlib
import json
import os
import platform
import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.execution.fitness import Answer, Question, look, why_unfit
from pipeline.params import load_params

if TYPE_CHECKING:  # torch takes seconds to import
    from torch.distributed import Store


def on_several_machines() -> bool:
    """Whether ``torchrun`` started this process together with others on another machine."""
    return int(os.environ.get("WORLD_SIZE", 1)) > int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def compare_machines(module: str, arguments: Sequence[str]) -> None:
    """Compare what the machines have; all processes call it and hear the same.

    Args:
        module: the stage, e.g. ``pipeline.train``.
        arguments: its command line.

    Raises:
        ClickException: a machine has other versions, code or params than the first, or another cache; names it.
    """
    import torch.distributed as dist

    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return  # not started by torchrun; this store is closed before the processes join
    store, rank, size = next(iter(dist.rendezvous("env://")))
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    problem = _problem(dist.PrefixStore(f"han/machines/{attempt}", store), rank, size, module, arguments)
    if problem:
        raise click.ClickException(f"{module}: {problem}")


def _problem(store: "Store", rank: int, size: int, module: str, arguments: Sequence[str]) -> str:
    """What keeps the machines from training together; "" if nothing does."""
    from han_core.cache.store import ClipCache

    folder = ClipCache.from_environment().root.resolve() / "tmp"
    name = f"machines-{secrets.token_hex(8)}"
    if rank == 0:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name, encoding="ascii")
        store.set("note", name)
    try:
        note = store.get("note").decode()
        question = Question(note=str(folder / note), written=note, stage=_stage(module, arguments))
        mine = {"machine": platform.node(), "answer": asdict(look(question)), "params": _params(arguments)}
        store.set(str(rank), json.dumps(mine))
        everybody = [json.loads(store.get(str(other))) for other in range(size)]
    finally:
        if rank == 0:
            with suppress(OSError):
                (folder / name).unlink()
    first = everybody[0]
    for number, one in enumerate(everybody):
        why = why_unfit(Answer(**one["answer"]), Answer(**first["answer"]), question)
        if not why and one["params"] != first["params"]:
            why = "its params file says something else (run may differ, and nothing besides); copy it"
        if why:
            return f"process {number} on {one['machine']}, beside the first on {first['machine']}: {why}"
    return ""


def _stage(module: str, arguments: Sequence[str]) -> str:
    """Name of a stage in ``dvc.yaml``, which names its code."""
    name = module.removeprefix("pipeline.").replace("_", "-")
    return f"{name}-{arguments[arguments.index('--stream') + 1]}" if "--stream" in arguments else name


def _params(arguments: Sequence[str]) -> str:
    """Digest of all params but ``run``."""
    params = load_params(Path(arguments[arguments.index("--params") + 1]))
    return hashlib.sha256(params.model_dump_json(exclude={"run"}).encode()).hexdigest()
