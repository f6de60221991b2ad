"""Stacked Fisher vectors (Peng, Zou, Qiao and Peng 2014): Fisher vectors of subvolumes, compressed, encoded again.

First layer: local features (HOG, HOF and MBH of a trajectory side by side), whitened, one mixture; an improved Fisher
vector phi for each subvolume. These are compressed to psi = W phi, whitened, and are the points of the second layer:
one mixture, and an improved Fisher vector of all subvolumes of a clip.

Everything is fitted to training clips alone, W with their labels. Vectors of subvolumes have 102,400 numbers: they are
made one at a time, and those that are learnt from lie on disk.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from han_core.baselines.fisher.codebook import ChannelCodebook
from han_core.baselines.fisher.max_margin import Fit, fit_max_margin
from han_core.baselines.fisher.mixture import Mixture, fit_mixture
from han_core.baselines.fisher.principal import principal_directions
from han_core.baselines.fisher.reduction import Projection, fit_pca
from han_core.baselines.fisher.row_store import RowStore
from han_core.baselines.fisher.sampling import drawn
from han_core.baselines.fisher.stacked_params import StackedParams
from han_core.baselines.fisher.stored import CodebookError
from han_core.baselines.fisher.subvolumes import Positions, subvolume_vectors, subvolumes
from han_core.baselines.fisher.vector import fisher_vector, improved, statistics

LOCAL_CHANNELS = ("hog", "hof", "mbhx", "mbhy")
"""Whose descriptors side by side are the local features."""

_TOGETHER = 32  # vectors that are projected at a time
_AHEAD = 64  # clips that are in work together


@dataclass(frozen=True, eq=False)
class LocalFeatures:
    """The trajectories of a clip as stacked Fisher vectors want them."""

    descriptors: np.ndarray
    """(n, D) float32, the channels side by side."""
    positions: Positions


@dataclass(frozen=True, eq=False)
class StackedModel:
    """What makes a clip's stacked Fisher vector."""

    local: ChannelCodebook
    """First layer."""
    compression: Projection
    """W, of mean 0."""
    whitening: Projection
    second: Mixture
    params: StackedParams

    def __post_init__(self) -> None:
        fits = (
            len(self.compression.mean) == self.local.length
            and len(self.whitening.mean) == len(self.compression.components)
            and len(self.whitening.components) == self.second.means.shape[1]
        )
        if not fits:
            raise ValueError("the layers of a stacked Fisher vector do not fit together")

    @property
    def length(self) -> int:
        """Of a clip's vector."""
        return 2 * self.second.means.size

    def compressed(self, clip: LocalFeatures) -> np.ndarray:
        """(subvolumes, p) float32: whitened psi of each of a clip's subvolumes; none of a clip without trajectories."""
        parts = [self.whitening(psi) for psi in _compressed(_phi(clip, self.local, self.params), self.compression)]
        return np.concatenate([np.empty((0, self.second.means.shape[1]), np.float32), *parts])

    def encode(self, clip: LocalFeatures) -> np.ndarray:
        """The improved stacked Fisher vector (length,) float32 of a clip; 0 where it has no trajectory."""
        return improved(fisher_vector(statistics(self.compressed(clip), self.second), self.second))


class SampledSubvolumes:
    """First-layer vectors of some subvolumes of the training clips, on disk; a context manager, which removes them.

    Attributes:
        rows: the vectors.
        clips: (rows,) int: the number, in the order of the names, of the clip of each.
        names: of the clips, in that order.
    """

    def __init__(
        self,
        names: Iterable[str],
        read: Callable[[str], LocalFeatures],
        local: ChannelCodebook,
        params: StackedParams,
        *,
        seed: int,
        scratch: Path,
        threads: int = 1,
        on_clip: Callable[[str], None] | None = None,
    ) -> None:
        """Draw and encode at most ``params.per_clip`` subvolumes of each clip, by its name and the seed.

        Args:
            names: of training clips.
            read: the local features of a clip.
            scratch: a file, which takes 2 bytes a number: at 102,400 numbers a vector 6 GB for 30,000.
            threads: clips at a time; nothing depends on it.
            on_clip: called with each clip's name when it is done.
        """

        def encoded(name: str) -> list[np.ndarray]:
            clip = read(name)
            return [vector.astype(np.float16) for vector in _phi(clip, local, params, (name, seed))]

        self.names = sorted(names)
        self.rows = RowStore(scratch, local.length)
        clips: list[int] = []
        try:
            with ThreadPoolExecutor(threads) as pool:
                for number, name in enumerate(self.names):
                    # A few at a time, so that finished ones do not pile up behind a slow one.
                    if number % _AHEAD == 0:
                        made = pool.map(encoded, self.names[number : number + _AHEAD])
                    for vector in next(made):
                        self.rows.append(vector)
                        clips.append(number)
                    if on_clip is not None:
                        on_clip(name)
        except BaseException:
            self.rows.close()
            raise
        self.clips = np.array(clips, np.int64)

    def __enter__(self) -> "SampledSubvolumes":
        return self

    def __exit__(self, *_: object) -> None:
        self.rows.close()


def fit_compression(
    sampled: SampledSubvolumes,
    labels: Mapping[str, int],
    params: StackedParams,
    *,
    classes: int,
    seed: int,
    on_epoch: Callable[[int, Fit], None] | None = None,
) -> Projection:
    """W: principal directions of the sampled subvolumes, and from there, if so wanted, the max-margin projection.

    Args:
        labels: class of each clip, by its name; each subvolume has its clip's.

    Raises:
        CodebookError: there are no subvolumes.
    """
    if not len(sampled.rows):
        raise CodebookError("no training clip has a trajectory, so no stacked Fisher vectors can be fitted")
    everything = np.arange(len(sampled.rows))
    found = principal_directions(sampled.rows, everything, params.reduced, seed=seed)
    if params.reduction == "max_margin":
        found = fit_max_margin(
            sampled.rows,
            everything,
            np.array([labels[name] for name in sampled.names])[sampled.clips],
            found,
            classes=classes,
            class_penalty=params.class_penalty,
            projection_penalty=params.projection_penalty,
            epochs=params.epochs,
            batch=params.batch,
            rate=params.rate,
            seed=seed,
            on_epoch=on_epoch,
        ).projection
    return Projection(np.zeros(sampled.rows.length, np.float32), found)


def fit_second_layer(
    sampled: SampledSubvolumes, local: ChannelCodebook, compression: Projection, params: StackedParams, *, seed: int
) -> StackedModel:
    """Whitening and second mixture, fitted to the sampled subvolumes.

    Directions that vary little among the training clips tell those from each other and vary still less among other
    clips. Where clips are few, dividing by such variances moves all other clips to the centre, far from every Gaussian:
    ``params.floor`` bounds what is divided by.
    """
    blocks = sampled.rows.blocks(np.arange(len(sampled.rows)), _TOGETHER)
    psi = np.concatenate([compression(block) for block in blocks])[: len(sampled.rows)]
    floor = params.floor
    whitening = fit_pca(psi, params.reduced, whiten=True, floor=floor)
    second = fit_mixture(
        whitening(psi), params.second_gaussians, seed=seed, iterations=params.iterations, variance_floor=floor
    )
    return StackedModel(local, compression, whitening, second, params)


def _phi(
    clip: LocalFeatures, local: ChannelCodebook, params: StackedParams, draw: tuple[str, int] | None = None
) -> Iterator[np.ndarray]:
    """First-layer vectors of a clip's subvolumes, of all or, by name and seed, of ``params.per_clip``."""
    found = subvolumes(clip.positions, params)
    if draw is not None:
        name, seed = draw
        found = [found[i] for i in drawn(name, len(found), min(params.per_clip, len(found)), seed)]
    yield from subvolume_vectors(local.projection(clip.descriptors), clip.positions, found, local.mixture, params)


def _compressed(vectors: Iterator[np.ndarray], compression: Projection) -> Iterator[np.ndarray]:
    # Filled up: BLAS multiplies a single vector in another way, whose last bits depend on its threads.
    block = np.zeros((_TOGETHER, len(compression.mean)), np.float32)
    while some := list(islice(vectors, _TOGETHER)):
        block[: len(some)] = some
        yield compression(block)[: len(some)]
