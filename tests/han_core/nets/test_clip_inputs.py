"""What a net sees of a clip file: equally spaced frames, and stacks around them."""

import cv2
import numpy as np

from han_core.clipfile.writer import ClipFileWriter
from han_core.nets.clip_inputs import read_clip_frames


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
