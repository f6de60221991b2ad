"""The files of choices: what stands in place of the params, and the table of scores by which it was chosen."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from pipeline.chosen import Choices
from pipeline.selection.grid import Combination, Grid
from pipeline.selection.ranking import Standing

_CHOICES = """\
# Settings of HAN chosen inside the training groups of each split, never on its test clips: python -m pipeline.select
# (docs/selection.md). `train.chosen: {name}` puts `settings` in place of the values of params group `train`, for each
# variant of HAN that has a section here, and what is chosen for `han` for those that have none. `clips`: digest of the
# training clips and groups that they were chosen on. The scores: choices/{name}/<model>-<split>.yaml.
"""
_SCORES = """\
# How the settings of {model} were chosen for split {split} of {name}: python -m pipeline.select (docs/selection.md).
# Each combination was trained on all inner folds of the split's training groups but one and scored on that one. `top1`:
# per cent, mean over inner folds and seeds; `over_folds`, `over_seeds`: standard deviation of its means over the folds,
# over the seeds; `cross_entropy`: mean, in nats. Highest top-1 wins, then lowest cross-entropy, then the earlier one.
"""


class _InFull(yaml.SafeDumper):
    """Writes a list out wherever it stands: people read these files, and an alias (``*id001``) tells them nothing."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def write_choices(path: Path, before: Choices | None, model: str, found: Mapping[int, tuple[Combination, str]]) -> None:
    """Put what was chosen for a variant of HAN into the file of choices; all else in it stays.

    Args:
        before: the file as it is, or None.
        found: split -> the combination, and the digest of the training clips that it was chosen on.
    """
    chosen = before.model_dump()["chosen"] if before else {}
    section = chosen.setdefault(model, {})
    for split, (settings, clips) in found.items():
        section[f"split_{split}"] = {"settings": dict(settings), "clips": clips}
    ordered = {
        name: dict(sorted(splits.items(), key=lambda item: int(item[0].removeprefix("split_"))))
        for name, splits in sorted(chosen.items())
    }
    _write(path, _CHOICES.format(name=path.stem), {"chosen": ordered})


def write_scores(
    path: Path,
    dataset: str,
    split: int,
    grid: Grid,
    folds: Mapping[int, tuple[int, int]],
    standings: Sequence[Standing],
    best: int,
    identity: str,
) -> None:
    """Write the table of one variant of HAN and split.

    Args:
        folds: inner fold -> its groups, its clips.
        standings: of the grid's combinations.
        best: number of the combination that was chosen.
        identity: fingerprint of what it was chosen from.
    """
    rows = []
    for settings, standing in zip(grid.combinations, standings, strict=True):
        row = {
            "top1": round(100 * float(standing.top1), 2),
            "over_folds": round(100 * standing.over_folds, 2),
            "over_seeds": round(100 * standing.over_seeds, 2),
            "cross_entropy": round(standing.cross_entropy, 4),
            **settings,
        }
        rows.append({"diverged": True, **settings} if standing.diverged else row)
    content = {
        "chosen": dict(grid.combinations[best]),
        "folds": {number: {"groups": groups, "clips": clips} for number, (groups, clips) in folds.items()},
        "seeds": list(grid.seeds),
        "fingerprint": identity,
        "scores": rows,
    }
    _write(path, _SCORES.format(model=grid.model, split=split, name=dataset), content)


def _write(path: Path, header: str, content: Mapping[str, object]) -> None:
    """In one step: a kill leaves the file as it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = yaml.dump(
        content, Dumper=_InFull, sort_keys=False, default_flow_style=None, width=10_000, allow_unicode=True
    )
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        beside.write_text(header + text, encoding="utf-8")
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
