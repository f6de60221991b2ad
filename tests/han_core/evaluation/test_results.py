"""From probabilities to the figures that are reported."""

import numpy as np
import pytest

from han_core.clips import Clip
from han_core.datasets.synthetic.generate import class_cues
from han_core.evaluation.results import Result, class_counts, confusion_pairs, cue_accuracy, summarize


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


def test_classes_are_counted_over_all_splits_in_the_order_of_the_labels(two_splits):
    assert class_counts(two_splits, ("b", "a")) == {("han", "b"): (1, 2), ("han", "a"): (1, 2)}
    assert list(class_counts(two_splits, ("b", "a"))) == [("han", "b"), ("han", "a")]


def test_a_failed_clip_has_a_column_of_its_own_in_the_confusion(two_splits):
    pairs = confusion_pairs(two_splits, ("a", "b"))["han"]
    assert pairs == [("a", "a"), ("a", "(failed)"), ("b", "a"), ("b", "b")]
