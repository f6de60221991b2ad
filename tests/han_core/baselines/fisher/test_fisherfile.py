"""Fisher vectors of one clip: they come back, and what cannot be one is refused."""

import os

import numpy as np
import pytest

from han_core.baselines.fisher.fisherfile import read_half, read_vector, write_vectors
from han_core.clipfile.reader import ClipFile
from han_core.clipfile.trailer import ClipFileError
from han_core.clipfile.writer import ClipFileWriter
from han_core.errors import HanError
from tests.flips import check_told

IDENTITY = {"clip": "c", "fingerprint": "f" * 64}


def some_vectors() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {name: random.standard_normal(n).astype(np.float32) for name, n in (("hog", 96), ("trajectory", 30))}


def test_vectors_come_back_in_float16s_precision(tmp_path):
    vectors = some_vectors() | {"empty_clip": np.zeros(8, np.float32)}
    write_vectors(tmp_path / "a.h5", **IDENTITY, vectors=vectors, attributes={"trajectories": 17})
    for name, vector in vectors.items():
        found = read_vector(tmp_path / "a.h5", name)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, vector.astype(np.float16))
        assert read_half(tmp_path / "a.h5", name).dtype == np.float16
    with ClipFile(tmp_path / "a.h5") as file:
        assert (file.kind, file.clip, file.attributes) == ("fisher", "c", {"trajectories": 17})


def test_the_same_vectors_give_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        write_vectors(tmp_path / name, **IDENTITY, vectors=some_vectors(), attributes={})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(
    "vector", [np.array([np.nan]), np.array([np.inf]), np.array([1e6]), np.zeros((2, 3)), np.zeros(0), np.array(1.0)]
)
def test_what_is_no_vector_is_not_written(tmp_path, vector):
    with pytest.raises(HanError, match="clip c: hog: not a vector of finite numbers"):
        write_vectors(tmp_path / "a.h5", **IDENTITY, vectors={"hog": vector}, attributes={})


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros(5, np.float32), "hog is not a Fisher vector"),
        (np.zeros((5, 2), np.float16), "hog is not a Fisher vector"),
        (np.zeros(0, np.float16), "hog is not a Fisher vector"),
        (np.full(5, np.nan, np.float16), "hog holds numbers that are not finite"),
        (np.full(5, np.inf, np.float16), "hog holds numbers that are not finite"),
    ],
)
def test_what_cannot_be_a_vector_is_refused(tmp_path, array, words):
    path = tmp_path / "a.h5"
    with ClipFileWriter(path, kind="fisher", **IDENTITY) as file:
        file.array("hog", array)
    with pytest.raises(ClipFileError, match=words) as error:
        read_vector(path, "hog")
    assert str(path) in str(error.value)


def test_another_kind_and_a_missing_channel_are_told(tmp_path):
    with ClipFileWriter(tmp_path / "a.h5", kind="scores", **IDENTITY) as file:
        file.array("hog", np.zeros(5, np.float16))
    with pytest.raises(ClipFileError, match="kind scores and holds no Fisher vectors"):
        read_vector(tmp_path / "a.h5", "hog")
    write_vectors(tmp_path / "b.h5", **IDENTITY, vectors=some_vectors(), attributes={})
    with pytest.raises(ClipFileError, match="holds no hof; its arrays: hog, trajectory"):
        read_vector(tmp_path / "b.h5", "hof")
    with pytest.raises(ClipFileError, match="cannot be opened"):
        read_vector(tmp_path / "nowhere.h5", "hof")


def test_every_flipped_bit_is_told_or_changes_nothing(tmp_path):
    path = tmp_path / "a.h5"
    write_vectors(path, **IDENTITY, vectors=some_vectors(), attributes={})
    wanted = read_half(path, "hog")
    check_told(path, lambda: read_half(path, "hog"), ClipFileError, lambda v: np.array_equal(v, wanted), count=400)
    # Where the array itself lies every bit counts.
    place = path.read_bytes().find(b"\x28\xb5\x2f\xfd")
    assert place > 0
    assert os.path.getsize(path) > place + 100
    told = check_told(
        path, lambda: read_half(path, "hog"), ClipFileError, lambda v: np.array_equal(v, wanted), "c",
        within=range(place, place + 60),
    )  # fmt: skip
    assert told > 0.9
