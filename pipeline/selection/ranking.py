"""Which combination wins, by the scores of its models on the inner folds."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from pipeline.selection.inner import Score

Scores = Mapping[tuple[int, int], Score]
"""(inner fold, seed) -> what that model gets."""


@dataclass(frozen=True)
class Standing:
    """What one combination gets over all inner folds and seeds."""

    scores: Scores

    @property
    def diverged(self) -> bool:
        """Whether one of its models' losses was no longer finite."""
        return any(score.cross_entropy is None for score in self.scores.values())

    @property
    def top1(self) -> Fraction:
        """Mean over folds and seeds; exact, so that equal means are equal."""
        return _mean([_top1(score) for score in self.scores.values()])

    @property
    def cross_entropy(self) -> float:
        """Mean over folds and seeds, in nats; infinite where a model diverged."""
        losses = [score.cross_entropy for score in self.scores.values()]
        return float("inf") if None in losses else statistics.fmean(losses)

    @property
    def over_folds(self) -> float:
        """Standard deviation of top-1 over the folds, each the mean over its seeds."""
        return self._spread(0)

    @property
    def over_seeds(self) -> float:
        """Standard deviation of top-1 over the seeds, each the mean over the folds."""
        return self._spread(1)

    def _spread(self, part: int) -> float:
        by: dict[int, list[Fraction]] = {}
        for place, score in self.scores.items():
            by.setdefault(place[part], []).append(_top1(score))
        return statistics.pstdev([float(_mean(values)) for values in by.values()])


def ranked(standings: Sequence[Standing]) -> list[int]:
    """Numbers of the combinations, the best first: highest mean top-1, of equal ones lowest mean cross-entropy, then
    the earlier one. One of whose models diverged comes last."""
    return sorted(
        range(len(standings)),
        key=lambda n: (standings[n].diverged, -standings[n].top1, standings[n].cross_entropy, n),
    )


def _top1(score: Score) -> Fraction:
    return Fraction(score.right, score.clips)


def _mean(values: Sequence[Fraction]) -> Fraction:
    return sum(values, Fraction(0)) / len(values)
