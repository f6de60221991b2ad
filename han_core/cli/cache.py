"""``han cache``: what the cache of clip files holds, whether it is sound, and what is no longer needed."""

import json
import sys
from collections import defaultdict
from pathlib import Path

import click

from han_core.cache import housekeeping
from han_core.cache.housekeeping import Entry
from han_core.cache.store import ClipCache
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
    """Number and size of the files of each kind (frames, flow, cubes, nets), or of the KINDS given."""
    store = _open(root)
    entries = list(housekeeping.entries(store, kinds))
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
    "DVC's cache. The next run recomputes them.",
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
    workspaces: tuple[Path, ...],
    as_json: bool,
    root: Path | None,
) -> None:
    """Recompute the checksums of all files, or of those of the KINDS given; exit status 1 if one is bad."""
    store = _open(root)
    entries = list(housekeeping.entries(store, kinds))
    with click.progressbar(length=len(entries), label="verify", file=sys.stderr) as bar:
        bad = housekeeping.verify_entries(store, kinds, workers=workers or cores(), advance=lambda: bar.update(1))
    removed = [path for entry, _ in bad for path in housekeeping.remove_entry(entry, workspaces)] if remove else []
    if as_json:
        report = {
            "root": str(store.root),
            "checked": len(entries),
            "bad": [_as_json(entry) | {"problem": problem} for entry, problem in bad],
            "removed": [str(path) for path in removed],
        }
        click.echo(json.dumps(report, indent=1))
    else:
        for _, problem in bad:
            click.echo(problem)
        for path in removed:
            click.echo(f"removed {path}")
        click.echo(f"{len(entries)} files checked, {len(bad)} bad, in {store.root}")
    if bad:
        ctx.exit(1)


@cache.command()
@_workspaces
@click.option("--older-than", type=click.FloatRange(min=0), default=0.0, metavar="DAYS", help="Keep younger files.")
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


def _open(root: Path | None) -> ClipCache:
    store = ClipCache(root) if root is not None else ClipCache.from_environment()
    if not store.root.is_dir():
        raise click.ClickException(f"there is no cache at {store.root}; set HAN_CACHE or give --root")
    return store


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
