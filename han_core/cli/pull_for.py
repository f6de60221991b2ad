"""``han pull-for``: what some stages read, from a DVC remote.

``dvc pull STAGE`` fetches what a stage makes. To run a stage, what it reads is needed, and DVC fetches that by itself
only where it is one output of one stage of this params file. But ``evaluate`` reads the folder
``data/<dataset>/predictions``, into which a dozen stages write, and ``cubes-spatial`` may read a net that was
fine-tuned under the params file of another dataset.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click
import yaml

if TYPE_CHECKING:
    from dvc.output import Output
    from dvc.repo import Repo
    from dvc.stage import Stage

_UNFINISHED = re.compile(r"\.[\w-]{22}\.tmp")


@click.command("pull-for")
@click.argument("stages", nargs=-1, required=True)
@click.option("--remote", help="Name of the DVC remote; by default DVC's own default.")
@click.option("--dry", is_flag=True, help="Only list what would be pulled.")
def pull_for(stages: tuple[str, ...], remote: str | None, dry: bool) -> None:
    """Pull from the DVC remote what STAGES read, so that they run here without the stages before them.

    Name stages as for `dvc repro`: train (all of its items) or train@han-1-1. Then run them, and only them, with
    `dvc repro -s STAGES`.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo, lock_repo

    try:
        with Repo() as repo, lock_repo(repo):
            everything = list(repo.index.stages)
            needed, absent = inputs_of(everything, wanted_stages(everything, stages))
            foreign, absent = made_elsewhere(repo, everything, absent)
            needed += foreign
            if absent:
                raise click.ClickException(
                    f"pull-for: {', '.join(map(_shown, absent))}: not here, and dvc.lock does not know it, so it "
                    "cannot be pulled; run the stage that makes it (for nets of another dataset, with that dataset's "
                    "params file), or put it there"
                )
            for out in needed:
                click.echo(_shown(out.fs_path))
            if not dry:
                pull(repo, needed, remote)
    except DvcException as error:
        raise click.ClickException(f"pull-for: {error}") from None


def wanted_stages(everything: "Iterable[Stage]", names: Iterable[str]) -> "list[Stage]":
    """The stages of these names; all items of a stage where its name alone is given.

    Raises:
        ClickException: there is no stage of a name.
    """
    known = {stage.addressing: stage for stage in everything}
    found: dict[str, Stage] = {}
    for name in names:
        own = {full: stage for full, stage in known.items() if name in (full, full.partition("@")[0])}
        if not own:
            groups = ", ".join(dict.fromkeys(full.partition("@")[0] for full in known))
            raise click.ClickException(f"pull-for: this params file has no stage {name}; it has {groups}")
        found |= own
    return list(found.values())


def inputs_of(everything: "Iterable[Stage]", wanted: "Iterable[Stage]") -> "tuple[list[Output], list[str]]":
    """Which outputs of stages others read, in the order of ``dvc.yaml``, and the absolute paths of what they read that
    no stage makes and that does not exist."""
    from dvc.dependency import ParamsDependency

    read = {dep.fs_path for stage in wanted for dep in stage.deps if not isinstance(dep, ParamsDependency)}
    outs = [out for stage in everything for out in stage.outs]
    needed = [out for out in outs if any(_overlap(out.fs_path, path) for path in read)]
    made = {path for path in read if any(_overlap(out.fs_path, path) for out in outs)}
    return needed, sorted(path for path in read - made if not Path(path).exists())


def made_elsewhere(
    repo: "Repo", everything: "Iterable[Stage]", absent: Iterable[str]
) -> "tuple[list[Output], list[str]]":
    """Outputs of stages that this params file does not have, and that ``dvc.lock`` still knows: nets of another
    dataset. And the paths of which it knows nothing."""
    from dvc.output import loadd_from

    lock = Path(repo.root_dir, "dvc.lock")
    entries = _stages_of(lock)
    known = {str(lock.parent / out["path"]): out for entry in entries.values() for out in entry.get("outs") or ()}
    found = [path for path in absent if path in known]
    some = next(iter(everything))  # an output belongs to a stage, whichever
    return loadd_from(some, [dict(known[path]) for path in found]), [path for path in absent if path not in known]


def _stages_of(lock: Path) -> dict:
    """What ``dvc.lock`` knows of stages. There may be no such file, or, where none has finished, no stages in it."""
    found = yaml.safe_load(lock.read_text(encoding="utf-8")) if lock.exists() else None
    return (found.get("stages") if isinstance(found, dict) else None) or {}


def pull(repo: "Repo", outs: "Iterable[Output]", remote: str | None) -> None:
    """Fetch outputs and put them into the workspace. `dvc pull` with as many targets reads ``dvc.yaml`` and
    ``dvc.lock`` twice for each.

    Raises:
        ClickException: the remote lacks some of them.
        DvcException: there is no remote, it cannot be reached, or a file here was changed and is in no cache.
    """
    made = [out for out in outs if out.hash_info]  # the others have not been made by anybody
    for out in made:
        objects = out.get_used_objs(remote=remote, force=True).get(None, ())
        missing = [found for found in objects if not repo.cache.local.exists(found.value)]
        if missing and repo.cloud.pull(missing, remote=remote).failed:
            raise click.ClickException(
                f"pull-for: {_shown(out.fs_path)}: the remote lacks parts of it; its maker has to `dvc push`"
            )
        remove_unfinished(Path(out.fs_path))
        out.checkout()


def remove_unfinished(folder: Path) -> None:
    """Remove links that DVC, killed as it made them, had not given their names yet. It takes them for files of the user
    and refuses to remove them."""
    for path in folder.rglob(".*.tmp"):
        if _UNFINISHED.fullmatch(path.name):
            path.unlink()


def _overlap(one: str, other: str) -> bool:
    """Whether two paths are one, or one lies in the other."""
    return Path(one).is_relative_to(other) or Path(other).is_relative_to(one)


def _shown(path: str) -> str:
    """A path as a user would type it."""
    folder = Path.cwd()
    return Path(path).relative_to(folder).as_posix() if Path(path).is_relative_to(folder) else path
