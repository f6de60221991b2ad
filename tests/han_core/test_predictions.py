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
from han_core.tensorfile.file import write_tensors
from tests.flips import check_told

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
        lines = list(csv.reader(file))
    assert [line[:-1] for line in lines] == [["clip", *CLASSES], ["a", "0.5", "0.25", "0.25"]]
    assert lines[0][-1] == "crc32"


def test_the_file_of_another_program_needs_no_checksums(tmp_path):
    (tmp_path / "han.csv").write_text("clip,b,crc32\n1,0.25,0.75\n")
    np.testing.assert_array_equal(read_predictions(tmp_path / "han.csv", ("crc32", "b"))["1"], [0.75, 0.25])


def test_a_class_may_have_the_name_of_the_column(tmp_path):
    classes = ("a", "crc32")
    write_predictions(tmp_path / "han.csv", ["x"], classes, np.array([[0.25, 0.75]]))
    np.testing.assert_array_equal(read_predictions(tmp_path / "han.csv", classes)["x"], [0.25, 0.75])
    (tmp_path / "han.csv").write_text((tmp_path / "han.csv").read_text().replace("0.25", "0.26"))
    with pytest.raises(PredictionsError, match="line 2 is damaged"):
        read_predictions(tmp_path / "han.csv", classes)


@pytest.mark.parametrize("classes", [CLASSES, ("a", "crc32"), ("crc32",)])
def test_every_flipped_bit_is_told_or_changes_nothing(tmp_path, classes):
    path = tmp_path / "han.csv"
    clips = ["x/a", 'y/"b", é', "y/c"]
    values = np.random.default_rng(0).dirichlet(np.ones(len(classes)), 3)
    write_predictions(path, clips, classes, values)

    def same(found):
        return list(found) == clips and np.array_equal(np.array(list(found.values())), values)

    read = lambda: read_predictions(path, classes)  # noqa: E731
    assert check_told(path, read, PredictionsError, same, "run the stage that makes it again") > 0.95


def test_classes_in_another_order_are_put_in_the_datasets(tmp_path):
    write_predictions(tmp_path / "han.csv", ["a"], CLASSES[::-1], np.array([[0.1, 0.2, 0.7]]))
    np.testing.assert_array_equal(read_predictions(tmp_path / "han.csv", CLASSES)["a"], [0.7, 0.2, 0.1])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "run the stage that makes it"),
        ("", "is empty, .* so it is not a file of predictions"),
        ("\n", "is empty, .* so it is not a file of predictions"),
        ("clip,left,ünder,up,crc32\na,1,0,0\n", "line 2 is damaged: it has 4 fields, not 5"),
        ("clip,left,ünder,up,crc32\na,1,0,0,\n", "line 2 is damaged"),
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
    assert "run the stage that makes it" in str(error.value)


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


MAPS, FRAMES = np.ones((2, 3, 9), np.float32), np.zeros((2, 3), np.int32)


def test_every_flipped_bit_of_the_maps_is_told_or_changes_nothing(tmp_path):
    path = attention_file(tmp_path, "han")
    maps = np.random.default_rng(0).random((2, 3, 4)).astype(np.float32)
    frames = np.array([[0, 2, 4], [0, 5, 9]])
    write_attention(path, ["a", "é"], maps, frames)

    def same(found):
        return (
            list(found.maps) == list(found.frames) == ["a", "é"]
            and np.array_equal(np.array(list(found.maps.values())), maps)
            and np.array_equal(np.array(list(found.frames.values())), frames)
        )

    read = lambda: read_attention(path)  # noqa: E731
    assert check_told(path, read, PredictionsError, same, "run the stage that makes it again") > 0.95


@pytest.mark.parametrize(
    ("tensors", "clips", "words"),
    [
        ({"maps": MAPS}, '["a", "b"]', "frames"),
        ({"frames": FRAMES}, '["a", "b"]', "maps"),
        ({"maps": MAPS, "frames": FRAMES}, None, "clips"),
        ({"maps": MAPS, "frames": FRAMES}, '["a"]', "of 1 clips"),
        ({"maps": MAPS, "frames": FRAMES}, '["a", "a"]', "a clip is named twice"),
        ({"maps": MAPS, "frames": FRAMES}, '["a", 1]', "not a list of names"),
        ({"maps": MAPS, "frames": FRAMES}, '"ab"', "not a list of names"),
        ({"maps": MAPS, "frames": FRAMES}, '{"a": 1, "b": 2}', "not a list of names"),
        ({"maps": MAPS, "frames": FRAMES}, "{", "Expecting"),
        ({"maps": MAPS[0], "frames": FRAMES}, '["a", "b"]', "maps"),
        ({"maps": MAPS, "frames": FRAMES[:, :2]}, '["a", "b"]', "over frames"),
        ({"maps": MAPS, "frames": FRAMES.astype(np.int64)}, '["a", "b"]', "frames of int64"),
        ({"maps": MAPS.astype(np.float64), "frames": FRAMES}, '["a", "b"]', "maps of float64"),
        ({"maps": np.float32(1), "frames": np.int32(1)}, "[]", "maps"),
    ],
)
def test_maps_of_other_shapes_are_refused(tmp_path, tensors, clips, words):
    tensors = {name: np.asarray(value) for name, value in tensors.items()}
    write_tensors(tmp_path / "a", tensors, {} if clips is None else {"clips": clips})
    with pytest.raises(PredictionsError, match=rf"a: cannot be read as attention maps \(.*{words}") as raised:
        read_attention(tmp_path / "a")
    assert "run the stage that makes it again (`han cache verify --remove`" in str(raised.value)


def test_maps_that_could_not_be_read_are_not_written(tmp_path):
    for clips, maps, frames in ((["a"], MAPS, FRAMES), (["a", "a"], MAPS, FRAMES), (["a", "b"], MAPS[0], FRAMES)):
        with pytest.raises(ValueError, match=r"maps|twice"):
            write_attention(tmp_path / "a", clips, maps, frames)
    assert not list(tmp_path.iterdir())


def test_rows_that_were_left_out_are_named_with_the_reason(tmp_path):
    assert read_left_out(tmp_path) == {}
    write_left_out(tmp_path, {})
    assert not list(tmp_path.iterdir())
    write_left_out(tmp_path / "new", {"spatial_net": "its last layer is random, so"})
    assert read_left_out(tmp_path / "new") == {"spatial_net": "its last layer is random, so"}


def test_every_flipped_bit_of_the_reasons_is_told_or_changes_nothing(tmp_path):
    reasons = {"spatial_net": "its last layer is random", "temporal_net": "é, \n"}
    write_left_out(tmp_path, reasons)
    told = check_told(
        tmp_path / "left_out.csv", lambda: read_left_out(tmp_path), PredictionsError, reasons.__eq__, "run the stage"
    )
    assert told > 0.95
