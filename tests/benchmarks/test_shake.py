"""Clips filmed again: the same way every time, no edge in sight, as far as a condition says."""

import cv2
import numpy as np
import pytest
import yaml

from benchmarks.shake import (
    CONDITIONS,
    MARGIN,
    Take,
    _condition,
    filmed,
    params_of,
    right_clips,
    train_nets,
    write_lists,
)
from benchmarks.short_nets import right_of_nets
from han_core.clips import Clip, ClipTable, write_clips
from han_core.predictions import write_left_out, write_predictions
from pipeline.params import load_params

COUNT, HEIGHT, WIDTH = 40, 128, 160


@pytest.fixture(scope="module")
def frames():
    coarse = np.random.default_rng(0).integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3), np.uint8)
    return [cv2.resize(coarse, (WIDTH, HEIGHT))] * COUNT


def taken(frames, name, **take):
    return np.stack(list(filmed(frames, Take(**take), name)))


def shifts(pictures, still):
    """(n, 2) how far the middle of the plain picture lies from its place in each picture, whole pixels."""
    top, left = still.shape[0] // 4, still.shape[1] // 4
    middle = still[top : 3 * top, left : 3 * left]
    found = [cv2.minMaxLoc(cv2.matchTemplate(picture, middle, cv2.TM_CCOEFF_NORMED))[3] for picture in pictures]
    return np.array(found) - [left, top]


def test_the_plain_condition_only_cuts_the_margin_off(frames):
    plain = taken(frames, "a")
    assert (plain == frames[0][MARGIN:-MARGIN, MARGIN:-MARGIN]).all()
    assert CONDITIONS["plain"] == Take()


def test_a_clip_is_filmed_the_same_way_every_time_and_another_in_another(frames):
    one = taken(frames, "a", shake=2)
    assert (one == taken(frames, "a", shake=2)).all()
    assert (one != taken(frames, "b", shake=2)).any()


@pytest.mark.parametrize("strength", [1, 4])
def test_a_shake_is_as_strong_as_it_says(frames, strength):
    plain = taken(frames, "a")[0]
    found = np.concatenate([shifts(taken(frames, name, shake=strength), plain) for name in "abcd"])
    np.testing.assert_allclose(np.sqrt((found**2).mean(axis=0)), strength, rtol=0.25)


def test_a_pan_goes_at_its_speed_and_turns_round_within_the_margin(frames):
    found = shifts(taken(frames, "a", pan=2), taken(frames, "a")[0])[:, 0]
    assert np.median(np.abs(np.diff(found))) == 2
    assert np.abs(found).max() < MARGIN / 2 + 1


def test_another_crop_stands_still_and_things_move(frames):
    cropped = taken(frames, "a", crop=16)
    assert (cropped == cropped[0]).all()
    assert (cropped[0] != taken(frames, "a")[0]).mean() > 0.5
    things = taken(frames, "a", things=3) != taken(frames, "a")
    assert 0 < things.mean() < 0.2
    assert (things[0] != things[-1]).any()


def test_clips_of_other_sequences_are_learnt_in_one_condition_and_those_of_the_sequence_are_tested_in_all(
    tmp_path,
):
    (tmp_path / "videos/push").mkdir(parents=True)
    names = [f"{clip}-{condition}" for clip in ("0_1_5", "1_2_5") for condition in ("plain", "shake_2", "pan_2")]
    for name in names:
        (tmp_path / f"videos/push/{name}.avi").touch()
    write_lists(tmp_path / "videos", tmp_path / "lists", ["plain", "shake 2"])
    train, test = ((tmp_path / f"lists/{role}list01.txt").read_text().split() for role in ("train", "test"))
    assert train == ["push/1_2_5-plain.avi"]
    assert test == ["push/0_1_5-plain.avi", "push/0_1_5-shake_2.avi"]
    write_lists(tmp_path / "videos", tmp_path / "shaken", ["shake 2"], "shake 2")
    train, test = ((tmp_path / f"shaken/{role}list01.txt").read_text().split() for role in ("train", "test"))
    assert (train, test) == (["push/1_2_5-shake_2.avi"], ["push/0_1_5-shake_2.avi"])


def test_clips_that_are_right_are_counted_by_condition_in_the_mean_over_the_seeds(tmp_path):
    lines = ["model,split,seed,clip,class,predicted,probability"]
    lines += ["han,1,1,0_1_5-plain,push,push,1", "han,1,2,0_1_5-plain,push,hug,1", "han,1,1,0_1_5-pan_2,push,,"]
    lines += ["idt,1,,0_1_5-plain,push,push,1"]
    (tmp_path / "predictions.csv").write_text("\n".join(lines) + "\n")
    found = right_clips(tmp_path / "predictions.csv")
    assert found == {"han": {"plain": 0.5, "pan 2": 0.0}, "idt": {"plain": 1.0}}


def test_what_nets_got_right_is_counted_by_condition_over_all_splits(tmp_path):
    names = ["0_1_0-plain", "0_1_0-shake_2", "1_2_0-plain"]
    roles = [{1: "test", 2: "train"}, {1: "test", 2: ""}, {1: "train", 2: "test"}]
    clips = [Clip(name, f"{name}.avi", "push", 1, name, role) for name, role in zip(names, roles, strict=True)]
    clips.append(Clip("9_9_9-plain", "9.avi", "hug", 0, "9", {1: "train", 2: "train"}))
    write_clips(ClipTable(tuple(clips), ("hug", "push"), (1, 2)), tmp_path / "clips.csv")
    for split, of_split, right in ((1, names[:2], [0.9, 0.4]), (2, names[2:], [0.8])):
        folder = tmp_path / f"predictions/two_stream-{split}"
        folder.mkdir(parents=True)
        keys = [f"push/{name}" for name in of_split]
        write_predictions(folder / "two_stream.csv", keys, ["hug", "push"], np.array([[1 - p, p] for p in right]))
        write_left_out(folder, {"temporal_net": "it has no net"})
    assert right_of_nets(tmp_path, _condition) == {"two_stream": {"plain": 2, "shake 2": 0}}
    assert right_of_nets(tmp_path) == {"two_stream": {"": 2}}


def test_params_of_nets_that_are_trained_are_sound(tmp_path):
    for name in ("videos", "lists", "weights"):
        (tmp_path / name).mkdir()
    params = params_of(tmp_path, tmp_path / "videos", tmp_path / "lists", "homography-still0.5", 2)
    train_nets(params)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    read = load_params(tmp_path / "params.yaml")
    assert (read.finetune.temporal.iterations, read.scores.enabled, read.fisher.splits) == (200, True, ())
