"""Improved dense trajectories written down plainly: float64, loops over tracks, sums over the pixels of each cell.

An independent statement of what the extractor computes; too slow for anything but small clips.
"""

import cv2
import numpy as np

SHAPES = {"hog": (3, 2, 2, 8), "hof": (3, 2, 2, 9), "mbhx": (3, 2, 2, 8), "mbhy": (3, 2, 2, 8)}


def gradient(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[-1 0 1] derivatives along x and y, the image mirrored about its outermost pixels."""
    padded = np.pad(image.astype(np.float64), 1, mode="reflect")
    return padded[1:-1, 2:] - padded[1:-1, :-2], padded[2:, 1:-1] - padded[:-2, 1:-1]


def shared(x: float, y: float) -> np.ndarray:
    """Length of a vector shared between the two nearest of eight directions."""
    bins = np.zeros(8)
    place = (np.arctan2(y, x) % (2 * np.pi)) / (np.pi / 4)
    low, part = int(place) % 8, place - int(place)
    length = np.hypot(x, y)
    bins[low] += (1 - part) * length
    bins[(low + 1) % 8] += part * length
    return bins


def cell_sums(grey: np.ndarray, flow: np.ndarray, left: int, top: int, width: int, height: int) -> dict:
    """Histograms of one cell, pixel by pixel."""
    derivatives = {"hog": gradient(grey), "mbhx": gradient(flow[0]), "mbhy": gradient(flow[1])}
    sums = {name: np.zeros(shape[-1]) for name, shape in SHAPES.items()}
    for y in range(top, top + height):
        for x in range(left, left + width):
            for name, (across, down) in derivatives.items():
                sums[name] += shared(across[y, x], down[y, x])
            u, v = float(flow[0, y, x]), float(flow[1, y, x])
            if np.hypot(u, v) <= 0.4:
                sums["hof"][8] += 1
            else:
                sums["hof"][:8] += shared(u, v)
    return sums


def corner(x: float, y: float, shape: tuple[int, int], patch: int) -> tuple[int, int]:
    """Left and top of the patch around a point, shifted back inside the frame."""
    height, width = shape
    left = min(max(int(np.rint(x)) - patch // 2, 0), width - patch)
    return left, min(max(int(np.rint(y)) - patch // 2, 0), height - patch)


def votes(grey: np.ndarray, flow: np.ndarray) -> dict:
    """Votes of all pixels at once, {channel: (H, W, bins)}: :func:`cell_sums` with cells of one pixel."""
    vectors = {"hog": gradient(grey), "hof": flow.astype(np.float64)}
    vectors |= {"mbhx": gradient(flow[0]), "mbhy": gradient(flow[1])}
    found = {}
    for name, (across, down) in vectors.items():
        place = (np.arctan2(down, across) % (2 * np.pi)) / (np.pi / 4)
        away = np.abs(place[..., None] - np.arange(8))
        share = np.maximum(0, 1 - np.minimum(away, 8 - away))
        found[name] = share * np.hypot(across, down)[..., None]
    still = np.hypot(*vectors["hof"]) <= 0.4
    found["hof"] = np.concatenate([np.where(still[..., None], 0, found["hof"]), still[..., None]], axis=2)
    return found


def description(votes: dict, x: float, y: float, shape: tuple[int, int], patch: int) -> dict:
    """What a track at (x, y) looks like in one frame: {channel: (2, 2, bins)}, by cell in x, cell in y."""
    left, top = corner(x, y, shape, patch)
    side = patch // 2
    found = {}
    for name, values in votes.items():
        square = values[top : top + patch, left : left + patch].reshape(2, side, 2, side, -1)
        sums = square.sum((1, 3)).transpose(1, 0, 2) + 0.05
        found[name] = np.sqrt(sums / sums.sum())
    return found


def extract(frames, fields, motions, params) -> list[dict]:
    """All trajectories of a clip: dictionaries of start, scale, points, warped and the four histograms (floats).

    Args:
        motions: the homography of each step, which is not this reference's matter.
    """
    height, width = frames[0].shape
    sizes = [(round(height / 2 ** (k / 2)), round(width / 2 ** (k / 2))) for k in range(params.scales)]
    sizes = [size for k, size in enumerate(sizes) if k == 0 or min(size) >= params.patch]
    ratios = [np.array([width / w, height / h]) for h, w in sizes]
    live = [[] for _ in sizes]
    kept: list[dict] = []
    previous: list[np.ndarray] = []
    for t, frame in enumerate(frames):
        greys = [frame]
        for h, w in sizes[1:]:
            greys.append(cv2.resize(greys[-1], (w, h), interpolation=cv2.INTER_LINEAR))
        if t:
            for scale, size in enumerate(sizes):
                finished = step(
                    previous[scale], fields[t - 1], motions[t - 1], live[scale], size, ratios[scale], params
                )
                for track in finished:
                    track |= {"scale": scale, "start": t - params.length}
                    if passes(track, params):
                        kept.append(track)
        for scale, grey in enumerate(greys):
            start(grey, live[scale], params)
        previous = greys
    return kept


def step(grey, field, motion, live, size, ratio, params) -> list[dict]:
    """Move all tracks of a scale; those that have finished are taken out and returned."""
    height, width = size
    flow = at_scale(field, size, ratio, params)
    warped = at_scale(without(field, motion), size, ratio, params)
    seen = votes(grey, warped) if live else {}
    finished, goes_on = [], []
    for track in live:
        x, y = track["at"][-1]
        track["frames"].append(description(seen, x, y, size, params.patch))
        column, row = min(max(int(np.rint(x)), 0), width - 1), min(max(int(np.rint(y)), 0), height - 1)
        x, y = np.float32(x) + flow[0, row, column], np.float32(y) + flow[1, row, column]
        track["at"].append((x, y))
        track["moves"].append(warped[:, row, column])
        if not (0 < x < width and 0 < y < height):
            continue
        if len(track["moves"]) < params.length:
            goes_on.append(track)
            continue
        cell = params.length // 3
        for name in SHAPES:
            values = np.array([frame[name] for frame in track["frames"]])
            track[name] = values.reshape(3, cell, *values.shape[1:]).mean(1)
        track["points"], track["warped"] = np.array(track["at"]) * ratio, np.array(track["moves"]) * ratio
        finished.append(track)
    live[:] = goes_on
    return finished


def at_scale(field, size, ratio, params):
    height, width = size
    small = [
        cv2.resize(c, (width, height), interpolation=cv2.INTER_AREA) / np.float32(r)
        for c, r in zip(field, ratio, strict=True)
    ]
    return np.stack([c if params.median == 1 else cv2.medianBlur(c.astype(np.float32), params.median) for c in small])


def without(field: np.ndarray, motion: np.ndarray) -> np.ndarray:
    """H^-1 (x + f) - x, in float64, as float32."""
    y, x = np.mgrid[: field.shape[1], : field.shape[2]].astype(np.float64)
    to = np.stack([x + field[0], y + field[1], np.ones_like(x)]).reshape(3, -1)
    back = np.linalg.inv(motion) @ to
    return ((back[:2] / back[2]).reshape(2, *x.shape) - [x, y]).astype(np.float32)


def start(grey, live, params) -> None:
    texture = cv2.cornerMinEigenVal(grey, 3, ksize=3)
    side = params.stride
    taken = {(int(track["at"][-1][0] // side), int(track["at"][-1][1] // side)) for track in live}
    for i in range(grey.shape[0] // side):
        for j in range(grey.shape[1] // side):
            x, y = side * j + side // 2, side * i + side // 2
            if (j, i) not in taken and texture[y, x] > params.quality * texture.max():
                live.append({"at": [(float(x), float(y))], "moves": [], "frames": []})


def passes(track, params) -> bool:
    spread = track["points"].std(0)
    steps = np.linalg.norm(np.diff(track["points"], axis=0), axis=1)
    if (spread < np.sqrt(3)).all() or (spread > 50).any():
        return False
    if steps.max() > 20 and steps.max() > 0.7 * steps.sum():
        return False
    return params.camera == "none" or np.linalg.norm(track["warped"], axis=1).max() > 1
