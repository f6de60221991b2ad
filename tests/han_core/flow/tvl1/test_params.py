import pytest

from han_core.flow.tvl1.params import TVL1Params, pyramid_sizes


def test_defaults_are_those_of_opencvs_cuda_class():
    p = TVL1Params()
    assert (p.tau, p.lambda_, p.theta, p.scales, p.scale_step) == (0.25, 0.15, 0.3, 5, 0.8)
    assert (p.warps, p.epsilon, p.iterations, p.median) == (5, 0.01, 300, 1)


def test_every_wrong_value_is_named_at_once():
    with pytest.raises(ValueError, match=r"tau must .*scales must .*scale_step must .*median must"):
        TVL1Params(tau=-1, scales=2.5, scale_step=1.0, median=4)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0, "0.3", True, None])
def test_theta_must_be_a_finite_number_above_zero(value):
    with pytest.raises(ValueError, match="theta must be"):
        TVL1Params(theta=value)


@pytest.mark.parametrize("name", ["epsilon", "settle"])
def test_some_may_be_zero(name):
    assert getattr(TVL1Params(**{name: 0}), name) == 0


def test_pyramid_ends_before_a_side_falls_under_sixteen_pixels():
    assert pyramid_sizes(256, 340, TVL1Params()) == [(256, 340), (205, 272), (164, 218), (131, 174), (105, 139)]
    assert pyramid_sizes(24, 100, TVL1Params()) == [(24, 100), (19, 80)]
    assert pyramid_sizes(10, 10, TVL1Params()) == [(10, 10)]
    assert pyramid_sizes(256, 340, TVL1Params(scales=1)) == [(256, 340)]
