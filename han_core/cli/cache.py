"""``han cache``: what the cache of clip files holds, whether it is sound, and what is no longer needed."""

import json
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import click

from han_core.cache import housekeeping
from han_core.cache.folders import advice
from han_core.cache.housekeeping import Damaged, Entry
from han_core.cache.store import ClipCache
from han_core.cache.workspace import Stage, Workspace
from han_core.devices import cores

_root = click.option(
    "--root",
    type=click.Path(file_okay=False, path_type=Path),
    help="The cache; $HAN_CACHE or .han_cache by default.",
)
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
_workspaces = click.option(
    "--workspace",
    "workspaces",
    multiple=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=[Path()],
    help="A project folder that uses the cache; may be given more than once. The current folder by default.",
)


@click.group()
def cache() -> None:
    """List, verify and prune the cache of finished clip files and nets."""


@cache.command("ls")
@click.argument("kinds", nargs=-1)
@click.option("--files", is_flag=True, help="List every file, not only the sum of each kind.")
@_json
@_root
def list_entries(kinds: tuple[str, ...], files: bool, as_json: bool, root: Path | None) -> None:
    """Number and size of the files of each kind (frames, flow, cubes, nets and so on), or of the KINDS given."""
    store = _open(root)
    entries = _entries(store, kinds)
    by_kind: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        by_kind[entry.kind].append(entry)
    if as_json:
        report: dict = {"root": str(store.root)}
        report["kinds"] = {
            kind: {"files": len(some), "bytes": sum(e.size for e in some)} for kind, some in by_kind.items()
        }
        if files:
            report["files"] = [_as_json(entry) for entry in entries]
        click.echo(json.dumps(report, indent=1))
        return
    if files:
        for entry in entries:
            click.echo(f"{entry.kind:8} {_human(entry.size)} {entry.links:3} names  {entry.path}")
    for kind, some in by_kind.items():
        click.echo(f"{kind:8} {len(some):7} files {_human(sum(e.size for e in some))}")
    click.echo(f"{'all':8} {len(entries):7} files {_human(sum(e.size for e in entries))}  in {store.root}")


@cache.command()
@click.argument("kinds", nargs=-1)
@click.option("--workers", type=click.IntRange(min=1), help="Processes that read; one per core by default.")
@click.option(
    "--remove",
    is_flag=True,
    help="Delete the bad files, and the other names (hard links) of the same bytes in the workspaces: the outputs and "
    "DVC's cache. `dvc repro` makes them again.",
)
@click.option(
    "--force-downstream",
    is_flag=True,
    help="With --remove: make DVC forget what all stages made that may have read a bad file, so that `dvc repro` runs "
    "them again, too.",
)
@_workspaces
@_json
@_root
@click.pass_context
def verify(
    ctx: click.Context,
    kinds: tuple[str, ...],
    workers: int | None,
    remove: bool,
    force_downstream: bool,
    workspaces: tuple[Path, ...],
    as_json: bool,
    root: Path | None,
) -> None:
    """Recompute the checksums of all files, or of those of the KINDS given; exit status 1 if one is bad.

    Without KINDS also those of DVC's cache and of the outputs in the workspaces. Names the stages that made and that
    read the bad files.
    """
    if force_downstream and not remove:
        raise click.UsageError("--force-downstream goes with --remove")
    pulled = any((path / ".dvc").is_dir() for path in workspaces)  # by DVC: there are files, and no cache of ours
    store = ClipCache.from_environment() if root is None and pulled else _open(root)
    projects = [Workspace(path) for path in workspaces]
    entries = _entries(store, kinds)
    with click.progressbar(length=len(entries), label="verify", file=sys.stderr) as bar:
        bad = housekeeping.verify_entries(store, kinds, workers=workers or cores(), advance=lambda: bar.update(1))
    damaged = [Damaged(entry.path, problem) for entry, problem in bad]
    checked = [entry.path for entry in entries]
    others = Counter()
    for project in () if kinds else projects:
        damaged += housekeeping.verify_workspace(project, checked, advance=lambda: others.update(["files"]))
    names = housekeeping.names_of([item.path for item in damaged], [f for p in projects for f in p.folders()])
    affected = [(p, makers, p.users(makers)) for p in projects if (makers := p.makers(names))]
    if remove:
        housekeeping.remove(names)
    if force_downstream:
        for project, makers, users in affected:
            project.forget([*makers, *users])
    if as_json:
        report = {
            "root": str(store.root),
            "checked": len(entries) + others["files"],
            "bad": [{"path": str(item.path), "problem": item.problem} for item in damaged],
            "removed": [str(path) for path in names] if remove else [],
            "made_by": sorted({stage.name for _, makers, _ in affected for stage in makers}),
            "read_by": sorted({stage.name for _, _, users in affected for stage in users}),
            "forgotten": force_downstream,
        }
        click.echo(json.dumps(report, indent=1))
    else:
        for item in damaged:
            click.echo(item.problem)
        for path in names if remove else ():
            click.echo(f"removed {path}")
        for project, makers, users in affected:
            _say_affected(project, makers, users, removed=remove, forgotten=force_downstream)
        click.echo(f"{len(entries) + others['files']} files checked, {len(damaged)} bad, in {store.root}")
    if damaged:
        ctx.exit(1)


def _say_affected(
    project: Workspace, makers: Sequence[Stage], users: Sequence[Stage], *, removed: bool, forgotten: bool
) -> None:
    """Which stages a person has to think of, and what they run."""
    named = " ".join(stage.name for stage in makers)
    readers = " ".join(stage.name for stage in users)
    click.echo(f"{project.folder}: made by {named}" + (f"; may have been read by {readers}" if readers else ""))
    if not removed:
        click.echo("Run it with --remove, then `dvc repro`.")
    elif forgotten:
        click.echo("`dvc repro` makes them, and all that depends on them, again.")
    elif readers:
        click.echo(
            "`dvc repro` makes them again. What is read is compared with its checksum, so whatever was made of a bad "
            "file was made before it went bad. To make that again all the same: --force-downstream, or "
            f"dvc repro -f -s {readers}"
        )
    else:
        click.echo("`dvc repro` makes them again.")


@cache.command()
@_workspaces
@click.option(
    "--older-than",
    type=click.FloatRange(min=0),
    default=housekeeping.YOUNG / 86400,
    metavar="DAYS",
    help="Keep younger files; an hour by default, for stages that run now.",
)
@click.option("--dry-run", is_flag=True, help="Only say what would be deleted.")
@click.option("--yes", is_flag=True, help="Delete without asking.")
@_json
@_root
def prune(
    workspaces: tuple[Path, ...], older_than: float, dry_run: bool, yes: bool, as_json: bool, root: Path | None
) -> None:
    """Delete files that no output refers to, and what killed processes left behind.

    A file stays if it has another name on disk (a workspace's or DVC's cache's hard link) or if a workspace named here
    holds a copy of it. Files that only DVC's cache still links are kept: run `dvc gc` first. Where several people
    share the cache from other disks, name all their workspaces, or use --older-than.
    """
    store = _open(root)
    found = housekeeping.prunable(store, workspaces, older_than=older_than * 86400)
    what = (
        f"{len(found.entries)} files and {len(found.temporaries)} left-over temporaries, {_human(found.size).strip()}"
    )
    if not as_json:
        for entry in found.entries:
            click.echo(f"{entry.kind:8} {_human(entry.size)}  {entry.path}")
        for path in found.temporaries:
            click.echo(f"temporary {path}")
        click.echo(f"{what}: nothing refers to them, in {store.root}")
    anything = bool(found.entries or found.temporaries)
    delete = anything and not dry_run and (yes or (not as_json and click.confirm("Delete them?")))
    if delete:
        housekeeping.prune(found)
    if as_json:
        report = {
            "root": str(store.root),
            "files": [_as_json(entry) for entry in found.entries],
            "temporaries": [str(path) for path in found.temporaries],
            "bytes": found.size,
            "deleted": delete,
        }
        click.echo(json.dumps(report, indent=1))
    elif delete:
        click.echo(f"deleted {what}")


@cache.command(context_settings={"ignore_unknown_options": True}, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def adopt(ctx: click.Context, arguments: tuple[str, ...]) -> None:
    """Show on a sample that a stage's new code makes the same files, and keep those of the code before."""
    # A stage's code is the project's; the library does not know it.
    ctx.exit(subprocess.run([sys.executable, "-m", "pipeline.adopt", *arguments], check=False).returncode)


def _open(root: Path | None) -> ClipCache:
    store = ClipCache(root) if root is not None else ClipCache.from_environment()
    if not store.root.is_dir():
        raise click.ClickException(f"there is no cache at {store.root}; set HAN_CACHE, or name it with --root")
    try:
        known = housekeeping.is_cache(store.root)
    except OSError as error:
        raise click.ClickException(_unreadable(store, error)) from None
    if not known:
        raise click.ClickException(
            f"{store.root} is not a cache: it holds other things; set HAN_CACHE, or name the cache with --root"
        )
    return store


def _entries(store: ClipCache, kinds: Sequence[str]) -> list[Entry]:
    """Of some kinds, or all; where kinds were mistyped, a plain message."""
    try:
        return list(housekeeping.entries(store, kinds))
    except housekeeping.UnknownKind as error:
        raise click.BadParameter(str(error), param_hint="KINDS") from None
    except OSError as error:
        raise click.ClickException(_unreadable(store, error)) from None


def _unreadable(store: ClipCache, error: OSError) -> str:
    return f"{error.filename or store.root}: cannot be read ({error.strerror}): {advice(error)}"


def _as_json(entry: Entry) -> dict:
    return {
        "kind": entry.kind,
        "fingerprint": entry.fingerprint,
        "path": str(entry.path),
        "bytes": entry.size,
        "names": entry.links,
    }


def _human(size: float) -> str:
    """Bytes as a person reads them, ten characters wide."""
    units = ["TiB", "GiB", "MiB", "KiB", "B"]
    while size >= 1024 and len(units) > 1:
        size /= 1024
        units.pop()
    return f"{size:6.1f} {units[-1]:3}"
