"""Stage ``classify``: a trained HAN, or one of its variants, on the test clips of its split (eq. 5).

Writes ``data/<dataset>/predictions/<model>-<split>``: the class probabilities of every test clip, and of models that
attend the attention maps beside them; see ``han_core/predictions.py``.
"""

from pathlib import Path

import click

from pipeline.execution.costs import counted
from pipeline.execution.told import told_plainly
from pipeline.params import Model, Params, load_params, params_option


@click.command(help=__doc__)
@params_option
@click.option("--model", "name", required=True, type=click.Choice(Model.__args__), help="The variant of HAN.")
@click.option("--split", required=True, type=int, help="The split whose test clips are classified.")
def main(params_path: Path, name: str, split: int) -> None:
    """Classify the test clips of one split with one model."""
    params = load_params(params_path)

    with told_plainly(f"classify {name}-{split}"), counted(params, f"classify@{name}-{split}"):
        run(params, name, split)


def run(params: Params, name: str, split: int) -> None:
    """Run the stage."""
    from han_core.clips import read_clips
    from han_core.devices import choose_device
    from han_core.han.described import ModelFileError
    from han_core.han.model_file import load_model
    from han_core.han.training import classify
    from han_core.han.variants import VARIANTS
    from han_core.predictions import attention_file, probabilities_file, write_attention, write_predictions
    from pipeline.execution.outputs import clear
    from pipeline.features import open_store
    from pipeline.paths import Paths

    paths = Paths.of(params)
    table = read_clips(paths.clips)
    tested = table.select(split, "test")
    trained = load_model(paths.han(name, split))
    if trained.classes != table.classes:
        raise ModelFileError(f"{paths.han(name, split)}: knows other classes than {paths.clips}; train it again")
    variant = VARIANTS[name]
    store = open_store(
        params, split, tested, streams=variant.streams, array=variant.array(params.cubes.fc), pooled=variant.pooled
    )
    attends = trained.model.config.attention != "uniform"
    probabilities, maps = classify(trained.model, store, details=attends, device=choose_device(params.run.device))
    clips = [clip.key for clip in store.clips]
    folder = paths.predictions(name, split)
    clear(folder)
    write_predictions(probabilities_file(folder, name), clips, table.classes, probabilities.numpy())
    if attends:
        write_attention(attention_file(folder, name), clips, maps.numpy(), store.frames())
    right = int((probabilities.argmax(1) == store.labels).sum())
    click.echo(f"classify {name}-{split}: {right} of {len(tested)} clips classified correctly; predictions in {folder}")


if __name__ == "__main__":
    main()
