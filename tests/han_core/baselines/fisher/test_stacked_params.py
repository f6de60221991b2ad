"""Settings of stacked Fisher vectors."""

import math

import pytest

from han_core.baselines.fisher.stacked_params import StackedParams


def test_they_come_back_from_json_values():
    params = StackedParams(frames=(20, 40, 80), reduction="pca")
    assert StackedParams.from_dict(params.to_dict()) == params


@pytest.mark.parametrize(("frames", "block"), [((30, 60), 15), ((20,), 10), ((30, 40), 5), ((16, 30), 1)])
def test_a_block_is_a_part_of_every_step(frames, block):
    assert StackedParams(frames=frames).block_frames == block


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"cells": 0}, "cells is 0, not 1 to 64"),
        ({"cells": True}, "cells is True"),
        ({"least": 1.5}, "least is 1.5"),
        ({"span": 5}, "a span of 5 in 4 cells"),
        ({"frames": (30, 31)}, "not even numbers"),
        ({"frames": ()}, "not even numbers"),
        ({"reduction": "lda"}, "reduction is 'lda'"),
        ({"class_penalty": -1}, "class_penalty is -1"),
        ({"rate": math.nan}, "rate is nan"),
        ({"rate": "1"}, "rate is '1'"),
        ({"floor": 0}, "floor is 0, not a number above 0"),
        ({"floor": 1.5}, "floor is 1.5"),
        ({"cells": 0, "rate": -1}, "cells is 0.*; rate is -1"),
    ],
)
def test_what_cannot_be_is_told(wrong, words):
    with pytest.raises(ValueError, match=words):
        StackedParams(**wrong)
