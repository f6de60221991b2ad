"""Small clip files of each kind, made by the project's own writers; what their readers read of them; and how a changed
file gets valid checksums again."""

import hashlib
import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from han_core.baselines.two_stream.scorefile import read_scores, write_scores
from han_core.clipfile.arrays import read_parts
from han_core.clipfile.reader import ClipFile
from han_core.clipfile.trailer import TRAILER_BYTES, read_trailer
from han_core.clips import Clip
from han_core.cubes.cubefile import read_cube, read_sparse, write_cubes
from han_core.cubes.store import CubeStore
from han_core.flow.flowfile import read_flow_levels, write_flow
from han_core.flow.levels import FlowFormat
from han_core.images.frames import read_frames, write_frames
from han_core.images.reader import ImageReader

FINGERPRINT = "ab" * 32
FRAMES, CHANNELS, SIDE = 4, 8, 5
CLIP = Clip("clip", "clip.avi", "wave", 0, "g", {1: "train"})


def write_frames_file(path: Path) -> None:
    random = np.random.default_rng(1)
    images = random.integers(0, 256, (5, 24, 32, 3), np.uint8)
    facts = {"fps": 12.5, "rotation": 0}
    write_frames(images, path, clip=CLIP.name, fingerprint=FINGERPRINT, quality=90, attributes=lambda: facts)


def write_flow_file(path: Path, codec: str) -> None:
    def solve(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        difference = second.astype(np.float32) - first
        return np.stack([difference, -difference / 2], axis=1) / 8

    frames = path.with_name(f"frames-{codec}.h5")
    write_frames_file(frames)
    form = FlowFormat(bound=20.0, codec=codec)
    identity = {"clip": CLIP.name, "fingerprint": FINGERPRINT}
    write_flow(frames, path, **identity, solver=solve, form=form, batch=2, attributes={"backend": "test"})


def write_cubes_file(path: Path) -> None:
    write_cubes(
        path,
        clip=CLIP.name,
        fingerprint=FINGERPRINT,
        frames=np.array([0, 3, 6, 9], np.int32),
        layer="conv5_3",
        fc="fc7",
        values={"conv5_3": cube(), "fc7": cube()[:, :, 0, 0] + np.float16(1)},
        attributes={"net": "n", "stack": 0},
    )


def cube() -> np.ndarray:
    """(T, D, K, K) float16, a quarter of it non-zero."""
    random = np.random.default_rng(3)
    shape = (FRAMES, CHANNELS, SIDE, SIDE)
    return np.where(random.random(shape) < 0.25, random.normal(size=shape), 0).astype(np.float16)


def write_scores_file(path: Path) -> None:
    scores = np.random.default_rng(4).random((6, 7), np.float32)
    facts = {"net": "n", "frames_of": "all"}
    identity = {"clip": CLIP.name, "fingerprint": FINGERPRINT}
    write_scores(path, **identity, frames=np.arange(6, dtype=np.int32), probabilities=scores, attributes=facts)


WRITERS: Mapping[str, Callable[[Path], None]] = {
    "frames": write_frames_file,
    "flow-jpeg": lambda path: write_flow_file(path, "jpeg"),
    "flow-png": lambda path: write_flow_file(path, "png"),
    "cubes": write_cubes_file,
    "scores": write_scores_file,
}


def write_sample(kind: str, folder: Path) -> Path:
    """A file of one kind below a folder, where a store would have it."""
    path = folder / kind / CLIP.class_name / f"{CLIP.name}.h5"
    path.parent.mkdir(parents=True)
    WRITERS[kind](path)
    return path


def read_sample(kind: str, path: Path) -> dict[str, Any]:
    """All that the readers of a kind of file read of it."""
    return dict(reading(kind, path))


def reading(kind: str, path: Path) -> Iterator[tuple[str, Any]]:
    """What is read and what was found, one reader after the other."""
    yield from _identity(path)
    if kind == "frames":
        yield from _images(path, "frames", grey=False)
        yield "read_frames", read_frames(path)
    elif kind.startswith("flow"):
        yield from _images(path, "x", grey=True)
        yield from _images(path, "y", grey=True)
        yield "read_flow_levels", read_flow_levels(path)
    elif kind == "cubes":
        yield from _cubes(path)
    else:
        yield "read_scores", read_scores(path)


def _identity(path: Path) -> Iterator[tuple[str, Any]]:
    trailer = read_trailer(path)
    yield "trailer", {name: getattr(trailer, name) for name in ("schema", "kind", "clip", "fingerprint", "content")}
    with ClipFile(path) as file:
        yield "attributes", file.attributes
        yield "identity", [file.kind, file.clip, file.fingerprint, file.tools]


def _images(path: Path, name: str, *, grey: bool) -> Iterator[tuple[str, Any]]:
    reader = ImageReader()
    yield f"decode {name}", reader.decode(path, name, 0, reader.count(path, name) - 1, grey=grey)
    with ClipFile(path) as file:
        yield f"image {name}", [file.image(name, i) for i in range(file.image_count(name))]


def _cubes(path: Path) -> Iterator[tuple[str, Any]]:
    trailer = read_trailer(path)
    yield "read_cube", read_cube(path)
    rows = read_sparse(path, trailer)
    yield "read_sparse", [rows.counts, rows.columns, rows.values]
    yield "read_parts", read_parts(path, trailer, ("fc7", "frames"))
    store = CubeStore({"spatial": path.parent.parent}, [CLIP])
    yield "contents", store.contents()
    yield "attributes of the store", store.attributes("spatial")
    yield "frames of the store", [store.frames(), store.median_length()]
    for features in (store, store.load()):
        batch = features.batch([0, 0])["spatial"]
        weights, gradient = torch.ones(2, batch.shape[3]) / batch.shape[3], torch.ones(2, batch.shape[2])
        yield (
            type(features).__name__,
            [
                batch.dense().numpy(),
                batch.moments()[1].numpy(),
                *(batch.glimpse(t, weights).numpy() for t in range(batch.shape[1])),
                *(batch.regions_of(t, gradient).numpy() for t in range(batch.shape[1])),
            ],
        )
    for array, pooled in (("cubes", True), ("fc7", False)):
        other = CubeStore({"spatial": path.parent.parent}, [CLIP], array=array, pooled=pooled)
        yield f"{array} {pooled}", [other.batch([0])["spatial"].numpy(), other.load().batch([0])["spatial"].numpy()]


def same(one: Any, other: Any) -> bool:
    """Whether two things that were read are equal, to the bit."""
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, (list, tuple)):
        return isinstance(other, (list, tuple)) and len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, np.ndarray):
        alike = isinstance(other, np.ndarray) and (one.shape, one.dtype) == (other.shape, other.dtype)
        return alike and one.tobytes() == other.tobytes()
    return type(one) is type(other) and one == other


def trailer_values(path: Path) -> dict[str, Any]:
    """What stands in the trailer of a file, as JSON values."""
    return json.loads(path.read_bytes()[8 - TRAILER_BYTES :].rstrip())


def trailer_bytes(text: str | bytes) -> bytes:
    """The trailer that holds this text, with the checksum that belongs to it."""
    text = text if isinstance(text, bytes) else text.encode()
    return (b"%08x" % zlib.crc32(text) + text).ljust(TRAILER_BYTES - 1) + b"\n"


def seal(path: Path, body: bytes, values: Mapping[str, Any]) -> None:
    """Write a file of this HDF5 part and trailer whose checksums are all valid: that of the file, those in the trailer
    of arrays that are stored as they are. A value ``size`` or ``sha256`` that is given as None is the right one."""
    values = {"size": None, "sha256": None} | dict(values)
    values["size"] = len(body) if values["size"] is None else values["size"]
    values["sha256"] = values["sha256"] or hashlib.sha256(body).hexdigest()
    arrays = values["arrays"] if isinstance(values["arrays"], dict) else {}
    for entry in arrays.values():
        if isinstance(entry, list) and len(entry) == 6 and entry[2] == "none" and _whole(*entry[3:5]):
            entry[5] = zlib.crc32(body[entry[3] : entry[3] + entry[4]])
    path.write_bytes(body + trailer_bytes(json.dumps(values, separators=(",", ":"))))


def _whole(*numbers: object) -> bool:
    return all(isinstance(number, int) and number >= 0 for number in numbers)


def seal_hdf5(path: Path, kind: str) -> None:
    """Make a clip file of an HDF5 file that h5py wrote at this place; no arrays stand in its trailer."""
    values = {"schema": 3, "kind": kind, "clip": CLIP.name, "fingerprint": FINGERPRINT, "content": "c" * 64}
    seal(path, path.read_bytes(), values | {"arrays": {}})
