"""Image pairs with motion, made or read, and the error of a flow."""

from pathlib import Path

import cv2
import numpy as np


def textured_pair(height, width, shift=(1.3, -0.7), seed=0):
    """Smooth random texture and the same shifted by (x, y) pixels, uint8."""
    rng = np.random.default_rng(seed)
    margin = 12
    noise = rng.random((height + 2 * margin, width + 2 * margin)).astype(np.float32)
    texture = cv2.GaussianBlur(noise, (0, 0), 2)
    texture = (texture - texture.min()) / (texture.max() - texture.min()) * 255
    move = np.float32([[1, 0, shift[0]], [0, 1, shift[1]]])
    moved = cv2.warpAffine(texture, move, texture.shape[::-1], flags=cv2.INTER_CUBIC)
    cut = slice(margin, -margin)
    return tuple(np.clip(np.rint(x[cut, cut]), 0, 255).astype(np.uint8) for x in (texture, moved))


def video_pairs(path: Path, indices):
    """Grey frames i and i + 1 of a video for each i, (N, H, W) uint8 twice."""
    video = cv2.VideoCapture(str(path))
    frames = []
    while len(frames) < max(indices) + 2:
        good, frame = video.read()
        assert good, f"{path} has too few frames"
        frames.append(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY))
    video.release()
    return np.stack([frames[i] for i in indices]), np.stack([frames[i + 1] for i in indices])


def end_point_error(a, b):
    """(N, H, W) length of the difference of two flows (N, 2, H, W)."""
    return np.sqrt(((a - b) ** 2).sum(1))
