"""``han store``: what is in stores of feature cubes, whether they are sound, and their numbers for other tools.

A store is a folder of cube files, ``<folder>/<class>/<clip>.h5``, as the cubes stage writes it, or of shards of them
(``cubes.shard``). Other folders of clip files can be looked into and verified as well.
"""

import json
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np

from han_core.cache.verify import problems, verify_clip_file
from han_core.cli.dense_export import check_destination, write_dense
from han_core.cli.which_store import is_in_shards_place, is_store, kind_of, require_store
from han_core.clipfile.arrays import read_parts
from han_core.clipfile.reader import ClipFile
from han_core.clipfile.trailer import TRAILER_BYTES, ClipFileError, read_trailer
from han_core.cubes.cubefile import CUBES, cube_shape, read_cube
from han_core.cubes.folder import CubeFolder, StoredClip, clips_of_shard, shard_files
from han_core.cubes.statistics import StoreStatistics, store_statistics
from han_core.devices import cores
from han_core.errors import HanError

_FACTS = ("stream", "layer", "fc", "net", "input", "precision", "stack", "crops", "backend", "codec", "bound")
"""Attributes of a clip file that say how it was made."""

_json = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
_folder = click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))


@click.group()
def store() -> None:
    """Look into, verify and export stores of feature cubes."""


@store.command("ls")
@click.argument("folders", nargs=-1, type=click.Path(exists=True, file_okay=False, path_type=Path))
@_json
def list_stores(folders: tuple[Path, ...], as_json: bool) -> None:
    """Clips, size and sparsity of each store in FOLDERS; of this project (data/*/cubes/*) by default."""
    found = [found for folder in folders or [Path()] for found in _stores(folder)]
    if not found:
        where = ", ".join(map(str, folders)) or "data/*/cubes"
        raise click.ClickException(f"no cube files in {where}; run the cubes stage, or name another folder")
    reports = [{"store": str(path), **_report(_statistics(path))} for path in found]
    if as_json:
        click.echo(json.dumps(reports, indent=1))
        return
    for report in reports:
        click.echo(f"{report['store']}: {_summary(report)}")


@store.command()
@_folder
@_json
def stat(folder: Path, as_json: bool) -> None:
    """How large and how sparse a store is, which net, layer and settings made it, and on what.

    Of a folder of frames, flow or scores files: size, settings and what made them. Where files differ in the libraries
    or the processor that made them, their numbers may differ in the last digits.
    """
    clips = _plain(lambda: list(_clips(folder)))
    kinds = Counter(clip.trailer.kind for clip in clips)
    report: dict[str, Any] = {"store": str(folder), "kinds": dict(kinds.most_common())}
    if list(kinds) == ["cubes"]:
        report |= _report(_plain(lambda: store_statistics(clip.trailer for clip in clips)))
    else:
        report |= {"clips": len(clips), "file_bytes": sum(clip.trailer.size + TRAILER_BYTES for clip in clips)}
    report["classes"] = dict(sorted(Counter(clip.class_name for clip in clips).items()))
    facts: dict[str, Counter] = defaultdict(Counter)
    tools: dict[str, Counter] = defaultdict(Counter)
    with _bar(clips, "stat") as bar:
        for clip in bar:
            found, made_with = _facts_of(clip)
            for counts, values in ((facts, found), (tools, made_with)):
                for name, value in values.items():
                    counts[name][value] += 1
    report["made_by"] = {name: dict(facts[name].most_common()) for name in _FACTS if facts[name]}
    report["made_with"] = {name: dict(values.most_common()) for name, values in sorted(tools.items())}
    if as_json:
        click.echo(json.dumps(report, indent=1))
        return
    _print_stat(report)


def _print_stat(report: dict[str, Any]) -> None:
    if "shape" in report:
        click.echo(f"{report['store']}: {_summary(report)}")
        click.echo(f"  shape of a clip  {' x '.join(map(str, report['shape']))}  (frames, channels, rows, columns)")
    else:
        click.echo(f"{report['store']}: {report['clips']} clips, {', '.join(report['kinds'])}")
    click.echo(f"  whole files      {report['file_bytes'] / 1e6:,.1f} MB")
    click.echo(f"  classes          {len(report['classes'])}")
    mixed = {name: values for name, values in report["made_with"].items() if sum(values.values()) < report["clips"]}
    mixed |= {name: values for name, values in report["made_with"].items() if len(values) > 1}
    alike = [f"{name} {next(iter(values))}" for name, values in report["made_with"].items() if name not in mixed]
    lines = [*report["made_by"].items(), ("made with", {", ".join(alike): report["clips"]}), *sorted(mixed.items())]
    for name, values in lines:
        several = len(values) > 1 or name in mixed
        for number, (value, count) in enumerate(values.items()):
            click.echo(f"  {'' if number else name:15}  {value}" + (f"  ({count} clips)" if several else ""))
    if mixed:
        click.echo(f"  mixed: files differ in {', '.join(sorted(mixed))}; their numbers may differ in the last digits")


@store.command()
@_folder
@click.option("--workers", type=click.IntRange(min=1), help="Processes that read; one per core by default.")
@_json
@click.pass_context
def verify(ctx: click.Context, folder: Path, workers: int | None, as_json: bool) -> None:
    """Recompute every checksum; names each clip with a flipped bit and ends with status 1 if there is one.

    A folder of frames, flow or other clip files is verified as such; a file of another kind than most is bad.
    """
    _plain(lambda: require_store(folder))
    shards = shard_files(folder)
    files = [*shards, *sorted(folder.glob("*/*.h5"))]
    kind = kind_of(files)
    with _bar(problems(files, partial(_check, folder, kind), workers=workers or cores()), "verify", len(files)) as bar:
        bad = [problem for problem in bar if problem]
    if as_json:
        click.echo(json.dumps({"store": str(folder), "checked": len(files), "bad": bad}, indent=1))
    else:
        for problem in bad:
            click.echo(problem)
        what = "shards" if shards else "clips" if kind == "cubes" else f"{kind} files"
        click.echo(f"{len(files)} {what} checked, {len(bad)} bad, in {folder}")
    if bad:
        ctx.exit(1)


@store.command()
@_folder
@click.argument("destination", type=click.Path(file_okay=False, path_type=Path))
@click.option("--format", "form", type=click.Choice(["npy", "hdf5"]), default="npy", show_default=True)
@click.option("--array", default=CUBES, show_default=True, help="What is exported: cubes, or a layer such as fc7.")
@_json
def export(folder: Path, destination: Path, form: str, array: str, as_json: bool) -> None:
    """Write dense arrays to DESTINATION/<class>/<clip>.npy (or .h5, plain HDF5): cubes (T, 512, 14, 14) float16.

    DESTINATION must be apart from all clip files. Files of an earlier export are replaced.
    """
    clips = _plain(lambda: list(_clips(folder)))
    _plain(lambda: check_destination(folder, clips, destination))
    suffix = ".npy" if form == "npy" else ".h5"
    total = 0
    with _bar(clips, "export") as bar:
        for clip in bar:
            values = _plain(lambda clip=clip: _dense(clip, array))
            target = destination / clip.class_name / f"{clip.name}{suffix}"
            _plain(lambda target=target, values=values: write_dense(target, array, values))
            total += values.nbytes
    if as_json:
        report = {"store": str(folder), "destination": str(destination), "clips": len(clips), "bytes": total}
        click.echo(json.dumps(report | {"array": array, "format": form}, indent=1))
    else:
        click.echo(f"{len(clips)} clips, {total / 1e6:,.1f} MB of {array}, in {destination}")


def _stores(folder: Path) -> list[Path]:
    """The folder itself if it is a store, or those of a project below it."""
    if is_store(folder):
        return [folder]
    return [path for path in sorted(folder.glob("data/*/cubes/*")) if is_store(path)]


def _clips(folder: Path) -> Iterator[StoredClip]:
    """All clips of a store, sorted.

    Raises:
        NotAStore: the folder is none.
        ClipFileError: a file is damaged.
    """
    require_store(folder)
    found = CubeFolder(folder)
    return (found.find(*name) for name in found.names())


def _statistics(folder: Path) -> StoreStatistics:
    return _plain(lambda: store_statistics(clip.trailer for clip in _clips(folder)))


def _report(found: StoreStatistics) -> dict:
    report = vars(found) | {"smaller": found.raw_bytes / found.stored_bytes}
    return report | {"shape": list(found.shape)}


def _summary(report: dict) -> str:
    return (
        f"{report['clips']} clips, {100 * report['zeros']:.1f} % zeros, "
        f"{report['stored_bytes'] / 1e6:,.1f} MB of cubes, {report['smaller']:.1f} times smaller than raw float16"
    )


def _facts_of(clip: StoredClip) -> tuple[dict[str, str], dict[str, str]]:
    """How a file was made: the settings that it names, and libraries and processor."""

    def read() -> tuple[dict[str, str], dict[str, str]]:
        with clip.file() as path, ClipFile(path) as file:
            return {name: str(value) for name, value in file.attributes.items() if name in _FACTS}, file.tools

    return _plain(read)


def _check(folder: Path, kind: str, path: Path) -> None:
    """Verify a file of a store whose files are of some kind."""
    verify_clip_file(path)
    if is_in_shards_place(path, folder):
        for clip in clips_of_shard(path):
            with clip.file() as own:
                verify_clip_file(own)
            cube_shape(path, clip.trailer)
        return
    trailer = read_trailer(path)
    if kind == "cubes":
        cube_shape(path, trailer)
    elif trailer.kind != kind:
        raise ClipFileError(f"{path}: clip {trailer.clip} is a file of kind {trailer.kind} among those of kind {kind}")


def _dense(clip: StoredClip, array: str) -> np.ndarray:
    path, trailer = clip.path, clip.trailer
    return read_cube(path, trailer) if array == CUBES else read_parts(path, trailer, (array,))[0]


def _plain(read: Callable[[], Any]) -> Any:
    """What ``read`` returns; what goes wrong is a plain message."""
    try:
        return read()
    except (HanError, OSError) as error:
        raise click.ClickException(str(error)) from None


def _bar(items: Iterable, label: str, length: int | None = None) -> AbstractContextManager[Iterable]:
    return click.progressbar(items, length=length, label=label, file=sys.stderr)
