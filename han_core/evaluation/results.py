"""From the probabilities of each model, split and clip to the figures that are reported."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from han_core.evaluation.metrics import measure_accuracy, predictions

if TYPE_CHECKING:
    from han_core.clips import Clip


@dataclass(frozen=True)
class Result:
    """What one model, or one of a row's models, says of one split's test clips."""

    model: str
    split: int
    clips: "tuple[Clip, ...]"
    probabilities: np.ndarray
    """(clips, classes); NaN for a clip without features."""
    seed: int | None = None
    """The model's, where there is one a seed."""

    @property
    def labels(self) -> np.ndarray:
        return np.array([clip.label for clip in self.clips])


def ensemble(name: str, results: Sequence[Result]) -> Result:
    """The mean of the probabilities that several models give the same clips, as a result of the row ``name``.

    A clip that lacks a prediction of one of them has none.

    Raises:
        ValueError: the results are of different splits or clips.
    """
    first = results[0]
    if any((other.split, other.clips) != (first.split, first.clips) for other in results):
        raise ValueError(f"{name}: results of different clips have no mean")
    return Result(name, first.split, first.clips, np.mean([result.probabilities for result in results], axis=0))


def summarize(results: Iterable[Result]) -> dict:
    """{model: {top1: {mean, std, split_1, ..}, top5 likewise where it means something, right, clips, missing}}.

    ``mean`` and ``std`` are over the splits; standard deviations here are those of all values there are, divided by
    their number. Of a model with several seeds every figure is the mean over the seeds (``std``: of the splits' means),
    ``clips`` counts each test clip once, and there are besides ``seeds``, their list, and ``over_seeds``: {right:
    {seed_1, ..}, top1: {mean, std, seed_1, ..}}, each seed's top-1 being its mean over the splits.
    """
    found: dict[str, dict[int | None, list[Result]]] = {}
    for result in results:
        found.setdefault(result.model, {}).setdefault(result.seed, []).append(result)
    return {model: _summary(by_seed) for model, by_seed in found.items()}


def _summary(by_seed: Mapping[int | None, Sequence[Result]]) -> dict:
    """Figures of one model: {seed: its results, one a split}."""
    each = {seed: _of_one_seed(results) for seed, results in by_seed.items()}
    first, *others = each.values()
    entry: dict = {}
    for key in ("top1", "top5"):
        if first[key]:
            splits = {name: float(np.mean([one[key][name] for one in each.values()])) for name in first[key]}
            entry[key] = _spread(splits)
    for key in ("right", "clips", "missing"):
        entry[key] = float(np.mean([one[key] for one in each.values()])) if others and key != "clips" else first[key]
    if others:
        top1 = {f"seed_{seed}": float(np.mean(list(one["top1"].values()))) for seed, one in each.items()}
        right = {f"seed_{seed}": one["right"] for seed, one in each.items()}
        entry |= {"seeds": list(each), "over_seeds": {"right": right, "top1": _spread(top1)}}
    return entry


def _of_one_seed(results: Sequence[Result]) -> dict:
    entry: dict = {"top1": {}, "top5": {}, "right": 0, "clips": 0, "missing": 0}
    for result in results:
        accuracy = measure_accuracy(result.probabilities, result.labels)
        predicted = predictions(result.probabilities)
        entry["top1"][f"split_{result.split}"] = accuracy.top1
        if accuracy.top5 is not None:
            entry["top5"][f"split_{result.split}"] = accuracy.top5
        entry["right"] += int((predicted == result.labels).sum())
        entry["clips"] += len(result.clips)
        entry["missing"] += int((predicted < 0).sum())
    return entry


def _spread(values: Mapping[str, float]) -> dict[str, float]:
    """Mean and standard deviation, and the values themselves."""
    numbers = list(values.values())
    return {"mean": float(np.mean(numbers)), "std": float(np.std(numbers)), **values}


def class_counts(results: Iterable[Result], classes: Sequence[str]) -> dict[tuple[str, str], tuple[int, int]]:
    """{(model, class): (clips classified correctly, clips)}, splits and seeds added up; classes in the order given."""
    counts: dict[tuple[str, str], list[int]] = {}
    for result in results:
        for clip, hit in zip(result.clips, predictions(result.probabilities) == result.labels, strict=True):
            count = counts.setdefault((result.model, clip.class_name), [0, 0])
            count[0] += int(hit)
            count[1] += 1
    models = dict.fromkeys(model for model, _ in counts)
    return {(m, name): tuple(counts[m, name]) for m in models for name in classes if (m, name) in counts}


def confusion_pairs(
    results: Iterable[Result], classes: Sequence[str], *, failed: str = "(failed)"
) -> dict[str, list[tuple[str, str]]]:
    """{model: (actual, predicted) class of every test clip, once a seed}; ``failed``: a clip without a prediction."""
    pairs: dict[str, list[tuple[str, str]]] = {}
    for result in results:
        for clip, label in zip(result.clips, predictions(result.probabilities), strict=True):
            said = classes[label] if label >= 0 else failed
            pairs.setdefault(result.model, []).append((clip.class_name, said))
    return pairs


def cue_accuracy(
    results: Iterable[Result], classes: Sequence[str], cues_of: Callable[[str], Mapping[str, str]]
) -> dict[str, dict[str, float]]:
    """{model: {cue: share of the clips whose predicted class has the right value of the cue}}.

    Says which of the paper's claims a variant lives up to: appearance, motion or order.

    Args:
        classes: class names by label.
        cues_of: class name -> {cue: its value}, the same cues for every class.
    """
    hits: dict[str, dict[str, list[bool]]] = {}
    for result in results:
        counts = hits.setdefault(result.model, {cue: [] for cue in cues_of(classes[0])})
        for clip, label in zip(result.clips, predictions(result.probabilities), strict=True):
            truth = cues_of(clip.class_name)
            said = cues_of(classes[label]) if label >= 0 else {}
            for cue in truth:
                counts[cue].append(said.get(cue) == truth[cue])
    return {model: {cue: float(np.mean(right)) for cue, right in counts.items()} for model, counts in hits.items()}
