"""From descriptors to vectors, against the Fisher vector of all of them together."""

import numpy as np
import pytest

from han_core.baselines.fisher.codebook import fit_codebook
from han_core.baselines.tdd.encoding import encode

CHANNELS = ("conv4_3_st", "conv4_3_ch")


def descriptors(count: int, seed: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {name: random.random((count, 12), np.float32) for name in CHANNELS}


@pytest.fixture(scope="module")
def codebook():
    return fit_codebook(descriptors(400, 1), gaussians=3, seed=1, dimensions=4, whiten=True)


def test_one_size_is_encoded_as_any_channel_is(codebook):
    found = encode([descriptors(50, 2)], codebook)
    assert list(found) == list(CHANNELS)
    for channel, values in descriptors(50, 2).items():
        np.testing.assert_array_equal(found[channel], codebook.encode(channel, values))
        assert found[channel].shape == (2 * 3 * 4,)


def test_vectors_of_several_sizes_are_added_before_the_root(codebook):
    """By hand: u and v of each size from its own posteriors, added, signed root, length 1."""
    sizes = [descriptors(50, seed) for seed in (2, 3, 4)]
    found = encode(sizes, codebook)
    for channel, own in codebook.channels.items():
        weights, means, variances = (
            np.asarray(values, np.float64) for values in (own.mixture.weights, own.mixture.means, own.mixture.variances)
        )
        total = np.zeros(24)
        for size in sizes:
            x = (size[channel].astype(np.float64) - own.projection.mean) @ own.projection.components.T.astype(float)
            away = (x[:, None] - means) / np.sqrt(variances)
            q = weights * np.exp(-0.5 * (away**2).sum(2)) / np.sqrt(variances.prod(1))
            q = (q / q.sum(1, keepdims=True))[..., None]
            u = (q * away).mean(0) / np.sqrt(weights)[:, None]
            v = (q * (away**2 - 1)).mean(0) / np.sqrt(2 * weights)[:, None]
            total += np.concatenate([u.ravel(), v.ravel()])
        root = np.sign(total) * np.sqrt(np.abs(total))
        np.testing.assert_allclose(found[channel], root / np.linalg.norm(root), atol=1e-4)


def test_a_clip_without_tracks_is_0(codebook):
    for parts in ([], [descriptors(0, 1)]):
        for vector in encode(parts, codebook).values():
            assert vector.shape == (24,)
            assert vector.dtype == np.float32
            assert not vector.any()


def test_channels_of_another_codebook_are_refused(codebook):
    with pytest.raises(ValueError, match="channels conv5_3_st for a codebook of conv4_3_st, conv4_3_ch"):
        encode([{"conv5_3_st": descriptors(5, 1)["conv4_3_st"]}], codebook)
