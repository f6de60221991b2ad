"""Scores of one clip: they come back, and what cannot be scores is refused."""

import numpy as np
import pytest

from han_core.baselines.two_stream.scorefile import read_scores, write_scores
from han_core.clipfile.trailer import ClipFileError


def write(path, probabilities):
    identity = {"clip": "c", "fingerprint": "f" * 64}
    write_scores(path, **identity, frames=np.arange(3, dtype=np.int32), probabilities=probabilities, attributes={})
    return path


def test_the_mean_over_the_frames_is_read(tmp_path):
    scores = np.random.default_rng(0).random((3, 5), np.float32)
    np.testing.assert_array_equal(read_scores(write(tmp_path / "a.h5", scores)), scores.mean(0))


@pytest.mark.parametrize(
    "scores",
    [
        np.zeros(5, np.float32),
        np.zeros((3, 5), np.float64),
        np.zeros((0, 5), np.float32),
        np.zeros((3, 0), np.float32),
        np.zeros((3, 5, 1), np.float32),
        np.full((3, 5), np.nan, np.float32),
        np.full((3, 5), np.inf, np.float32),
    ],
)
def test_what_cannot_be_scores_is_refused(tmp_path, scores):
    path = write(tmp_path / "a.h5", scores)
    with pytest.raises(ClipFileError, match="not those of classes") as error:
        read_scores(path)
    assert str(path) in str(error.value)
