"""Many cube files as one training set: index and reader. In memory they are :class:`MemoryFeatures`.

A store is built from the folders that the cubes stage writes, one per stream. Its index reads the last kilobyte of each
file, or the index of each shard, once; the numbers are read when they are needed, or all at once by
:meth:`CubeStore.load`. Reading goes past HDF5, whose global lock would make threads wait for each other. No file stays
open, so a store may be used by any number of workers, whichever way they were started.

Shapes: N clips, T frames, D channels, R regions. Features without a place (fully connected layers, or cubes averaged
over their regions) have R = 1 and are dense; cubes are :class:`han_core.cubes.sparse.SparseCubes`.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch

from han_core.clipfile.arrays import read_parts
from han_core.clipfile.reader import ClipFile
from han_core.clipfile.trailer import REMAKE, ClipFileError
from han_core.clips import Clip
from han_core.cubes.cubefile import CUBES, cube_shape, features_shape, nonzeros, read_sparse
from han_core.cubes.features import PLAIN, MemoryFeatures, Values
from han_core.cubes.folder import CubeFolder, StoredClip
from han_core.cubes.sparse import SparseCubes
from han_core.cubes.sparse_rows import SparseRows
from han_core.devices import cores
from han_core.errors import HanError

_AT_ONCE = 64
"""Clips on their way to a GPU: of UCF-101's, 150 MB."""

_MEASURED = 200
"""Clips whose length is looked at for the median; of more, so many are taken evenly."""


class CubeStoreError(HanError, ValueError):
    """The files of a store do not fit together, or changed while they were in use."""


@dataclass(frozen=True, slots=True)
class _Entry:
    clip: StoredClip
    shape: tuple[int, int, int]  # (T, D, R)


class CubeStore:
    """The features of some clips, for one or both streams.

    Attributes:
        clips: those that have a file in every stream, in the order given.
        missing: those that lack one (they are in the failure ledger of an earlier stage).
        labels: (N,) int64, of ``clips``.
        shapes: {stream: (T, D, R)}.

    Args:
        folders: {stream: folder of its cube files (:mod:`han_core.cubes.folder`)}.
        clips: the clips wanted.
        further: such folders of further views of the same clips, by the views' names. Wherever a clip is asked for by
            its number n, v N + n is its view v, 0 being that of ``folders``; statistics and all that is said of the
            store are of that one.
        array: ``cubes``, or the name of a fully connected layer, e.g. ``fc7``.
        pooled: average the cubes over their regions while reading, which leaves R = 1. Equals attention that is
            uniform, at 1/196 of the memory.

    Raises:
        CubeStoreError: no clip has its files, or files differ in shape.
    """

    def __init__(
        self,
        folders: Mapping[str, Path],
        clips: Sequence[Clip],
        *,
        further: Mapping[str, Mapping[str, Path]] = MappingProxyType({}),
        array: str = "cubes",
        pooled: bool = False,
    ) -> None:
        self.array = array
        self.pooled = pooled
        self.clips: list[Clip] = []
        self.missing: list[Clip] = []
        self._entries: dict[str, list[_Entry]] = {stream: [] for stream in folders}
        self.views = (PLAIN, *further)
        try:
            sets = [
                {stream: CubeFolder(folder) for stream, folder in one.items()} for one in (folders, *further.values())
            ]
        except (ClipFileError, OSError) as error:
            raise CubeStoreError(str(error)) from None
        for clip in clips:
            there = (folder.has(clip.class_name, clip.name) for one in sets for folder in one.values())
            (self.clips if all(there) else self.missing).append(clip)
        for one in sets:
            for stream, folder in one.items():
                self._entries[stream] += [self._index(folder, clip) for clip in self.clips]
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
        """Size of what :meth:`load` returns."""
        return sum(self._bytes(stream, channels, regions) for stream, (_, channels, regions) in self.shapes.items())

    @property
    def bytes_across(self) -> int:
        """Size of the transposed copies (:meth:`SparseCubes.with_across`) of what :meth:`load` returns."""
        if not self._sparse:
            return 0
        return sum(self._bytes(stream, regions, channels) for stream, (_, channels, regions) in self.shapes.items())

    def _bytes(self, stream: str, rows: int, columns: int) -> int:
        frames = len(self._entries[stream]) * self.shapes[stream][0]
        if not self._sparse:
            return frames * rows * columns * (4 if self.pooled else 2)
        stored = int(self._places(stream)[-1])
        return SparseCubes.bytes_of(frames, rows, columns, stored)

    def subset(self, indices: Sequence[int]) -> "CubeStore":
        """The store of some of its clips, in the order given; no file is indexed again."""
        part = copy(self)
        part.clips = [self.clips[index] for index in indices]
        part.missing = []
        part.labels = self.labels[torch.as_tensor(indices)]
        numbers = [view * len(self) + index for view in range(len(self.views)) for index in indices]
        part._entries = {stream: [rows[number] for number in numbers] for stream, rows in self._entries.items()}
        return part

    def contents(self) -> dict[str, str]:
        """{clip: contents of its files}: what was trained on, for the identity of a run."""
        found = {}
        for number, clip in enumerate(self.clips):
            own = (entry for entries in self._entries.values() for entry in entries[number :: len(self)])
            found[clip.key] = " ".join(entry.clip.trailer.content for entry in own)
        return found

    def attributes(self, stream: str) -> dict:
        """How a stream's cubes were made: the attributes of its first file.

        Raises:
            ClipFileError: the file is damaged.
        """
        with self._entries[stream][0].clip.file() as path, ClipFile(path) as file:
            return file.attributes

    def frames(self) -> np.ndarray:
        """(N, T) int32: which frame of its clip each of the T frames is.

        Raises:
            ClipFileError: a file is damaged.
        """
        entries = next(iter(self._entries.values()))
        return np.stack([self._frames_of(entry) for entry in entries[: len(self)]])

    def median_length(self) -> int:
        """Median length of the clips in frames, out of ``_MEASURED`` of them. The last of a clip's T frames is its
        last one.

        Raises:
            ClipFileError: a file is damaged.
        """
        entries = next(iter(self._entries.values()))[: len(self)]
        lengths = []
        for place in np.linspace(0, len(entries) - 1, min(_MEASURED, len(entries))).round().astype(int):
            lengths.append(int(self._frames_of(entries[place])[-1]) + 1)
        return int(np.median(lengths))

    @staticmethod
    def _frames_of(entry: _Entry) -> np.ndarray:
        path, trailer = entry.clip.path, entry.clip.trailer
        (frames,) = read_parts(path, trailer, ("frames",))
        if (frames.shape, frames.dtype) != (entry.shape[:1], np.int32):
            raise ClipFileError(f"{path}: clip {trailer.clip}: its frame numbers do not fit. {REMAKE}")
        if frames[0] < 0 or (frames[1:] < frames[:-1]).any():
            raise ClipFileError(f"{path}: clip {trailer.clip}: its frames are not in order. {REMAKE}")
        return frames

    def read(self, index: int) -> dict[str, np.ndarray]:
        """The dense features of clip number ``index``: {stream: (T, D, R)}, float16, or float32 where pooled.

        Raises:
            CubeStoreError: the file is not the one that was indexed.
        """
        found = {stream: self._read(entries[index]) for stream, entries in self._entries.items()}
        return {stream: v.dense() if isinstance(v, SparseRows) else v for stream, v in found.items()}

    def batch(self, indices: Sequence[int]) -> dict[str, Values]:
        """{stream: (len(indices), T, D, R)}, read from the files now, several at once."""
        entries = {stream: [own[index] for index in indices] for stream, own in self._entries.items()}
        together = self._read_all([entry for own in entries.values() for entry in own])
        parts = {stream: together[n * len(indices) :][: len(indices)] for n, stream in enumerate(entries)}
        return {stream: _joined(clips) for stream, clips in parts.items()}

    def _joined(self, entries: Sequence[_Entry]) -> Values:
        """The features of some files, read now, several at once."""
        return _joined(self._read_all(entries))

    def _read_all(self, entries: Sequence[_Entry]) -> list[SparseRows | np.ndarray]:
        found: list = [None] * len(entries)

        def read(place: int) -> None:
            found[place] = self._read(entries[place])

        _by_threads(len(entries), read)
        return found

    def load(self, device: torch.device | None = None) -> "MemoryFeatures":
        """Read everything once: cubes in sparse form, as many clips at a time as there are cores.

        Args:
            device: the GPU that is to hold them. The memory of the host holds only a few clips on their way, so that
                several processes of a machine can fill a GPU each. None is the memory of the host.
        """
        load = self._load if device is None else lambda stream: self._load_to(stream, device)
        return MemoryFeatures({stream: load(stream) for stream in self._entries}, self.labels, self.views)

    def _load_to(self, stream: str, device: torch.device) -> Values:
        entries = self._entries[stream]
        places = self._places(stream)
        if self._sparse:
            values = SparseCubes.empty(len(entries), *self.shapes[stream], int(places[-1]), device=device)
        else:
            kind = torch.float32 if self.pooled else torch.float16
            values = torch.empty(len(entries), *self.shapes[stream], dtype=kind, device=device)
        for first in range(0, len(entries), _AT_ONCE):
            part = slice(first, min(first + _AT_ONCE, len(entries)))
            clips = self._joined(entries[part])
            if isinstance(values, SparseCubes):
                values.put_all(part, int(places[first]), clips)
            else:
                values[part] = clips.to(device)
        return values

    def _places(self, stream: str) -> np.ndarray:
        """Where the non-zeros of each clip begin when all lie one after the other, and where the last ones end."""
        sizes = [nonzeros(entry.clip.trailer) for entry in self._entries[stream]] if self._sparse else []
        return np.concatenate(([0], np.cumsum(sizes, dtype=np.int64)))

    def _load(self, stream: str) -> Values:
        entries = self._entries[stream]
        if not self._sparse:
            kind = torch.float32 if self.pooled else torch.float16
            values = torch.empty(len(entries), *self.shapes[stream], dtype=kind)

            def put(number: int) -> None:
                values[number].numpy()[:] = self._read(entries[number])

        else:
            places = self._places(stream)
            values = SparseCubes.empty(len(entries), *self.shapes[stream], int(places[-1]))

            def put(number: int) -> None:
                values.put(number, int(places[number]), self._read(entries[number]))

        _by_threads(len(entries), put)
        return values

    @property
    def _sparse(self) -> bool:
        return self.array == CUBES and not self.pooled

    def _index(self, folder: CubeFolder, clip: Clip) -> _Entry:
        try:
            found = folder.find(clip.class_name, clip.name)
            path, trailer = found.path, found.trailer
            if self.array == CUBES:
                shape = cube_shape(path, trailer)
            elif self.array in trailer.arrays:
                shape = features_shape(path, trailer, self.array)
            else:
                have = ", ".join(trailer.arrays) or "none"
                raise ClipFileError(f"{path}: clip {trailer.clip} holds no {self.array}; its arrays: {have}")
            regions = 1 if self.pooled else int(np.prod(shape[2:]))
            return _Entry(found, (shape[0], shape[1], regions))
        except (ClipFileError, OSError) as error:
            raise CubeStoreError(str(error)) from None

    def _read(self, entry: _Entry) -> SparseRows | np.ndarray:
        """The features of one clip: sparse rows, or dense (T, D, R)."""
        path, trailer = entry.clip.path, entry.clip.trailer
        try:
            self._check_unchanged(entry.clip)
            if self.array != CUBES:
                (values,) = read_parts(path, trailer, (self.array,))
                rows = values.reshape(*values.shape[:2], -1)
            else:
                rows = read_sparse(path, trailer)
            self._check_unchanged(entry.clip)  # nor while it was read
        except ClipFileError as error:
            raise CubeStoreError(str(error)) from None
        except OSError as error:
            raise CubeStoreError(f"{path} was there when the run began and cannot be read now: {error}") from None
        if not self.pooled or isinstance(rows, np.ndarray):
            return rows
        return SparseCubes.of([rows]).moments()[0][0].unsqueeze(2).numpy()

    @staticmethod
    def _check_unchanged(clip: StoredClip) -> None:
        if not clip.is_unchanged():
            raise CubeStoreError(f"{clip.path} changed while it was in use; start again")

    @staticmethod
    def _common_shape(entries: Sequence[_Entry]) -> tuple[int, int, int]:
        first = entries[0]
        for entry in entries:
            if entry.shape != first.shape:
                raise CubeStoreError(
                    f"{entry.clip} holds {entry.shape} (frames, channels, regions) and {first.clip} {first.shape}; "
                    "all clips of a store must agree. Run the cubes stage again."
                )
        return first.shape


def _joined(clips: Sequence[SparseRows | np.ndarray]) -> Values:
    if isinstance(clips[0], SparseRows):
        return SparseCubes.of(clips)
    return torch.from_numpy(np.stack(clips))


def _by_threads(count: int, work: Callable[[int], None]) -> None:
    """work(0), .. work(count - 1) by one thread per core, each with its share from the start: one task per clip
    would cost as much as reading it."""
    threads = cores()

    def share(first: int) -> None:
        for number in range(first, count, threads):
            work(number)

    with ThreadPoolExecutor(threads) as pool:
        for finished in [pool.submit(share, first) for first in range(min(threads, count))]:
            finished.result()
