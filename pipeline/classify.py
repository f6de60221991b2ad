"""Stage ``classify``: a trained HAN, or one of its variants, on the test clips of its split (eq. 5).

Writes ``data/<dataset>/predictions/<model>-<split>-seed<k>``: the class probabilities of every test clip, in the mean
over the ``evaluate.samplings`` of its frames, and of models that attend the attention maps of the plain sampling beside
them; see ``han_core/predictions.py``.
"""

from pathlib import Path

import click

from pipeline.execution.costs import counted
from pipeline.execution.told import told_plainly
from pipeline.params import SEED, Model, Params, load_params, params_option
from pipeline.paths import Paths, run_name

SHIFTED = ("shift1", "shift2")
"""Views of a clip that differ from the plain one in the frames that are taken."""


@click.command(help=__doc__)
@params_option
@click.option("--model", "name", required=True, type=click.Choice(Model.__args__), help="The variant of HAN.")
@click.option("--split", required=True, type=int, help="The split whose test clips are classified.")
@click.option("--seed", required=True, type=SEED, help="The seed that the model was trained with.")
def main(params_path: Path, name: str, split: int, seed: int) -> None:
    """Classify the test clips of one split with one model."""
    params = load_params(params_path)

    title = f"classify {run_name(name, split, seed)}"
    with told_plainly(title), counted(params, f"classify@{name}-{split}-{seed}"):
        run(params, name, split, seed)


def run(params: Params, name: str, split: int, seed: int) -> None:
    """Run the stage."""
    import torch

    from han_core.clips import read_clips
    from han_core.devices import choose_device
    from han_core.han.described import ModelFileError
    from han_core.han.model_file import load_model
    from han_core.han.training import classify
    from han_core.han.variants import VARIANTS
    from han_core.predictions import attention_file, probabilities_file, write_attention, write_predictions
    from pipeline.execution.outputs import clear
    from pipeline.features import open_store

    paths = Paths.of(params)
    table = read_clips(paths.clips)
    tested = table.select(split, "test")
    model = paths.han(name, split, seed)
    trained = load_model(model)
    if trained.classes != table.classes:
        raise ModelFileError(f"{model}: knows other classes than {paths.clips}; train it again")
    variant = VARIANTS[name]
    store = open_store(
        params,
        split,
        tested,
        streams=variant.streams,
        array=variant.array(params.cubes.fc),
        pooled=variant.pooled,
        views=SHIFTED if params.evaluate.samplings == 3 else (),
    )
    attends = trained.model.config.attention != "uniform"
    device = choose_device(params.run.device)
    looks = [classify(trained.model, store, view=view, details=attends, device=device) for view in store.views]
    probabilities, maps = torch.stack([look[0] for look in looks]).mean(dim=0), looks[0][1]
    clips = [clip.key for clip in store.clips]
    folder = paths.predictions(name, split, seed)
    clear(folder)
    write_predictions(probabilities_file(folder, name), clips, table.classes, probabilities.numpy())
    if attends:
        write_attention(attention_file(folder, name), clips, maps.numpy(), store.frames())
    right = int((probabilities.argmax(1) == store.labels).sum())
    done = f"classify {run_name(name, split, seed)}: {right} of {len(tested)} clips classified correctly"
    click.echo(f"{done}; predictions in {folder}")


if __name__ == "__main__":
    main()
