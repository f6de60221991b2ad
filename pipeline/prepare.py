"""Stage ``prepare``: check the whole dataset, then write ``data/<dataset>/clips.csv``.

All problems are reported at once, and no clips.csv is written while there is an error. The report shows the first
few items of each problem; ``logs/<dataset>/prepare.log`` has them all.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import click

from han_core.clips import ClipTable, write_clips
from han_core.datasets.assemble import assemble_table
from han_core.datasets.checks import check_inspections, check_lengths, check_listing, flow_cost
from han_core.datasets.folder import FolderRules, list_folder
from han_core.datasets.hmdb51 import list_hmdb51
from han_core.datasets.listing import Listing, Problem
from han_core.datasets.probing import CRASHED, Inspection, inspect_video
from han_core.datasets.synthetic.generate import BOXES, GROUP_PATTERN
from han_core.datasets.ucf101 import list_ucf101
from han_core.datasets.ut_interaction import list_ut_interaction
from han_core.datasets.video_list import list_videos
from han_core.runs.progress import Progress
from pipeline.execution.cluster import connected
from pipeline.execution.fitness import Question, files_in
from pipeline.execution.jobs import died
from pipeline.execution.local import with_processes
from pipeline.execution.on_cluster import with_cluster
from pipeline.execution.outputs import clear
from pipeline.execution.told import told_plainly
from pipeline.execution.workers import worker_count
from pipeline.params import Params, Run, load_params, params_option
from pipeline.paths import Paths
from pipeline.settings.data import SMALLEST_SIDE
from pipeline.shown_clips import choose_clips

_SHOWN = 10
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def list_dataset(params: Params) -> Listing:
    """Read the folders and split files of ``dataset.kind``.

    Raises:
        click.ClickException: a folder, or the list, is missing.
    """
    dataset = params.dataset
    if dataset.kind == "list":
        _require(dataset.root.is_file(), dataset.root, "dataset.root", "file")
    else:
        _require(dataset.root.is_dir(), dataset.root, "dataset.root", "folder")
    if dataset.annotations is not None:
        _require(dataset.annotations.is_dir(), dataset.annotations, "dataset.annotations", "folder")
    rules = FolderRules(**dict(dataset.folder), annotations=dataset.annotations)
    match dataset.kind:
        case "ucf101":
            return list_ucf101(dataset.root, dataset.annotations, params.splits)
        case "hmdb51":
            return list_hmdb51(dataset.root, dataset.annotations, params.splits)
        case "ut_interaction":
            return list_ut_interaction(dataset.root, params.splits)
        case "list":
            return list_videos(dataset.root, rules, params.splits, seed=params.seed, base=dataset.base)
        case "folder":
            return list_folder(dataset.root, rules, params.splits, seed=params.seed)
        case "synthetic":
            rules = FolderRules(GROUP_PATTERN, rules.split_by, rules.folds, rules.test_share, rules.annotations)
            return list_folder(dataset.root, rules, params.splits, seed=params.seed, expected=(BOXES,))


def _require(there: bool, path: Path, key: str, kind: str) -> None:
    if not there:
        state = f"is not a {kind}" if path.exists() else "does not exist"
        raise click.ClickException(f"{key}: {path} {state}; put the data there or correct the params file")


def prepare(params: Params) -> tuple[ClipTable | None, list[Problem]]:
    """Check the dataset of the params; the table is None if there are errors."""
    listing = list_dataset(params)
    present = sorted({video.path for video in listing.videos} & listing.on_disk)
    with Progress("prepare", len(present), unit="video") as progress:
        look = partial(
            inspect_video,
            root=None if params.dataset.kind == "list" else params.dataset.root.absolute(),  # a list may name links
            damaged_share=params.decode.damaged_share,
            time_limit=params.decode.time_limit,
            # Of the video itself: decode.short_side shrinks none to fewer. With flow.size frames come in that size.
            smallest_side=SMALLEST_SIDE if params.flow.size is None else 1,
        )
        inspections = inspect_videos(params.dataset.videos, present, params.run, progress.advance, look)
    problems = check_listing(listing, params.splits)
    problems += check_inspections(listing, inspections, params.dataset.allowed_failures)
    problems += check_lengths(inspections, params.cubes.frames, params.stack)
    if params.flow.size is None:
        problems += flow_cost(inspections, params.decode.short_side, worker_count(params.run))
    if any(problem.severity == "error" for problem in problems):
        return None, problems
    table = assemble_table(
        listing,
        params.splits,
        hashes={path: found.sha256 for path, found in inspections.items()},
        damaged={
            path: f"{found.damage.damaged}/{found.damage.pictures}"
            for path, found in inspections.items()
            if found.damage
        },
        validation_share=params.dataset.validation_share,
        seed=params.seed,
    )
    return table, problems


def inspect_videos(
    root: Path,
    paths: Sequence[str],
    run: Run,
    advance: Callable[[], object] = lambda: None,
    inspect: Callable[[Path], Inspection] = inspect_video,
) -> dict[str, Inspection]:
    """Inspect the files in parallel; a file that brings a worker down is a finding, not the end.

    Args:
        root: folder that the paths are relative to.
        run: how many local processes, of which one is this one, or which cluster.
        advance: called after each file, to show progress.
        inspect: what is done with each file; picklable.

    Returns:
        Path -> what was found, in the order of ``paths``.

    Raises:
        click.ClickException: a worker of the cluster is not fit; it does not see the videos, for one.
        WorkersDied: there are no workers to go on with.
    """
    found: dict[str, Inspection] = {}
    workers = worker_count(run)
    if not paths or (run.executor == "local" and min(workers, len(paths)) == 1):
        for path in paths:
            found[path] = inspect(root / path)
            advance()
        return found
    names = {(root / path).absolute(): path for path in paths}
    with ExitStack() as stack:
        if run.executor == "dask":
            seen = files_in([min(names), max(names)])
            cluster = stack.enter_context(connected(run, cache=None, question=Question(seen), told=_warn))
            finished = with_cluster(cluster, inspect, names)
        else:
            finished = with_processes(inspect, names, min(workers, len(paths)))
        for path, future in stack.enter_context(closing(finished)):
            found[names[path]] = Inspection("", CRASHED) if died(future) else future.result()
            advance()
    return {path: found[path] for path in paths}


def _warn(what: str) -> None:
    click.echo(f"prepare: {what}", err=True)


def format_problems(problems: Iterable[Problem], limit: int | None) -> list[str]:
    """Lines of the report, errors first, at most ``limit`` items a problem."""
    lines = []
    order = ("error", "warning", "note")
    for problem in sorted(problems, key=lambda problem: order.index(problem.severity)):
        count = f" ({len(problem.items)})" if problem.items else ""
        lines.append(f"{problem.severity}: {problem.title}{count}")
        shown = problem.items[:limit]
        lines += [f"    {_CONTROL.sub(_escape, item)}" for item in shown]
        if len(shown) < len(problem.items):
            lines.append(f"    ... and {len(problem.items) - len(shown)} more")
    return lines


def _escape(character: re.Match) -> str:
    """As in a Python string: a name of a file must neither break a line nor steer a terminal."""
    return ascii(character[0])[1:-1]


def format_table(table: ClipTable) -> list[str]:
    """Clips and groups of each role of each split, as lines."""
    groups = {clip.group for clip in table.clips}
    lines = [
        f"{len(table.clips)} clips, {len(table.classes)} classes, {len(groups)} groups",
        f"{'split':>5} {'train':>16} {'validation':>16} {'test':>16}    clips (groups)",
    ]
    for split in table.splits:
        cells = []
        for role in ("train", "validation", "test"):
            clips = table.select(split, role)
            cells.append(f"{len(clips)} ({len({clip.group for clip in clips})})")
        lines.append(f"{split:>5} " + " ".join(f"{cell:>16}" for cell in cells))
    return lines


@click.command()
@params_option
def main(params_path: Path) -> None:
    """Check videos, classes, groups and splits of the dataset and list its clips."""
    params = load_params(params_path)
    with told_plainly("prepare"):
        run(params)


def run(params: Params) -> None:
    """Check, report what was found, and write the table if there is no error."""
    table, problems = prepare(params)
    paths = Paths.of(params)
    log = paths.log("prepare")
    log.parent.mkdir(parents=True, exist_ok=True)
    summary = format_table(table) if table else []
    everything = "\n".join([*format_problems(problems, None), *summary]) + "\n"
    log.write_text(everything, encoding="utf-8", errors="backslashreplace")
    for line in format_problems(problems, _SHOWN):
        click.echo(line.encode(errors="backslashreplace").decode(), err=True)
    if table is None:
        raise click.ClickException(
            f"prepare: {params.dataset.root} has the errors listed above; all items are in {log}. "
            "No clips.csv was written."
        )
    choose_clips(params, table)  # so that a name that no clip has is reported now, and not by the report in the end
    clear(paths.clips)
    write_clips(table, paths.clips)
    for line in summary:
        click.echo(line)
    click.echo(f"prepare: wrote {paths.clips}")


if __name__ == "__main__":
    main()
