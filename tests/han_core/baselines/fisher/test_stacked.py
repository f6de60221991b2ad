"""Stacked Fisher vectors: both layers against their parts done by hand, what they are fitted to, and their file."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from han_core.baselines.fisher.codebook import ChannelCodebook, fit_codebook
from han_core.baselines.fisher.kernel_svm import margins
from han_core.baselines.fisher.max_margin import fit_max_margin
from han_core.baselines.fisher.principal import principal_directions
from han_core.baselines.fisher.reduction import Projection
from han_core.baselines.fisher.row_store import RowStore
from han_core.baselines.fisher.stacked import (
    LocalFeatures,
    SampledSubvolumes,
    StackedModel,
    fit_compression,
    fit_second_layer,
)
from han_core.baselines.fisher.stacked_file import read_stacked, write_stacked
from han_core.baselines.fisher.stacked_params import StackedParams
from han_core.baselines.fisher.stored import CodebookError
from han_core.baselines.fisher.subvolumes import Positions, subvolumes
from han_core.baselines.fisher.vector import fisher_vector, improved, statistics
from han_core.tensorfile.file import read_tensors, write_tensors
from tests.flips import check_told
from tests.han_core.baselines.fisher.made_up import chosen, some_positions

PARAMS = StackedParams(
    local_dimensions=6, gaussians=4, reduced=5, second_gaussians=3, per_clip=3, epochs=3, batch=8, iterations=5
)
NAMES = [f"clip{i}" for i in range(8)]
LABELS = {name: i % 2 for i, name in enumerate(NAMES)}


def some_clip(name: str) -> LocalFeatures:
    """A few hundred trajectories with descriptors (n, 9) of two classes."""
    number = int(name.removeprefix("clip"))
    random = np.random.default_rng(number)
    descriptors = random.standard_normal((400, 9)) + 0.5 * (number % 2) * np.arange(9)
    return LocalFeatures(descriptors.astype(np.float32), some_positions(400, 90, seed=number))


def nothing() -> LocalFeatures:
    return LocalFeatures(np.empty((0, 9), np.float32), Positions(np.empty((0, 2), np.float32), np.empty(0, np.int64)))


@pytest.fixture(scope="module")
def local() -> ChannelCodebook:
    sample = np.concatenate([some_clip(name).descriptors for name in NAMES])
    return fit_codebook(
        {"local": sample}, gaussians=4, seed=1, dimensions=6, whiten=True, iterations=5
    ).channels["local"]  # fmt: skip


def fitted(local, tmp_path, *, read=some_clip, names=NAMES, params=PARAMS, labels=LABELS, threads=1) -> StackedModel:
    scratch = tmp_path / "scratch"
    with SampledSubvolumes(names, read, local, params, seed=1, scratch=scratch, threads=threads) as sampled:
        compression = fit_compression(sampled, labels, params, classes=2, seed=1)
        model = fit_second_layer(sampled, local, compression, params, seed=1)
    assert not scratch.exists()
    return model


@pytest.fixture(scope="module")
def model(local, tmp_path_factory) -> StackedModel:
    return fitted(local, tmp_path_factory.mktemp("stacked"))


def written(model, path) -> bytes:
    write_stacked(path, model, {"split": "1"})
    return path.read_bytes()


def test_both_layers_are_their_parts(model, local):
    clip = some_clip("clip3")
    reduced = local.projection(clip.descriptors)
    psi = []
    for subvolume in subvolumes(clip.positions, PARAMS):
        inside = reduced[chosen(clip.positions, subvolume, PARAMS)]
        phi = improved(fisher_vector(statistics(inside, local.mixture), local.mixture)).astype(np.float64)
        psi.append(model.compression.components @ phi)
    white = (np.array(psi) - model.whitening.mean) @ model.whitening.components.T.astype(np.float64)
    np.testing.assert_allclose(model.compressed(clip), white, atol=2e-2 * white.std())
    assert len(white) > 20
    found = model.encode(clip)
    expected = improved(fisher_vector(statistics(white.astype(np.float32), model.second), model.second))
    assert found.shape == (model.length,) == (2 * 3 * 5,)
    assert found @ expected > 0.999
    assert np.linalg.norm(found) == pytest.approx(1, abs=1e-5)


def test_sampled_subvolumes_are_some_of_each_clips(local, tmp_path):
    scratch = tmp_path / "scratch"
    with SampledSubvolumes(NAMES, some_clip, local, PARAMS, seed=1, scratch=scratch) as sampled:
        assert len(sampled.rows) == 3 * len(NAMES)
        assert sampled.clips.tolist() == [i for i in range(8) for _ in range(3)]
        stored = sampled.rows.rows(np.arange(3))
    clip = some_clip("clip0")
    reduced = local.projection(clip.descriptors)
    everything = [
        improved(fisher_vector(statistics(reduced[chosen(clip.positions, s, PARAMS)], local.mixture), local.mixture))
        for s in subvolumes(clip.positions, PARAMS)
    ]
    closest = np.abs(np.array(everything)[:, None] - stored).max(2).min(0)
    assert (closest < 5e-3).all()


def test_each_subvolume_has_its_clips_label(local, tmp_path):
    labels = dict(zip(NAMES, [0, 2, 1, 1, 0, 2, 2, 2], strict=True))
    how = {"class_penalty": 1e-4, "projection_penalty": 1e-4, "epochs": 3, "batch": 8, "rate": 1.0, "seed": 1}
    with SampledSubvolumes(NAMES, some_clip, local, PARAMS, seed=1, scratch=tmp_path / "s") as sampled:
        found = fit_compression(sampled, labels, PARAMS, classes=3, seed=1)
        start = principal_directions(sampled.rows, np.arange(24), 5, seed=1)
        own = np.repeat([0, 2, 1, 1, 0, 2, 2, 2], 3)
        expected = fit_max_margin(sampled.rows, np.arange(24), own, start, classes=3, **how)
    np.testing.assert_array_equal(found.components, expected.projection)
    assert not found.mean.any()


def test_what_is_learnt_from_is_white_in_the_second_layer(local, tmp_path):
    scratch = tmp_path / "scratch"
    with SampledSubvolumes(NAMES, some_clip, local, PARAMS, seed=1, scratch=scratch) as sampled:
        compression = fit_compression(sampled, LABELS, PARAMS, classes=2, seed=1)
        model = fit_second_layer(sampled, local, compression, PARAMS, seed=1)
        psi = model.whitening(compression(sampled.rows.rows(np.arange(24))))
    np.testing.assert_allclose(np.cov(psi.T.astype(np.float64), bias=True), np.eye(5), atol=1e-2)


class FewClips:
    """Subvolumes of 24 clips, of two classes and each with something of its own; and those of as many other clips."""

    def __init__(self, seed: int) -> None:
        random = np.random.default_rng(seed)
        self.names = [f"clip{i}" for i in range(24)]
        self.labels = np.arange(24) % 2
        self.clips = np.repeat(np.arange(24), 20)
        own = random.standard_normal((24, 60))
        own[:, 0] += 6 * self.labels
        self.rows = own[self.clips] + 0.1 * random.standard_normal((len(self.clips), 60))


def test_few_clips_do_not_teach_the_second_layer_themselves(local, tmp_path):
    """With a low floor each Gaussian sits on a few training clips, which other clips are next to none of."""
    learnt, others = FewClips(1), FewClips(2)
    with RowStore(tmp_path / "rows", 60) as learnt_rows:
        for row in learnt.rows:
            learnt_rows.append(row.astype(np.float32))
        sampled = SimpleNamespace(rows=learnt_rows, clips=learnt.clips, names=learnt.names)
        plain = Projection(np.zeros(60, np.float32), np.eye(60, dtype=np.float32))
        right = {}
        for floor in (1e-4, 1.0):
            params = StackedParams(**vars(PARAMS) | {"reduced": 60, "second_gaussians": 12, "floor": floor})
            layer = SimpleNamespace(length=60)
            model = fit_second_layer(sampled, layer, plain, params, seed=1)
            train, test = (
                np.array([
                    improved(fisher_vector(statistics(model.whitening(rows), model.second), model.second))
                    for rows in np.split(clips.rows.astype(np.float32), 24)
                ])
                for clips in (learnt, others)
            )  # fmt: skip
            found = margins(train @ train.T, learnt.labels, test @ train.T, c=100, classes=2).argmax(1)
            right[floor] = (found == others.labels).sum()
    assert right[1.0] >= 22
    assert right[1e-4] <= 18


def test_a_clip_without_trajectories_is_0_and_does_not_disturb_others(model, local, tmp_path):
    assert model.compressed(nothing()).shape == (0, 5)
    vector = model.encode(nothing())
    assert vector.shape == (model.length,)
    assert not vector.any()

    def read(name: str) -> LocalFeatures:
        return nothing() if name == "clip99" else some_clip(name)

    labels = LABELS | {"clip99": 1}
    with_it = fitted(local, tmp_path, read=read, names=[*NAMES, "clip99"], labels=labels)
    assert written(with_it, tmp_path / "a") == written(model, tmp_path / "b")


def test_no_trajectory_at_all_is_told(local, tmp_path):
    with pytest.raises(CodebookError, match="no training clip has a trajectory"):
        fitted(local, tmp_path, read=lambda name: nothing())
    assert not list(tmp_path.iterdir())


def test_a_clip_that_cannot_be_read_leaves_no_scratch_file(local, tmp_path):
    def read(name: str) -> LocalFeatures:
        raise OSError(name)

    with pytest.raises(OSError, match="clip0"):
        fitted(local, tmp_path, read=read)
    assert not list(tmp_path.iterdir())


def test_order_and_threads_change_no_bit(model, local, tmp_path):
    again = fitted(local, tmp_path, names=NAMES[::-1], threads=3)
    assert written(again, tmp_path / "a") == written(model, tmp_path / "b")


def test_labels_enter_the_max_margin_projection_and_no_other(local, tmp_path):
    other = {name: i // 4 for i, name in enumerate(NAMES)}
    pca = StackedParams(**vars(PARAMS) | {"reduction": "pca"})
    made = {
        (params.reduction, kind): written(fitted(local, tmp_path, params=params, labels=labels), tmp_path / "f")
        for params in (PARAMS, pca)
        for kind, labels in (("true", LABELS), ("other", other))
    }
    assert made["max_margin", "true"] != made["max_margin", "other"]
    assert made["pca", "true"] == made["pca", "other"]
    assert made["pca", "true"] != made["max_margin", "true"]


def test_it_is_read_as_it_was_written(model, tmp_path):
    write_stacked(tmp_path / "m", model, {"split": "1"})
    found, metadata = read_stacked(tmp_path / "m")
    assert metadata["split"] == "1"
    assert found.params == PARAMS
    np.testing.assert_array_equal(found.encode(some_clip("clip5")), model.encode(some_clip("clip5")))
    assert written(found, tmp_path / "n") == (tmp_path / "m").read_bytes()


def test_every_flipped_bit_is_told_or_changes_nothing(model, tmp_path):
    path = tmp_path / "m"
    wanted = written(model, path)
    share = check_told(
        path,
        lambda: read_stacked(path),
        CodebookError,
        lambda found: written(found[0], tmp_path / "again") == wanted,
        count=200,
    )
    assert share > 0.9


def with_settings(**settings):
    def change(tensors, metadata):
        description = json.loads(metadata["stacked"])
        description["params"] |= settings
        return tensors, metadata | {"stacked": json.dumps(description)}

    return change


def of_another_schema(tensors, metadata):
    return tensors, metadata | {"stacked": json.dumps(json.loads(metadata["stacked"]) | {"schema": 2})}


def replaced(name: str, *shape: int):
    return lambda tensors, metadata: (tensors | {name: torch.ones(*shape)}, metadata)


@pytest.mark.parametrize(
    ("hostile", "words"),
    [
        (lambda t, m: (t, {k: v for k, v in m.items() if k != "stacked"}), "is not a model of stacked Fisher vectors"),
        (lambda t, m: (t, m | {"stacked": "1"}), "does not describe a model of this version"),
        (lambda t, m: (t, m | {"stacked": '{"schema": 1}'}), "not the settings of stacked Fisher vectors"),
        (of_another_schema, "does not describe a model of this version"),
        (with_settings(cells=0), "cells is 0, not 1 to"),
        (with_settings(cells=1e9), "cells is 1000000000.0, not 1 to"),
        (with_settings(span=9), "a span of 9 in 4 cells"),
        (with_settings(frames=[31]), "frames are not even numbers"),
        (with_settings(frames="30"), "frames are not even numbers"),
        (with_settings(frames=[]), "frames are not even numbers"),
        (with_settings(more=1), "not the settings of stacked Fisher vectors"),
        (replaced("compression.components", 5, 47), "compression.components is"),
        (replaced("whitening.mean", 4), "whitening.components is"),
        (replaced("second.means", 3, 4), "second.means is"),
        (replaced("second.variances", 3, 4), "second.variances is"),
        (replaced("first.mean", 8), "first.components is"),
        (lambda t, m: ({k: v for k, v in t.items() if k != "whitening.mean"}, m), "lacks whitening.mean"),
        (lambda t, m: (t | {"third.mean": torch.ones(2)}, m), "has third.mean"),
        (
            lambda t, m: (t | {"whitening.mean": torch.ones(4), "whitening.components": torch.ones(4, 4)}, m),
            "second.means is",
        ),
        (
            lambda t, m: (t | {"whitening.mean": torch.ones(6), "whitening.components": torch.ones(5, 6)}, m),
            "do not fit together",
        ),
    ],
)
def test_hostile_files_are_told_by_name(model, tmp_path, hostile, words):
    path = tmp_path / "m"
    write_stacked(path, model, {})
    write_tensors(path, *hostile(*read_tensors(path)))
    with pytest.raises(CodebookError, match=words) as raised:
        read_stacked(path)
    assert str(path) in str(raised.value)
