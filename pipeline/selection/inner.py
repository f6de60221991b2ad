"""The inner folds of a split's training groups, and what a combination of settings scores on one of them.

Nothing here knows a clip that the split tests or validates on.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from han_core.cache.code import code_digest
from han_core.cache.fingerprint import fingerprint
from han_core.cache.store import ClipCache
from han_core.cache.verify import claimed_checksum, sha256_of
from han_core.datasets.grouping import deal_evenly
from han_core.errors import HanError
from pipeline.execution.code import ROOT, stage_code
from pipeline.params import Train, start_of

if TYPE_CHECKING:
    import torch

    from han_core.clips import Clip
    from han_core.cubes.store import CubeStore, MemoryFeatures
    from han_core.han.variants import Variant

KIND = "inner-scores"
"""Of the files beside the clip cache, one for each model that was trained and scored."""
_SUFFIX = ".json"


class SelectionError(HanError, ValueError):
    """Nothing can be chosen; the message says why and what to do."""


@dataclass(frozen=True)
class Score:
    """What one model gets on the inner fold that it was not trained on."""

    right: int
    """Clips classified correctly."""
    clips: int
    cross_entropy: float | None
    """Mean over the clips, in nats; None where the model's loss was no longer finite."""


@dataclass(frozen=True)
class Inner:
    """The training clips of one split, dealt into inner folds, for one variant of HAN."""

    model: str
    variant: "Variant"
    classes: tuple[str, ...]
    store: "CubeStore"
    """The training clips and no others."""
    folds: tuple[int, ...]
    """Fold of each of the store's clips, from 1."""

    def sides(self, fold: int) -> tuple[list[int], list[int]]:
        """Numbers of the clips that are learnt from, and of those that are held out."""
        places = range(len(self.folds))
        return [n for n in places if self.folds[n] != fold], [n for n in places if self.folds[n] == fold]


def inner_folds(clips: Sequence["Clip"], folds: int, seed: int, split: int) -> tuple[int, ...]:
    """Deal the groups of a split's training clips into inner folds.

    Args:
        folds: how many; fewer groups make as many folds as groups.
        seed: of the params.

    Returns:
        The fold of each clip, from 1.

    Raises:
        SelectionError: all clips are of one group, or each fold's rest would lack what there is to learn.
    """
    classes: dict[str, list[str]] = {}
    for clip in clips:
        classes.setdefault(clip.group, []).append(clip.class_name)
    if len(classes) < 2:
        raise SelectionError(
            f"split {split}: its training clips are all of one group, {next(iter(classes), '')!r}, so none can be held "
            "out: settings cannot be chosen on it. Say which clips belong together (dataset.folder.group_pattern)"
        )
    dealt = deal_evenly(classes, min(folds, len(classes)), seed, "inner folds", split)
    return tuple(dealt[clip.group] for clip in clips)


def score_identity(inner: Inner, settings: Train, fold: int, seed: int) -> str:
    """Fingerprint of a score: all that it depends on."""
    learnt, held_out = inner.sides(fold)
    contents = list(inner.store.contents().values())
    roles = {**dict.fromkeys(learnt, "train"), **dict.fromkeys(held_out, "held out")}
    inputs = {
        f"{roles[n]} {clip.key} {clip.label}": contents[n] for n, clip in enumerate(inner.store.clips)
    }  # in the order of the table
    parameters = {
        "model": inner.model,
        "array": inner.store.array,
        "pooled": inner.store.pooled,
        "classes": list(inner.classes),
        "train": trained_by(settings, inner.model),
        "seed": seed,
        "scored by": own_code(),
    }
    return fingerprint("select", stage_code("train"), parameters, inputs)


def trained_by(settings: Train, model: str) -> dict[str, object]:
    """The settings that a model depends on; of a model that it starts from, the bytes of its file.

    Raises:
        SelectionError: that file cannot be read.
    """
    found = settings.model_dump(mode="json", exclude={"seeds", "chosen", "start"})
    if settings.start is None:
        return found
    path = start_of(settings, model)
    try:
        return found | {"start": _bytes_of(path)}
    except OSError as error:
        raise SelectionError(f"{path}: cannot be read ({error.strerror}); train.start names it") from None


@cache
def _bytes_of(path: Path) -> str:
    return sha256_of(path)


@cache
def own_code() -> str:
    """Digest of the code that deals and scores; that of stage ``train`` is not in it."""
    return code_digest(ROOT, ["pipeline/selection"])


def kept_score(store: ClipCache, identity: str) -> Score | None:
    """The score of an earlier run, if there is a sound one."""
    path = store.find(KIND, identity, _SUFFIX)
    try:
        if path is None or sha256_of(path) != claimed_checksum(path):
            return None
        return Score(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):  # damaged or pruned since: it is made again
        return None


def keep_score(store: ClipCache, identity: str, score: Score) -> None:
    """Keep a score for runs to come."""
    with store.create(KIND, identity, _SUFFIX) as path:
        path.write_text(json.dumps(asdict(score)) + "\n", encoding="utf-8")


def score(
    inner: Inner,
    features: "CubeStore | MemoryFeatures",
    settings: Train,
    fold: int,
    seed: int,
    device: "torch.device",
) -> Score:
    """Train on all inner folds but one, as stage ``train`` does, and classify that one.

    Args:
        features: those of ``inner.store``, wherever they are.
    """
    from torch import nn

    from han_core.han.training import TrainingError, classify, train
    from han_core.runs.processes import Processes
    from pipeline.train import initial_model, model_config, product_type
    from pipeline.training import schedule

    learnt, held_out = inner.sides(fold)
    config = model_config(settings, inner.variant, inner.store, len(inner.classes))
    model, _ = initial_model(settings, config, inner.model, seed)
    model.product_type = product_type(settings, device)
    try:
        train(model, features.subset(learnt), schedule(settings, seed), processes=Processes(device=device))
    except TrainingError:
        return Score(0, len(held_out), None)
    tested = features.subset(held_out)
    probabilities, _ = classify(model, tested, device=device)
    right = int((probabilities.argmax(1) == tested.labels).sum())
    loss = nn.functional.nll_loss(probabilities.clamp(min=1e-12).log().double(), tested.labels).item()
    return Score(right, len(held_out), loss if math.isfinite(loss) else None)  # the last step may be the fatal one


def selection_identity(inner: Inner, base: Train, grid: Mapping[str, object]) -> str:
    """Fingerprint of all that a choice was made from: the contents of the training clips' cube files and their folds,
    the code of stage ``train`` and of the choice, the params' other settings, the grid."""
    contents = inner.store.contents().values()
    inputs = {
        f"fold {fold} {clip.key} {clip.label}": content
        for clip, fold, content in zip(inner.store.clips, inner.folds, contents, strict=True)
    }
    parameters = {
        **grid,
        "base": trained_by(base, inner.model),
        "classes": list(inner.classes),
        "chosen by": own_code(),
    }
    return fingerprint("select", stage_code("train"), parameters, inputs)
