"""Stage ``evaluate``: every trained variant on the test clips of its split, which gives Table 1.

Writes ``metrics/<dataset>/evaluate.json`` (top-1, mean and standard deviation over the splits),
``metrics/<dataset>/attention.json`` (how good the attention maps are, see ``pipeline/evaluate/attention.py``),
``metrics/<dataset>/predictions.csv`` (one row a model, split and clip), ``plots/<dataset>/per_class.csv`` and
``plots/<dataset>/confusion/<model>.csv``. Test clips that failed in an earlier stage count as wrong.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from han_core.errors import HanError
from han_core.evaluation.results import Result, score_cues, summarize
from pipeline.evaluate.baselines import baseline_results
from pipeline.evaluate.han import han_results
from pipeline.evaluate.outputs import write_confusion, write_json, write_per_class, write_predictions
from pipeline.evaluate.two_stream import two_stream_results
from pipeline.params import Params, load_params, params_option

if TYPE_CHECKING:
    pass


@click.command(help=__doc__)
@params_option
def main(params_path: Path) -> None:
    """Score all models and write metrics and plots."""
    params = load_params(params_path)

    try:
        run(params)
    except HanError as error:
        raise click.ClickException(str(error)) from None


def run(params: Params) -> None:
    """Score every model on every split, then the baselines, and write the outputs."""
    from han_core.clips import read_clips
    from han_core.datasets.synthetic.generate import class_cues
    from han_core.runs.progress import Progress
    from pipeline.evaluate.attention import score_attention
    from pipeline.execution.outputs import clear
    from pipeline.paths import Paths

    paths = Paths.of(params)
    table = read_clips(paths.clips)
    results: list[Result] = []
    with Progress("evaluate", len(params.splits) * _rows(params)) as progress:
        for split in params.splits:
            for rows in (han_results, two_stream_results, baseline_results):
                for result in rows(params, table, split):
                    results.append(result)
                    progress.advance(note=f"{result.model}-{split}")
    summary = summarize(results)
    if params.dataset.kind == "synthetic":
        for model, cues in score_cues(results, table.classes, class_cues).items():
            summary[model]["cues"] = cues
    attention = score_attention(params, table)
    written = [paths.metrics / name for name in ("evaluate.json", "attention.json", "predictions.csv")]
    clear(*written, paths.plots / "per_class.csv", paths.plots / "confusion")
    write_json(summary, paths.metrics / "evaluate.json")
    write_json(attention, paths.metrics / "attention.json")
    write_predictions(results, table, paths.metrics / "predictions.csv")
    write_per_class(results, table, paths.plots / "per_class.csv")
    write_confusion(results, table, paths.plots / "confusion")
    for model, figures in summary.items():
        click.echo(
            f"{model:24s} top-1 {100 * figures['top1']['mean']:5.1f} %  ({figures['right']}/{figures['clips']} clips, "
            f"{len(params.splits)} split(s))"
        )
    click.echo(f"-> {paths.metrics / 'evaluate.json'}")


def _rows(params: Params) -> int:
    """Results of one split: a linear baseline gives three, two nets give four."""
    nets = 4 if params.scores.enabled else 0
    return len(params.models) + nets + sum(1 if name == "frame_size" else 3 for name in params.evaluate.baselines)


if __name__ == "__main__":
    main()
