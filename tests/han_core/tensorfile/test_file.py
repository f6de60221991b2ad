"""Sealed safetensors files: they hold what was written, or are refused."""

import json
import os
import struct

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from han_core.tensorfile import file as module
from han_core.tensorfile.file import (
    LARGEST_HEADER,
    TensorFileError,
    read_arrays,
    read_metadata,
    read_tensors,
    write_tensors,
)
from han_core.tensorfile.seal import DTYPES
from tests.flips import check_told

METADATA = {"what": 'é, \n"numbers"', "a": ""}


def some_tensors() -> dict[str, torch.Tensor]:
    return {
        "weights": torch.arange(6, dtype=torch.float32).reshape(2, 3),
        "ü": torch.tensor([1, 2, 3], dtype=torch.uint8),
        "half": torch.tensor([0.5, -2], dtype=torch.bfloat16),
        "scalar": torch.tensor(7),
        "none": torch.zeros(0, 4),
    }


def same(found: tuple[dict, dict]) -> bool:
    tensors, metadata = found
    wanted = some_tensors()
    return (
        tensors.keys() == wanted.keys()
        and all(
            value.dtype == wanted[name].dtype and torch.equal(value, wanted[name]) for name, value in tensors.items()
        )
        and {key: metadata[key] for key in METADATA} == METADATA
        and len(metadata) == len(METADATA) + 2
    )


@pytest.fixture
def path(tmp_path):
    write_tensors(tmp_path / "some.safetensors", some_tensors(), METADATA)
    return tmp_path / "some.safetensors"


def test_what_is_written_is_read_and_any_program_reads_it(path):
    assert same(read_tensors(path))
    assert same((load_file(path), read_metadata(path)))


@pytest.mark.parametrize("dtype", [getattr(torch, name) for name in DTYPES], ids=str)
def test_all_types_and_shapes_come_back(dtype, tmp_path):
    wanted = {"a": torch.ones(3, 1, 2).to(dtype), "b": torch.tensor(1).to(dtype), "c": torch.zeros(0, 2).to(dtype)}
    write_tensors(tmp_path / "f", wanted, {})
    found, _ = read_tensors(tmp_path / "f")
    for name, value in wanted.items():
        assert found[name].dtype == dtype
        assert torch.equal(found[name], value)


def test_types_that_the_format_lacks_are_not_written(tmp_path):
    with pytest.raises(ValueError, match=r"x: torch\.complex64 cannot be written"):
        write_tensors(tmp_path / "f", {"x": torch.zeros(1, dtype=torch.complex64)}, {})
    assert not list(tmp_path.iterdir())


def test_arrays_and_views_are_written_as_they_look(tmp_path):
    array = np.arange(6, dtype=np.int32).reshape(2, 3)
    array.flags.writeable = False
    image = torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last)
    write_tensors(tmp_path / "f", {"array": array, "turned": torch.arange(6).reshape(2, 3).T, "image": image}, {})
    found, _ = read_tensors(tmp_path / "f")
    np.testing.assert_array_equal(found["array"].numpy(), array)
    assert found["turned"].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert torch.equal(found["image"], image)


def test_the_same_content_gives_the_same_bytes_whatever_the_order(path, tmp_path):
    turned = dict(reversed(some_tensors().items()))
    write_tensors(tmp_path / "again", turned, dict(reversed(METADATA.items())))
    assert (tmp_path / "again").read_bytes() == path.read_bytes()
    _, metadata = read_tensors(path)
    write_tensors(tmp_path / "sealed before", turned, metadata)
    assert (tmp_path / "sealed before").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("change", [{"scalar": torch.tensor(8)}, {"none": torch.zeros(4, 0)}, {"more": torch.zeros(0)}])
def test_another_content_has_another_identity(change, path, tmp_path):
    write_tensors(tmp_path / "other", some_tensors() | change, METADATA)
    assert read_metadata(tmp_path / "other")["sha256"] != read_metadata(path)["sha256"]


def test_a_file_of_the_name_is_replaced_and_its_other_names_keep_it(path, tmp_path):
    os.link(path, tmp_path / "linked")
    write_tensors(path, {}, {})
    assert same(read_tensors(tmp_path / "linked"))
    assert read_tensors(path)[0] == {}


def test_every_flipped_bit_is_told_or_changes_nothing(path):
    assert check_told(path, lambda: read_tensors(path), TensorFileError, same) > 0.95
    assert check_told(path, lambda: read_tensors(path, sealed=False), TensorFileError, same) > 0.95


def test_arrays_are_read_and_verified_as_tensors_are(tmp_path):
    wanted = {name: torch.ones(3, 1, 2).to(getattr(torch, name)).numpy() for name in DTYPES if name != "bfloat16"} | {
        "scalar": np.array(7),
        "none": np.zeros((0, 4), np.float32),
    }
    path = tmp_path / "f"
    write_tensors(path, wanted, METADATA)

    def as_written(found: tuple[dict, dict]) -> bool:
        arrays, metadata = found
        same_arrays = all(arrays[n].dtype == v.dtype and np.array_equal(arrays[n], v) for n, v in wanted.items())
        return arrays.keys() == wanted.keys() and same_arrays and metadata == read_tensors(path)[1]

    assert as_written(read_arrays(path))
    assert check_told(path, lambda: read_arrays(path), TensorFileError, as_written, count=500) > 0.95


def test_a_type_that_numpy_lacks_is_told(path):
    with pytest.raises(TensorFileError):
        read_arrays(path)


def test_metadata_alone_can_be_trusted(path):
    wanted = read_metadata(path)
    for sealed in (True, False):
        check_told(path, lambda s=sealed: read_metadata(path, sealed=s), TensorFileError, wanted.__eq__)


def test_a_file_cut_short_is_told(path):
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(TensorFileError, match="is not a safetensors file, or is damaged"):
            read_tensors(path)


def test_a_write_that_was_cut_off_leaves_no_seal(tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "metadata_digest", full)
    with pytest.raises(OSError, match="No space"):
        write_tensors(tmp_path / "f", some_tensors(), METADATA)
    monkeypatch.undo()
    assert [file.name for file in tmp_path.iterdir()] == ["f"]
    with pytest.raises(TensorFileError):
        read_tensors(tmp_path / "f", sealed=False)


def test_a_file_from_elsewhere_is_taken_only_where_that_is_said(tmp_path):
    save_file({"x": torch.ones(2)}, tmp_path / "f", {"format": "pt"})
    tensors, metadata = read_tensors(tmp_path / "f", sealed=False)
    assert (tensors["x"].tolist(), metadata) == ([1, 1], {"format": "pt"})
    assert read_metadata(tmp_path / "f", sealed=False) == {"format": "pt"}
    for read in (read_tensors, read_metadata):
        with pytest.raises(TensorFileError, match="carries no checksum") as raised:
            read(tmp_path / "f")
        assert raised.value.problem == "unsealed"


def header(entries: object, body: bytes = b"") -> bytes:
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text + body


def one(**changes: object) -> bytes:
    return header({"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} | changes}, b"\0" * 4)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80\x04cos\nsystem\n(S'touch pwned'\ntR.",
        struct.pack("<Q", 1 << 62) + b"{}",
        struct.pack("<Q", (1 << 64) - 1) + b"{}",
        struct.pack("<Q", 0),
        header([]),
        header({"__metadata__": {"x": 1}}),
        header({"__metadata__": []}),
        b"\x02" + b"\0" * 7 + b"\xff\xff",
        struct.pack("<Q", 200_000) + b"[" * 200_000,
        one(dtype="F33"),
        one(shape=[1 << 62, 8]),
        one(shape=[-1]),
        one(shape=[2]),
        one(shape=[[1]]),
        one(data_offsets=[4, 0]),
        one(data_offsets=[0, 1 << 62]),
        one(data_offsets=[1, 5]),
        header({n: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for n in "xy"}, b"\0" * 4),
    ],
    ids=str,
)  # fmt: skip
def test_what_is_no_such_file_is_refused(data, tmp_path):
    (tmp_path / "f").write_bytes(data)
    with pytest.raises(TensorFileError, match="is not a safetensors file, or is damaged") as raised:
        read_tensors(tmp_path / "f", sealed=False)
    assert raised.value.problem == "format"
    assert len(str(raised.value)) < 500


def test_a_header_of_absurd_length_is_not_read(tmp_path, monkeypatch):
    with (tmp_path / "f").open("wb") as file:
        file.write(struct.pack("<Q", LARGEST_HEADER + 8) + b"{")
        file.truncate(2 * LARGEST_HEADER)
    monkeypatch.setattr(module, "safe_open", None)
    with pytest.raises(TensorFileError, match=r"a header of 16,777,224 bytes in a file of 33,554,432"):
        read_metadata(tmp_path / "f")


def test_what_is_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name, words in (("nowhere", "cannot be read"), (".", "is not a file"), ("pipe", "is not a file")):
        with pytest.raises(TensorFileError, match=words) as raised:
            read_tensors(tmp_path / name)
        assert raised.value.problem == "unreadable"


@pytest.mark.gpu
def test_tensors_go_to_and_come_from_the_gpu(gpu, tmp_path):
    write_tensors(tmp_path / "f", {"x": torch.arange(3, device=gpu)}, {})
    found = read_tensors(tmp_path / "f", gpu)[0]["x"]
    assert (found.device.type, found.tolist()) == ("cuda", [0, 1, 2])
