"""Improved dense trajectories as one writes them with NumPy and OpenCV: the peer that benchmarks/trajectories.py times.

Straightforward, but no strawman: integral histograms by cumulative sums, all tracks of a scale at once, OpenCV for what
OpenCV has. The same pass over a clip as han_core.baselines.trajectories, all trajectories kept.
"""

from collections.abc import Iterable

import cv2
import numpy as np

from han_core.baselines.trajectories.params import TrajectoryParams
from han_core.camera.motion import homography

BINS = {"hog": 8, "hof": 9, "mbhx": 8, "mbhy": 8}


def extract(frames: Iterable[np.ndarray], fields: Iterable[np.ndarray], params: TrajectoryParams) -> dict:
    """Kept trajectories: ``points``, ``warped``, ``scale`` and the four histograms (float32)."""
    tracks: list[dict] = []
    kept: list[dict] = []
    fields = iter(fields)
    greys: list[np.ndarray] = []
    for t, frame in enumerate(frames):
        if not t:
            sizes = pyramid(frame.shape, params)
            ratios = [np.array([frame.shape[1] / w, frame.shape[0] / h], np.float32) for h, w in sizes]
            tracks = [none(params) for _ in sizes]
        else:
            field = next(fields)
            motion = homography(field, params.camera, greys[0])
            warped = without(field, motion)
            for scale, (size, ratio) in enumerate(zip(sizes, ratios, strict=True)):
                pair = [at_scale(flow, size, ratio, params.median) for flow in (field, warped)]
                tracks[scale], found = step(greys[scale], *pair, tracks[scale], ratio, params)
                kept.append(found | {"scale": np.full(len(found["points"]), scale, np.uint8)})
        greys = [frame]
        for h, w in sizes[1:]:
            greys.append(cv2.resize(greys[-1], (w, h)))
        tracks = [start(grey, alive, params) for grey, alive in zip(greys, tracks, strict=True)]
    return {name: np.concatenate([found[name] for found in kept]) for name in kept[0]}


def pyramid(shape: tuple[int, int], params: TrajectoryParams) -> list[tuple[int, int]]:
    sizes = [(round(shape[0] / 2 ** (k / 2)), round(shape[1] / 2 ** (k / 2))) for k in range(params.scales)]
    return [size for k, size in enumerate(sizes) if k == 0 or min(size) >= params.patch]


def none(params: TrajectoryParams) -> dict:
    values = 4 * sum(BINS.values())
    return {
        "age": np.empty(0, np.int64),
        "points": np.empty((0, params.length + 1, 2), np.float32),
        "moves": np.empty((0, params.length, 2), np.float32),
        "described": np.empty((0, 3, values), np.float32),
    }


def without(field: np.ndarray, motion: np.ndarray) -> np.ndarray:
    """H^-1 (x + f) - x."""
    y, x = np.mgrid[: field.shape[1], : field.shape[2]].astype(np.float32)
    to = np.stack([x + field[0], y + field[1]], -1)
    back = cv2.perspectiveTransform(to, np.linalg.inv(motion))
    return np.stack([back[..., 0] - x, back[..., 1] - y])


def at_scale(flow: np.ndarray, size: tuple[int, int], ratio: np.ndarray, median: int) -> np.ndarray:
    if size != flow.shape[1:]:
        flow = [cv2.resize(c, size[::-1], interpolation=cv2.INTER_AREA) / r for c, r in zip(flow, ratio, strict=True)]
    return np.stack([cv2.medianBlur(c, median) if median > 1 else c for c in flow])


def votes(across: np.ndarray, down: np.ndarray) -> np.ndarray:
    """(H, W, 8): lengths shared between the two nearest directions."""
    length, angle = cv2.cartToPolar(across, down)
    place = angle * np.float32(4 / np.pi)
    low = np.floor(place)
    part = place - low
    low = low.astype(np.intp) % 8
    found = np.zeros((*across.shape, 8), np.float32)
    rows, columns = np.indices(across.shape)
    found[rows, columns, low] = length * (1 - part)
    found[rows, columns, (low + 1) % 8] = length * part
    return found


def integral(values: np.ndarray) -> np.ndarray:
    sums = np.zeros((values.shape[0] + 1, values.shape[1] + 1, values.shape[2]), np.float64)
    np.cumsum(np.cumsum(values, 0, dtype=np.float64), 1, out=sums[1:, 1:])
    return sums


def derivatives(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    kernel = np.array([[-1, 0, 1]], np.float32)
    return cv2.filter2D(image, cv2.CV_32F, kernel), cv2.filter2D(image, cv2.CV_32F, kernel.T)


def descriptions(grey: np.ndarray, warped: np.ndarray, at: np.ndarray, patch: int) -> np.ndarray:
    """(n, 132) of the tracks at these places."""
    height, width = grey.shape
    side = patch // 2
    left = np.clip(np.rint(at[:, 0]).astype(np.intp) - side, 0, width - patch)
    top = np.clip(np.rint(at[:, 1]).astype(np.intp) - side, 0, height - patch)
    still = np.hypot(*warped) <= 0.4
    hof = np.concatenate([votes(*warped) * ~still[..., None], still[..., None].astype(np.float32)], 2)
    maps = {"hog": votes(*derivatives(grey)), "hof": hof}
    maps |= {"mbhx": votes(*derivatives(warped[0])), "mbhy": votes(*derivatives(warped[1]))}
    found = []
    for values in maps.values():
        sums = integral(values)
        cells = []
        for x in (left, left + side):
            for y in (top, top + side):
                cells.append(sums[y + side, x + side] - sums[y, x + side] - sums[y + side, x] + sums[y, x])
        cells = np.maximum(np.concatenate(cells, 1), 0) + 0.05
        found.append(np.sqrt(cells / cells.sum(1, keepdims=True)))
    return np.concatenate(found, 1).astype(np.float32)


def step(grey, flow, warped, tracks, ratio, params) -> tuple[dict, dict]:
    """Tracks that go on, and trajectories."""
    height, width = grey.shape
    every = np.arange(len(tracks["age"]))
    age, at = tracks["age"], tracks["points"][every, tracks["age"]]
    if len(every):
        cell = age // (params.length // 3)
        tracks["described"][every, cell] += descriptions(grey, warped, at, params.patch) * (3 / params.length)
    column = np.clip(np.rint(at[:, 0]).astype(np.intp), 0, width - 1)
    row = np.clip(np.rint(at[:, 1]).astype(np.intp), 0, height - 1)
    at = at + flow[:, row, column].T
    tracks["points"][every, age + 1], tracks["moves"][every, age] = at, warped[:, row, column].T
    tracks["age"] = age + 1
    inside = (at > 0).all(1) & (at < [width, height]).all(1)
    done = inside & (tracks["age"] == params.length)
    points, moves = tracks["points"][done] * ratio, tracks["moves"][done] * ratio
    spread, steps = points.std(1), np.linalg.norm(np.diff(points, axis=1), axis=2)
    good = (spread >= np.sqrt(3)).any(1) & (spread <= 50).all(1)
    good &= (steps.max(1, initial=0) <= 20) | (steps.max(1, initial=0) <= 0.7 * steps.sum(1))
    good &= np.linalg.norm(moves, axis=2).max(1, initial=0) > 1
    ends = np.cumsum([4 * bins for bins in BINS.values()])[:-1]
    described = np.split(tracks["described"][done][good], ends, axis=2)
    found = {"points": points[good], "warped": moves[good], **dict(zip(BINS, described, strict=True))}
    return {name: values[inside & ~done] for name, values in tracks.items()}, found


def start(grey: np.ndarray, tracks: dict, params: TrajectoryParams) -> dict:
    stride = params.stride
    texture = cv2.cornerMinEigenVal(grey, 3, ksize=3)
    rows, columns = grey.shape[0] // stride, grey.shape[1] // stride
    free = np.ones((rows + 1, columns + 1), bool)
    at = (tracks["points"][np.arange(len(tracks["age"])), tracks["age"]] // stride).astype(np.intp)
    free[np.minimum(at[:, 1], rows), np.minimum(at[:, 0], columns)] = False
    grid = texture[stride // 2 :: stride, stride // 2 :: stride][:rows, :columns]
    i, j = np.nonzero((grid > params.quality * texture.max()) & free[:rows, :columns])
    new = {name: np.zeros((len(i), *values.shape[1:]), values.dtype) for name, values in tracks.items()}
    new["points"][:, 0] = np.stack([j, i], 1) * stride + stride // 2
    return {name: np.concatenate([values, new[name]]) for name, values in tracks.items()}
