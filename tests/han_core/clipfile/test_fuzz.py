"""Clip files changed at random, with checksums that are valid or not: an error of this library, or the right data.

What pure Python reads is tried here by Hypothesis; what HDF5 reads, in a process of its own, where a crash is an
outcome.
"""

import json
import random
import struct
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from han_core.cache.verify import verify_clip_file
from han_core.clipfile.arrays import read_parts
from han_core.clipfile.difference import first_difference
from han_core.clipfile.layout import pieces
from han_core.clipfile.reader import ClipFile
from han_core.clipfile.trailer import CODECS, DTYPES, SPARSE, TRAILER_BYTES, ClipFileError, read_trailer
from han_core.clipfile.writer import ClipFileWriter
from han_core.cubes.cubefile import read_cube
from han_core.cubes.store import CubeStoreError
from han_core.images.reader import ImageReader
from tests.clip_samples import read_sample, reading, same, seal, trailer_bytes, trailer_values, write_sample
from tests.outcomes import FINE, TOLD, harmless, outcomes, report

REFUSED = (ClipFileError, CubeStoreError)
STABLE = settings(derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
FEW, MANY = settings(STABLE, max_examples=150), settings(STABLE, max_examples=20_000)

NUMBERS = st.one_of(
    st.integers(-3, 300),
    st.integers(),
    st.sampled_from([2**31, 2**32, 2**62, 2**63, 2**64]),
    st.floats(),
    st.booleans(),
)
JSON = st.recursive(
    st.one_of(st.none(), NUMBERS, st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=8,
)
ENTRIES = st.tuples(
    st.one_of(st.sampled_from(sorted(DTYPES)), JSON),
    st.one_of(st.lists(NUMBERS, max_size=4), JSON),
    st.one_of(st.sampled_from([*CODECS, SPARSE]), JSON),
    NUMBERS,
    NUMBERS,
    NUMBERS,
)
READ = ["cubes", "cubes/counts", "cubes/columns", "cubes/values", "fc7", "frames"]
NAMES = st.one_of(st.sampled_from(READ), st.text(max_size=9))


@pytest.fixture(scope="module")
def cubes(tmp_path_factory):
    """The path of a cube file, its bytes, and what is read of it."""
    path = write_sample("cubes", tmp_path_factory.mktemp("fuzz"))
    return path, path.read_bytes(), read_sample("cubes", path)


def refused(path: Path, use: Callable[[], Any]) -> bool:
    """Whether ``use`` refuses a file; then it must name it, on one line. No other error may come."""
    try:
        use()
    except REFUSED as error:
        message = str(error)
    else:
        return False
    assert str(path) in message
    assert harmless(message)
    return True


def check_reads(path: Path, expected: dict[str, Any] | None = None) -> None:
    """All that is read of a cube file, until a reader refuses it, is what was written, if that is given."""

    def read() -> None:
        for name, found in reading("cubes", path):
            assert expected is None or same(found, expected[name]), name

    refused(path, read)


def check_trailer(cubes: tuple, change: dict[str, Any]) -> None:
    path, whole, _ = cubes
    path.write_bytes(whole)
    values = trailer_values(path) | change
    text = json.dumps(values, separators=(",", ":"))
    path.write_bytes(whole[:-TRAILER_BYTES] + trailer_bytes(text[: TRAILER_BYTES - 10]))
    check_reads(path)
    if not refused(path, lambda: read_trailer(path)):  # then it can be used
        for array in READ:
            refused(path, lambda name=array: read_parts(path, read_trailer(path), (name,)))
        refused(path, lambda: read_cube(path))


KEYS = ("schema", "kind", "clip", "fingerprint", "size", "sha256", "content", "arrays")


@FEW
@given(st.dictionaries(st.sampled_from(KEYS), JSON, min_size=1, max_size=3))
def test_any_values_in_the_trailer(cubes, change):
    check_trailer(cubes, change)


@FEW
@given(st.dictionaries(NAMES, st.one_of(ENTRIES, JSON), max_size=5))
def test_any_arrays_in_the_trailer(cubes, arrays):
    check_trailer(cubes, {"arrays": arrays})


@FEW
@given(st.data())
def test_one_number_of_an_array_is_another(cubes, data):
    """The rest is right, so that the number is used."""
    path, whole, _ = cubes
    path.write_bytes(whole)
    arrays = trailer_values(path)["arrays"]
    entry = arrays[data.draw(st.sampled_from(sorted(arrays)))]
    place = data.draw(st.sampled_from([1, 3, 4, 5]))
    number = data.draw(st.one_of(st.integers(0, len(whole)), NUMBERS))
    if place == 1:
        entry[1][data.draw(st.integers(0, len(entry[1]) - 1))] = number
    else:
        entry[place] = number
    check_trailer(cubes, {"arrays": arrays})


@FEW
@given(st.binary(max_size=TRAILER_BYTES))
def test_any_bytes_as_a_trailer(cubes, raw):
    path, whole, _ = cubes
    path.write_bytes(whole[:-TRAILER_BYTES] + trailer_bytes(raw[: TRAILER_BYTES - 10]))
    with pytest.raises(ClipFileError):
        read_trailer(path)


# -- Bytes ------------------------------------------------------------------------------------------------------------


def mutated(raw: bytes, source: random.Random) -> bytes:
    """Bytes of which a few are overwritten, lost, added, or in another place."""
    out = bytearray(raw)
    for _ in range(source.choice([1, 1, 2, 5])):
        place, length = source.randrange(len(out)), source.choice([1, 1, 2, 4, 8, 64, 1024])
        kind = source.choice(["overwrite", "overwrite", "extreme", "cut", "insert", "swap", "truncate"])
        if kind == "overwrite":
            out[place : place + length] = source.randbytes(len(out[place : place + length]))
        elif kind == "extreme":
            length = min(length, len(out) - place)
            out[place : place + length] = bytes([source.choice([0, 1, 0x7F, 0x80, 0xFF])]) * length
        elif kind == "cut":
            del out[place : place + length]
        elif kind == "insert":
            out[place:place] = source.randbytes(length)
        elif kind == "swap":
            other = source.randrange(len(out))
            one, two = out[place : place + length], out[other : other + length]
            if len(one) == len(two) and abs(other - place) >= length:
                out[place : place + length], out[other : other + length] = two, one
        elif source.random() < 0.2:
            del out[place:]
        if not out:
            return bytes(raw[:1])
    return bytes(out)


@FEW
@given(st.integers(0, 2**32))
def test_changed_bytes_are_told_or_nothing_is_different(cubes, seed):
    path, whole, expected = cubes
    path.write_bytes(mutated(whole, random.Random(seed)))
    check_reads(path, expected)


# -- What HDF5 reads, with checksums that are valid ------------------------------------------------------------------


def lookup3(data: bytes) -> int:
    """Jenkins's hash with which HDF5 checks its headers (hashlittle, 0 at the start)."""
    mask = 0xFFFFFFFF
    a = b = c = (0xDEADBEEF + len(data)) & mask

    def rotated(value: int, by: int) -> int:
        return (value << by | value >> (32 - by)) & mask

    place = 0
    while len(data) - place > 12:
        x, y, z = struct.unpack_from("<III", data, place)
        a, b, c = (a + x) & mask, (b + y) & mask, (c + z) & mask
        a = (a - c) & mask ^ rotated(c, 4)
        c = (c + b) & mask
        b = (b - a) & mask ^ rotated(a, 6)
        a = (a + c) & mask
        c = (c - b) & mask ^ rotated(b, 8)
        b = (b + a) & mask
        a = (a - c) & mask ^ rotated(c, 16)
        c = (c + b) & mask
        b = (b - a) & mask ^ rotated(a, 19)
        a = (a + c) & mask
        c = (c - b) & mask ^ rotated(b, 4)
        b = (b + a) & mask
        place += 12
    if place == len(data):
        return c
    x, y, z = struct.unpack("<III", data[place:].ljust(12, b"\0"))
    a, b, c = (a + x) & mask, (b + y) & mask, (c + z) & mask
    for (one, two), by in ("cb", 14), ("ac", 11), ("ba", 25), ("cb", 16), ("ac", 4), ("ba", 14), ("cb", 24):
        state = {"a": a, "b": b, "c": c}
        state[one] = ((state[one] ^ state[two]) - rotated(state[two], by)) & mask
        a, b, c = state["a"], state["b"], state["c"]
    return c


SIGNATURES = (b"\x89HDF", b"OHDR", b"OCHK", b"EAHD", b"EAIB", b"EADB", b"FRHP", b"FHDB", b"BTHD", b"BTLF")


def checked_blocks(raw: bytes) -> list[range]:
    """The pieces of an HDF5 file that end in their checksum, without it."""
    starts = [at for signature in SIGNATURES for at in range(len(raw) - 8) if raw.startswith(signature, at)]
    return [block for start in starts for block in (_checked_block(raw, start),) if block]


def _checked_block(raw: bytes, start: int) -> range | None:
    if raw.startswith(b"OHDR", start):  # the longest ones say how long they are
        flags, place = raw[start + 5], start + 6
        place += 16 * bool(flags & 0x20) + 4 * bool(flags & 0x10)
        width = 1 << (flags & 3)
        lengths = [place + width + int.from_bytes(raw[place : place + width], "little") - start]
    else:
        lengths = range(8, 400)
    for length in lengths:
        end = start + length
        if struct.pack("<I", lookup3(raw[start:end])) == raw[end : end + 4]:
            return range(start, end)
    return None


def changed_headers(raw: bytes, blocks: list[range], source: random.Random) -> bytes:
    """An HDF5 file whose headers say something else, and have the checksums for it."""
    out = bytearray(raw)
    for _ in range(source.choice([1, 1, 1, 2, 4])):
        block = source.choice(blocks)
        place, length = source.choice(block), source.choice([1, 1, 1, 2, 4, 8])
        length = min(length, block.stop - place)
        old = int.from_bytes(out[place : place + length], "little")
        limit = 1 << 8 * length
        near = [old + 1, old - 1, old ^ 1 << source.randrange(8 * length)]
        new = source.choice([source.randrange(limit), 0, 1, limit - 1, limit >> 1, *near])
        out[place : place + length] = (new % limit).to_bytes(length, "little")
        out[block.stop : block.stop + 4] = struct.pack("<I", lookup3(bytes(out[block.start : block.stop])))
    return bytes(out)


def _reads(root: Path, first: int, last: int) -> Iterator[tuple[str, Callable[[], bool]]]:
    """Uses of files whose HDF5 part was changed and whose trailer fits it."""
    path = root / "fuzzed" / "wave" / "clip.h5"
    path.parent.mkdir(parents=True)
    for kind in ("frames", "flow-jpeg", "cubes", "scores"):
        sample = write_sample(kind, root)
        values, body = trailer_values(sample), sample.read_bytes()[:-TRAILER_BYTES]
        blocks = checked_blocks(body)
        assert len(blocks) >= 4
        for number in range(first, last):
            source = random.Random(f"{kind} {number}")
            changed = mutated(body, source) if number % 4 == 0 else changed_headers(body, blocks, source)
            seal(path, changed, values | {"size": None, "sha256": None})
            yield f"{kind} {number}", partial(_read, kind, path)


def _read(kind: str, path: Path) -> bool:
    """Each reader of the kind, and the ones that look at the whole file."""

    def everything() -> None:
        with ClipFile(path) as file:
            for name in file.names():
                refused(path, partial(file.array, name))
                refused(path, partial(file.checksums, name))

    refused(path, lambda: list(reading(kind, path)))
    refused(path, everything)
    refused(path, lambda: verify_clip_file(path))
    refused(path, lambda: first_difference(path, path))
    return True


def check_hdf5(folder: Path, first: int, last: int, timeout: float) -> None:
    found = outcomes("tests.han_core.clipfile.test_fuzz", folder, str(first), str(last), timeout=timeout)
    wrong = {name: text for name, text in found.items() if text != FINE and not text.startswith(TOLD)}
    assert not wrong
    assert len(found) == 4 * (last - first) + 1  # and the memory


def test_headers_of_hdf5_that_say_something_else(tmp_path):
    check_hdf5(tmp_path, 0, 50, 300)


def test_the_hash_is_the_one_of_hdf5(cubes):
    """Else the test above would only try checksums that are wrong."""
    _, whole, _ = cubes
    assert lookup3(b"Four score and seven years ago") == 0x17770551  # from the author's own test
    assert lookup3(whole[:44]) == int.from_bytes(whole[44:48], "little")


@pytest.mark.parametrize(
    ("place", "value", "width", "found"),
    [(44, 1 << 62, 8, 1 << 62), (9, 0, 1, None), (10, 0, 1, None)],
    ids=["pieces for centuries", "division by zero", "division by zero, too"],
)
def test_an_index_in_which_hdf5_would_be_lost(tmp_path, place, value, width, found):
    path = write_sample("frames", tmp_path)
    values, body = trailer_values(path), bytearray(path.read_bytes()[:-TRAILER_BYTES])
    start = body.index(b"EAHD")
    (block,) = [block for block in checked_blocks(bytes(body)) if block.start == start]
    body[start + place : start + place + width] = value.to_bytes(width, "little")
    body[block.stop : block.stop + 4] = struct.pack("<I", lookup3(bytes(body[block.start : block.stop])))
    seal(path, bytes(body), values | {"size": None, "sha256": None})
    with path.open("rb") as raw, h5py.File(path) as file:
        assert pieces(raw.fileno(), h5py.h5o.get_info(file["frames"].id).addr) == found
    for use in (lambda: ImageReader().count(path, "frames"), lambda: verify_clip_file(path)):
        with pytest.raises(ClipFileError, match=r"clip\.h5: frames is not stored in the pieces of a clip file"):
            use()


def test_pieces_are_counted(tmp_path):
    """Of images in two blocks, of an array in one, and of none."""
    with ClipFileWriter(tmp_path / "a.h5", kind="frames", clip="c", fingerprint="f") as writer:
        writer.images("many").append(bytes(100_000))
        writer.images("none")
        writer.array("one", np.zeros(9), codec="zstd")
    with (tmp_path / "a.h5").open("rb") as raw, h5py.File(tmp_path / "a.h5") as file:
        found = {name: pieces(raw.fileno(), h5py.h5o.get_info(file[name].id).addr) for name in ("many", "none", "one")}
    assert found == {"many": 2, "none": 0, "one": 1}


@pytest.mark.slow
class TestLong:
    def test_headers_of_hdf5(self, tmp_path):
        check_hdf5(tmp_path, 50, 3000, 3600)

    @MANY
    @given(st.integers(0, 2**32))
    def test_bytes(self, cubes, seed):
        path, whole, expected = cubes
        path.write_bytes(mutated(whole, random.Random(seed)))
        check_reads(path, expected)

    @MANY
    @given(st.dictionaries(NAMES, st.one_of(ENTRIES, JSON), max_size=5))
    def test_arrays(self, cubes, arrays):
        check_trailer(cubes, {"arrays": arrays})


if __name__ == "__main__":
    report(_reads(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
