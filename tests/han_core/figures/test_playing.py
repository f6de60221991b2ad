"""Pictures of a playing clip: which frame, which map, whose box."""

import numpy as np

from han_core.figures.playing import attention_frames


def frames(count):
    for number in range(count):
        yield number, np.full((60, 82, 3), 20 * number, np.uint8)


def peaked(at):
    weights = np.full(196, 0.1 / 195)
    weights[at] = 0.9
    return weights


def test_the_frame_stands_beside_the_map_of_the_nearest_frame_that_was_looked_at():
    maps = {"HAN": np.stack([peaked(0), peaked(195)])}
    shown = list(attention_frames(frames(8), maps, np.array([1, 5]), side=96))
    assert [picture.shape for picture in shown] == [(96, 2 * 132, 3)] * 8
    for number, picture in enumerate(shown):
        plain, under = picture[:, :132].astype(int), picture[:, 132:].astype(int)
        assert (plain == 20 * number).all()
        upper_left, lower_right = under[30:40, 10:20].sum(), under[-4:, -4:].mean()
        assert (lower_right > 20 * number / 2 + 60) == (number > 3), upper_left


def test_every_model_has_a_picture_and_the_box_is_drawn_beside_them():
    maps = {"HAN": np.full((1, 196), 1 / 196), "soft": np.full((1, 196), 1 / 196)}
    boxes = np.array([[10, 10, 20, 20]] * 3)
    (picture,) = attention_frames(frames(1), maps, np.array([0]), boxes=boxes, side=60)
    assert picture.shape == (60, 3 * 82, 3)
    assert (picture[10, 10:30] == 255).all()
    assert not (picture[10, 82 + 10 : 82 + 30] == 255).any()
