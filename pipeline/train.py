"""Stage ``train``: fit one variant of HAN to the cubes of one split's training clips (eq. 2 to 6).

Reads ``data/<dataset>/cubes/<stream>-<split>``, writes ``models/<dataset>/han/<model>-<split>.safetensors`` and the
learning curve ``plots/<dataset>/train/<model>-<split>.csv``.
"""

import csv
import time
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING

import click

from han_core.errors import HanError
from pipeline.params import Model, Params, load_params, params_option

if TYPE_CHECKING:
    from han_core.training import Epoch


@click.command(help=__doc__)
@params_option
@click.option("--model", "name", required=True, type=click.Choice(Model.__args__), help="The variant of Table 1.")
@click.option("--split", required=True, type=int, help="The split whose training clips are learnt from.")
def main(params_path: Path, name: str, split: int) -> None:
    """Train one variant on one split."""
    params = load_params(params_path)

    try:
        run(params, name, split)
    except HanError as error:
        raise click.ClickException(str(error)) from None


def run(params: Params, name: str, split: int) -> None:
    """Train the variant ``name`` on ``split`` and write its outputs."""
    import torch

    from han_core.datasets.clips import read_clips
    from han_core.han import HAN, VARIANTS, HANConfig, span_forget_bias
    from han_core.model_file import TrainedHAN, save_model
    from han_core.training import Schedule, train
    from pipeline.device import choose_device
    from pipeline.features import open_store, placed
    from pipeline.paths import Paths
    from pipeline.progress import Progress

    paths, variant, settings = Paths.of(params), VARIANTS[name], params.train
    table = read_clips(paths.clips)
    store = open_store(params, variant, split, table.select(split, "train"))
    held_out = table.select(split, "validation")
    validation = open_store(params, variant, split, held_out) if held_out else None
    frames, features, regions = store.shapes[variant.streams[0]]

    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.manual_seed(params.seed)
    forget_bias = (settings.forget_bias,) * settings.layers if settings.forget_bias != "span" else None
    config = HANConfig(
        streams=variant.streams,
        classes=len(table.classes),
        features=features,
        regions=regions,
        attention=settings.attention if variant.attention else "uniform",
        lstm_size=settings.lstm_size,
        layers=settings.layers,
        skip=settings.skip,
        dropout=settings.dropout,
        initial_state=settings.initial_state,
        forget_bias=forget_bias or span_forget_bias(frames, settings.layers, settings.skip),
    )
    model = HAN(config)
    schedule = Schedule(
        epochs=settings.epochs,
        batch=settings.batch,
        optimizer=settings.optimizer.name,
        learning_rate=settings.optimizer.learning_rate,
        rho=settings.optimizer.rho,
        eps=settings.optimizer.eps,
        weight_decay=settings.optimizer.weight_decay,
        clip_gradient=settings.clip_gradient,
        standardize=settings.standardize,
        seed=params.seed,
    )
    click.echo(
        f"train {name}, split {split}: {len(store)} clips ({len(store.missing)} without cubes), "
        f"{len(held_out)} held out, T = {frames}, {sum(p.numel() for p in model.parameters()):,} weights"
    )
    started = time.monotonic()
    epochs: list[Epoch] = []
    with Progress(f"train {name}-{split}", schedule.epochs, unit="epoch") as progress:

        def on_epoch(epoch: "Epoch") -> None:
            epochs.append(epoch)
            progress.advance(note=f"loss {epoch.loss:.3f} top-1 {epoch.top1:.3f}")

        train(
            model,
            placed(store, params.run),
            schedule,
            validation=placed(validation, params.run) if validation else None,
            device=choose_device(params.run.device),
            on_epoch=on_epoch,
        )
    seconds = time.monotonic() - started

    source = params.cubes.fc if variant.source == "fc" else "cubes"
    save_model(TrainedHAN(model, name, table.classes, source), paths.han(name, split))
    write_curve(epochs, paths.plots / "train" / f"{name}-{split}.csv")
    rate = schedule.epochs * len(store) / seconds
    line = f"train {name}-{split}: loss {epochs[-1].loss:.4f}, {seconds:.1f} s, {rate:.0f} clips/s"
    paths.log(f"train-{name}-{split}").parent.mkdir(parents=True, exist_ok=True)
    paths.log(f"train-{name}-{split}").write_text(line + "\n", encoding="utf-8")
    click.echo(f"{line} -> {paths.han(name, split)}")


def write_curve(epochs: "list[Epoch]", path: Path) -> None:
    """One row an epoch; figures that were not asked for (validation) are left empty."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(epochs[0])], lineterminator="\n")
        writer.writeheader()
        for epoch in epochs:
            row = asdict(epoch)
            writer.writerow({k: f"{v:.6f}" if isinstance(v, float) else v for k, v in row.items()})


if __name__ == "__main__":
    main()
