"""Files of predictions: what is written is read back, and what is wrong is reported."""

import csv

import numpy as np
import pytest

from han_core.predictions import (
    PredictionsError,
    attention_file,
    probabilities_file,
    read_attention,
    read_left_out,
    read_predictions,
    write_attention,
    write_left_out,
    write_predictions,
)

CLASSES = ("left", "right, then up", "ünder")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_numbers_come_back_as_they_were(tmp_path, dtype):
    values = np.random.default_rng(0).dirichlet(np.ones(3), 50).astype(dtype)
    values[0] = [1e-30, 1 / 3, 2 / 3]
    clips = [f"clip {n}, #;é" for n in range(50)]
    path = probabilities_file(tmp_path, "han")
    write_predictions(path, clips, CLASSES, values)
    found = read_predictions(path, CLASSES)
    assert list(found) == clips
    np.testing.assert_array_equal(np.array(list(found.values())).astype(dtype), values)


def test_the_file_is_a_plain_table(tmp_path):
    write_predictions(tmp_path / "han.csv", ["a"], CLASSES, np.array([[0.5, 0.25, 0.25]]))
    with (tmp_path / "han.csv").open(encoding="utf-8", newline="") as file:
        assert list(csv.reader(file)) == [["clip", *CLASSES], ["a", "0.5", "0.25", "0.25"]]


def test_classes_in_another_order_are_put_in_the_datasets(tmp_path):
    write_predictions(tmp_path / "han.csv", ["a"], CLASSES[::-1], np.array([[0.1, 0.2, 0.7]]))
    np.testing.assert_array_equal(read_predictions(tmp_path / "han.csv", CLASSES)["a"], [0.7, 0.2, 0.1])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "run the stage that makes it"),
        ("", "is not a file of predictions"),
        ("clip,left,right\na,1,0\n", "its classes are not those"),
        ("clip,left,left,right\na,1,0,0\n", "its classes are not those"),
        ("clip,left,ünder,up\na,1,0\n", "line 2 does not hold a number"),
        ("clip,left,ünder,up\na,1,0,0,0\n", "line 2 does not hold a number"),
        ("clip,left,ünder,up\na,1,0,nan\n", "line 2 does not hold a number"),
        ("clip,left,ünder,up\na,1,0,0\na,1,0,0\n", "line 3: clip a occurs twice"),
        (b"clip,left,\xff,up\n", "is not a file of predictions"),
    ],
)
def test_what_is_wrong_is_told_with_the_file_and_the_line(tmp_path, text, words):
    path = tmp_path / "han.csv"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(PredictionsError, match=words) as error:
        read_predictions(path, ("left", "up", "ünder"))
    assert str(path) in str(error.value)


def test_a_clip_without_a_probability_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="leave out"):
        write_predictions(tmp_path / "han.csv", ["a"], CLASSES, np.array([[0.5, np.nan, 0.5]]))
    with pytest.raises(ValueError, match="2 clips and 3 classes"):
        write_predictions(tmp_path / "han.csv", ["a", "b"], CLASSES, np.ones((1, 3)))


def test_attention_comes_back_by_clip(tmp_path):
    maps = np.random.default_rng(0).random((2, 3, 9)).astype(np.float32)
    frames = np.array([[0, 2, 4], [0, 5, 9]])
    path = attention_file(tmp_path, "han")
    write_attention(path, ["a", "b"], maps, frames)
    found = read_attention(path)
    np.testing.assert_array_equal(found.maps["b"], maps[1])
    np.testing.assert_array_equal(found.frames["a"], frames[0])
    first = path.read_bytes()
    write_attention(path, ["a", "b"], maps, frames)
    assert path.read_bytes() == first
    path.write_bytes(first[:-9])
    with pytest.raises(PredictionsError, match="cannot be read as attention maps"):
        read_attention(path)


def test_rows_that_were_left_out_are_named_with_the_reason(tmp_path):
    assert read_left_out(tmp_path) == {}
    write_left_out(tmp_path, {})
    assert not list(tmp_path.iterdir())
    write_left_out(tmp_path / "new", {"spatial_net": "its last layer is random, so"})
    assert read_left_out(tmp_path / "new") == {"spatial_net": "its last layer is random, so"}
