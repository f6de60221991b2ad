"""Codebooks: what they are fitted to, what they encode, and files that are refused in plain words."""

import json

import numpy as np
import pytest
import torch

from han_core.baselines.fisher.codebook import (
    Codebook,
    codebook_identity,
    fit_codebook,
    read_codebook,
    write_codebook,
)
from han_core.baselines.fisher.sampling import collect
from han_core.baselines.fisher.stored import CodebookError
from han_core.baselines.fisher.vector import fisher_vector, improved, statistics
from han_core.errors import HanError
from han_core.tensorfile.file import read_tensors, write_tensors
from tests.flips import check_told

SIZES = {"mbhx": 8, "mbhy": 8, "trajectory": 5}


def some_samples(count: int = 600, seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {
        name: (random.standard_normal((count, size)) @ random.standard_normal((size, size))).astype(np.float32)
        for name, size in SIZES.items()
    }


@pytest.fixture(scope="module")
def codebook() -> Codebook:
    return fit_codebook(some_samples(), gaussians=3, seed=1, iterations=5)


def bytes_of(codebook: Codebook, tmp_path) -> bytes:
    write_codebook(tmp_path / "c", codebook, {"split": "1"})
    return (tmp_path / "c").read_bytes()


def test_each_channel_is_halved_and_has_a_vector_of_its_length(codebook):
    assert list(codebook.channels) == list(SIZES)
    for name, size in SIZES.items():
        vector = codebook.encode(name, some_samples(50, seed=3)[name])
        assert vector.shape == (2 * 3 * (size // 2),) == (codebook.channels[name].length,)
        assert vector.dtype == np.float32
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)


def test_it_encodes_with_the_channels_own_projection_and_mixture(codebook):
    descriptors = some_samples(70, seed=3)["mbhx"]
    parts = codebook.channels["mbhx"]
    mean, components = (values.astype(np.float64) for values in (parts.projection.mean, parts.projection.components))
    reduced = ((descriptors - mean) @ components.T).astype(np.float32)
    expected = improved(fisher_vector(statistics(reduced, parts.mixture), parts.mixture))
    np.testing.assert_allclose(codebook.encode("mbhx", descriptors), expected, atol=1e-4)


def test_channels_of_one_size_do_not_share_a_codebook(codebook):
    """One pipeline round the original encodes its fifth channel with the fourth's means."""
    samples = some_samples(4000, seed=0)  # the rows of the codebook's own sample come first
    own = codebook.encode("mbhx", samples["mbhx"])
    assert own @ codebook.encode("mbhy", samples["mbhx"]) < 0.9
    for name in SIZES:
        one = fit_codebook({name: some_samples()[name]}, gaussians=3, seed=1, iterations=5)
        np.testing.assert_array_equal(codebook.encode(name, samples[name]), one.encode(name, samples[name]))


def test_no_descriptors_are_encoded_as_0(codebook):
    vector = codebook.encode("trajectory", np.empty((0, 5), np.float32))
    assert vector.shape == (2 * 3 * 2,)
    assert not vector.any()


def test_dimensions_and_whitening_can_be_asked_for():
    found = fit_codebook({"map": some_samples()["mbhx"]}, gaussians=2, seed=1, dimensions=6, whiten=True)
    reduced = found.channels["map"].projection(some_samples()["mbhx"])
    assert reduced.shape[1] == 6
    np.testing.assert_allclose(reduced.std(0), 1, atol=1e-3)


def test_seed_and_threads(tmp_path):
    def made(**how) -> bytes:
        return bytes_of(fit_codebook(some_samples(), gaussians=3, iterations=5, **how), tmp_path)

    assert made(seed=1) == made(seed=1, threads=3)
    assert made(seed=1) != made(seed=2)


def test_what_happens_is_told():
    seen = []
    fit_codebook(some_samples(), gaussians=3, seed=1, iterations=2, on_iteration=lambda *what: seen.append(what))
    assert [(channel, iteration) for channel, iteration, _ in seen] == [(c, i) for c in SIZES for i in (1, 2)]


def test_no_test_clip_reaches_a_codebook(tmp_path):
    random = np.random.default_rng(0)
    clips = {name: random.random((100, 6)).astype(np.float32) for name in ("train1", "train2", "test1")}

    def made() -> bytes:
        counts = {name: len(values) for name, values in clips.items() if name.startswith("train")}
        sample = collect(counts, 150, lambda name, which: {"hog": clips[name][which]}, seed=1)
        return bytes_of(fit_codebook(sample, gaussians=2, seed=1), tmp_path)

    before = made()
    clips["test1"] = clips["test1"][:50] + 1
    assert made() == before
    clips["train2"] = clips["train2"] + 1
    assert made() != before


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        ({}, "no training clip has a descriptor"),
        ({"hog": np.empty((0, 8), np.float32)}, "channel hog: no training clip has a descriptor"),
        ({"hog": np.full((5, 8), np.nan, np.float32)}, "channel hog: .*not finite"),
    ],
)
def test_samples_that_no_codebook_can_be_fitted_to(samples, words):
    with pytest.raises(CodebookError, match=words):
        fit_codebook(samples, gaussians=2, seed=1)
    assert issubclass(CodebookError, HanError)


def test_too_many_dimensions_are_told():
    with pytest.raises(CodebookError, match="channel mbhx: 8 dimensions cannot be reduced to 64"):
        fit_codebook(some_samples(), gaussians=2, seed=1, dimensions=64)


def test_a_wrong_channel_or_size_is_told(codebook):
    with pytest.raises(ValueError, match="no channel hog in a codebook of mbhx, mbhy, trajectory"):
        codebook.encode("hog", np.zeros((3, 8)))
    with pytest.raises(ValueError, match=r"shape \(3, 7\)"):
        codebook.encode("mbhx", np.zeros((3, 7)))


def test_it_is_read_as_it_was_written(codebook, tmp_path):
    write_codebook(tmp_path / "c", codebook, {"split": "1"})
    found, metadata = read_codebook(tmp_path / "c")
    assert metadata["split"] == "1"
    assert list(found.channels) == list(codebook.channels)
    for name in SIZES:
        descriptors = some_samples(40, seed=5)[name]
        np.testing.assert_array_equal(found.encode(name, descriptors), codebook.encode(name, descriptors))


def test_its_identity_is_that_of_its_content(codebook, tmp_path):
    def identity(codebook, name) -> str:
        write_codebook(tmp_path / name, codebook, {})
        return codebook_identity(read_codebook(tmp_path / name)[1])

    other = fit_codebook(some_samples(seed=2), gaussians=3, seed=1, iterations=5)
    assert identity(codebook, "a") == identity(codebook, "b") != identity(other, "c")


def test_every_flipped_bit_is_told_or_changes_nothing(codebook, tmp_path):
    path = tmp_path / "c"
    written = bytes_of(codebook, tmp_path)
    again = tmp_path / "again"

    def same(found) -> bool:
        write_codebook(again, found[0], {"split": found[1]["split"]})
        return again.read_bytes() == written

    assert check_told(path, lambda: read_codebook(path), CodebookError, same, count=300) > 0.9


def changed(name: str, change):
    def made(tensors, metadata):
        return tensors | {name: change(tensors[name])}, metadata

    return made


def said(**entries):
    return lambda tensors, metadata: (tensors, metadata | entries)


def with_value(value: float):
    def change(tensor):
        tensor = tensor.clone()
        tensor.view(-1)[0] = value
        return tensor

    return change


@pytest.mark.parametrize(
    ("hostile", "words"),
    [
        (changed("mbhx.variances", with_value(0.0)), "mbhx.variances are not all positive"),
        (changed("mbhx.variances", with_value(-1.0)), "mbhx.variances are not all positive"),
        (changed("mbhx.variances", with_value(1e-45)), "mbhx.variances are not all positive"),
        (changed("mbhx.variances", with_value(float("nan"))), "mbhx.variances holds numbers that are not finite"),
        (changed("mbhx.means", with_value(float("inf"))), "mbhx.means holds numbers that are not finite"),
        (changed("mbhx.means", with_value(1e38)), "mbhx.means are out of all proportion"),
        (changed("mbhx.means", lambda t: t[:2].clone()), "mbhx.means is torch.float32 of shape"),
        (changed("mbhx.means", lambda t: t[:, :2].clone()), "mbhx.means is torch.float32 of shape"),
        (changed("mbhx.means", lambda t: t.double()), "mbhx.means is torch.float64"),
        (changed("mbhx.means", lambda t: t.bfloat16()), "mbhx.means is torch.bfloat16"),
        (changed("mbhx.weights", with_value(0.0)), "mbhx.weights are not positive numbers of sum 1"),
        (
            changed("mbhx.weights", lambda t: torch.tensor([0, 0.5, 0.5])),
            "mbhx.weights are not positive numbers of sum 1",
        ),
        (changed("mbhx.weights", with_value(5.0)), "mbhx.weights are not positive numbers of sum 1"),
        (changed("mbhx.weights", lambda t: t[:0].clone()), "mbhx.weights is torch.float32 of shape"),
        (changed("mbhx.components", lambda t: t[:, :7].clone()), "mbhx.components is torch.float32 of shape"),
        (changed("mbhx.components", lambda t: torch.ones(9, 8)), "mbhx.components project 8 dimensions to more"),
        (changed("mbhx.components", lambda t: t[:0].clone()), "mbhx.components is torch.float32 of shape"),
        (changed("mbhx.mean", lambda t: torch.tensor(1.0)), "mbhx.mean is torch.float32 of shape"),
        (lambda t, m: ({k: v for k, v in t.items() if k != "mbhy.means"}, m), "lacks mbhy.means"),
        (lambda t, m: (t | {"more": torch.ones(2)}, m), "has more, which is no part of it"),
        (lambda t, m: (t, {k: v for k, v in m.items() if k != "codebook"}), "is not a codebook"),
        (said(codebook="[]"), "does not describe a codebook of this version"),
        (said(codebook="[" * 100_000), "does not describe a codebook of this version"),
        (said(codebook='{"schema": 2}'), "does not describe a codebook of this version"),
        (said(codebook='{"schema": 1}'), "does not name its channels"),
        (said(codebook='{"schema": 1, "channels": []}'), "does not name its channels"),
        (said(codebook='{"schema": 1, "channels": [1]}'), "does not name its channels"),
        (said(codebook=json.dumps({"schema": 1, "channels": ["mbhx", "mbhx"]})), "names a channel twice"),
        (said(codebook=json.dumps({"schema": 1, "channels": ["mbhx", "mbhy"]})), "has trajectory"),
    ],
)
def test_hostile_files_are_told_by_name(codebook, tmp_path, hostile, words):
    path = tmp_path / "c"
    write_codebook(path, codebook, {})
    write_tensors(path, *hostile(*read_tensors(path)))
    with pytest.raises(CodebookError, match=words) as raised:
        read_codebook(path)
    assert str(path) in str(raised.value)


@pytest.mark.parametrize("content", [None, b"", b"no codebook at all"])
def test_other_files_are_told_by_name(tmp_path, content):
    if content is not None:
        (tmp_path / "c").write_bytes(content)
    with pytest.raises(CodebookError, match="cannot be used as a codebook") as raised:
        read_codebook(tmp_path / "c")
    assert str(tmp_path / "c") in str(raised.value)
