"""Stage ``stacked_model``: what stacked Fisher vectors [13] are made with,
``models/<dataset>/codebooks/stacked-<split>.safetensors``.

From the training clips of one split: the first layer's projection and mixture, the compression of subvolumes' vectors,
learnt with the labels (``stacked.reduction: max_margin``) or without (``pca``), the whitening and the second mixture.
Of several ``stacked.penalties`` the one is taken that does best on held-out groups of the training clips; then all of
them are learnt from.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np

from pipeline.execution.costs import counted
from pipeline.execution.told import told_plainly
from pipeline.params import Params, load_params, params_option
from pipeline.stacked_features import local_features, stacked_params
from pipeline.trajectory_samples import contents, draw_samples, training_files

if TYPE_CHECKING:
    from han_core.baselines.fisher.codebook import ChannelCodebook
    from han_core.baselines.fisher.stacked import SampledSubvolumes, StackedModel
    from han_core.cache.store import ClipCache
    from han_core.clips import Clip


@click.command(help=__doc__)
@params_option
@click.option("--split", required=True, type=click.IntRange(min=1), help="The split whose training clips are used.")
def main(params_path: Path, split: int) -> None:
    """Fit the model of one split."""
    params = load_params(params_path)

    from han_core.cache.store import ClipCache

    with told_plainly(f"stacked_model {split}"), counted(params, f"stacked-model@{split}") as cost:
        cost.made = run(params, split, ClipCache.from_environment(verify=params.run.verify))


def run(params: Params, split: int, cache: "ClipCache") -> int:
    """Run the stage; 0 if the model was in the cache, else 1."""
    from threadpoolctl import threadpool_limits

    from han_core.baselines.fisher.stacked_file import write_stacked
    from han_core.cache.fingerprint import fingerprint, without_code
    from han_core.cache.folders import probe
    from han_core.clipfile.provenance import made_with
    from pipeline.execution.code import stage_code
    from pipeline.paths import Paths

    clips = training_files(params, split)
    files = {key: path for key, (_, path) in clips.items()}
    settings = params.stacked.model_dump(mode="json", exclude={"splits"}) | {"seed": params.seed}
    inputs = {f"{key} {clips[key][0].label} {clips[key][0].group}": one for key, one in contents(files).items()}
    identity = fingerprint("stacked_model", stage_code("stacked-model"), settings, inputs)
    output = Paths.of(params).codebook("stacked", split)
    reused = cache.find("codebooks", identity, ".safetensors") is not None
    if not reused:
        probe(cache.root)
        cache.sweep()
        with threadpool_limits(1):
            model = fit(params, {key: clip for key, (clip, _) in clips.items()}, files, cache)
        facts = {"fingerprint": without_code(identity), "settings": json.dumps(settings, sort_keys=True)}
        facts |= {"tools": json.dumps(made_with(), sort_keys=True)}
        with cache.create("codebooks", identity, ".safetensors") as path:
            write_stacked(path, model, facts)
    cache.link("codebooks", identity, output, ".safetensors")
    click.echo(f"stacked_model {split}: {'reused' if reused else f'of {len(files)} clips'} -> {output}")
    return int(not reused)


def fit(params: Params, clips: "Mapping[str, Clip]", files: Mapping[str, Path], cache: "ClipCache") -> "StackedModel":
    """Both layers, from training clips alone.

    Raises:
        ClipFileError: a trajectory file is missing or damaged.
        CodebookError: no clip has a trajectory.
    """
    from han_core.baselines.fisher.stacked import SampledSubvolumes, fit_compression, fit_second_layer
    from han_core.devices import cores
    from han_core.runs.progress import Progress

    wanted, seed = params.stacked, params.seed
    local = _first_layer(params, files)
    scratch = cache.temporary("stacked")
    with Progress("subvolumes", len(files)) as progress:
        sampled = SampledSubvolumes(
            files,
            lambda name: local_features(files[name]),
            local,
            stacked_params(wanted, wanted.penalties[0], len(files)),
            seed=seed,
            scratch=scratch,
            threads=cores(),
            on_clip=lambda name: progress.advance(),
        )
    with sampled:
        labels = {key: clip.label for key, clip in clips.items()}
        penalty = choose_penalty(params, sampled, clips) if len(wanted.penalties) > 1 else wanted.penalties[0]
        settings = stacked_params(wanted, penalty, len(files))
        classes = max(labels.values()) + 1
        epochs = wanted.epochs if wanted.reduction == "max_margin" else 0
        with Progress("compression", epochs, unit="epoch") as progress:
            compression = fit_compression(
                sampled,
                labels,
                settings,
                classes=classes,
                seed=seed,
                on_epoch=lambda epoch, found: progress.advance(
                    note=f"loss {found.loss:.3f}, {100 * found.accuracy:.0f} % of the subvolumes right"
                ),
            )
        return fit_second_layer(sampled, local, compression, settings, seed=seed)


def choose_penalty(params: Params, sampled: "SampledSubvolumes", clips: "Mapping[str, Clip]") -> float:
    """The penalty whose compression, learnt without some groups of the training clips, classifies those best."""
    from han_core.baselines.fisher.max_margin import evaluate, fit_max_margin
    from han_core.baselines.fisher.principal import principal_directions

    wanted, seed = params.stacked, params.seed
    groups = sorted({clip.group for clip in clips.values()})
    count = max(1, round(wanted.held_out * len(groups)))
    apart = set(np.random.default_rng(seed).permutation(groups)[:count].tolist())
    is_apart = np.array([clips[name].group in apart for name in sampled.names])[sampled.clips]
    labels = np.array([clips[name].label for name in sampled.names])[sampled.clips]
    learnt, held_out = np.flatnonzero(~is_apart), np.flatnonzero(is_apart)
    if wanted.reduction == "pca" or not len(learnt) or not len(held_out):
        return wanted.penalties[0]
    reduced = stacked_params(wanted, wanted.penalties[0], len(clips)).reduced
    start = principal_directions(sampled.rows, learnt, reduced, seed=seed)
    found = {}
    for penalty in wanted.penalties:
        model = fit_max_margin(
            sampled.rows,
            learnt,
            labels[learnt],
            start,
            classes=int(labels.max()) + 1,
            class_penalty=penalty,
            projection_penalty=penalty,
            epochs=wanted.epochs,
            batch=wanted.batch,
            rate=wanted.rate,
            seed=seed,
        )
        found[penalty] = evaluate(model, sampled.rows, held_out, labels[held_out])
        right = f"{100 * found[penalty].accuracy:.1f} % of {len(held_out)} held-out subvolumes right"
        click.echo(f"stacked_model: penalty {penalty:g}: {right}")
    return max(found, key=lambda penalty: (found[penalty].accuracy, -found[penalty].loss))


def _first_layer(params: Params, files: Mapping[str, Path]) -> "ChannelCodebook":
    """Projection and mixture of the local features."""
    from han_core.baselines.fisher.codebook import fit_codebook
    from han_core.baselines.fisher.stacked import LOCAL_CHANNELS
    from han_core.baselines.fisher.stored import CodebookError
    from han_core.runs.progress import Progress

    wanted = params.stacked
    samples = draw_samples(files, LOCAL_CHANNELS, wanted.samples, params.seed)
    if not samples:
        raise CodebookError(
            "no training clip has a trajectory; lower trajectories.quality, or set stacked.splits to []"
        )
    with Progress("first layer", wanted.iterations, unit="iteration") as progress:
        return fit_codebook(
            {"local": np.hstack(list(samples.values()))},
            gaussians=wanted.gaussians,
            seed=params.seed,
            iterations=wanted.iterations,
            dimensions=wanted.local_dimensions,
            whiten=True,
            on_iteration=lambda _, iteration, likelihood: progress.advance(note=f"log likelihood {likelihood:.3f}"),
        ).channels["local"]


if __name__ == "__main__":
    main()
