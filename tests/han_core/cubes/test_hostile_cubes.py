"""Cube files whose checksums are all valid and whose content is meant to do harm: what is used is right, or refused."""

import shutil
import struct
import sys
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zstandard
from click.testing import CliRunner

from han_core.cache.verify import verify_clip_file
from han_core.cli.store import store as store_command
from han_core.clipfile.trailer import TRAILER_BYTES, read_trailer
from han_core.clipfile.writer import ClipFileWriter
from han_core.clips import Clip
from han_core.cubes.cubefile import read_cube, read_sparse
from han_core.cubes.sparse_rows import SparseRows
from han_core.cubes.store import CubeStore
from han_core.errors import HanError
from tests.clip_samples import cube, seal, trailer_values
from tests.outcomes import FINE, TOLD, outcomes, report

CLIPS = [Clip(f"clip{n}", f"{n}.avi", "wave", 0, "g", {1: "train"}) for n in range(2)]
T, D, K = cube().shape[:3]


def content(path: Path, **changed: Any) -> None:
    """A cube file through the writer, of parts that do not belong together."""
    rows = SparseRows.from_dense(cube().reshape(T, D, -1))
    parts = {name: getattr(rows, name).copy() for name in ("counts", "columns", "values")}
    shape = changed.pop("shape", cube().shape)
    dtype = np.dtype(changed.pop("dtype", np.float16))
    codecs = {"counts": "zstd", "columns": "zstd", "values": "shuffle-zstd"} | changed.pop("codecs", {})
    with ClipFileWriter(path, kind="cubes", clip="clip1", fingerprint="0" * 64) as writer:
        writer.declare("cubes", dtype, shape)
        for name, values in parts.items():
            change = changed.pop(name, None)
            values = values if change is None else np.ascontiguousarray(change(values))
            writer.array(f"cubes/{name}", values, codec=codecs[name])
        writer.array("frames", changed.pop("frames", np.arange(T, dtype=np.int32)))
        writer.array("fc7", changed.pop("fc7", np.ones((T, 8), np.float16)), codec="zstd")
    assert not changed


def trailer(path: Path, change: Callable[[dict[str, list]], Any], more: bytes = b"") -> None:
    """A sound file whose trailer says something else of its arrays; ``more`` stands behind what HDF5 knows of."""
    content(path)
    values, body = trailer_values(path), path.read_bytes()[:-TRAILER_BYTES]
    arrays = values["arrays"]
    arrays["end"] = len(body)
    change(arrays)
    arrays.pop("end", None)
    seal(path, body + more, values | {"size": None, "sha256": None})


def entry(name: str, place: int, value: Any) -> Callable[[dict], None]:
    def change(arrays: dict) -> None:
        arrays[f"cubes/{name}" if name else "cubes"][place] = value

    return change


def swapped(values: np.ndarray) -> np.ndarray:
    """The counts of two rows that differ, changed for each other: all sums stay."""
    flat = values.reshape(-1).copy()
    place = int(np.flatnonzero(flat[1:] != flat[:-1])[0])
    flat[[place, place + 1]] = flat[[place + 1, place]]
    return flat.reshape(values.shape)


def beyond(values: np.ndarray, which: slice | int, value: int) -> np.ndarray:
    values[which] = value
    return values


@cache
def bomb(size: int) -> bytes:
    """A zstd frame that is no larger than it must be and expands to so many zeros."""
    compressor = zstandard.ZstdCompressor(level=1).compressobj(size=size)
    zeros = bytes(1 << 24)
    return b"".join(compressor.compress(zeros) for _ in range(size >> 24)) + compressor.flush()


def behind(shape: list[int], frame: bytes) -> Callable[[Path], None]:
    """The trailer says that this frame is the counts."""

    def change(arrays: dict) -> None:
        arrays["cubes/counts"] = ["|u1", shape, "zstd", arrays["end"], len(frame), 0]

    return lambda path: trailer(path, change, frame)


def lying(size: int) -> bytes:
    """A zstd frame whose header says that it expands to ``size`` bytes."""
    return b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", size) + zstandard.ZstdCompressor().compress(bytes(1 << 10))[6:]


def counts_as(dtype: str, first: int) -> Callable[[np.ndarray], np.ndarray]:
    def change(counts: np.ndarray) -> np.ndarray:
        counts = counts.astype(dtype)
        counts[0, 0] += first
        counts[0, 1] -= first
        return counts

    return change


def all_in_one_row(counts: np.ndarray) -> np.ndarray:
    """More than a row has regions, and the sum still fits."""
    flat = counts.reshape(-1).astype(np.int64)
    room, place = 255 - flat[0], len(flat) - 1
    while room > 0 and place > 0:
        taken = min(room, flat[place])
        flat[place] -= taken
        flat[0] += taken
        room, place = room - taken, place - 1
    return flat.astype(np.uint8).reshape(counts.shape)


HARMFUL: dict[str, Callable[[Path], None]] = {
    "a column of 255": partial(content, columns=lambda k: beyond(k, slice(None), 255)),
    "one column just beyond": partial(content, columns=lambda k: beyond(k, -1, K * K)),
    "columns of 16 bits": partial(content, columns=lambda k: np.full(len(k), 65535, np.uint16)),
    "columns of 64 bits": partial(content, columns=lambda k: np.full(len(k), 1 << 40, np.int64)),
    "negative columns": partial(content, columns=lambda k: np.full(len(k), -(1 << 33), np.int64)),
    "negative columns of a byte": partial(content, columns=lambda k: np.full(len(k), -1, np.int8)),
    "counts that lead away and back": partial(content, counts=counts_as("<i8", 10**6)),
    "a row longer than its regions": partial(content, counts=all_in_one_row),
    "counts too large": partial(content, counts=lambda c: beyond(c, (0, 0), 255)),
    "counts too small": partial(content, counts=lambda c: beyond(c, (0, 0), 0)),
    "counts of other frames": partial(content, counts=lambda c: c[:-1]),
    "counts of one axis": partial(content, counts=lambda c: c.reshape(-1)),
    "too few values": partial(content, values=lambda v: v[:10]),
    "too few columns": partial(content, columns=lambda k: k[:10]),
    "values of 64 bits": partial(content, values=lambda v: v.astype(np.float64)),
    "values that are whole numbers": partial(content, values=lambda v: v.view(np.uint16)),
    "values of two axes": partial(content, values=lambda v: v.reshape(-1, 1)),
    "not a number": partial(content, values=lambda v: beyond(v, 3, np.nan)),
    "infinity": partial(content, values=lambda v: beyond(v, 3, -np.inf)),
    "a huge shape": partial(content, shape=(T, D, 1 << 20, 1 << 20)),
    "a shape that wraps around": partial(content, shape=(T, D, 1 << 31, 1 << 31)),
    "more regions than a cube can have": partial(content, shape=(T, D, 1 << 9, 1 << 9)),
    "zeros of 8 GiB": partial(
        content,
        shape=(1 << 13, D, 256, 256),
        counts=lambda c: np.zeros((1 << 13, D), np.uint16),
        columns=lambda k: k[:0].astype(np.uint16),
        values=lambda v: v[:0],
    ),
    "too few regions": partial(content, shape=(T, D, 2, 2)),
    "no regions": partial(content, shape=(T, D, 0, 0)),
    "three axes": partial(content, shape=(T, D, K * K)),
    "another type": partial(content, dtype=np.float64),
    "offset beyond the file": partial(trailer, change=entry("values", 3, 1 << 50)),
    "offset below it": partial(trailer, change=entry("values", 3, -5)),
    "offset of a fraction": partial(trailer, change=entry("values", 3, 0.5)),
    "a huge size": partial(trailer, change=entry("values", 4, 1 << 45)),
    "a negative size": partial(trailer, change=entry("values", 4, -1)),
    "no bytes": partial(trailer, change=entry("values", 4, 0)),
    "type object": partial(trailer, change=lambda a: a["cubes/values"].__setitem__(slice(0, 3), ["|O", [1], "none"])),
    "type unknown": partial(trailer, change=entry("values", 0, "evil")),
    "type no text": partial(trailer, change=entry("values", 0, ["<f2"])),
    "type of a record": partial(trailer, change=entry("values", 0, "<f2,<f2")),
    "more numbers than memory": partial(trailer, change=entry("values", 1, [1 << 44])),
    "shape of nothing, wrapping": partial(trailer, change=entry("values", 1, [0, 1 << 40, 1 << 40])),
    "shape negative": partial(trailer, change=entry("values", 1, [-1])),
    "shape of text": partial(trailer, change=entry("values", 1, ["x"])),
    "shape of no axis": partial(trailer, change=entry("values", 1, [])),
    "shape of 33 axes": partial(trailer, change=entry("values", 1, [1] * 33)),
    "shape true": partial(trailer, change=entry("values", 1, [True])),
    "codec unknown": partial(trailer, change=entry("values", 2, "pickle")),
    "codec none": partial(trailer, change=entry("values", 2, "none")),
    "codec sparse": partial(trailer, change=entry("values", 2, "sparse")),
    "codec a list": partial(trailer, change=entry("values", 2, ["zstd"])),
    "codec not the one": partial(trailer, change=entry("values", 2, "zstd")),
    "cube of a codec": partial(trailer, change=entry("", 2, "none")),
    "part of another": partial(trailer, change=lambda a: a.update({"cubes/columns": a["cubes/counts"]})),
    "entry of text": partial(trailer, change=lambda a: a.update({"cubes/values": "abcdef"})),
    "entry of nothing": partial(trailer, change=lambda a: a.update({"cubes/values": None})),
    "entry without checksum": partial(trailer, change=lambda a: a["cubes/values"].pop()),
    "part missing": partial(trailer, change=lambda a: a.pop("cubes/values")),
    "name to steer a terminal": partial(trailer, change=lambda a: a.update({"\x1b[2J": a["frames"]})),
    "bomb of the size declared": behind([1 << 14, 1 << 14], bomb(1 << 28)),
    "bomb": behind([T, D], bomb(1 << 28)),
    "frame of a pebibyte": behind([T, D], lying(1 << 50)),
    "frame of twice the size": behind([T, D], zstandard.compress(bytes(2 * T * D))),
    "frame of half the size": behind([T, D], zstandard.compress(bytes(T * D // 2))),
    "frame of unknown size": behind([T, D], zstandard.ZstdCompressor(write_content_size=False).compress(bytes(T * D))),
    "no frame": behind([T, D], b"no frame at all"),
    "empty frame": behind([T, D], b""),
}  # fmt: skip

HARMLESS: dict[str, Callable[[Path], None]] = {
    "sound": content,
    "parts that are not compressed": partial(content, codecs=dict.fromkeys(("counts", "columns", "values"), "none")),
    "frames out of order, which no cube needs": partial(content, frames=np.array([3, 2, -1, 0], np.int32)),
}

OTHER: dict[str, Callable[[Path], None]] = {
    "rows that changed lengths": partial(content, counts=swapped),
    "columns in any order, some twice": partial(content, columns=lambda k: np.sort(k)[::-1]),
    "zeros among the values": partial(content, values=lambda v: beyond(v, slice(5), 0)),
}
"""Sound as files: nobody can know that another cube was meant. They must do no harm."""


def uses(folder: Path) -> Iterator[tuple[str, Callable[[], bool]]]:
    """The ways in which a store of two clips, the second of them hostile, is used."""
    evil = folder / "wave" / "clip1.h5"

    def features(load: bool) -> bool:
        store = CubeStore({"spatial": folder}, CLIPS)
        batch = (store.load() if load else store).batch([0, 1])["spatial"]
        dense, weights = batch.dense(), torch.full((2, K * K), 1 / (K * K))
        fine = np.array_equal(dense[1].numpy(), cube().reshape(T, D, -1))
        for t in range(T):
            glimpse, regions = batch.glimpse(t, weights), batch.regions_of(t, torch.ones(2, D))
            fine &= torch.allclose(glimpse, dense[:, t].mean(2), atol=1e-5)
            fine &= torch.allclose(regions, dense[:, t].sum(1), atol=1e-5)
        return fine and torch.allclose(batch.moments()[0], dense.mean(3), atol=1e-5)

    def pooled() -> bool:
        found = CubeStore({"spatial": folder}, CLIPS, pooled=True).load().batch([1])["spatial"]
        return np.allclose(found[0, ..., 0], cube().astype("f4").mean((2, 3)), atol=1e-5)

    def exported() -> bool:
        dense = folder.with_name(f"{folder.name}, dense")
        command("export", folder, dense)
        return np.array_equal(np.load(dense / "wave/clip1.npy"), cube())

    yield "stream", partial(features, load=False)
    yield "memory", partial(features, load=True)
    yield "pooled", pooled
    yield "read_cube", lambda: np.array_equal(read_cube(evil), cube())
    yield "export", exported
    yield "verify", lambda: command("verify", folder, "--workers", 1)
    yield "stat", lambda: command("stat", folder)
    yield "verify_clip_file", lambda: verify_clip_file(evil) is None


def command(*arguments: object) -> bool:
    """Run ``han store``; what it refuses with a message and status 1 is an error like those of the library."""
    result = CliRunner().invoke(store_command, list(map(str, arguments)))
    if result.exit_code == 0:
        return True
    if result.exit_code == 1 and isinstance(result.exception, SystemExit) and "Traceback" not in result.output:
        raise HanError(" ".join(result.output.split()))
    raise AssertionError(f"status {result.exit_code}: {result.output}") from result.exception


NAMES = tuple(name for name, _ in uses(Path()))
CASES = HARMFUL | HARMLESS | OTHER


def _all_uses(root: Path) -> Iterator[tuple[str, Callable[[], bool]]]:
    for case, make in CASES.items():
        folder = root / case.replace("/", "_")
        (folder / "wave").mkdir(parents=True)
        content(folder / "wave" / "clip0.h5")
        make(folder / "wave" / "clip1.h5")
        for name, use in uses(folder):
            yield f"{case}: {name}", use
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> dict[str, str]:
    return outcomes("tests.han_core.cubes.test_hostile_cubes", tmp_path_factory.mktemp("hostile"))


@pytest.mark.parametrize("case", HARMFUL)
def test_harmful_content_is_refused(found, case):
    texts = {name: found.get(f"{case}: {name}", "did not run") for name in NAMES}
    for name in ("stream", "memory", "pooled", "read_cube", "export"):
        assert texts[name].startswith(TOLD), f"{name}: {texts[name]}"
        assert "clip1.h5" in texts[name]
    for name in ("verify", "stat", "verify_clip_file"):  # these do not use the cube
        assert texts[name] == FINE or texts[name].startswith(TOLD), f"{name}: {texts[name]}"


def test_little_memory_is_taken(found):
    assert found["memory"] == FINE


@pytest.mark.parametrize("case", HARMLESS)
def test_harmless_content_is_used(found, case):
    assert {name: found[f"{case}: {name}"] for name in NAMES} == dict.fromkeys(NAMES, FINE)


@pytest.mark.parametrize("case", OTHER)
def test_other_content_does_no_harm(found, case):
    for name in NAMES:
        assert found[f"{case}: {name}"] in (FINE, "wrong: something else was read"), found[f"{case}: {name}"]


@pytest.mark.parametrize("frames", [[-1, 0, 1, 2], [3, 2, 1, 0], [0, 1, 2]])
def test_frame_numbers_that_cannot_be_are_refused(tmp_path, frames):
    (tmp_path / "wave").mkdir()
    content(tmp_path / "wave" / "clip1.h5", frames=np.array(frames, np.int32))
    store = CubeStore({"spatial": tmp_path}, CLIPS[1:])
    for use in (store.frames, store.median_length):
        with pytest.raises(HanError, match=r"clip1\.h5: clip clip1: its frame"):
            use()


@pytest.mark.parametrize("part", ["counts", "columns", "values"])
def test_no_loop_is_reached_by_rows_that_contradict_themselves(tmp_path, monkeypatch, part):
    """Compiled loops check nothing, so what would lead them astray must be found before."""
    change = {
        "counts": lambda c: beyond(c, (0, 0), 200),
        "columns": lambda k: beyond(k, 0, 200),
        "values": lambda v: beyond(v, 0, np.nan),
    }[part]
    (tmp_path / "wave").mkdir()
    path = tmp_path / "wave" / "clip1.h5"
    content(path, **{part: change})
    reached = []
    for kernel in ("unpack", "unpack_float", "glimpse", "regions", "moments"):
        monkeypatch.setattr(f"han_core.cubes.sparse_kernels.{kernel}", lambda *_: reached.append(1))
    store = CubeStore({"spatial": tmp_path}, CLIPS[1:])
    for use in (lambda: store.batch([0]), store.load, lambda: read_cube(path)):
        with pytest.raises(HanError, match=r"of its cube|its cube h"):
            use()
    with pytest.raises(HanError):
        read_sparse(path, read_trailer(path))
    assert not reached


if __name__ == "__main__":
    report(_all_uses(Path(sys.argv[1])))
