"""What a net sees of a clip file: equally spaced frames, and stacks around them."""

import cv2
import numpy as np

from han_core.clipfile.writer import ClipFileWriter
from han_core.nets.clip_inputs import read_clip_frames
from han_core.nets.sampling import sample_frames
from han_core.nets.views import FURTHER, PLAIN, ClipView


def frames_file(path, count):
    with ClipFileWriter(path, kind="frames", clip="a", fingerprint="f" * 64) as file:
        images = file.images("frames")
        for i in range(count):
            images.append(cv2.imencode(".png", np.full((24, 32, 3), 10 * i, np.uint8))[1])
    return path


def test_frames_are_equally_spaced_and_read_once(tmp_path):
    clip = read_clip_frames(frames_file(tmp_path / "a.h5", 9), 5)
    assert clip.frames.tolist() == [0, 2, 4, 6, 8]
    assert [int(image[0, 0, 0]) for image in clip.images()] == [0, 20, 40, 60, 80]
    clip = read_clip_frames(frames_file(tmp_path / "b.h5", 2), 5)
    images = clip.images()
    assert len(images) == len(clip) == 2
    assert [int(images[i][0, 0, 0]) // 10 for i in clip.order] == clip.frames.tolist() == [0, 0, 1, 1, 1]


def test_stacks_lie_around_the_frames(tmp_path):
    path = tmp_path / "a.h5"
    with ClipFileWriter(path, kind="flow", clip="a", fingerprint="f" * 64) as file:
        for name, offset in (("x", 0), ("y", 100)):
            images = file.images(name)
            for i in range(8):
                images.append(cv2.imencode(".png", np.full((24, 32), offset + i, np.uint8))[1])
    clip = read_clip_frames(path, 3, stack=2)
    assert clip.frames.tolist() == [0, 4, 8]
    assert [image[:, 0, 0].tolist() for image in clip.images()] == [
        [0, 100, 0, 100],
        [3, 103, 4, 104],
        [7, 107, 7, 107],
    ]


def test_the_views_of_a_clip_lie_between_those_of_the_plain_one_and_never_beyond_its_end():
    for count in (1, 2, 5, 9, 60, 61, 300):
        plain, first, second = (sample_frames(count, 7, thirds=thirds).tolist() for thirds in range(3))
        assert plain[0] == 0
        for a, b, c, following in zip(plain, first, second, [*plain[1:], count - 1], strict=True):
            assert a <= b <= c <= following <= count - 1
        assert first[-1] == second[-1] == count - 1
    exact = np.arange(7)[:, None] * (299 / 6) + np.array([0, 1, 2]) * (299 / 18)
    for thirds in range(3):
        found = sample_frames(300, 7, thirds=thirds)
        assert np.abs(found[:-1] - exact[:-1, thirds]).max() <= 0.5


def test_every_view_has_a_name_that_leads_back_to_it():
    assert FURTHER[:5] == ("mirrored", "shift1", "mirrored-shift1", "shift2", "mirrored-shift2")
    assert {"shaken1", "shaken2", "mirrored-shaken1", "shift1-shaken2"} < set(FURTHER)
    assert len(set(FURTHER)) == len(FURTHER) == 17
    assert ClipView.of("") == PLAIN
    assert [ClipView.of(name).name for name in FURTHER] == list(FURTHER)
    assert ClipView.of("mirrored-shift2") == ClipView(2, True)
    assert ClipView.of("mirrored-shift1-shaken2") == ClipView(1, True, 2)


def test_a_mirrored_clip_is_seen_from_the_other_side_and_moves_the_other_way(tmp_path):
    random = np.random.default_rng(0)
    pictures = random.integers(0, 256, (6, 24, 32, 3), np.uint8)
    fields = random.integers(0, 256, (5, 2, 24, 32), np.uint8)
    with ClipFileWriter(tmp_path / "frames", kind="frames", clip="a", fingerprint="f" * 64) as file:
        images = file.images("frames")
        for picture in pictures:
            images.append(cv2.imencode(".png", picture[..., ::-1])[1])
    with ClipFileWriter(tmp_path / "flow", kind="flow", clip="a", fingerprint="f" * 64) as file:
        for number, name in enumerate(("x", "y")):
            images = file.images(name)
            for field in fields:
                images.append(cv2.imencode(".png", field[number])[1])
    view = ClipView(1, True)
    clip = read_clip_frames(tmp_path / "frames", 3, view=view)
    assert clip.frames.tolist() == sample_frames(6, 3, thirds=1).tolist() == [1, 3, 5]
    np.testing.assert_array_equal(clip.pixels, np.flip(pictures[[1, 3, 5]], axis=2))
    clip = read_clip_frames(tmp_path / "flow", 3, stack=2, view=view)
    mirrored = np.flip(fields, axis=3).copy()
    mirrored[:, 0] = 255 - mirrored[:, 0]
    for image, centre in zip(clip.images(), (1, 3, 5), strict=True):
        wanted = mirrored[np.clip([centre - 1, centre], 0, 4)].reshape(4, 24, 32)
        np.testing.assert_array_equal(image, wanted)
