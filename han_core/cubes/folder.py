"""Where the clips of a store are: files of their own, ``<folder>/<class>/<clip>.h5``, or shards,
``<folder>/<class>/shards/<name>.h5`` (:mod:`han_core.cubes.shard`)."""

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from han_core.clipfile.trailer import ClipFileError, Trailer, read_trailer
from han_core.cubes.shard import Part, read_file, read_shard

SHARDS = "shards"
"""Folder of a class's shards."""

Version = tuple[int, int, int]
"""Inode, size and modification time: which file it was."""


@dataclass(frozen=True, slots=True)
class StoredClip:
    """Where the features of a clip are."""

    class_name: str
    path: Path
    """The file that holds them: the clip's own, or a shard."""
    version: Version
    """Of that file before it was read."""
    whole: Trailer
    """Of that file."""
    part: Part | None = None
    """Of a shard."""

    @property
    def trailer(self) -> Trailer:
        """What the clip's own file says of itself, with the places of its arrays in ``path``."""
        return self.whole if self.part is None else self.part.trailer

    @property
    def name(self) -> str:
        return self.path.stem if self.part is None else self.part.trailer.clip

    def absolute(self) -> "StoredClip":
        """For a process that may be in another folder."""
        return replace(self, path=self.path.absolute())

    def __str__(self) -> str:
        return f"{self.path}" if self.part is None else f"{self.path} (clip {self.name})"

    @contextmanager
    def file(self) -> Iterator[Path]:
        """The clip's own file; out of a shard it is copied for as long as the block runs.

        Raises:
            ClipFileError: the shard is damaged.
        """
        if self.part is None:
            yield self.path
            return
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "clip.h5")
            path.write_bytes(read_file(self.path, self.part))
            yield path

    def is_unchanged(self) -> bool:
        """Whether the file is the one that was found. One that was replaced by an equal one (linked again from the
        cache) is as good."""
        return version_of(self.path) == self.version or read_trailer(self.path) == self.whole


class CubeFolder:
    """The clips of one folder of cube files.

    Args:
        folder: that stage ``cubes`` writes.

    Raises:
        ClipFileError: a shard is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._sharded = {
            (clip.class_name, clip.name): clip for path in shard_files(folder) for clip in clips_of_shard(path)
        }

    def names(self) -> list[tuple[str, str]]:
        """(class, clip) of all clips, sorted."""
        return sorted({*self._sharded, *((path.parent.name, path.stem) for path in self.folder.glob("*/*.h5"))})

    def has(self, class_name: str, name: str) -> bool:
        """Whether there is a file of the clip."""
        return (class_name, name) in self._sharded or self._own(class_name, name).is_file()

    def find(self, class_name: str, name: str) -> StoredClip:
        """Where a clip is.

        Raises:
            ClipFileError: it is nowhere, or its file is damaged.
        """
        found = self._sharded.get((class_name, name))
        if found is not None:
            return found
        path = self._own(class_name, name)
        try:
            version = version_of(path)  # first: a file that takes its place from here on is noticed
        except OSError as error:
            raise ClipFileError(f"{path}: cannot be opened ({error.strerror})") from None
        return StoredClip(class_name, path, version, read_trailer(path))

    def _own(self, class_name: str, name: str) -> Path:
        return self.folder / class_name / f"{name}.h5"


@contextmanager
def files_of(clips: Mapping[str, StoredClip]) -> Iterator[dict[str, Path]]:
    """The clips' own files, for as long as the block runs; see :meth:`StoredClip.file`."""
    with ExitStack() as stack:
        yield {name: stack.enter_context(clip.file()) for name, clip in clips.items()}


def shard_files(folder: Path) -> list[Path]:
    """The shards of a store, sorted."""
    return sorted(folder.glob(f"*/{SHARDS}/*.h5"))


def clips_of_shard(path: Path) -> list[StoredClip]:
    """The clips of one shard, ``<folder>/<class>/shards/<name>.h5``.

    Raises:
        ClipFileError: it is damaged.
        OSError: it cannot be read.
    """
    version = version_of(path)
    shard = read_shard(path)
    class_name = path.parent.parent.name
    return [StoredClip(class_name, path, version, shard.trailer, part) for part in shard.parts.values()]


def version_of(path: Path) -> Version:
    """Which file a path leads to now."""
    status = os.stat(path)
    return status.st_ino, status.st_size, status.st_mtime_ns
