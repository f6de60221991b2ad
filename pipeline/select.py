"""Choose settings of HAN inside the training groups of each split, ``python -m pipeline.select GRID.yaml``.

Not a stage: run it when the cubes are there, look at what it says, commit the files that it writes, and name the first
in the params: ``train.chosen: <dataset>``. Of each split it deals the groups of the TRAINING clips into inner folds,
trains every combination of the grid on all folds but one, as stage ``train`` does, and scores it on that one. Clips
that the split tests or validates on are never opened. Writes ``choices/<dataset>.yaml`` and the table of scores,
``choices/<dataset>/<model>-<split>.yaml``. Interrupted, it goes on: scores are kept beside the clip cache.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.execution.told import told_plainly
from pipeline.params import NOTHING_CHOSEN, Params, ParamsError, load_params, params_option

if TYPE_CHECKING:
    from han_core.cache.store import ClipCache
    from han_core.clips import ClipTable
    from han_core.runs.progress import Progress
    from pipeline.selection.grid import Grid
    from pipeline.selection.inner import Inner
    from pipeline.selection.ranking import Standing


@click.command(help=__doc__)
@click.argument("grid_path", metavar="GRID.yaml", type=click.Path(dir_okay=False, path_type=Path))
@params_option
@click.option("--splits", "wanted", metavar="1,2,..", help="Of the params' splits those to choose for; all by default.")
def main(grid_path: Path, params_path: Path, wanted: str | None) -> None:
    """Choose, and write what was chosen."""
    params = load_params(params_path)
    from pipeline.selection.grid import read_grid

    if params.dataset.name == NOTHING_CHOSEN:
        raise ParamsError(f"{params_path}: dataset.name: {NOTHING_CHOSEN} is what train.chosen calls no choice at all")
    splits = _splits(params, wanted)
    params = params.model_copy(update={"train": params.train.model_copy(update={"chosen": NOTHING_CHOSEN})})
    grid = read_grid(grid_path, params.train)
    with told_plainly("select"):
        run(params, grid, splits)


def run(params: Params, grid: "Grid", splits: Sequence[int]) -> None:
    """Choose for the splits and write the files."""
    from han_core.cache.folders import probe
    from han_core.cache.store import ClipCache
    from han_core.clips import read_clips
    from han_core.runs.progress import Progress
    from pipeline.chosen import read_choices, training_clips
    from pipeline.paths import Paths, choices_file, inner_scores
    from pipeline.selection.inner import selection_identity
    from pipeline.selection.ranking import ranked
    from pipeline.selection.written import write_choices, write_scores
    from pipeline.training import repeatable

    table = read_clips(Paths.of(params).clips)
    path = choices_file(params.dataset.name)
    before = read_choices(path, params.train) if path.exists() else None
    inners = {split: _inner(params, grid, table, split) for split in splits}
    for inner in inners.values():
        _try_starts(params, grid, inner)
    cache = ClipCache.from_environment()
    probe(cache.root)
    cache.sweep()
    repeatable()
    found = {}
    models = sum(max(inner.folds) for inner in inners.values()) * len(grid.combinations) * len(grid.seeds)
    with Progress(f"select {grid.model}", models, unit="model") as progress:
        for split, inner in inners.items():
            standings = _standings(params, grid, inner, cache, progress)
            order = ranked(standings)
            click.echo(_table(grid, split, inner, standings, order))
            best = order[0]
            if standings[best].diverged:
                raise click.ClickException(
                    f"select: split {split}: the loss of every combination was no longer finite; lower "
                    "optimizer.learning_rate, or set clip_gradient"
                )
            tried = {"model": grid.model, "seeds": grid.seeds, "combinations": grid.combinations}
            write_scores(
                inner_scores(params.dataset.name, grid.model, split),
                params.dataset.name,
                split,
                grid,
                _sizes(inner),
                standings,
                best,
                selection_identity(inner, params.train, tried),
            )
            found[split] = (grid.combinations[best], training_clips(table, split))
    write_choices(path, before, grid.model, found)
    click.echo(
        f"select {grid.model}: -> {path}; commit it with the tables beside it, and set train.chosen to {path.stem}"
    )


def _splits(params: Params, wanted: str | None) -> tuple[int, ...]:
    if wanted is None:
        return params.splits
    parts = [part.strip() for part in wanted.split(",")]
    known = {str(split): split for split in params.splits}
    if unknown := [part for part in parts if part not in known]:
        raise click.BadParameter(
            f"{', '.join(map(repr, unknown))}: must be numbers of the params' splits, {', '.join(known)}, with commas",
            param_hint="--splits",
        )
    return tuple(known[part] for part in dict.fromkeys(parts))


def _inner(params: Params, grid: "Grid", table: "ClipTable", split: int) -> "Inner":
    """The training clips of a split that have their cubes, in inner folds. Reads the ends of their files only."""
    from han_core.han.variants import VARIANTS
    from pipeline.features import open_store
    from pipeline.selection.inner import Inner, inner_folds

    variant = VARIANTS[grid.model]
    clips = table.select(split, "train")
    store = open_store(
        params,
        split,
        clips,
        streams=variant.streams,
        array=variant.array(params.cubes.fc),
        pooled=variant.pooled,
        views=_views(params, grid),
    )
    folds = inner_folds(store.clips, grid.folds, params.seed, split)
    return Inner(grid.model, variant, table.classes, store, folds)


def _views(params: Params, grid: "Grid") -> list[str]:
    """All further views that a combination learns from.

    Raises:
        click.ClickException: there are no cubes of one.
    """
    from pipeline.chosen import with_settings

    views = dict.fromkeys(v for one in grid.combinations for v in with_settings(params.train, one).views)
    if absent := [view for view in views if view not in params.cubes.views]:
        raise click.ClickException(f"select: views: {', '.join(absent)} must be among cubes.views of the params")
    return list(views)


def _try_starts(params: Params, grid: "Grid", inner: "Inner") -> None:
    """Start a model of each combination that names where from: what cannot be used is told before any work.

    Raises:
        ModelFileError: ``start`` of one is missing or damaged, or of another shape.
    """
    from pipeline.chosen import with_settings
    from pipeline.train import initial_model, model_config

    for settings in (with_settings(params.train, one) for one in grid.combinations):
        if settings.start is not None:
            config = model_config(settings, inner.variant, inner.store, len(inner.classes))
            initial_model(settings, config, grid.model, seed=0)


def _standings(
    params: Params, grid: "Grid", inner: "Inner", cache: "ClipCache", progress: "Progress"
) -> "list[Standing]":
    """What each combination gets, as far as need be by training; the features are read once, and only then."""
    from functools import cache as once

    from han_core.cubes.placement import placed
    from han_core.devices import choose_device
    from pipeline.chosen import with_settings
    from pipeline.selection.inner import keep_score, kept_score, score, score_identity
    from pipeline.selection.ranking import Standing

    device = choose_device(params.run.device)
    features = once(lambda: placed(inner.store, params.run.store, device, learnt=True)[0])
    standings = []
    for settings in grid.combinations:
        train = with_settings(params.train, settings)
        scores = {}
        for fold in range(1, max(inner.folds) + 1):
            for seed in grid.seeds:
                identity = score_identity(inner, train, fold, seed)
                found = kept_score(cache, identity)
                if found is None:
                    found = score(inner, features(), train, fold, seed, device)
                    keep_score(cache, identity, found)
                scores[fold, seed] = found
                progress.advance(note=f"{found.right} of {found.clips}")
        standings.append(Standing(scores))
    return standings


def _sizes(inner: "Inner") -> dict[int, tuple[int, int]]:
    """Inner fold -> its groups, its clips."""
    clips = Counter(inner.folds)
    groups = Counter({clip.group: fold for clip, fold in zip(inner.store.clips, inner.folds, strict=True)}.values())
    return {fold: (groups[fold], clips[fold]) for fold in sorted(clips)}


def _table(grid: "Grid", split: int, inner: "Inner", standings: "Sequence[Standing]", order: Sequence[int]) -> str:
    """The scores for the terminal, the best first."""
    from pipeline.chosen import in_words

    sizes: Mapping[int, tuple[int, int]] = _sizes(inner)
    dealt = " + ".join(f"{clips}" for _, clips in sizes.values())
    groups = sum(count for count, _ in sizes.values())
    lines = [
        f"{grid.model}, split {split}: {groups} training groups in {len(sizes)} inner folds of {dealt} clips, "
        f"seeds {', '.join(map(str, grid.seeds))}",
        "   top-1 %  over folds  over seeds  cross-entropy  settings",
    ]
    for number in order:
        one = standings[number]
        figures = f"{100 * float(one.top1):10.2f}{100 * one.over_folds:12.2f}{100 * one.over_seeds:12.2f}"
        loss = "diverged" if one.diverged else f"{one.cross_entropy:.4f}"
        lines.append(f"{figures}{loss:>15}  {in_words(grid.combinations[number])}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
