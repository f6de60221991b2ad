"""Flips in a file of each kind that is made in no time; nets and HANs have their own tests."""

import random

import numpy as np
import pytest

from benchmarks.flips import Kind, flip, use_attention, use_checkpoint, use_frames, use_scores, write_checkpoint
from han_core.baselines.two_stream.scorefile import write_scores
from han_core.images.frames import write_frames
from han_core.predictions import read_predictions, write_attention, write_predictions
from pipeline.execution.ledger import Failure, read_failures, write_failures

FLIPS = 40


@pytest.fixture
def rng():
    return np.random.default_rng(1)


def frames(folder, rng):
    path = folder / "frames" / "a" / "clip.h5"
    path.parent.mkdir(parents=True)
    write_frames(rng.integers(0, 255, (3, 16, 24, 3), np.uint8), path, clip="clip", fingerprint="0" * 64, quality=90)
    return Kind((path,), use_frames)


def scores(folder, rng):
    path = folder / "scores" / "a" / "clip.h5"
    path.parent.mkdir(parents=True)
    values = rng.random((2, 3), np.float32)
    numbers = np.arange(2, dtype=np.int32)
    write_scores(path, clip="clip", fingerprint="0" * 64, frames=numbers, probabilities=values, attributes={})
    return Kind((path,), use_scores)


def attention(folder, rng):
    path = folder / "han-1" / "han.attention.safetensors"
    write_attention(path, ["a", "b"], rng.random((2, 3, 4), np.float32), np.zeros((2, 3), np.int32))
    return Kind((path,), use_attention)


def predictions(folder, rng):
    path = folder / "han-1" / "han.csv"
    write_predictions(path, ["a", "b"], ["kick", "wave"], rng.random((2, 2)))
    return Kind((path,), lambda path: repr(sorted(read_predictions(path, ["kick", "wave"]).items())))


def ledger(folder, rng):
    write_failures(folder / "frames", [Failure("kick", "a", "cannot be decoded")])
    return Kind(
        (folder / "frames" / "failures.csv",), lambda path: repr(read_failures(path.parent)) + "|", "failures.csv"
    )


def checkpoint(folder, rng):
    path = folder / "checkpoints" / "run.safetensors"
    write_checkpoint(path)
    return Kind((path,), use_checkpoint)


@pytest.mark.parametrize("make", [frames, scores, attention, predictions, ledger, checkpoint])
def test_every_flip_is_told_or_has_no_effect(make, tmp_path, rng):
    counts, words = flip(make(tmp_path / "made", rng), tmp_path / "copies", FLIPS, random.Random(1))
    assert not counts["silent"] + counts["traceback"], words
    assert counts["told"] + counts["no effect"] == FLIPS
    assert counts["told"]  # of a small clip file most bits are padding
    assert not counts["missed"]


def test_a_reader_that_does_not_look_is_found_out(tmp_path, rng):
    (path,) = frames(tmp_path / "made", rng).files
    counts, _ = flip(Kind((path,), lambda path: path.read_bytes().hex()), tmp_path / "copies", 5, random.Random(1))
    assert counts["silent"] == 5
    assert counts["verified"] == 5


def test_an_error_that_is_not_plain_is_found_out(tmp_path, rng):
    (path,) = frames(tmp_path / "made", rng).files
    whole = path.read_bytes()

    def use(path):
        if path.read_bytes() != whole:
            raise KeyError("x")
        return "whole"

    counts, words = flip(Kind((path,), use), tmp_path / "copies", 5, random.Random(1))
    assert counts["traceback"] == 5
    assert "KeyError" in words["traceback"][0]
