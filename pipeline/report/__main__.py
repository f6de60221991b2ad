"""Stage ``report``: the tables and figures of the paper from whatever results there are, for people.

Writes ``report/<dataset>/report.html``, one page that opens without a server and asks for nothing, of about
``report.megabytes`` at most, and its twin ``report.md`` with the pictures and clips as files beside it. Nothing in them
depends on the time: the same results give the same bytes, but for what the stages took, where ``report.costs`` asks for
it.
"""

from pathlib import Path

import click

from pipeline.execution.told import told_plainly
from pipeline.params import Params, load_params, params_option


@click.command(help=__doc__)
@params_option
def main(params_path: Path) -> None:
    """Write the report."""
    params = load_params(params_path)

    with told_plainly("report"):
        run(params)


def run(params: Params) -> None:
    """Gather, write the page and its twin."""
    from han_core.clips import read_clips
    from han_core.report.document import Document, Paragraph
    from han_core.report.html import render_html, write_html
    from han_core.report.markdown import write_markdown
    from pipeline.execution.outputs import clear
    from pipeline.paths import Paths
    from pipeline.report import chosen, classes, figure4, pictures, predictions, tables
    from pipeline.report.costs import costs
    from pipeline.report.headline import headline
    from pipeline.report.room import Room

    paths = Paths.of(params)
    table = read_clips(paths.clips)
    summaries = tables.read_summaries(params, paths.metrics.parent)
    if params.dataset.name not in summaries:
        raise FileNotFoundError(2, "no such file", str(paths.metrics / "evaluate.json"))
    own = summaries[params.dataset.name]
    splits = f"split{'s' if len(params.splits) > 1 else ''} {', '.join(map(str, params.splits))}"
    text = f"{len(table.clips)} clips, {len(table.classes)} classes; test clips of {splits}."
    above = [
        Paragraph(text),
        *headline(params, table, own),
        *tables.table_1(params, summaries),
        *tables.table_2(params, summaries),
        *tables.other_models(params, summaries),
        *costs(params, table, own),
        *tables.cues(own),
    ]
    scored = [
        *tables.attention_scores(paths.metrics / "attention.json"),
        *classes.per_class(params, table, paths),
    ]
    below = [
        *pictures.curves(params, paths),
        *tables.damage(table),
        *tables.store(params, paths),
        *chosen.chosen_settings(params),
        *tables.origin(params),
    ]
    confused = classes.confusion(params, table, paths, set(params.models))
    # What is always there comes first; predictions and clips take what it leaves of the page.
    always = Document(params.dataset.name, [*above, *scored, *confused, *below])
    room = Room(1e6 * params.report.megabytes - len(render_html(always).encode()))
    answers, listed = predictions.predictions(params, table, paths, room)
    looked = figure4.where_it_looked(params, table, paths, room)
    confused = classes.confusion(params, table, paths, listed)
    document = Document(params.dataset.name, [*above, *looked, *scored, *confused, *answers, *below])
    clear(paths.report)  # pictures of an earlier run with more models or clips must not stay behind either
    write_markdown(document, paths.report / "report.md")
    write_html(document, paths.report / "report.html")
    click.echo(f"report -> {paths.report / 'report.html'}, {paths.report / 'report.md'}")


if __name__ == "__main__":
    main()
