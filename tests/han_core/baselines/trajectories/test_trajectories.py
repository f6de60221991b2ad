"""The trajectories of a clip as arrays."""

import numpy as np
import pytest

from han_core.baselines.trajectories.trajectories import CHANNELS, DIMENSIONS, HISTOGRAMS, Trajectories
from tests.han_core.baselines.trajectories.made_up import made_up


def test_channels():
    found = made_up(7)
    assert CHANNELS == ("trajectory", "hog", "hof", "mbhx", "mbhy")
    for name in CHANNELS:
        values = found.channel(name)
        assert values.shape == (7, DIMENSIONS[name])
        assert values.dtype == np.float32
    assert sum(DIMENSIONS.values()) == 426
    np.testing.assert_allclose(found.channel("hof"), found.hof.astype(np.float64) / 255, rtol=1e-6)
    assert made_up(1, hog=np.full((1, 96), 255, np.uint8)).channel("hog").max() == 1
    with pytest.raises(ValueError, match="'sift' is not one of"):
        found.channel("sift")


def test_the_shape_of_a_trajectory_sums_to_one():
    found = made_up(5)
    shape = found.channel("trajectory").reshape(5, 15, 2)
    np.testing.assert_allclose(np.linalg.norm(shape, axis=2).sum(1), 1, rtol=1e-5)
    ratio = shape / found.warped
    np.testing.assert_allclose(ratio, np.broadcast_to(ratio[:, :1, :1], ratio.shape), rtol=1e-4)
    nothing = made_up(2, warped=np.zeros((2, 15, 2), np.float32)).channel("trajectory")
    assert not nothing.any()


def test_selection_and_joining():
    found = made_up(9)
    index = np.array([4, 0, 8])
    chosen = found.select(index)
    assert len(chosen) == 3
    for name, values in vars(found).items():
        assert np.array_equal(getattr(chosen, name), values[index])
    mask = np.arange(9) % 2 == 0
    assert np.array_equal(found.select(mask).start, found.start[mask])
    both = Trajectories.concatenate([found.select(slice(4)), found.select(slice(4, None))])
    assert all(np.array_equal(getattr(both, name), values) for name, values in vars(found).items())
    assert len(Trajectories.empty(15)) == 0
    assert len(Trajectories.concatenate([Trajectories.empty(15), found])) == 9


def test_what_was_not_read_is_not_there():
    part = Trajectories(start=np.zeros(2, np.int32), scale=np.zeros(2, np.uint8), hog=np.zeros((2, 96), np.uint8))
    assert part.select(np.array([1])).hof is None
    assert len(Trajectories.concatenate([part, part])) == 4
    for name in ("trajectory", *HISTOGRAMS[1:]):
        with pytest.raises(ValueError, match="was not read"):
            part.channel(name)


@pytest.mark.parametrize(
    "change",
    [
        {"start": np.zeros(3, np.int32)},
        {"scale": np.zeros((4, 1), np.uint8)},
        {"points": np.zeros((4, 15, 2), np.float32)},
        {"warped": np.zeros((4, 15, 3), np.float32)},
        {"hof": np.zeros((4, 96), np.uint8)},
    ],
)
def test_arrays_that_do_not_fit_are_refused(change):
    with pytest.raises(ValueError, match=r"shape is|one more"):
        made_up(4, **change)
