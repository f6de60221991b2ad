"""Codebooks: how each channel of descriptors is reduced and which mixture it is encoded with.

The original: 256,000 descriptors of training clips, principal components to half the dimensions and 256 Gaussians, each
channel by itself (Wang and Schmid 2013).
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from han_core.baselines.fisher.mixture import Mixture, fit_mixture
from han_core.baselines.fisher.reduction import Projection, fit_pca
from han_core.baselines.fisher.stored import (
    CodebookError,
    StoredTensors,
    identity,
    mixture_tensors,
    projection_tensors,
    read_sealed,
)
from han_core.baselines.fisher.vector import Statistics, fisher_vector, improved, statistics
from han_core.tensorfile.file import write_tensors

SCHEMA = 1
_KEY = "codebook"
_WHAT = "a codebook"


@dataclass(frozen=True, eq=False)
class ChannelCodebook:
    """What encodes one channel."""

    projection: Projection
    mixture: Mixture

    def __post_init__(self) -> None:
        if len(self.projection.components) != self.mixture.means.shape[1]:
            raise ValueError("a projection and a mixture of different numbers of dimensions")

    @property
    def length(self) -> int:
        """Of the channel's Fisher vector."""
        return 2 * self.mixture.means.size

    def statistics(self, descriptors: np.ndarray) -> Statistics:
        """Of descriptors (n, D); those of parts of a clip add up."""
        return statistics(self.projection(descriptors), self.mixture)

    def encode(self, descriptors: np.ndarray) -> np.ndarray:
        """The improved Fisher vector (length,) float32 of descriptors (n, D); 0 where there are none."""
        return improved(fisher_vector(self.statistics(descriptors), self.mixture))


@dataclass(frozen=True, eq=False)
class Codebook:
    """A codebook for each channel of the descriptors."""

    channels: Mapping[str, ChannelCodebook]
    """By name, in the order in which they were given."""

    def encode(self, channel: str, descriptors: np.ndarray) -> np.ndarray:
        """The improved Fisher vector (2 K d,) float32 of a channel's descriptors.

        Args:
            descriptors: (n, D) of a real type, n may be 0; a clip without any has the vector 0.

        Raises:
            ValueError: the codebook has no such channel, or the descriptors have another number of dimensions.
        """
        if channel not in self.channels:
            raise ValueError(f"no channel {channel} in a codebook of {', '.join(self.channels)}")
        return self.channels[channel].encode(descriptors)


def fit_codebook(
    samples: Mapping[str, np.ndarray],
    *,
    gaussians: int,
    seed: int,
    iterations: int = 100,
    dimensions: int | None = None,
    whiten: bool = False,
    threads: int = 1,
    on_iteration: Callable[[str, int, float], None] | None = None,
) -> Codebook:
    """Fit the reduction and then the mixture of each channel, all to the same sample.

    A channel's codebook depends on its own name and sample: not on the other channels, nor on ``threads``.

    Args:
        samples: channel -> (n, D) descriptors of training clips.
        iterations: most of a mixture (:func:`han_core.baselines.fisher.mixture.fit_mixture`).
        dimensions: each channel is reduced to; None is half of what it has.
        whiten: scale the reduced dimensions to variance 1.
        threads: channels fitted at a time.
        on_iteration: called with the channel's name, the iteration and the mean log likelihood, from any thread.

    Raises:
        CodebookError: a channel has no sample, fewer dimensions than are wanted, or numbers that are not finite.
    """

    def fit(channel: str) -> ChannelCodebook:
        def told(iteration: int, likelihood: float) -> None:
            if on_iteration is not None:
                on_iteration(channel, iteration, likelihood)

        sample = samples[channel]
        if not sample.size:
            raise CodebookError(f"channel {channel}: no training clip has a descriptor, so no codebook can be fitted")
        own_seed = int.from_bytes(hashlib.sha256(f"{seed} {channel}".encode()).digest()[:8])
        try:
            projection = fit_pca(sample, dimensions or max(1, sample.shape[1] // 2), whiten=whiten)
            reduced = projection(sample)
            mixture = fit_mixture(reduced, gaussians, seed=own_seed, iterations=iterations, on_iteration=told)
        except ValueError as error:
            raise CodebookError(f"channel {channel}: {error}") from None
        return ChannelCodebook(projection, mixture)

    if not samples:
        raise CodebookError("no training clip has a descriptor, so no codebook can be fitted")
    with ThreadPoolExecutor(threads) as pool:
        return Codebook(dict(zip(samples, pool.map(fit, samples), strict=True)))


def write_codebook(path: str | Path, codebook: Codebook, metadata: Mapping[str, str]) -> None:
    """Write a codebook as sealed safetensors; the same codebook and metadata give the same bytes.

    Args:
        metadata: what else the file should say of itself; ``codebook`` is written here.
    """
    tensors: dict[str, np.ndarray] = {}
    for channel, parts in codebook.channels.items():
        tensors |= projection_tensors(parts.projection, channel) | mixture_tensors(parts.mixture, channel)
    description = json.dumps({"schema": SCHEMA, "channels": list(codebook.channels)})
    write_tensors(path, tensors, {**metadata, _KEY: description})


def read_codebook(path: str | Path) -> tuple[Codebook, dict[str, str]]:
    """A codebook and its file's metadata. Nothing in the file is believed unchecked.

    Raises:
        CodebookError: it is missing, damaged, or holds no codebook of this version.
    """
    stored, metadata = read_sealed(path, _WHAT, _KEY)
    with stored:
        channels = {}
        for name in _channel_names(metadata[_KEY], stored):
            projection = stored.projection(name)
            channels[name] = ChannelCodebook(projection, stored.mixture(name, len(projection.components)))
    return Codebook(channels), metadata


def codebook_identity(metadata: Mapping[str, str]) -> str:
    """A hash of all that a codebook's file holds.

    Args:
        metadata: of the file, as :func:`read_codebook` gives it.
    """
    return identity(metadata)


def _channel_names(text: str, stored: StoredTensors) -> list[str]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        raise stored.error(f"does not describe a codebook of this version (schema {SCHEMA})")
    names = found.get("channels")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise stored.error("does not name its channels")
    if len(set(names)) != len(names):
        raise stored.error("names a channel twice")
    return names
