"""Trajectory files whose checksums are all valid and whose content is meant to do harm: refused, or read as it is."""

import struct
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard

from han_core.baselines.trajectories.params import TrajectoryParams
from han_core.baselines.trajectories.trajectories import CHANNELS
from han_core.baselines.trajectories.trajectoryfile import count_trajectories, read_facts, read_trajectories
from han_core.clipfile.trailer import TRAILER_BYTES
from han_core.clipfile.writer import ClipFileWriter
from tests.clip_samples import seal, trailer_values
from tests.han_core.baselines.trajectories.made_up import FRAMES, HEIGHT, WIDTH, made_up
from tests.outcomes import FINE, TOLD, outcomes, report

COUNT = 12
FACTS = {"count": COUNT, "frames": FRAMES, "width": WIDTH, "height": HEIGHT, **vars(TrajectoryParams())}
FACTS |= {"finished": 50, "kept": COUNT, "static": 20, "erratic": 8, "camera_like": 10}


def arrays() -> dict[str, np.ndarray]:
    found = made_up(COUNT)
    whole = np.rint(found.points * 64).astype(np.int32)
    values = {"start": found.start, "scale": found.scale, "origin": whole[:, 0]}
    values |= {"steps": np.diff(whole, axis=1).astype("i2"), "warped": np.rint(found.warped * 64).astype("i2")}
    return values | {name: getattr(found, name) for name in CHANNELS[1:]}


def content(path: Path, **changed: Any) -> None:
    """A file through the writer, of what does not belong together: arrays changed by functions, attributes set."""
    facts = FACTS | {name: value for name, value in changed.items() if name in FACTS}
    left_out = [name for name, value in facts.items() if value is None]
    facts = {name: value for name, value in facts.items() if name not in left_out}
    values = arrays()
    for name, change in changed.items():
        if name in values:
            values[name] = np.ascontiguousarray(change(values[name]))
    kind = changed.get("kind", "trajectories")
    with ClipFileWriter(path, kind=kind, clip="clip1", fingerprint="0" * 64, attributes=facts) as file:
        for name, array in values.items():
            if name != changed.get("without"):
                file.array(name, array, codec=changed.get("codec", "zstd"))


def trailer(path: Path, change: Callable[[dict[str, list]], Any], more: bytes = b"") -> None:
    """A sound file whose trailer says something else of its arrays; ``more`` stands behind what HDF5 knows of."""
    content(path)
    values, body = trailer_values(path), path.read_bytes()[:-TRAILER_BYTES]
    values["arrays"]["end"] = len(body)
    change(values["arrays"])
    values["arrays"].pop("end", None)
    seal(path, body + more, values | {"size": None, "sha256": None})


def entry(name: str, place: int, value: Any) -> Callable[[dict], None]:
    def change(found: dict) -> None:
        found[name][place] = value

    return change


def behind(shape: list[int], frame: bytes) -> Callable[[Path], None]:
    """The trailer says that this frame is hog."""

    def change(found: dict) -> None:
        found["hog"] = ["|u1", shape, "zstd", found["end"], len(frame), 0]

    return lambda path: trailer(path, change, frame)


def beyond(values: np.ndarray, which: Any, value: int) -> np.ndarray:
    values = values.copy()
    values[which] = value
    return values


def fewer(found: dict) -> None:
    """All arrays are of no trajectory but one, which has all."""
    for name in found:
        if name not in ("hog", "end"):
            found[name][1][0] = 0


LYING = b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", 1 << 50) + zstandard.ZstdCompressor().compress(bytes(1 << 10))[6:]

HARMFUL: dict[str, Callable[[Path], None]] = {
    "a start below 0": partial(content, start=lambda v: beyond(v, 0, -1)),
    "a start near the end": partial(content, start=lambda v: beyond(v, -1, FRAMES - 15)),
    "a start far away": partial(content, start=lambda v: beyond(v, 3, 2**31 - 1)),
    "starts of 64 bits": partial(content, start=lambda v: v.astype("i8")),
    "starts of two axes": partial(content, start=lambda v: v[:, None]),
    "a scale of 255": partial(content, scale=lambda v: beyond(v, 0, 255)),
    "scales of 16 bits": partial(content, scale=lambda v: v.astype("u2")),
    "an origin beyond the frame": partial(content, origin=lambda v: beyond(v, (0, 0), 64 * WIDTH + 1)),
    "an origin below 0": partial(content, origin=lambda v: beyond(v, (0, 1), -1)),
    "an origin that wraps around": partial(content, origin=lambda v: beyond(v, 0, 2**31 - 1)),
    "origins of three numbers": partial(content, origin=lambda v: np.zeros((COUNT, 3), "i4")),
    "steps that lead out": partial(content, steps=lambda v: beyond(v, (0, slice(None), 0), 32767)),
    "steps that lead back out": partial(content, steps=lambda v: beyond(v, (0, slice(None), 1), -32768)),
    "steps of another length": partial(content, steps=lambda v: v[:, :-1]),
    "steps of no length": partial(content, steps=lambda v: v[:, :0], warped=lambda v: v[:, :0]),
    "steps of two axes": partial(content, steps=lambda v: v.reshape(COUNT, -1)),
    "steps of 32 bits": partial(content, steps=lambda v: v.astype("i4")),
    "warped of numbers that are not whole": partial(content, warped=lambda v: v.astype("f2")),
    "fewer warped": partial(content, warped=lambda v: v[:-1]),
    "hog of another width": partial(content, hog=lambda v: v[:, :-1]),
    "hog of floats": partial(content, hog=lambda v: v.astype("f4")),
    "fewer hof": partial(content, hof=lambda v: v[:-1]),
    "more mbhy": partial(content, mbhy=lambda v: np.concatenate([v, v])),
    "mbhx of another shape": partial(content, mbhx=lambda v: v.reshape(COUNT, 96, 1)),
    "no mbhx": partial(content, without="mbhx"),
    "no start": partial(content, without="start"),
    "another kind": partial(content, kind="cubes"),
    "another count": partial(content, count=COUNT + 1),
    "a negative count": partial(content, count=-1),
    "a count of half": partial(content, count=12.5),
    "no count": partial(content, count=None),
    "frames that are text": partial(content, frames="many"),
    "no frames": partial(content, frames=0),
    "a frame of no width": partial(content, width=0),
    "a frame too wide": partial(content, width=1 << 40),
    "a width of several": partial(content, width=[WIDTH, WIDTH]),
    "no height": partial(content, height=None),
    "a negative number of kept": partial(content, kept=-5),
    "arrays of different numbers": partial(trailer, change=fewer),
    "offset beyond the file": partial(trailer, change=entry("hog", 3, 1 << 50)),
    "a huge shape": partial(trailer, change=entry("hog", 1, [1 << 40, 96])),
    "shape of nothing, wrapping": partial(trailer, change=entry("hog", 1, [0, 1 << 46])),
    "type object": partial(trailer, change=entry("hog", 0, "|O")),
    "codec sparse": partial(trailer, change=entry("hog", 2, "sparse")),
    "codec none": partial(trailer, change=entry("hog", 2, "none")),
    "part of another": partial(trailer, change=lambda a: a.update({"hog": a["mbhx"][:3] + a["hof"][3:]})),
    "part missing": partial(trailer, change=lambda a: a.pop("hog")),
    "frame of a pebibyte": behind([COUNT, 96], LYING),
    "frame of twice the size": behind([COUNT, 96], zstandard.compress(bytes(2 * COUNT * 96))),
    "no frame": behind([COUNT, 96], b"no frame at all"),
    "as many as a bomb": behind([1 << 26, 96], zstandard.compress(bytes(1 << 20))),
}  # fmt: skip

HARMLESS: dict[str, Callable[[Path], None]] = {
    "sound": content,
    "not compressed": partial(content, codec="none"),
    "shuffled": partial(content, codec="shuffle-zstd"),
    "kept more than there are": partial(content, kept=1 << 40),
}


def uses(path: Path) -> Iterator[tuple[str, Callable[[], bool]]]:
    """The ways in which a file is used."""
    sound = made_up(COUNT)

    def read(**options: Any) -> bool:
        found = read_trajectories(path, **options)
        descriptors = [found.channel(name) for name in CHANNELS if options.get("channels", CHANNELS).count(name)]
        fine = all(np.isfinite(values).all() for values in descriptors)
        pairs = [(values, getattr(sound, name)) for name, values in vars(found).items() if values is not None]
        return fine and all(np.array_equal(values, other) for values, other in pairs)

    yield "read", read
    yield "read one", partial(read, channels=["hog"])
    yield "count", lambda: count_trajectories(path) == COUNT
    yield "facts", lambda: read_facts(path).count == COUNT


CASES = HARMFUL | HARMLESS


def _all_uses(root: Path) -> Iterator[tuple[str, Callable[[], bool]]]:
    for number, (case, make) in enumerate(CASES.items()):
        path = root / f"{number}.h5"
        make(path)
        for name, use in uses(path):
            yield f"{case}: {name}", use


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> dict[str, str]:
    module = "tests.han_core.baselines.trajectories.test_hostile_trajectories"
    return outcomes(module, tmp_path_factory.mktemp("hostile"))


@pytest.mark.parametrize("case", HARMFUL)
def test_harmful_content_is_refused(found, case):
    text = found.get(f"{case}: read", "did not run")
    assert text.startswith(TOLD), text
    assert ".h5" in text
    for name in ("read one", "count", "facts"):
        text = found[f"{case}: {name}"]
        assert text == FINE or text.startswith(TOLD), f"{name}: {text}"


@pytest.mark.parametrize("case", HARMLESS)
def test_harmless_content_is_used(found, case):
    for name, _ in uses(Path()):
        assert found[f"{case}: {name}"] == FINE


def test_little_memory_is_taken(found):
    assert found["memory"] == FINE


if __name__ == "__main__":
    report(_all_uses(Path(sys.argv[1])))
