"""What each row of the tables costs: processor time and bytes on disk for a clip, ``python -m pipeline.costs``.

Not a stage: it looks at the logs of the stages that were run here (``logs/<dataset>/costs.csv``) and at their outputs,
and says it on the terminal and in ``logs/<dataset>/costs.md``; the report has the rows' part of it (``report.costs``).
A row costs what all stages behind it cost, by ``dvc.yaml``; what several rows stand on counts for each of them.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

import click
import yaml

from han_core.clips import read_clips
from han_core.report.document import Document, Paragraph, Table
from han_core.report.markdown import write_markdown
from han_core.rows import rows_of
from pipeline.execution.code import ROOT
from pipeline.execution.contents import CONTENTS
from pipeline.execution.costs import Cost, read_costs
from pipeline.execution.ledger import LEDGER
from pipeline.execution.told import told_plainly
from pipeline.params import Params, load_params, params_option
from pipeline.paths import Paths

_KEY = re.compile(r"\$\{([\w.]+)\}")


@dataclass(frozen=True)
class StageRun:
    """One stage, of one item of its matrix."""

    name: str
    """As DVC has it: ``train@han-1-1``."""
    outs: tuple[Path, ...]
    deps: tuple[str, ...]


@dataclass(frozen=True)
class RowCost:
    """Of the rows of one family, for a clip."""

    cpu_seconds: float | None
    """Of the stages whose log says something; None where none does."""
    size: int
    """Bytes on disk."""
    silent: tuple[str, ...]
    """Names of the stages whose log says nothing: their files came from a cache or a remote."""


@click.command(help=__doc__)
@params_option
def main(params_path: Path) -> None:
    """Say what the rows cost."""
    params = load_params(params_path)
    with told_plainly("costs"):
        clips = len(read_clips(Paths.of(params).clips).clips)
        document = _document(params, {run.name: run for run in stage_runs(params)}, clips)
        path = Paths.of(params).logs / "costs.md"
        write_markdown(document, path)
        click.echo(path.read_text(encoding="utf-8"))


def stage_runs(params: Params) -> Iterator[StageRun]:
    """All stages that ``dvc.yaml`` has for these params."""
    values = params.model_dump(mode="json", by_alias=True)
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    for name, stage in stages.items():
        for item in items_of(stage.get("matrix", {}), values):
            filled = {**values, "item": item}
            outs = [*stage.get("outs", []), *stage.get("metrics", []), *stage.get("plots", [])]
            paths = (next(iter(out)) if isinstance(out, dict) else out for out in outs)
            yield StageRun(
                f"{name}@{'-'.join(map(str, item.values()))}" if item else name,
                tuple(Path(_filled(path, filled)) for path in paths),
                tuple(_filled(dep, filled) for dep in stage["deps"]),
            )


def behind(runs: Mapping[str, StageRun], target: Path) -> list[str]:
    """Names of the stages that a file or folder stands on, its own among them."""
    makers = {out.as_posix(): run for run in runs.values() for out in run.outs}
    found: dict[str, None] = {}
    waiting = [target.as_posix()]
    while waiting:
        run = makers.get(waiting.pop())
        if run is not None and run.name not in found:
            found[run.name] = None
            waiting += (dep.removesuffix(f"/{CONTENTS}") for dep in run.deps)
    return list(found)


def cost_of(params: Params, run: StageRun, clips: int) -> tuple[float | None, int]:
    """Processor seconds and bytes for a clip of one stage; None where no log says what it took.

    A stage that makes a file for each clip is counted by the files that it made, whenever it did; any other by its mean
    run, spread over all clips of the dataset.
    """
    name = run.name.replace("trajectories@flow", "trajectories")
    noted: dict[str, list[Cost]] = {}
    for cost in read_costs(Paths.of(params).logs / "costs.csv"):
        if cost.stage == name or cost.stage.startswith(f"{name}-"):  # of several views of the clips one each
            noted.setdefault(cost.stage, []).append(cost)
    seconds = None
    if noted:
        seconds = sum(sum(c.cpu_seconds for c in one) / sum(c.made for c in one) for one in noted.values())
        if not any((out / LEDGER).exists() for out in run.outs):
            seconds /= clips
    return seconds, sum(map(_size, run.outs)) // clips


def cost_of_rows(
    params: Params, runs: Mapping[str, StageRun], costs: Mapping[str, tuple[float | None, int]]
) -> dict[str, RowCost]:
    """What each family of rows costs that the params ask for, by its name, on the first split, of one seed.

    Args:
        runs: the stages, by name.
        costs: of each of them, as :func:`cost_of` gives it.
    """
    found = {}
    for family in params.families:
        first = Paths.of(params).predictions(family, params.splits[0], params.seeds_of(family)[0])
        behind_it = behind(runs, first)
        names = [name for name in behind_it if name.partition("@")[0] not in _FREE]
        known = [seconds for seconds, _ in map(costs.__getitem__, names) if seconds is not None]
        silent = tuple(name for name in names if costs[name][0] is None)
        found[family] = RowCost(sum(known) if known else None, sum(costs[name][1] for name in names), silent)
    return found


def cost_cells(cost: RowCost) -> list[str]:
    """CPU seconds, megabytes, and the stages whose log says nothing, for a table."""
    seconds = "-" if cost.cpu_seconds is None else f"{cost.cpu_seconds:.3g}"
    return [seconds, f"{cost.size / 1e6:.3g}", ", ".join(cost.silent)]


COLUMNS = ["CPU s a clip", "MB a clip", "without the stages, whose log says nothing"]
"""Of :func:`cost_cells`."""


def _document(params: Params, runs: Mapping[str, StageRun], clips: int) -> Document:
    costs = {name: cost_of(params, run, clips) for name, run in runs.items()}
    rows = [
        [", ".join(row.name for row in rows_of(family)), *cost_cells(cost)]
        for family, cost in cost_of_rows(params, runs, costs).items()
    ]
    stages = [
        [name, "-" if seconds is None else f"{seconds:.3g}", f"{size / 1e6:.3g}"]
        for name, (seconds, size) in costs.items()
        if name.partition("@")[0] not in _FREE
    ]
    text = (
        f"{params.dataset.name}, {clips} clips, split {params.splits[0]}: processor time (CPU seconds, not a GPU's) "
        "and megabytes on disk for a clip. A row costs what all stages behind it cost."
    )
    table = Table(["Stage", *COLUMNS[:2]], stages)
    return Document(f"Costs of {params.dataset.name}", [Paragraph(text), Table(["Rows", *COLUMNS], rows), table])


_FREE = ("check", "generate", "prepare", "evaluate", "report")
"""Stages that are no method's cost."""


def items_of(matrix: Mapping[str, object], values: Mapping) -> Iterator[dict[str, object]]:
    """The items of a matrix as DVC counts them; one empty item for a stage without."""
    items: list[dict[str, object]] = [{}]
    for key, source in matrix.items():
        items = [{**item, key: value} for item in items for value in _value(_KEY.fullmatch(str(source))[1], values)]
    yield from items


def _filled(text: str, values: Mapping) -> str:
    return _KEY.sub(lambda match: str(_value(match[1], values)), text)


def _value(dotted: str, values: Mapping) -> object:
    return reduce(lambda group, key: group[key], dotted.split("."), values)


def _size(path: Path) -> int:
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size if path.is_file() else 0


if __name__ == "__main__":
    main()
