"""Stage ``evaluate``: the predictions of every system on the test clips of each split, which give Tables 1 and 2.

Knows no system: it reads the files that the stages before it left in ``data/<dataset>/predictions``, for the rows that
the params ask for. Writes ``metrics/<dataset>/summary.json`` (top-1 of ten rows at most, which ``dvc metrics show``
and ``dvc exp show`` list), ``metrics/<dataset>/evaluate.json`` (top-1, mean and standard deviation over the splits,
and over the seeds where there are several), ``metrics/<dataset>/attention.json`` (how good the attention maps are, see
``pipeline/evaluate/attention.py``), ``metrics/<dataset>/predictions.csv`` (one line for each row, split, seed and
clip), ``plots/<dataset>/per_class.csv`` and ``plots/<dataset>/confusion/<row>.csv``. Test clips that failed in an
earlier stage count as wrong.
"""

from pathlib import Path

import click

from pipeline.execution.told import told_plainly
from pipeline.params import Params, load_params, params_option


@click.command(help=__doc__)
@params_option
def main(params_path: Path) -> None:
    """Evaluate all predictions and write metrics and plots."""
    params = load_params(params_path)

    with told_plainly("evaluate"):
        run(params)


def run(params: Params) -> None:
    """Read the predictions of every row and split, and write the outputs."""
    from han_core.clips import read_clips
    from han_core.datasets.synthetic.generate import class_cues
    from han_core.evaluation.results import cue_accuracy, summarize
    from pipeline.evaluate.attention import attention_quality
    from pipeline.evaluate.outputs import headline, write_confusion, write_json, write_per_class, write_predictions
    from pipeline.execution.outputs import clear
    from pipeline.left_behind import remove_left_behind
    from pipeline.paths import Paths
    from pipeline.predictions import read_results

    paths = Paths.of(params)
    table = read_clips(paths.clips)
    remove_left_behind(params)  # here, too: `dvc repro -s evaluate` runs no check
    results = read_results(params, table)
    summary = summarize(results)
    if params.dataset.kind == "synthetic":
        for name, cues in cue_accuracy(results, table.classes, class_cues).items():
            summary[name]["cues"] = cues
    attention = attention_quality(params, table)
    names = ("summary.json", "evaluate.json", "attention.json", "predictions.csv")
    written = [paths.metrics / name for name in names]
    clear(*written, paths.plots / "per_class.csv", paths.plots / "confusion")
    write_json(headline(summary), paths.metrics / "summary.json")
    write_json(summary, paths.metrics / "evaluate.json")
    write_json(attention, paths.metrics / "attention.json")
    write_predictions(results, table, paths.metrics / "predictions.csv")
    write_per_class(results, table, paths.plots / "per_class.csv")
    write_confusion(results, table, paths.plots / "confusion")
    for name, figures in summary.items():
        click.echo(
            f"{name:24s} top-1 {100 * figures['top1']['mean']:5.1f} %  ({figures['right']:g}/{figures['clips']} clips, "
            f"splits: {len(params.splits)}{', seeds: ' + str(len(figures['seeds'])) if 'seeds' in figures else ''})"
        )
    click.echo(f"-> {paths.metrics / 'evaluate.json'}")


if __name__ == "__main__":
    main()
