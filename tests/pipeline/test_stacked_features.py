"""How large the second layer of stacked Fisher vectors is made for how many training clips."""

import pytest

from pipeline.params import Stacked
from pipeline.stacked_features import stacked_params


@pytest.mark.parametrize(
    ("clips", "reduced", "gaussians", "per_clip"),
    [(9537, 200, 256, 4), (3570, 200, 111, 9), (54, 13, 1, 556), (1, 1, 1, 30_000)],
    ids=["UCF-101", "HMDB-51", "UT-Interaction", "one clip"],
)
def test_few_clips_make_a_small_second_layer(clips, reduced, gaussians, per_clip):
    """With 200 dimensions and 64 Gaussians for 27 clips of UT-Interaction, test clips were classified by chance."""
    made = stacked_params(Stacked(), 1e-4, clips)
    assert (made.reduced, made.second_gaussians, made.per_clip) == (reduced, gaussians, per_clip)


def test_what_is_asked_for_is_the_most():
    made = stacked_params(Stacked(reduced=5, second_gaussians=2, subvolumes=10**9), 1e-4, 10_000)
    assert (made.reduced, made.second_gaussians, made.per_clip) == (5, 2, 1 << 16)
    every = Stacked(reduced=7, second_gaussians=7, clips_per_dimension=1, clips_per_gaussian=1)
    assert stacked_params(every, 1e-4, 7).reduced == stacked_params(every, 1e-4, 7).second_gaussians == 7
