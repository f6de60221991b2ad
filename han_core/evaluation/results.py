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
    """What one model says of one split's test clips."""

    model: str
    split: int
    clips: "tuple[Clip, ...]"
    probabilities: np.ndarray
    """(clips, classes); NaN for a clip without features."""

    @property
    def labels(self) -> np.ndarray:
        return np.array([clip.label for clip in self.clips])


def summarize(results: Iterable[Result]) -> dict:
    """{model: {top1: {mean, std, split_1, ..}, top5 likewise where it means something, right, clips, missing}}."""
    summary: dict[str, dict] = {}
    for result in results:
        accuracy = measure_accuracy(result.probabilities, result.labels)
        predicted = predictions(result.probabilities)
        entry = summary.setdefault(result.model, {"top1": {}, "top5": {}, "right": 0, "clips": 0, "missing": 0})
        entry["top1"][f"split_{result.split}"] = accuracy.top1
        if accuracy.top5 is not None:
            entry["top5"][f"split_{result.split}"] = accuracy.top5
        entry["right"] += int((predicted == result.labels).sum())
        entry["clips"] += len(result.clips)
        entry["missing"] += int((predicted < 0).sum())
    for entry in summary.values():
        if not entry["top5"]:
            del entry["top5"]
        for key in ("top1", "top5"):
            if key in entry:
                values = list(entry[key].values())
                entry[key] = {"mean": float(np.mean(values)), "std": float(np.std(values)), **entry[key]}
    return summary


def class_counts(results: Iterable[Result], classes: Sequence[str]) -> dict[tuple[str, str], tuple[int, int]]:
    """{(model, class): (clips classified correctly, clips)}, splits added up; classes in the order given."""
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
    """{model: (actual, predicted) class of every test clip}; ``failed`` stands for a clip without a prediction."""
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
