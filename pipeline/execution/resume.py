"""Where a training run keeps its last state, and what it does with one that other code left."""

import click

from han_core.cache.fingerprint import code_of, without_code
from han_core.cache.store import ClipCache
from han_core.runs.checkpoint import Checkpoint


def run_checkpoint(name: str, cache: ClipCache, identity: str, *, seconds: float, main: bool = True) -> Checkpoint:
    """The checkpoint of a run. It is named by all that the run depends on, the code included, so that no run goes on
    from a state that other code reached; if there is one, it is said.

    Args:
        name: of the run, as it is shown.
        identity: its fingerprint.
        seconds: least time between two saves.
        main: whether this is the process that speaks.
    """
    path = cache.checkpoint_path(identity)
    others = [other for other in path.parent.glob(f"{without_code(identity)}-*{path.suffix}") if other != path]
    if others and main and not path.exists():
        click.echo(
            f"{name}: the code was changed since an interrupted run left {others[0]}; this run starts from the "
            f"beginning (to resume it, check out the code of {code_of(others[0].stem)} again)",
            err=True,
        )
    return Checkpoint(path, seconds=seconds, temporary=cache.temporary(f"checkpoint-{identity[:16]}"))
