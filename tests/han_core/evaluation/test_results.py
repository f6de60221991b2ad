"""From probabilities to the figures that are reported."""

import numpy as np
import pytest

from han_core.clips import Clip
from han_core.datasets.synthetic.generate import class_cues
from han_core.evaluation.results import Result, cue_accuracy


def test_cues_are_counted_by_the_predicted_class():
    names = ("green_fast_crouch_wave", "green_slow_crouch_wave", "magenta_fast_wave_crouch")
    clips = tuple(Clip(f"c{n}", f"c{n}.avi", name, n, "g", {1: "test"}) for n, name in enumerate(names))
    said = np.array([[0.8, 0.1, 0.1], [0.9, 0.1, 0.0], [np.nan] * 3])  # right; right but for the tempo; no prediction
    result = Result("han", 1, clips, said)
    cues = cue_accuracy([result], names, class_cues)["han"]
    assert cues == {"appearance": pytest.approx(2 / 3), "motion": pytest.approx(1 / 3), "order": pytest.approx(2 / 3)}
