"""Stage ``train``: fit one variant of HAN to the cubes of one split's training clips (eq. 2 to 6), with one seed.

Reads ``data/<dataset>/cubes/<stream>-<split>``, writes ``models/<dataset>/han/<model>-<split>-seed<k>.safetensors``
and, epoch by epoch, the learning curve ``plots/<dataset>/train/<model>-<split>-seed<k>``. Interrupted, it goes on from
its last checkpoint, which lies beside the clip cache. Several processes: ``run.processes``, or by hand ``torchrun -m
pipeline.train ..``.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.execution.costs import counted
from pipeline.execution.told import told_plainly
from pipeline.params import SEED, Model, Params, Train, load_params, params_option, start_of
from pipeline.paths import Paths, run_name

if TYPE_CHECKING:
    import torch

    from han_core.cubes.store import CubeStore
    from han_core.han.config import HANConfig
    from han_core.han.feature_settings import FeatureSettings
    from han_core.han.model import HAN
    from han_core.han.variants import Variant


@click.command(help=__doc__)
@params_option
@click.option("--model", "name", required=True, type=click.Choice(Model.__args__), help="The variant of Table 1.")
@click.option("--split", required=True, type=int, help="The split whose training clips are learnt from.")
@click.option("--seed", required=True, type=SEED, help="Of initial weights, order of the clips and dropout.")
def main(params_path: Path, name: str, split: int, seed: int) -> None:
    """Train one variant on one split."""
    params = load_params(params_path)

    from pipeline.execution.launch import relaunched

    arguments = ["--params", str(params_path), "--model", name, "--split", str(split), "--seed", str(seed)]
    if relaunched(params.run, "pipeline.train", arguments):
        return
    title = f"train {run_name(name, split, seed)}"
    with told_plainly(title), counted(params, f"train@{name}-{split}-{seed}"):
        run(params, name, split, seed)


def run(params: Params, name: str, split: int, seed: int) -> None:
    """Train the variant ``name`` on ``split`` with one seed and write its outputs."""
    import torch

    from han_core.clipfile.provenance import made_with
    from han_core.clips import read_clips
    from han_core.devices import choose_device
    from han_core.han.model_file import TrainedHAN, save_model
    from han_core.han.variants import VARIANTS
    from han_core.runs.processes import processes
    from pipeline.chosen import with_chosen
    from pipeline.execution.outputs import clear
    from pipeline.features import open_store
    from pipeline.training import fit, repeatable, run_identity, schedule

    paths, variant = Paths.of(params), VARIANTS[name]
    table = read_clips(paths.clips)
    params = with_chosen(params, name, split, table)
    source = variant.array(params.cubes.fc)
    reading = {"streams": variant.streams, "array": source, "pooled": variant.pooled}
    store = open_store(params, split, table.select(split, "train"), **reading, views=params.train.views)
    held_out = table.select(split, "validation")
    validation = open_store(params, split, held_out, **reading) if held_out else None
    config = model_config(params.train, variant, store, len(table.classes))
    repeatable()
    with processes(choose_device(params.run.device)) as group:
        model, start = initial_model(params.train, config, name, seed)
        model.product_type = product_type(params.train, group.device)
        settings = {
            "model": name,
            "seed": seed,
            "train": params.train.model_dump(mode="json", exclude={"seeds", "start"}) | start,
            "config": config.to_dict(),
            "classes": list(table.classes),
        }

        def write() -> Path:
            path = paths.han(name, split, seed)
            recipe = feature_settings(params, config.streams, store)
            clear(path)
            trained = TrainedHAN(model, name, table.classes, source, recipe)
            save_model(trained, path, made_with=made_with(torch_threads=torch.get_num_threads()))
            return path

        fit(
            params,
            model,
            schedule(params.train, seed),
            store,
            validation,
            name=name,
            split=split,
            seed=seed,
            identity=run_identity("train", settings, store, validation),
            group=group,
            write=write,
        )


def initial_model(settings: Train, config: "HANConfig", name: str, seed: int) -> "tuple[HAN, dict[str, str]]":
    """A variant before it is trained, and what it starts from: nothing where its weights are drawn.

    Raises:
        ModelFileError: ``train.start`` is missing or damaged, or of another shape.
    """
    import torch

    from han_core.han.model import HAN
    from han_core.han.model_file import start_from

    torch.manual_seed(seed)
    model = HAN(config)
    if settings.start is None:
        return model, {}
    return model, {"start": start_from(model, start_of(settings, name))}


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
    scored_by_place = chosen["attention"] == "location"
    span = settings.forget_bias == "span"
    return HANConfig(
        streams=variant.streams,
        classes=classes,
        channels=channels,
        regions=regions,
        lstm_size=settings.lstm_size,
        skip=settings.skip,
        dropout=settings.dropout,
        attention_deviation=settings.attention_deviation if scored_by_place else None,
        region_dropout=settings.region_dropout if regions > 1 else 0.0,
        stream_dropout=settings.stream_dropout if len(variant.streams) > 1 else 0.0,
        forget_bias=span_forget_bias(frames, layers, settings.skip) if span else (settings.forget_bias,) * layers,
        **chosen,
    )


def feature_settings(params: Params, streams: Sequence[str], store: "CubeStore") -> "FeatureSettings":
    """How a video becomes the features of a store: the params that made them, and what its files know.

    Args:
        streams: those that the model reads, in its order.
        store: the training clips' features.

    Raises:
        ClipFileError: a cube file is damaged.
    """
    from han_core.han.feature_settings import FeatureSettings

    made = {stream: store.attributes(stream) for stream in streams}
    first = made[streams[0]]
    flow = params.flow
    return FeatureSettings(
        frames=params.cubes.frames,
        layer=first.get("layer", params.cubes.layer),
        fc=first.get("fc", params.cubes.fc),
        batch=params.cubes.batch,
        precision=first.get("precision", "float32"),  # `auto` is what the cubes' machine made of it
        stack=params.stack,
        short_side=params.decode.short_side,
        frame_quality=params.decode.quality,
        flow=flow.model_dump(include={"bound", "rounding", "codec", "quality", "size"}),
        tvl1=flow.tvl1.model_dump(),
        backend=flow.backend,
        camera=params.camera,
        clip_frames=store.median_length(),
        nets={stream: found["net"] for stream, found in made.items() if "net" in found},
        inputs={stream: found["input"] for stream, found in made.items() if "input" in found},
    )


def product_type(settings: Train, device: "torch.device") -> "torch.dtype | None":
    """Type of the products with weight matrices; None is float32."""
    import torch

    from han_core.devices import resolve_precision

    precision = resolve_precision(settings.precision, device)
    return None if precision == "float32" else getattr(torch, precision)


if __name__ == "__main__":
    main()
