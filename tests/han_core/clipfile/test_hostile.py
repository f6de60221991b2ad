"""Clip files whose checksums are all valid and whose content is meant to do harm: refused, or read without harm.

What HDF5 is made to read is tried in a process of its own (:mod:`tests.outcomes`), where a crash is found out.
"""

import ctypes
import hashlib
import json
import os
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import h5py
import hdf5plugin
import numpy as np
import pytest
import zstandard

from han_core.cache.verify import verify_clip_file
from han_core.clipfile.decoding import decode_image, image_size
from han_core.clipfile.difference import first_difference
from han_core.clipfile.reader import ClipFile
from han_core.clipfile.trailer import TRAILER_BYTES, ClipFileError, read_trailer
from han_core.clipfile.writer import ClipFileWriter
from han_core.images.frames import read_frames
from han_core.images.reader import ImageReader
from tests.clip_samples import (
    seal,
    trailer_bytes,
    trailer_values,
    write_frames_file,
    write_sample,
)
from tests.outcomes import FINE, TOLD, harmless, outcomes, report

# -- The trailer ------------------------------------------------------------------------------------------------------


def of_text(change: Callable[[dict], str]) -> Callable[[dict], bytes]:
    return lambda values: trailer_bytes(change(values))


def with_value(name: str, text: str) -> Callable[[dict], bytes]:
    """The trailer with JSON text in place of one value."""

    def change(values: dict) -> str:
        return json.dumps(values | {name: "PLACE"}, separators=(",", ":")).replace('"PLACE"', text)

    return of_text(change)


TRAILERS: dict[str, Callable[[dict], bytes]] = {
    "empty": of_text(lambda _: ""),
    "no JSON": of_text(lambda _: "{"),
    "a list": of_text(lambda _: "[]"),
    "a number": of_text(lambda _: "1"),
    "deep lists": of_text(lambda _: "[" * 1000),
    "deep, and closed": of_text(lambda _: "[" * 500 + "]" * 500),
    "deep objects": of_text(lambda _: '{"a":' * 200),
    "not UTF-8": lambda _: trailer_bytes(b'{"clip":"\xff"}'),
    "no padding": lambda _: trailer_bytes(b"1" * (TRAILER_BYTES - 9)),
    "deep arrays": with_value("arrays", '{"a":' * 50 + "1" + "}" * 50),
    "arrays a list": with_value("arrays", "[]"),
    "an entry deep": with_value("arrays", '{"a":' + "[" * 50 + "]" * 50 + "}"),
    "an entry of numbers": with_value("arrays", '{"a":[1,2,3,4,5,6]}'),
    "an empty array of impossible axes": with_value("arrays", '{"a":["<f8",[0,1099511627776,1048576],"none",0,0,0]}'),
    "a frame that expands too far": with_value("arrays", '{"a":["|u1",[1099511627776],"zstd",0,99,0]}'),
    "an unknown codec": with_value("arrays", '{"a":["|u1",[1],"pickle",0,1,0]}'),
    "a frame of no bytes": with_value("arrays", '{"a":["|u1",[9],"zstd",0,0,0]}'),
    "a shape of infinity": with_value("arrays", '{"a":["|u1",[1e400],"none",0,1,0]}'),
    "a shape of NaN": with_value("arrays", '{"a":["|u1",[NaN],"none",0,1,0]}'),
    "an offset of 1e3": with_value("arrays", '{"a":["|u1",[1],"none",1e3,1,0]}'),
    "an offset true": with_value("arrays", '{"a":["|u1",[1],"none",true,1,0]}'),
    "a checksum of text": with_value("arrays", '{"a":["|u1",[1],"none",0,1,"0"]}'),
    "a shape of text": with_value("arrays", '{"a":["|u1","12","none",0,1,0]}'),
    "a shape of an object": with_value("arrays", '{"a":["|u1",{"1":1},"none",0,1,0]}'),
    "size a fraction": lambda values: with_value("size", f"{values['size']}.0")(values),
    "size true": with_value("size", "true"),
    "size NaN": with_value("size", "NaN"),
    "size 1e400": with_value("size", "1e400"),
    "size -0": with_value("size", "-0"),
    "size of 600 digits": with_value("size", "9" * 600),
    "size null": with_value("size", "null"),
    "schema a fraction": with_value("schema", "3.0"),
    "schema true": with_value("schema", "true"),
    "schema a list": with_value("schema", "[3]"),
    "kind null": with_value("kind", "null"),
    "clip a number": with_value("clip", "7"),
    "clip a list": with_value("clip", '["x"]'),
    "clip to steer a terminal": with_value("clip", r'"\u001b[2J"'),
    "clip of two lines": with_value("clip", r'"a\nb"'),
    "clip of half a character": with_value("clip", r'"\ud800"'),
    "kind to steer a terminal": with_value("kind", r'"\u009b2J"'),
    "sha256 null": with_value("sha256", "null"),
    "content an object": with_value("content", "{}"),
    "an entry more": lambda values: trailer_bytes(json.dumps(values | {"more": 1})),
    "an entry less": lambda values: trailer_bytes(json.dumps({k: v for k, v in values.items() if k != "content"})),
}


@pytest.mark.parametrize("case", TRAILERS)
def test_hostile_trailers_are_refused(tmp_path, case):
    path = write_sample("scores", tmp_path)
    body = path.read_bytes()[:-TRAILER_BYTES]
    path.write_bytes(body + TRAILERS[case](trailer_values(path)))
    uses = [
        read_trailer,
        verify_clip_file,
        lambda path: ClipFile(path).kind,
        lambda path: ImageReader().count(path, "x"),
    ]
    for use in uses:
        with pytest.raises(ClipFileError, match=r"clip\.h5") as error:
            use(path)
        assert harmless(str(error.value))


@pytest.mark.parametrize("text", [r'"\u3000 \u00a0\u200d \u00e4"', r'"\ud83d\ude00"'])
def test_names_that_people_have_are_read(tmp_path, text):
    path = write_sample("scores", tmp_path)
    body = path.read_bytes()[:-TRAILER_BYTES]
    path.write_bytes(body + with_value("clip", text)(trailer_values(path)))
    assert read_trailer(path).clip == json.loads(text)


def test_a_key_given_twice_counts_once(tmp_path):
    path = write_sample("scores", tmp_path)
    body, values = path.read_bytes()[:-TRAILER_BYTES], trailer_values(path)
    path.write_bytes(body + trailer_bytes('{"size":1,' + json.dumps(values)[1:]))
    assert read_trailer(path).size == len(body)


def test_what_could_not_be_read_is_not_written(tmp_path):
    with (
        pytest.raises(ValueError, match="control character"),
        ClipFileWriter(tmp_path / "a.h5", kind="frames", clip="a\nb", fingerprint="f"),
    ):
        pass
    with (
        pytest.raises(ValueError, match=r"attribute net: .* control character"),
        ClipFileWriter(tmp_path / "b.h5", kind="frames", clip="a", fingerprint="f", attributes={"net": "\x1b"}),
    ):
        pass


# -- What HDF5 reads --------------------------------------------------------------------------------------------------

Change = Callable[[h5py.File, Path], Any]


def put(file: h5py.File, name: str, values: Any, **how: Any) -> h5py.Dataset:
    """A dataset, in place of what was there, with the SHA-256 that belongs to it."""
    if name in file:
        del file[name]
    dataset = file.create_dataset(name, data=values, **how)
    if isinstance(values, np.ndarray) and values.dtype.kind in "iuf":
        dataset.attrs["sha256"] = np.bytes_(hashlib.sha256(values.tobytes()).hexdigest())
    return dataset


def images(file: h5py.File, encoded: list[bytes], **how: Any) -> None:
    """Images with all that belongs to them."""
    raw = np.frombuffer(b"".join(encoded), np.uint8)
    put(file, "frames", raw, **{"chunks": (1 << 16,), "maxshape": (None,)} | how)
    put(file, "frames_offsets", np.cumsum([0, *map(len, encoded)]))
    put(file, "frames_crc32", np.array([zlib.crc32(image) for image in encoded], np.uint32))


def encoded_image(shape: tuple[int, ...], dtype: type = np.uint8, form: str = ".png") -> bytes:
    return cv2.imencode(form, np.zeros(shape, dtype))[1].tobytes()


def claiming(encoded: bytes, side: int = 65500) -> bytes:
    """A PNG or JPEG whose header says that it is this large."""
    if encoded[:4] == b"\x89PNG":
        header = b"IHDR" + struct.pack(">II", side, side) + encoded[24:29]
        return encoded[:12] + header + struct.pack(">I", zlib.crc32(header)) + encoded[33:]
    place = encoded.index(b"\xff\xc0")
    return encoded[: place + 5] + struct.pack(">HH", side, side) + encoded[place + 9 :]


def two_headers() -> bytes:
    """A JPEG in which a marker without a length hides the header that counts from a reader who believes in lengths."""
    jpeg = claiming(encoded_image((8, 8), form=".jpg"))
    small = encoded_image((8, 8), form=".jpg")
    place = small.index(b"\xff\xc0")
    tables = jpeg[2:]
    hidden = b"\xff\x01" + struct.pack(">H", 2 + len(tables)) + tables
    return b"\xff\xd8" + hidden + small[place:]


def offsets(*values: int, dtype: type = np.int64) -> Change:
    return lambda file, _: put(file, "frames_offsets", np.array(values, dtype))


def end_of(file: h5py.File) -> int:
    return int(file["frames_offsets"][-1])


def backwards(file: h5py.File, _: Path) -> None:
    found = file["frames_offsets"][()]
    found[[1, 2]] = found[[2, 1]]
    put(file, "frames_offsets", found)


def last_offset(by: int) -> Change:
    def change(file: h5py.File, _: Path) -> None:
        found = file["frames_offsets"][()]
        found[-1] += by
        put(file, "frames_offsets", found)

    return change


def one_huge_image(file: h5py.File, _: Path) -> None:
    """2^32 bytes of images, of which a few are stored."""
    del file["frames"]
    file.create_dataset("frames", (1 << 32,), np.uint8, chunks=(1 << 16,), maxshape=(None,))
    put(file, "frames_offsets", np.array([0, 1 << 32]))
    put(file, "frames_crc32", np.zeros(1, np.uint32))


def one_piece_of_many(file: h5py.File, _: Path) -> None:
    file.create_dataset("x", (1 << 40,), np.uint8, chunks=(100,), maxshape=(None,))[:9] = 1


def dense(name: str, values: Any, **how: Any) -> Change:
    return lambda file, _: put(file, name, values, **how)


def raw_dataset(file: h5py.File, name: str, space: h5py.h5s.SpaceID, creation: h5py.h5p.PropDCID | None = None) -> None:
    if name in file:
        del file[name]
    h5py.h5d.create(file.id, name.encode(), h5py.h5t.NATIVE_UINT8, space, creation)


def external(target: str | None) -> Change:
    """A dataset whose bytes lie in another file."""

    def change(file: h5py.File, outside: Path) -> None:
        creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        creation.set_external((target or str(outside)).encode(), 0, 100)
        for name in ("x", "frames"):
            raw_dataset(file, name, h5py.h5s.create_simple((100,)), creation)
            raw = (Path(target) if target else outside).read_bytes()[:100]
            file[name].attrs["sha256"] = np.bytes_(hashlib.sha256(raw).hexdigest())

    return change


def virtual(file: h5py.File, outside: Path, *, unlimited: bool = False) -> None:
    for name in ("x", "frames"):
        if name in file:
            del file[name]
        layout = h5py.VirtualLayout((8,), np.uint8, maxshape=(None,) if unlimited else None)
        source = h5py.VirtualSource(str(outside), "data", (8,), np.uint8, maxshape=(None,) if unlimited else None)
        if unlimited:
            layout[: h5py.h5s.UNLIMITED] = source[: h5py.h5s.UNLIMITED]
        else:
            layout[:] = source
        file.create_virtual_dataset(name, layout)


def links(make: Callable[[str, Path], Any]) -> Change:
    """Links in place of datasets, and of a group with one in it."""

    def change(file: h5py.File, outside: Path) -> None:
        for name, target in (("x", "data"), ("frames", "frames"), ("group", "/")):
            if name in file:
                del file[name]
            file[name] = make(target, outside)

    return change


def zstd_array(frame: bytes, shape: tuple[int, ...], *, mask: int = 0, chunks: tuple[int, ...] | None = None) -> Change:
    def change(file: h5py.File, _: Path) -> None:
        dataset = file.create_dataset("x", shape, np.uint8, chunks=chunks or shape, **hdf5plugin.Zstd(clevel=1))
        dataset.id.write_direct_chunk((0,) * len(shape), frame, filter_mask=mask)
        dataset.attrs["sha256"] = np.bytes_(hashlib.sha256(bytes(int(np.prod(shape)))).hexdigest())

    return change


def unknown_filter(file: h5py.File, _: Path) -> None:
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_chunk((100,))
    creation.set_filter(40000, h5py.h5z.FLAG_OPTIONAL, (1, 2))
    for name in ("x", "frames"):
        raw_dataset(file, name, h5py.h5s.create_simple((100,)), creation)
        file[name].id.write_direct_chunk((0,), bytes(100))


def attribute(name: str, value: Any, dtype: Any = None, where: str = "/") -> Change:
    def change(file: h5py.File, _: Path) -> None:
        owner = file[where]
        if name in owner.attrs:
            del owner.attrs[name]
        owner.attrs.create(name, value, dtype=dtype)

    return change


def reference(file: h5py.File, _: Path) -> None:
    file.attrs.create("width", file["frames"].ref, dtype=h5py.ref_dtype)


def lists(file: h5py.File, _: Path) -> None:
    values = np.empty(2, object)
    values[:] = [np.arange(3, dtype=np.int32), np.arange(2, dtype=np.int32)]
    file.attrs.create("width", values, dtype=h5py.vlen_dtype(np.int32))


def many_times_one_text(file: h5py.File, _: Path) -> None:
    """A text of 64 KiB that an attribute names 50,000 times: 3 GiB once it is read."""
    file.attrs.create("width", ["x" * 60_000] + ["y"] * 3, dtype=h5py.string_dtype())


def loop(file: h5py.File, _: Path) -> None:
    inner = file.create_group("a/b")
    inner["back"] = file["a"]


FLAWED = np.dtype([("a", "<i4"), ("b", "<f8")])
ALL_IMAGES = ("decode", "first", "read_frames")
BLANK = encoded_image((8, 8))

HOSTILE: dict[str, tuple[Change, tuple[str, ...]]] = {
    # what is changed, and the uses that must refuse it; every other use refuses it or does no harm
    "offsets that run backwards": (backwards, ALL_IMAGES),
    "offsets beyond the data": (last_offset(1), ALL_IMAGES),
    "offsets that end before it": (last_offset(-1), ALL_IMAGES),
    "offsets that wrap around": (
        lambda file, _: (
            put(file, "frames_offsets", np.array([0, 2**63 - 1, -(2**63), -1, 1, end_of(file)])),
        ),
        ALL_IMAGES,
    ),
    "negative offsets": (offsets(-5, 3), ALL_IMAGES),
    "no offsets": (offsets(), ALL_IMAGES),
    "offsets of 32 bits": (offsets(0, 5, dtype=np.int32), ALL_IMAGES),
    "offsets without a sign": (offsets(0, 5, dtype=np.uint64), ALL_IMAGES),
    "offsets of fractions": (offsets(0, 5, dtype=np.float64), ALL_IMAGES),
    "offsets of two axes": (dense("frames_offsets", np.zeros((2, 3), np.int64)), ALL_IMAGES),
    "offsets a scalar": (dense("frames_offsets", np.int64(3)), ALL_IMAGES),
    "offsets of nothing": (dense("frames_offsets", h5py.Empty("i8")), ALL_IMAGES),
    "offsets of text": (dense("frames_offsets", ["0", "5"], dtype=h5py.string_dtype()), ALL_IMAGES),
    "too few checksums": (dense("frames_crc32", np.zeros(2, np.uint32)), ALL_IMAGES),
    "too many checksums": (dense("frames_crc32", np.zeros(50, np.uint32)), ALL_IMAGES),
    "checksums of 64 bits": (dense("frames_crc32", np.zeros(5, np.uint64)), ALL_IMAGES),
    "one huge image": (one_huge_image, ALL_IMAGES),
    "images of numbers": (
        lambda file, _: put(file, "frames", np.zeros(end_of(file)), chunks=(1 << 10,), maxshape=(None,)),
        ("table", *ALL_IMAGES),
    ),
    "images of a record": (
        lambda file, _: put(file, "frames", np.zeros(end_of(file), FLAWED), chunks=(1 << 10,)), ("table", *ALL_IMAGES)
    ),
    "images of objects": (
        lambda file, _: put(file, "frames", ["a"] * end_of(file), dtype=h5py.string_dtype(), chunks=(1 << 10,)),
        ("table", *ALL_IMAGES),
    ),
    "images of references": (
        lambda file, _: put(file, "frames", [file.ref] * end_of(file), dtype=h5py.ref_dtype, chunks=(1 << 10,)),
        ("table", *ALL_IMAGES),
    ),
    "images of two axes": (lambda file, _: put(file, "frames", np.zeros((end_of(file), 1), np.uint8)), ALL_IMAGES),
    "images a scalar": (dense("frames", np.uint8(1)), ALL_IMAGES),
    "images a group": (lambda file, _: (file.pop("frames"), file.create_group("frames")), ALL_IMAGES),
    "images a type": (lambda file, _: (file.pop("frames"), file.__setitem__("frames", np.dtype("i4"))), ALL_IMAGES),
    "images in blocks of a byte": (lambda file, _: images(file, [BLANK] * 2, chunks=(1,)), ("decode",)),
    "images in one enormous block": (
        lambda file, _: images(file, [BLANK] * 2, chunks=(1 << 25,)), ()
    ),
    "images compressed by gzip": (lambda file, _: images(file, [BLANK] * 2, compression="gzip"), ALL_IMAGES),
    "images with HDF5's checksum": (lambda file, _: images(file, [BLANK] * 2, fletcher32=True), ALL_IMAGES),
    "an image of 65500 pixels a side, PNG": (lambda file, _: images(file, [claiming(BLANK)]), ALL_IMAGES),
    "an image of 65500 pixels a side, JPEG": (
        lambda file, _: images(file, [claiming(encoded_image((8, 8), form=".jpg"))]), ALL_IMAGES
    ),
    "an image with a second header": (lambda file, _: images(file, [two_headers()]), ALL_IMAGES),
    "an image of 16 bits": (lambda file, _: images(file, [encoded_image((8, 8), np.uint16)]), ("read_frames",)),
    "an image with transparency": (lambda file, _: images(file, [encoded_image((8, 8, 4))]), ("read_frames",)),
    "an image of another format": (
        lambda file, _: images(file, [encoded_image((8, 8), form=".bmp")]), ALL_IMAGES
    ),
    "images of two sizes": (lambda file, _: images(file, [BLANK, encoded_image((8, 9))]), ("decode", "read_frames")),
    "images grey and in colour": (
        lambda file, _: images(file, [BLANK, encoded_image((8, 8, 3))]), ("read_frames",)
    ),
    "array external, /etc/passwd": (external("/etc/passwd"), ("array", "shape", "table", "verify", *ALL_IMAGES)),
    "array external": (external(None), ("array", "shape", "table", "verify", *ALL_IMAGES)),
    "array virtual": (virtual, ("array", "shape", "table", "verify", *ALL_IMAGES)),
    "array virtual without end": (partial(virtual, unlimited=True), ("array", "shape", "table", "verify", *ALL_IMAGES)),
    "links to another file": (
        links(lambda target, outside: h5py.ExternalLink(str(outside), target)), ("array", "member", *ALL_IMAGES)
    ),
    "links by name": (links(lambda target, _: h5py.SoftLink(f"/{target}_crc32")), ("array", "member", *ALL_IMAGES)),
    "links in a circle": (links(lambda target, _: h5py.SoftLink("/x")), ("array", "member", *ALL_IMAGES)),
    "a group in itself": (loop, ("array",)),
    "array of an unknown filter": (unknown_filter, ("array", "shape", "table", "verify", *ALL_IMAGES)),
    "array by gzip": (dense("x", np.zeros(9), compression="gzip"), ("array", "shape", "verify")),
    "array by lzf": (dense("x", np.zeros(9), compression="lzf"), ("array", "shape", "verify")),
    "array shuffled only": (dense("x", np.zeros(9), shuffle=True), ("array", "verify")),
    "array zstd twice": (
        dense("x", np.zeros(9), compression=32015, shuffle=True, fletcher32=True), ("array", "verify")
    ),
    "array in pieces": (
        zstd_array(zstandard.compress(bytes(50)), (100,), chunks=(50,)), ("array", "verify")
    ),
    "array not compressed, it says": (zstd_array(bytes(100), (100,), mask=1), ("array", "verify")),
    "array that is a bomb": (
        zstd_array(zstandard.compress(bytes(1 << 28)), (1 << 28,)), ("array", "verify")
    ),
    "array that expands to more": (zstd_array(zstandard.compress(bytes(1 << 28)), (100,)), ("array", "verify")),
    "array that says so": (
        zstd_array(b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", 1 << 50) + bytes(20), (100,)), ("array", "verify")
    ),
    "array of objects": (dense("x", ["a", "b"], dtype=h5py.string_dtype()), ("array", "verify")),
    "array of lists": (
        lambda file, _: file.create_dataset("x", (3,), h5py.vlen_dtype(np.int32)), ("array", "verify")
    ),
    "array of references": (
        lambda file, _: put(file, "x", [file.ref, file.ref], dtype=h5py.ref_dtype), ("array", "verify")
    ),
    "array of regions": (
        lambda file, _: file.create_dataset("x", (2,), h5py.regionref_dtype), ("array", "verify")
    ),
    "array of records": (dense("x", np.zeros(3, FLAWED)), ("array", "verify")),
    "array of texts": (dense("x", np.array([b"abc", b"d"])), ("array", "verify")),
    "array of complex numbers": (dense("x", np.zeros(3, np.complex64)), ("array", "verify")),
    "array of big-endian numbers": (dense("x", np.zeros(3, ">f8")), ("array", "verify")),
    "array opaque": (dense("x", np.void(b"abcdef")), ("array", "verify")),
    "a scalar": (dense("x", np.float64(3)), ("array", "verify")),
    "nothing": (dense("x", h5py.Empty("f8")), ("array", "verify")),
    "array of 32 axes": (dense("x", np.zeros((1,) * 32)), ()),
    "array of a tebibyte, nothing stored": (
        lambda file, _: file.create_dataset("x", (1 << 37,), np.float64), ("array", "verify")
    ),
    "array of a tebibyte, a piece stored": (one_piece_of_many, ("array", "verify")),
    "array whose size wraps around": (
        lambda file, _: file.create_dataset("x", (1 << 33, 1 << 31), np.uint8, chunks=(8, 8)), ("array", "verify")
    ),
    "array without a checksum": (lambda file, _: file.create_dataset("x", data=np.zeros(3)), ("array", "verify")),
    "checksum a list": (
        lambda file, _: put(file, "x", np.zeros(3)).attrs.create("sha256", np.zeros(5)), ("array", "verify")
    ),
    "checksum of any length": (
        lambda file, _: put(file, "x", np.zeros(3)).attrs.create("sha256", "a", dtype=h5py.string_dtype()),
        ("array", "verify"),
    ),
    "a name to steer a terminal": (dense("\x1b[2J", np.zeros(3)), ("names", "verify")),
    "attribute a reference": (reference, ("attributes",)),
    "attribute of any length": (attribute("width", "640", h5py.string_dtype()), ("attributes",)),
    "attribute of texts of any length": (many_times_one_text, ("attributes",)),
    "attribute of lists": (lists, ("attributes",)),
    "attribute of nothing": (attribute("width", h5py.Empty("i8")), ("attributes",)),
    "attribute of a record": (attribute("width", np.zeros(2, FLAWED)), ("attributes",)),
    "attribute of texts": (attribute("width", np.array([b"a", b"b"])), ("attributes",)),
    "attribute of arrays": (attribute("width", np.zeros((), "3i4"), np.dtype("3i4")), ()),
    "attribute of 2 MiB": (attribute("width", np.zeros(1 << 18)), ("attributes",)),
    "attribute not UTF-8": (attribute("width", np.bytes_(b"\xff")), ("attributes",)),
    "attribute to steer a terminal": (attribute("width", np.bytes_(b"\x1b[2J")), ("attributes",)),
    "attribute whose name steers one": (attribute("\x1b[2J", 1), ("attributes",)),
    "kind a number": (attribute("kind", 7), ("identity", "verify")),
    "clip a list": (attribute("clip", np.arange(3)), ("identity", "verify")),
    "clip another": (attribute("clip", np.bytes_(b"other")), ("verify",)),
    "schema text": (attribute("schema", np.bytes_(b"3")), ("identity", "verify")),
    "fingerprint missing": (lambda file, _: file.attrs.pop("fingerprint"), ("identity", "verify")),
    "tools no JSON": (attribute("tools", np.bytes_(b"{")), ("identity",)),
    "tools a list": (attribute("tools", np.bytes_(b"[]")), ("identity",)),
    "tools numbers": (attribute("tools", np.bytes_(b'{"a":1}')), ("identity",)),
    "tools deep": (attribute("tools", np.bytes_(b"[" * 60_000)), ("identity",)),
    "tools deep objects": (attribute("tools", np.bytes_(b'{"a":' * 10_000)), ("identity",)),
    "tools to steer a terminal": (attribute("tools", np.bytes_(rb'{"a":"\u001b[2J"}')), ("identity",)),
    "tools of half a character": (attribute("tools", np.bytes_(rb'{"a":"\ud800"}')), ("identity",)),
    "tools a number": (attribute("tools", 3), ("identity",)),
    "tools of 100 MB": (attribute("tools", np.bytes_(b'{"a":"' + b"x" * 100_000_000 + b'"}')), ("identity",)),
    "nothing changed": (lambda *_: None, ("array",)),
}  # fmt: skip


def hostile(path: Path, outside: Path, change: Change) -> None:
    write_frames_file(path)
    values = trailer_values(path)
    os.truncate(path, path.stat().st_size - TRAILER_BYTES)
    with h5py.File(path, "r+", libver=("v110", "v110")) as file:
        change(file, outside)
    seal(path, path.read_bytes(), values | {"size": None, "sha256": None})


def uses(path: Path) -> Iterator[tuple[str, Callable[[], Any]]]:
    def decode() -> None:
        reader = ImageReader()
        reader.decode(path, "frames", 0, reader.count(path, "frames") - 1, grey=False)

    def of(read: Callable[[ClipFile], Any]) -> Callable[[], Any]:
        def use() -> None:
            with ClipFile(path) as file:
                read(file)

        return use

    yield "decode", decode
    yield "first", lambda: ImageReader().decode(path, "frames", 0, 0, grey=False)
    yield "table", of(lambda file: file.images("frames"))
    yield "shape", of(lambda file: file.shape("x"))
    yield "read_frames", lambda: read_frames(path)
    yield "array", of(lambda file: file.array("x"))
    yield "member", of(lambda file: file.array("group/data"))
    yield "names", of(ClipFile.names)
    yield "attributes", of(lambda file: file.attributes)
    yield "identity", of(lambda file: (file.schema, file.kind, file.clip, file.fingerprint, file.tools))
    yield "verify", lambda: verify_clip_file(path)
    yield "difference", lambda: first_difference(path, path)


NAMES = tuple(name for name, _ in uses(Path()))


@contextmanager
def not_opened(path: Path) -> Iterator[None]:
    """Ask the system whether anybody opens a file meanwhile."""
    libc = ctypes.CDLL(None, use_errno=True)
    watch = libc.inotify_init1(os.O_NONBLOCK)
    assert watch >= 0
    try:
        assert libc.inotify_add_watch(watch, os.fsencode(path), 0x20) >= 0  # IN_OPEN
        yield
        try:
            opened = os.read(watch, 1)
        except BlockingIOError:
            return
        except OSError:  # there is an event, and it does not fit in one byte
            opened = b"1"
        assert not opened, f"{path} was opened"
    finally:
        os.close(watch)


def _all_uses(root: Path) -> Iterator[tuple[str, Callable[[], bool]]]:
    outside = root / "outside.h5"
    with h5py.File(outside, "w") as file:
        put(file, "data", np.arange(8, dtype=np.uint8))
        images(file, [BLANK])
    path = root / "hostile.h5"

    def watched(use: Callable[[], Any]) -> bool:
        with not_opened(outside):  # nobody else has this file, while many read /etc/passwd
            use()
        return True

    for case, (change, _) in HOSTILE.items():
        path.unlink(missing_ok=True)
        hostile(path, outside, change)
        for name, use in uses(path):
            yield f"{case}: {name}", partial(watched, use)


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> dict[str, str]:
    return outcomes("tests.han_core.clipfile.test_hostile", tmp_path_factory.mktemp("hostile"))


def test_little_memory_is_taken(found):
    assert found["memory"] == FINE


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files_are_refused_or_do_no_harm(found, case):
    for name in NAMES:
        text = found.get(f"{case}: {name}", "did not run")
        allowed = (TOLD,) if name in HOSTILE[case][1] else (TOLD, FINE)
        assert text.startswith(allowed), f"{name}: {text}"
        assert text == FINE or "hostile.h5" in text


def test_the_watch_sees_a_file_that_is_opened(tmp_path):
    (tmp_path / "a").write_text("x")
    with pytest.raises(AssertionError, match="was opened"), not_opened(tmp_path / "a"):
        (tmp_path / "a").read_text()


@pytest.mark.parametrize("head", [two_headers(), b"\xff\xd8\xff\xe0\x00\x00", b"\xff\xd8" + b"\xff\xe0\x00\x02" * 5000])
def test_a_header_that_hides_its_size_is_no_image(head):
    assert image_size(head[:4096]) is None


@pytest.mark.parametrize("form", [".jpg", ".png"])
def test_an_image_larger_than_any_video_is_not_decoded(form):
    """Smaller than what OpenCV refuses by itself: it would take 800 MB for this one."""
    with pytest.raises(ClipFileError, match="claims 16384x16384 pixels"):
        decode_image(claiming(encoded_image((8, 8), form=form), 16384), cv2.IMREAD_COLOR)


def test_sizes_are_those_that_opencv_finds():
    for form in (".jpg", ".png"):
        assert image_size(encoded_image((30, 40, 3), form=form)) == (40, 30)


if __name__ == "__main__":
    report(_all_uses(Path(sys.argv[1])))
