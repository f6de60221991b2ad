"""The annotated copy of a video: sizes that the encoder takes."""

import numpy as np
import pytest

from han_core.predict.annotate import annotate
from han_core.predict.windows import Prediction, Window
from han_core.video.decode import probe
from tests.make_videos import encode


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((48, 64), (240 + 36, 320)),
        ((300, 400), (300 + 36, 400)),
        ((10, 1000), (164 + 36, 16384)),  # 24 times as large, it would be 24000 wide
        ((1000, 10), (16384, 164)),
        ((2, 17000), (2 + 36, 16384)),
        ((4000, 4), (16384, 16)),
    ],
)
def test_no_side_is_longer_than_the_encoder_takes(tmp_path, size, expected):
    video = encode(tmp_path / "a.mkv", np.zeros((2, *size, 3), np.uint8), codec="ffv1")
    chances = np.array([0.25, 0.75], np.float32)
    window = Window(np.array([0, 1]), chances, np.stack([chances] * 2), np.full((2, 4), 0.25, np.float16))
    annotate(video, Prediction(2, (window,)), ("a", "b"), tmp_path / "copy.mp4")
    info = probe(tmp_path / "copy.mp4")
    assert (info.height, info.width) == expected
