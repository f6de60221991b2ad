"""The best mean top-1 wins, of equal ones the lower cross-entropy, then the earlier one."""

import pytest

from pipeline.selection.inner import Score
from pipeline.selection.ranking import Standing, ranked


def standing(*scores, clips=6):
    """Of scores (right, cross-entropy) on as many folds, with one seed."""
    return Standing({(fold, 1): Score(right, clips, loss) for fold, (right, loss) in enumerate(scores, start=1)})


def test_top1_comes_first():
    assert ranked([standing((3, 0.1)), standing((5, 0.9)), standing((4, 0.2))]) == [1, 2, 0]


def test_of_equal_top1_the_lower_cross_entropy_wins():
    assert ranked([standing((5, 0.9)), standing((5, 0.2)), standing((5, 0.4))]) == [1, 2, 0]


def test_of_equal_scores_the_earlier_combination_wins():
    assert ranked([standing((1, 0.3)), standing((5, 0.2)), standing((5, 0.2))]) == [1, 2, 0]


def test_equal_means_are_equal_however_they_are_summed():
    """0.1 + 0.2 is not 0.3 in floating point; then the order of the folds would decide, and not the loss."""
    one = Standing({(1, 1): Score(1, 10, 0.9), (2, 1): Score(2, 10, 0.9), (3, 1): Score(3, 10, 0.9)})
    other = Standing({(1, 1): Score(3, 10, 0.1), (2, 1): Score(2, 10, 0.1), (3, 1): Score(1, 10, 0.1)})
    assert one.top1 == other.top1
    assert ranked([one, other]) == [1, 0]


def test_a_diverged_model_puts_its_combination_last():
    assert ranked([standing((6, 0.1), (0, None)), standing((0, 9.0), (0, 9.0))]) == [1, 0]
    assert standing((6, 0.1), (0, None)).cross_entropy == float("inf")


def test_folds_count_alike_whatever_their_size_and_spreads_are_told_apart():
    scores = {(1, 1): Score(4, 4, 0.1), (2, 1): Score(1, 2, 0.3), (1, 2): Score(2, 4, 0.1), (2, 2): Score(0, 2, 0.3)}
    found = Standing(scores)
    assert found.top1 == (1 + 0.5 + 0.5 + 0) / 4
    assert found.cross_entropy == pytest.approx(0.2)
    assert found.over_folds == pytest.approx(0.25)  # 3/4 and 1/4
    assert found.over_seeds == pytest.approx(0.25)  # 3/4 and 1/4, of each seed over the folds
