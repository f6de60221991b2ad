"""From probabilities to the figures that are reported."""

from dataclasses import replace

import numpy as np
import pytest

from han_core.clips import Clip
from han_core.datasets.synthetic.generate import class_cues
from han_core.evaluation.results import Result, class_counts, confusion_pairs, cue_accuracy, ensemble, summarize


def test_cues_are_counted_by_the_predicted_class():
    names = ("green_fast_crouch_wave", "green_slow_crouch_wave", "magenta_fast_wave_crouch")
    clips = tuple(Clip(f"c{n}", f"c{n}.avi", name, n, "g", {1: "test"}) for n, name in enumerate(names))
    said = np.array([[0.8, 0.1, 0.1], [0.9, 0.1, 0.0], [np.nan] * 3])  # right; right but for the tempo; no prediction
    result = Result("han", 1, clips, said)
    cues = cue_accuracy([result], names, class_cues)["han"]
    assert cues == {"appearance": pytest.approx(2 / 3), "motion": pytest.approx(1 / 3), "order": pytest.approx(2 / 3)}


@pytest.fixture
def two_splits():
    """Classes a and b; split 1 tests a, a and b, of which one a failed; split 2 tests one b."""
    clips = [Clip(f"c{n}", f"c{n}.avi", "ab"[label], label, "g", {}) for n, label in enumerate((0, 0, 1, 1))]
    return [
        Result("han", 1, tuple(clips[:3]), np.array([[0.9, 0.1], [np.nan] * 2, [0.8, 0.2]])),
        Result("han", 2, tuple(clips[3:]), np.array([[0.3, 0.7]])),
    ]


def test_a_clip_without_a_prediction_counts_as_wrong(two_splits):
    figures = summarize(two_splits)["han"]
    assert (figures["right"], figures["clips"], figures["missing"]) == (2, 4, 1)
    assert figures["top1"] == pytest.approx({"mean": 2 / 3, "std": 1 / 3, "split_1": 1 / 3, "split_2": 1.0})
    assert "top5" not in figures


@pytest.fixture
def two_seeds(two_splits):
    """Of the same clips: seed 4 gets 1 of 3 and 1 of 1, seed 9 gets 2 of 3 and 0 of 1; the same clip failed."""
    first, second = two_splits
    again = (
        replace(first, probabilities=np.array([[0.9, 0.1], [np.nan] * 2, [0.1, 0.9]]), seed=9),
        replace(second, probabilities=np.array([[0.8, 0.2]]), seed=9),
    )
    return [replace(first, seed=4), again[0], replace(second, seed=4), again[1]]


def test_figures_of_several_seeds_are_means_over_them_and_their_spread_is_there(two_seeds):
    """By hand: split 1 has 1/3 and 2/3, split 2 has 1 and 0; the seeds' means are 2/3 and 1/3."""
    figures = summarize(two_seeds)["han"]
    assert figures.pop("top1") == pytest.approx({"mean": 1 / 2, "std": 0, "split_1": 1 / 2, "split_2": 1 / 2})
    over_seeds = figures.pop("over_seeds")
    assert over_seeds["top1"] == pytest.approx({"mean": 1 / 2, "std": 1 / 6, "seed_4": 2 / 3, "seed_9": 1 / 3})
    assert over_seeds["right"] == {"seed_4": 2, "seed_9": 2}
    assert figures == {"right": 2.0, "clips": 4, "missing": 1.0, "seeds": [4, 9]}


def test_means_over_seeds_and_splits_differ_where_they_should(two_splits):
    """Seed 1 gets 1 of 3 and 1 of 1, seed 2 gets 2 of 3 and 1 of 1: 2/3 and 5/6; splits 1/2 and 1."""
    first, second = two_splits
    better = replace(first, probabilities=np.array([[0.9, 0.1], [np.nan] * 2, [0.1, 0.9]]), seed=2)
    figures = summarize([replace(first, seed=1), better, replace(second, seed=1), replace(second, seed=2)])["han"]
    assert figures["top1"] == pytest.approx({"mean": 3 / 4, "std": 1 / 4, "split_1": 1 / 2, "split_2": 1})
    spread = {"mean": 3 / 4, "std": 1 / 12, "seed_1": 2 / 3, "seed_2": 5 / 6}
    assert figures["over_seeds"]["top1"] == pytest.approx(spread)
    assert figures["over_seeds"]["right"] == {"seed_1": 2, "seed_2": 3}
    assert figures["right"] == 2.5


def test_top5_of_several_seeds_is_their_mean():
    clips = tuple(Clip(f"c{n}", f"c{n}.avi", "abcdef"[n], n, "g", {}) for n in range(2))
    last = np.array([[0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5]]) / 15  # class 0 is the sixth, class 1 the fifth
    results = [Result("han", 1, clips, last, 1), Result("han", 1, clips, last[:, ::-1], 2)]
    assert summarize(results)["han"]["top5"] == pytest.approx({"mean": 0.75, "std": 0, "split_1": 0.75})


def test_a_row_of_one_seed_has_the_figures_it_always_had(two_splits):
    expected = summarize(two_splits)
    assert summarize([replace(result, seed=7) for result in two_splits]) == expected
    assert list(expected["han"]) == ["top1", "right", "clips", "missing"]


def test_seeds_are_pooled_by_class_and_in_the_confusion(two_seeds):
    assert class_counts(two_seeds, ("a", "b")) == {("han", "a"): (2, 4), ("han", "b"): (2, 4)}
    assert len(confusion_pairs(two_seeds, ("a", "b"))["han"]) == 8


def test_an_ensemble_is_the_mean_of_the_probabilities(two_seeds):
    """Neither seed alone: clip 3 is told from .2 and .9, which make .55."""
    joined = ensemble("both", two_seeds[:2])
    np.testing.assert_allclose(joined.probabilities, [[0.9, 0.1], [np.nan] * 2, [0.45, 0.55]])
    assert (joined.model, joined.split, joined.seed, joined.clips) == ("both", 1, None, two_seeds[0].clips)
    assert summarize([joined])["both"]["right"] == 2
    half = replace(two_seeds[1], probabilities=np.array([[0.9, 0.1], [0.5, 0.5], [0.1, 0.9]]))
    assert np.isnan(ensemble("both", [two_seeds[0], half]).probabilities[1]).all(), "a seed lacks it"
    with pytest.raises(ValueError, match="different clips"):
        ensemble("both", two_seeds[1:3])


def test_classes_are_counted_over_all_splits_in_the_order_of_the_labels(two_splits):
    assert class_counts(two_splits, ("b", "a")) == {("han", "b"): (1, 2), ("han", "a"): (1, 2)}
    assert list(class_counts(two_splits, ("b", "a"))) == [("han", "b"), ("han", "a")]


def test_a_failed_clip_has_a_column_of_its_own_in_the_confusion(two_splits):
    pairs = confusion_pairs(two_splits, ("a", "b"))["han"]
    assert pairs == [("a", "a"), ("a", "(failed)"), ("b", "a"), ("b", "b")]
