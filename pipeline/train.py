"""Stage ``train``: fit one variant of HAN to the cubes of one split's training clips (eq. 2 to 6).

Reads ``data/<dataset>/cubes/<stream>-<split>``, writes ``models/<dataset>/han/<model>-<split>.safetensors`` and,
epoch by epoch, the learning curve ``plots/<dataset>/train/<model>-<split>``. Interrupted, it goes on from its last
checkpoint, which lies beside the clip cache. Several processes: ``run.processes``, or by hand ``torchrun -m
pipeline.train ..``.
"""

import time
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.execution.told import told_plainly
from pipeline.params import Model, Params, Train, load_params, params_option

if TYPE_CHECKING:
    import torch

    from han_core.clips import ClipTable
    from han_core.cubes.store import CubeStore
    from han_core.han.config import HANConfig
    from han_core.han.training import Epoch, Pace, TrainingSchedule
    from han_core.han.variants import Variant
    from han_core.runs.processes import Processes


@click.command(help=__doc__)
@params_option
@click.option("--model", "name", required=True, type=click.Choice(Model.__args__), help="The variant of Table 1.")
@click.option("--split", required=True, type=int, help="The split whose training clips are learnt from.")
def main(params_path: Path, name: str, split: int) -> None:
    """Train one variant on one split."""
    params = load_params(params_path)

    from pipeline.execution.launch import relaunched

    arguments = ["--params", str(params_path), "--model", name, "--split", str(split)]
    if relaunched(params.run, "pipeline.train", arguments):
        return
    with told_plainly(f"train {name}-{split}"):
        run(params, name, split)


def run(params: Params, name: str, split: int) -> None:
    """Train the variant ``name`` on ``split`` and write its outputs."""
    import torch

    from han_core.clips import read_clips
    from han_core.devices import choose_device
    from han_core.han.variants import VARIANTS
    from han_core.runs.processes import processes
    from pipeline.features import open_store
    from pipeline.paths import Paths

    variant = VARIANTS[name]
    table = read_clips(Paths.of(params).clips)
    store = open_store(params, variant, split, table.select(split, "train"))
    held_out = table.select(split, "validation")
    validation = open_store(params, variant, split, held_out) if held_out else None
    config = model_config(params.train, variant, store, len(table.classes))

    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # nothing here reads what it did not write
    with processes(choose_device(params.run.device)) as group:
        _train(params, name, split, table, config, store, validation, group)


def _train(
    params: Params,
    name: str,
    split: int,
    table: "ClipTable",
    config: "HANConfig",
    store: "CubeStore",
    validation: "CubeStore | None",
    group: "Processes",
) -> None:
    import torch

    from han_core.cache.folders import probe
    from han_core.cache.store import ClipCache
    from han_core.clipfile.provenance import made_with
    from han_core.cubes.placement import placed
    from han_core.han.model import HAN
    from han_core.han.model_file import TrainedHAN, save_model
    from han_core.han.training import train
    from han_core.han.variants import VARIANTS
    from han_core.runs.progress import Progress
    from pipeline.curve import Curve
    from pipeline.execution.outputs import clear
    from pipeline.execution.resume import run_checkpoint
    from pipeline.features import feature_settings
    from pipeline.paths import Paths

    paths, settings = Paths.of(params), params.train
    torch.manual_seed(params.seed)
    model = HAN(config)
    model.product_type = product_type(settings, group.device)
    features, place = placed(store, params.run.store, group.device)
    held_out = placed(validation, params.run.store, group.device)[0] if validation else None
    cache = ClipCache.from_environment()
    if group.main:
        probe(cache.root)
        cache.sweep()
    identity = run_identity(params, name, table, config, store, validation)
    seconds = params.run.checkpoint_seconds
    checkpoint = run_checkpoint(f"train {name}-{split}", cache, identity, seconds=seconds, main=group.main)
    if group.main:
        frames, _, _ = store.shapes[config.streams[0]]
        click.echo(
            f"train {name}, split {split}: {len(store)} clips ({len(store.missing)} without cubes), "
            f"{len(validation) if validation else 0} held out, T = {frames}, "
            f"{sum(p.numel() for p in model.parameters()):,} weights; "
            f"{store.bytes_in_memory / 1e6:,.0f} MB of features ({place}), processes: {group.size}, on {group.device}"
        )
    started = time.monotonic()
    epochs: list[Epoch] = []
    paces: list[Pace] = []
    with (
        Progress(f"train {name}-{split}", settings.epochs, unit="epoch", quiet=not group.main) as progress,
        Curve(paths.plots / "train" / f"{name}-{split}") if group.main else nullcontext() as curve,
    ):

        def on_epoch(epoch: "Epoch", pace: "Pace | None") -> None:
            epochs.append(epoch)
            if curve is not None:
                figures = asdict(epoch)
                curve.add(figures.pop("number"), figures)
            note = f"loss {epoch.loss:.3f} top-1 {epoch.top1:.3f}"
            if pace:
                paces.append(pace)
                note += f" {pace.clips_per_second:.0f} clips/s, {100 * pace.waiting:.0f} % waiting for data"
            progress.advance(note=note)

        train(
            model,
            features,
            schedule(params),
            validation=held_out,
            processes=group,
            checkpoint=checkpoint,
            on_epoch=on_epoch,
        )
    if not group.main:
        return
    source = params.cubes.fc if VARIANTS[name].source == "fc" else "cubes"
    recipe = feature_settings(params, config.streams, store)
    clear(paths.han(name, split))
    trained = TrainedHAN(model, name, table.classes, source, recipe)
    save_model(trained, paths.han(name, split), made_with=made_with(torch_threads=torch.get_num_threads()))
    checkpoint.discard()
    line = f"train {name}-{split}: loss {epochs[-1].loss:.4f}, {time.monotonic() - started:.1f} s"
    if len(paces) < len(epochs):
        line += f", {len(epochs) - len(paces)} of {len(epochs)} epochs from an earlier run"
    if paces:
        rate, waiting = (sum(getattr(p, key) for p in paces) / len(paces) for key in ("clips_per_second", "waiting"))
        line += f", {rate:.0f} clips/s, {100 * waiting:.1f} % of the time waiting for data"
    paths.log(f"train-{name}-{split}").parent.mkdir(parents=True, exist_ok=True)
    paths.log(f"train-{name}-{split}").write_text(line + "\n", encoding="utf-8")
    click.echo(f"{line} -> {paths.han(name, split)}")


def model_config(settings: Train, variant: "Variant", store: "CubeStore", classes: int) -> "HANConfig":
    """The model that the settings ask for, of a variant, for the features of a store."""
    from han_core.han.config import HANConfig, span_forget_bias

    frames, channels, regions = store.shapes[variant.streams[0]]
    chosen = {
        "attention": settings.attention if variant.attention else "uniform",
        "layers": settings.layers,
        "initial_state": settings.initial_state,
        **variant.fixed,
    }
    layers = chosen["layers"]
    span = settings.forget_bias == "span"
    return HANConfig(
        streams=variant.streams,
        classes=classes,
        channels=channels,
        regions=regions,
        lstm_size=settings.lstm_size,
        skip=settings.skip,
        dropout=settings.dropout,
        forget_bias=span_forget_bias(frames, layers, settings.skip) if span else (settings.forget_bias,) * layers,
        **chosen,
    )


def schedule(params: Params) -> "TrainingSchedule":
    """The part of the settings that says how to train."""
    from han_core.han.training import TrainingSchedule

    settings = params.train
    return TrainingSchedule(
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


def run_identity(
    params: Params,
    name: str,
    table: "ClipTable",
    config: "HANConfig",
    store: "CubeStore",
    validation: "CubeStore | None",
) -> str:
    """The fingerprint of a run: all that it depends on."""
    from han_core.cache.fingerprint import fingerprint
    from pipeline.execution.code import stage_code

    settings = {
        "model": name,
        "seed": params.seed,
        "train": params.train.model_dump(mode="json"),
        "config": config.to_dict(),
        "classes": list(table.classes),
    }
    inputs = {
        f"{role} {clip.key} {clip.label}": identity
        for role, part in (("train", store), ("validation", validation))
        if part is not None
        for clip, identity in zip(part.clips, part.contents().values(), strict=True)
    }
    return fingerprint("train", stage_code("train"), settings, inputs)


def product_type(settings: Train, device: "torch.device") -> "torch.dtype | None":
    """Type of the products with weight matrices; None is float32."""
    import torch

    from han_core.devices import resolve_precision

    precision = resolve_precision(settings.precision, device)
    return None if precision == "float32" else getattr(torch, precision)


if __name__ == "__main__":
    main()
