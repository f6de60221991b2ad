"""Settings are checked where they are made, and the message names the field."""

import pytest

from han_core.baselines.trajectories.params import TrajectoryParams
from han_core.baselines.trajectories.pyramid import pyramid_sizes


def test_the_defaults_are_those_of_the_paper():
    assert vars(TrajectoryParams()) == {
        "length": 15,
        "stride": 5,
        "patch": 32,
        "scales": 8,
        "quality": 0.001,
        "camera": "grid",
        "median": 5,
        "most": 5000,
    }


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("length", 0),
        ("length", 14),
        ("length", 15.0),
        ("length", True),
        ("stride", 0),
        ("patch", 31),
        ("patch", 2),
        ("scales", 0),
        ("scales", 17),
        ("quality", 0.0),
        ("quality", 1.0),
        ("quality", float("nan")),
        ("camera", "sift"),
        ("median", 4),
        ("most", -1),
    ],
)
def test_what_is_not_valid_is_named(field, value):
    with pytest.raises(ValueError, match=f"^{field}: "):
        TrajectoryParams(**{field: value})


@pytest.mark.parametrize(
    ("height", "width", "scales"),
    [
        (240, 320, 6),
        (296, 400, 7),
        (480, 640, 8),
        (1080, 1920, 8),
        (70, 90, 3),
        (90, 70, 3),
        (45, 60, 2),
        (40, 50, 1),
        (20, 30, 1),
    ],
)
def test_scales_of_a_frame(height, width, scales):
    sizes = pyramid_sizes(height, width, TrajectoryParams())
    assert len(sizes) == scales
    assert sizes[0] == (height, width)
    for k, (h, w) in enumerate(sizes):
        assert abs(h - height / 2 ** (k / 2)) <= 0.5
        assert abs(w - width / 2 ** (k / 2)) <= 0.5
        assert k == 0 or min(h, w) >= 32


def test_fewer_scales_where_they_are_set():
    assert len(pyramid_sizes(480, 640, TrajectoryParams(scales=2))) == 2
    assert len(pyramid_sizes(240, 320, TrajectoryParams(patch=100))) == 3
