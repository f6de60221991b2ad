"""Stage ``train-cnn-lstm``: fit the two-stream CNN + LSTM [22] to one split's training clips.

Reads ``data/<dataset>/cubes/<stream>-<split>``, writes ``models/<dataset>/cnn_lstm/<split>.safetensors`` and, epoch by
epoch, the learning curve ``plots/<dataset>/train/deep_lstm-<split>``, whose loss is that of both streams together.
Interrupted, it goes on from its last checkpoint, which lies beside the clip cache. Several processes:
``run.processes``, or by hand ``torchrun -m pipeline.train_cnn_lstm ..``.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.execution.costs import counted
from pipeline.execution.told import told_plainly
from pipeline.params import CnnLstm, Params, load_params, params_option

if TYPE_CHECKING:
    from han_core.baselines.cnn_lstm.model import CNNLSTMConfig
    from han_core.cubes.store import CubeStore

NAME = "deep_lstm"
"""Of the row, in curves and logs."""


@click.command(help=__doc__)
@params_option
@click.option("--split", required=True, type=int, help="The split whose training clips are learnt from.")
def main(params_path: Path, split: int) -> None:
    """Train on one split."""
    params = load_params(params_path)

    from pipeline.execution.launch import relaunched

    if relaunched(params.run, "pipeline.train_cnn_lstm", ["--params", str(params_path), "--split", str(split)]):
        return
    with told_plainly(f"train {NAME}-{split}"), counted(params, f"train-cnn-lstm@{split}"):
        run(params, split)


def run(params: Params, split: int) -> None:
    """Train on ``split`` and write the outputs."""
    import torch

    from han_core.baselines.cnn_lstm.model import CNNLSTM
    from han_core.baselines.cnn_lstm.model_file import TrainedCNNLSTM, save_cnn_lstm
    from han_core.clipfile.provenance import made_with
    from han_core.clips import read_clips
    from han_core.devices import choose_device
    from han_core.runs.processes import processes
    from pipeline.execution.outputs import clear
    from pipeline.features import open_store
    from pipeline.paths import Paths
    from pipeline.training import fit, repeatable, run_identity, schedule

    paths, wanted = Paths.of(params), params.cnn_lstm
    table = read_clips(paths.clips)
    source = params.cubes.fc if wanted.features == "fc" else "cubes"
    reading = {"streams": ("spatial", "temporal"), "array": source, "pooled": wanted.features == "cubes"}
    store = open_store(params, split, table.select(split, "train"), **reading)
    held_out = table.select(split, "validation")
    validation = open_store(params, split, held_out, **reading) if held_out else None
    config = model_config(wanted, store, len(table.classes))
    settings = {
        "seed": params.seed,
        "cnn_lstm": wanted.model_dump(mode="json", exclude={"splits"}),
        "source": source,
        "forget_bias": config.forget_bias,
        "classes": list(table.classes),
    }
    repeatable()
    with processes(choose_device(params.run.device)) as group:
        torch.manual_seed(params.seed)
        model = CNNLSTM(config)

        def write() -> Path:
            path = paths.cnn_lstm(split)
            clear(path)
            trained = TrainedCNNLSTM(model, table.classes, source)
            save_cnn_lstm(trained, path, made_with=made_with(torch_threads=torch.get_num_threads()))
            return path

        fit(
            params,
            model,
            schedule(wanted, params.seed),
            store,
            validation,
            name=NAME,
            split=split,
            identity=run_identity("train-cnn-lstm", settings, store, validation),
            group=group,
            write=write,
        )


def model_config(settings: CnnLstm, store: "CubeStore", classes: int) -> "CNNLSTMConfig":
    """The model that the settings ask for, for the features of a store.

    Raises:
        CubeStoreError: the streams' features differ in shape.
    """
    from han_core.baselines.cnn_lstm.model import CNNLSTMConfig
    from han_core.cubes.store import CubeStoreError
    from han_core.han.config import span_forget_bias

    shapes = store.shapes
    (frames, channels, _), *others = shapes.values()
    if any(other[:2] != (frames, channels) for other in others):
        raise CubeStoreError(f"the streams' features differ in shape: {shapes}; run the cubes stages again")
    (span,) = span_forget_bias(frames, layers=1, skip=1)  # of every layer: each reads every frame
    return CNNLSTMConfig(
        streams=tuple(shapes),
        classes=classes,
        channels=channels,
        units=settings.units,
        layers=settings.layers,
        dropout=settings.dropout,
        forget_bias=span if settings.forget_bias == "span" else settings.forget_bias,
    )


if __name__ == "__main__":
    main()
