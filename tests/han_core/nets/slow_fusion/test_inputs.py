"""What Slow Fusion looks at: windows of frames, and one square of all frames of a window."""

from collections import Counter

import cv2
import numpy as np
import pytest
import torch

from han_core.clipfile.trailer import ClipFileError
from han_core.clipfile.writer import ClipFileWriter
from han_core.nets.crops import View
from han_core.nets.slow_fusion.inputs import FrameWindows, SquareViews, prepare, read_clip_windows

CPU = torch.device("cpu")


def frames_file(path, images):
    with ClipFileWriter(path, kind="frames", clip=path.stem, fingerprint="f" * 64) as file:
        written = file.images("frames")
        for image in images:
            written.append(cv2.imencode(".png", image)[1])
    return path


def numbered(path, count, size=(24, 32)):
    """Frames whose blue, green and red are 5, 2 and 1 times their number."""
    return frames_file(path, [np.full((*size, 3), (5 * i % 256, 2 * i, i), np.uint8) for i in range(count)])


def smooth(seed, height=240, width=320):
    noise = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


# The square


def test_the_middle_is_that_of_a_frame_cropped_and_resized_and_cropped_again():
    """As the paper says it, with OpenCV; the smooth image hides that it resamples once more than we do."""
    frame = smooth(1)
    square = cv2.resize(frame[:, 40:280], (200, 200), interpolation=cv2.INTER_LINEAR)[15:185, 15:185]
    pixels = np.concatenate([frame.transpose(2, 0, 1)] * 10)
    view = SquareViews().centre(240, 320)
    assert view == View(18, 58, 204, 204)
    found = prepare([pixels], [view], CPU)
    assert found.shape == (1, 3, 10, 170, 170)
    expected = square.transpose(2, 0, 1).astype(np.float32) - 117
    assert abs(found[0, :, 3].numpy() - expected).mean() < 1.0
    assert abs(np.roll(expected, 3, axis=2) - expected).mean() > 2.0  # three pixels aside would show


def draws(views, height=240, width=320, count=500):
    return [views.draw(np.random.default_rng(i), height, width) for i in range(count)]


def test_the_square_is_drawn_anywhere_in_the_resized_centre_and_mirrored_half_of_the_time():
    found = draws(SquareViews())
    assert {(view.height, view.width) for view in found} == {(204, 204)}
    assert {view.top for view in found} == set(range(37))  # 240 lines hold 37 squares of 204
    assert {view.left for view in found} == set(range(40, 77))
    assert len({(view.top, view.left) for view in found}) > 350  # independently of each other
    assert 200 < sum(view.flip for view in found) < 300
    assert not any(view.flip for view in draws(SquareViews(flip=False)))
    assert [(view.top, view.left) for view in draws(SquareViews(flip=False))] == [(v.top, v.left) for v in found]


def test_the_size_of_the_square_follows_resize():
    assert {view.height for view in draws(SquareViews(resize=340))} == {120}
    assert set(draws(SquareViews(resize=170, flip=False), 100, 80)) == {View(10, 0, 80, 80)}
    assert SquareViews(resize=10_000).centre(2, 3).height == 1


def test_all_frames_of_a_window_share_their_square():
    """Each frame by itself through the same view gives the same pixels, and a still window stays still."""
    frames = [smooth(seed, 60, 80) for seed in range(10)]
    view = View(3, 11, 51, 51, flip=True)
    window = np.concatenate([frame.transpose(2, 0, 1) for frame in frames])
    (found,) = prepare([window], [view], CPU)
    for number, frame in enumerate(frames):
        (alone,) = prepare([np.concatenate([frame.transpose(2, 0, 1)] * 10)], [view], CPU)
        torch.testing.assert_close(found[:, number], alone[:, 0], rtol=0, atol=1e-3)
        torch.testing.assert_close(alone[:, 9], alone[:, 0], rtol=0, atol=1e-3)
    assert (found[:, 0] - found[:, 1]).abs().max() > 10


def test_a_mirrored_square_is_the_square_mirrored_minus_117():
    window = np.concatenate([smooth(seed, 60, 80).transpose(2, 0, 1) for seed in range(10)])
    plain, flipped = (prepare([window], [View(0, 10, 60, 60, flip)], CPU) for flip in (False, True))
    torch.testing.assert_close(flipped, plain.flip(-1), rtol=0, atol=1e-3)
    black = prepare([np.zeros((30, 60, 60), np.uint8)], [View(0, 0, 60, 60)], CPU)
    assert torch.equal(black, torch.full_like(black, -117))


# Windows for training


def test_a_window_is_ten_consecutive_frames_in_rgb(tmp_path):
    clips = FrameWindows([numbered(tmp_path / "a.h5", 30)], [0])
    window = clips.read(0, 0.5)
    assert window.shape == (30, 24, 32)
    assert window.dtype == np.uint8
    numbers = list(range(10, 20))  # the 11th of 21 windows
    assert window[:, 3, 4].reshape(10, 3).tolist() == [[n, 2 * n, 5 * n % 256] for n in numbers]


def test_every_window_of_a_clip_is_drawn_equally_often(tmp_path):
    clips = FrameWindows([numbered(tmp_path / "a.h5", 13)], [0])
    firsts = Counter(int(clips.read(0, moment)[0, 0, 0]) for moment in np.arange(0, 1, 1 / 64))
    assert firsts == {0: 16, 1: 16, 2: 16, 3: 16}


@pytest.mark.parametrize("count", [1, 4, 9])
def test_a_short_clip_repeats_its_last_frame(tmp_path, count):
    clips = FrameWindows([numbered(tmp_path / "a.h5", count)], [0])
    for moment in (0.0, 0.999):
        assert clips.read(0, moment)[::3, 0, 0].tolist() == [*range(count), *[count - 1] * (10 - count)]


# Windows at test


@pytest.mark.parametrize(
    ("frames", "windows", "starts"),
    [
        (30, 5, [0, 5, 10, 15, 20]),
        (30, 1, [10]),
        (13, 5, [0, 1, 2, 2, 3]),
        (10, 3, [0, 0, 0]),
        (4, 3, [0, 0, 0]),
    ],
)
def test_windows_are_equally_spaced_and_read_once(tmp_path, frames, windows, starts):
    clip = read_clip_windows(numbered(tmp_path / "a.h5", frames), windows, SquareViews())
    assert clip.starts.tolist() == starts
    assert len(clip.fields) == len(set(starts))
    seen = clip.input(slice(None))
    assert seen.shape == (len(set(starts)), 3, 10, 170, 170)
    found = seen[clip.order.tolist()][:, 0, :, 80, 80] + 117  # red: the number of the frame
    expected = [[min(start + i, frames - 1) for i in range(10)] for start in starts]
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_fifty_windows_of_a_clip_of_ucf101(tmp_path):
    clip = read_clip_windows(numbered(tmp_path / "a.h5", 100, (8, 8)), 50, SquareViews())
    gaps = np.diff(clip.starts)
    assert (clip.starts[0], clip.starts[-1], set(gaps.tolist())) == (0, 90, {1, 2})
    assert len(clip.frames) == 100


def test_the_windows_show_the_middle_as_training_prepares_it(tmp_path):
    path = frames_file(tmp_path / "a.h5", [smooth(seed) for seed in range(12)])
    views = SquareViews(resize=220)
    clip = read_clip_windows(path, 3, views)
    windows = FrameWindows([path], [0])
    expected = prepare([windows.read(0, moment) for moment in (0, 0.5, 0.9)], [views.centre(240, 320)] * 3, CPU)
    torch.testing.assert_close(clip.input(slice(None)), expected, rtol=0, atol=1e-3)
    torch.testing.assert_close(clip.input(slice(1, 2)), expected[1:2], rtol=0, atol=1e-3)


def test_a_damaged_file_is_told(tmp_path):
    path = frames_file(tmp_path / "a.h5", [smooth(0, 24, 32)] * 3)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ClipFileError, match=r"a\.h5"):
        read_clip_windows(path, 3, SquareViews())
