"""Many cube files as one training set: index, reader, in-memory form.

A store is built from the folders that the cubes stage writes, one a stream. Its index reads the header of each file
once; the numbers are read when they are needed, or all at once by :meth:`CubeStore.load`.

Shapes: N clips, T frames, D channels, R regions. Features without a place (fully connected layers, or cubes averaged
over their regions) have R = 1.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from han_core.clipfile import ClipFile, ClipFileError
from han_core.datasets.clips import Clip
from han_core.errors import HanError


class CubeStoreError(HanError, ValueError):
    """The files of a store do not fit together, or changed while they were in use."""


@dataclass(frozen=True)
class _Entry:
    path: Path
    fingerprint: str
    shape: tuple[int, int, int]  # (T, D, R)


class Features(Protocol):
    """What training needs of a set of clips, wherever their numbers are."""

    labels: Tensor
    """(N,) int64."""

    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """{stream: (len(indices), T, D, R)}, float16 or float32."""
        ...


class CubeStore:
    """The features of some clips, for one or both streams.

    Attributes:
        clips: those that have a file in every stream, in the order given.
        missing: those that lack one (they are in the failure ledger of an earlier stage).
        labels: (N,) int64, of ``clips``.
        shapes: {stream: (T, D, R)}.

    Args:
        folders: {stream: folder of its cube files, ``<folder>/<class>/<clip>.h5``}.
        clips: the clips wanted.
        array: ``cubes``, or the name of a fully connected layer, e.g. ``fc7``.
        pooled: average the cubes over their regions while reading, which leaves R = 1. Equals attention that is
            uniform, at 1/196 of the memory.

    Raises:
        CubeStoreError: no clip has its files, or files differ in shape.
    """

    def __init__(
        self, folders: Mapping[str, Path], clips: Sequence[Clip], *, array: str = "cubes", pooled: bool = False
    ) -> None:
        self.array = array
        self.pooled = pooled
        self.clips: list[Clip] = []
        self.missing: list[Clip] = []
        self._entries: dict[str, list[_Entry]] = {stream: [] for stream in folders}
        for clip in clips:
            paths = {stream: folder / clip.class_name / f"{clip.name}.h5" for stream, folder in folders.items()}
            if not all(path.is_file() for path in paths.values()):
                self.missing.append(clip)
                continue
            self.clips.append(clip)
            for stream, path in paths.items():
                self._entries[stream].append(self._index(path))
        if not self.clips:
            wanted = ", ".join(str(folder) for folder in folders.values())
            raise CubeStoreError(
                f"none of the {len(clips)} clips has its cube files in {wanted}; run the cubes stage first"
            )
        self.labels = torch.tensor([clip.label for clip in self.clips])
        self.shapes = {stream: self._common_shape(entries) for stream, entries in self._entries.items()}

    def __len__(self) -> int:
        return len(self.clips)

    @property
    def bytes_in_memory(self) -> int:
        """Size of what :meth:`load` returns by default."""
        width = 4 if self.pooled else 2
        return sum(len(self) * int(np.prod(shape)) * width for shape in self.shapes.values())

    def read(self, index: int) -> dict[str, np.ndarray]:
        """The features of clip number ``index``: {stream: (T, D, R)}, float16, or float32 where pooled.

        Raises:
            CubeStoreError: the file is not the one that was indexed.
        """
        return {stream: self._read(entries[index]) for stream, entries in self._entries.items()}

    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """{stream: (len(indices), T, D, R)}, read from the files now."""
        clips = [self.read(index) for index in indices]
        return {stream: torch.from_numpy(np.stack([clip[stream] for clip in clips])) for stream in self._entries}

    def load(self, dtype: torch.dtype = torch.float16) -> "MemoryFeatures":
        """Read everything once, into ``dtype`` (pooled features are float32 whatever is asked for)."""
        dtype = torch.float32 if self.pooled else dtype
        arrays = {stream: torch.empty(len(self), *shape, dtype=dtype) for stream, shape in self.shapes.items()}
        for index in range(len(self)):
            for stream, values in self.read(index).items():
                arrays[stream][index] = torch.from_numpy(values)
        return MemoryFeatures(arrays, self.labels)

    def _index(self, path: Path) -> _Entry:
        try:
            with ClipFile(path) as file:
                return _Entry(path, file.fingerprint, self._reduced(file.shape(self.array)))
        except ClipFileError as error:
            raise CubeStoreError(str(error)) from None

    def _reduced(self, shape: tuple[int, ...]) -> tuple[int, int, int]:
        regions = 1 if self.pooled else int(np.prod(shape[2:]))
        return shape[0], shape[1], regions

    def _read(self, entry: _Entry) -> np.ndarray:
        try:
            with ClipFile(entry.path) as file:
                if file.fingerprint != entry.fingerprint:
                    raise CubeStoreError(f"{entry.path} changed while it was in use; start again")
                values = file.array(self.array)
        except (ClipFileError, OSError) as error:
            raise CubeStoreError(f"{entry.path} was there when the run began and cannot be read now: {error}") from None
        values = values.reshape(*values.shape[:2], -1)
        return values.mean(axis=2, keepdims=True, dtype=np.float32) if self.pooled else values

    @staticmethod
    def _common_shape(entries: Sequence[_Entry]) -> tuple[int, int, int]:
        first = entries[0]
        for entry in entries:
            if entry.shape != first.shape:
                raise CubeStoreError(
                    f"{entry.path} holds {entry.shape} (frames, channels, regions) and {first.path} {first.shape}; "
                    "all clips of a store must agree. Run the cubes stage again."
                )
        return first.shape


class MemoryFeatures:
    """Features in memory: {stream: (N, T, D, R)} and labels (N,)."""

    def __init__(self, arrays: Mapping[str, Tensor], labels: Tensor) -> None:
        self.arrays = dict(arrays)
        self.labels = labels

    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """{stream: (len(indices), T, D, R)}."""
        index = torch.as_tensor(indices)
        return {stream: values[index] for stream, values in self.arrays.items()}


def prefetched(features: Features, batches: Sequence[Sequence[int]]) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
    """Each batch's features and labels, the next batch being read from disk while the last one is used."""
    if isinstance(features, MemoryFeatures):  # nothing to wait for
        for indices in batches:
            yield features.batch(indices), features.labels[torch.as_tensor(indices)]
        return
    with ThreadPoolExecutor(max_workers=1) as pool:
        coming = None
        for indices in [*batches, None]:
            ready = coming
            coming = None if indices is None else (pool.submit(features.batch, indices), indices)
            if ready is not None:
                yield ready[0].result(), features.labels[torch.as_tensor(ready[1])]


def glimpse_statistics(features: Features, *, batch: int = 16) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel of the glimpse under the uniform map, where training starts.

    They are taken over all clips and frames of ``features`` (training clips only, or test clips would leak). The
    variance is at least that of a mean over independent regions, Var(region) / R: a channel whose regions cancel out
    in every frame would otherwise be blown up as soon as attention looks at one of them.

    Returns:
        mean, deviation: (streams, D) float32, streams in the order of ``features.batch``.
    """
    order = list(range(len(features.labels)))
    sums: Tensor | float = 0.0  # of the glimpse, its square, and the square of a region: (3, S, D)
    count = 0
    regions = 1
    for values, _ in prefetched(features, [order[i : i + batch] for i in range(0, len(order), batch)]):
        cubes = [cube.float() for cube in values.values()]
        regions = cubes[0].shape[3]
        glimpses = torch.stack([cube.mean(dim=3).double() for cube in cubes])  # (S, B, T, D)
        energy = torch.stack([cube.square().mean(dim=3).double() for cube in cubes])
        sums = sums + torch.stack([moment.sum(dim=(1, 2)) for moment in (glimpses, glimpses.square(), energy)])
        count += glimpses.shape[1] * glimpses.shape[2]
    mean, square, energy = sums / count
    variance = torch.maximum(square - mean.square(), (energy - mean.square()) / regions).clamp(min=0)
    return mean.float(), variance.sqrt().float()
