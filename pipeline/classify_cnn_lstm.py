"""Stage ``classify-cnn-lstm``: the two-stream CNN + LSTM [22] on the test clips of its split.

Writes ``data/<dataset>/predictions/deep_lstm-<split>`` with the rows ``deep_lstm_spatial`` and ``deep_lstm_temporal``,
what the LSTM of each stream says, and ``deep_lstm``, the mean of both with the weights ``evaluate.fusion``.
"""

from pathlib import Path

import click

from pipeline.execution.costs import counted
from pipeline.execution.told import told_plainly
from pipeline.params import Params, load_params, params_option


@click.command(help=__doc__)
@params_option
@click.option("--split", required=True, type=int, help="The split whose test clips are classified.")
def main(params_path: Path, split: int) -> None:
    """Classify the test clips of one split."""
    params = load_params(params_path)

    with told_plainly(f"classify deep_lstm-{split}"), counted(params, f"classify-cnn-lstm@{split}"):
        run(params, split)


def run(params: Params, split: int) -> None:
    """Run the stage."""
    from han_core.baselines.cnn_lstm.model_file import load_cnn_lstm
    from han_core.baselines.two_stream.fusion import average_scores
    from han_core.clips import read_clips
    from han_core.cubes.store import CubeStoreError
    from han_core.devices import choose_device
    from han_core.han.described import ModelFileError
    from han_core.han.training import classify
    from han_core.predictions import probabilities_file, write_predictions
    from pipeline.execution.outputs import clear
    from pipeline.features import open_store
    from pipeline.paths import Paths

    paths = Paths.of(params)
    table = read_clips(paths.clips)
    tested = table.select(split, "test")
    path = paths.cnn_lstm(split)
    trained = load_cnn_lstm(path)
    config = trained.model.config
    if trained.classes != table.classes:
        raise ModelFileError(f"{path}: knows other classes than {paths.clips}; train it again")
    store = open_store(
        params, split, tested, streams=config.streams, array=trained.source, pooled=trained.source == "cubes"
    )
    for stream, (_, channels, _) in store.shapes.items():
        if channels != config.channels:
            raise CubeStoreError(
                f"{paths.cubes(stream, split)}: features of {channels} numbers, but {path} reads {config.channels}; "
                "run the stages again from cubes"
            )
    _, details = classify(trained.model, store, details=True, device=choose_device(params.run.device))
    streams = list(details.numpy().swapaxes(0, 1))
    found = {f"deep_lstm_{stream}": scores for stream, scores in zip(config.streams, streams, strict=True)}
    found["deep_lstm"] = average_scores(streams, params.evaluate.fusion)
    folder = paths.predictions("deep_lstm", split)
    clear(folder)
    for name, probabilities in found.items():
        clips = [clip.key for clip in store.clips]
        write_predictions(probabilities_file(folder, name), clips, table.classes, probabilities)
    right = int((found["deep_lstm"].argmax(1) == store.labels.numpy()).sum())
    click.echo(
        f"classify deep_lstm-{split}: {right} of {len(tested)} clips classified correctly; predictions in {folder}"
    )


if __name__ == "__main__":
    main()
