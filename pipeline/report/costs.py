"""What each row of Table 2 took to compute and to store, beside what it gets right."""

from typing import TYPE_CHECKING

from han_core.report.document import Block, Heading, Paragraph, Table
from han_core.rows import rows_of
from pipeline.costs import COLUMNS, cost_cells, cost_of, cost_of_rows, stage_runs
from pipeline.params import Params
from pipeline.report.tables import Summary

if TYPE_CHECKING:
    from han_core.clips import ClipTable


def costs(params: Params, table: "ClipTable", summary: Summary) -> list[Block]:
    """Accuracy and price of every row, by the logs of the stages that were run here; nothing unless asked for."""
    if not params.report.costs:
        return []
    runs = {run.name: run for run in stage_runs(params)}
    priced = cost_of_rows(params, runs, {name: cost_of(params, run, len(table.clips)) for name, run in runs.items()})
    rows = [
        [row.title, f"{100 * summary[row.name]['top1']['mean']:.1f}", *cost_cells(cost)]
        for family, cost in priced.items()
        for row in rows_of(family)
        if row.name in summary
    ]
    text = (
        "Processor time (CPU seconds, not a GPU's) and megabytes on disk for a clip, of all stages behind a row, on "
        f"split {params.splits[0]}. What several rows stand on counts for each. Seconds are those of the machines that "
        "ran the stages. Each stage by itself: python -m pipeline.costs"
    )
    header = ["Row", "top-1 (%)", *COLUMNS]
    return [Heading("What it costs"), Paragraph(text), Table(header, rows, words=[len(header) - 1])]
