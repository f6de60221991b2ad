"""A stage's output folder of shards in place of one file a clip, ``<output>/<class>/shards/<first clip>.h5``.

Clips are made and cached one by one as ever; what is done here is to pack their files, and to find what is packed
already. A shard is known by the fingerprints of its clips, so one whose clips are all the same is taken out of the
cache, whether or not their own files are still there; and a stage that was killed goes on with the shards, and the
clips, that it has.
"""

import hashlib
import logging
from collections.abc import Container, Iterator, Sequence, Set
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from han_core.cache.fingerprint import code_of, fingerprint, without_code
from han_core.cache.store import ClipCache
from han_core.clipfile.trailer import REMAKE, ClipFileError, Trailer
from han_core.cubes.folder import SHARDS, clips_of_shard
from han_core.cubes.shard import KIND, write_shard
from pipeline.execution.jobs import ClipTask
from pipeline.paths import clip_file

log = logging.getLogger(__name__)

_LARGEST = 4
"""Times the number of clips asked for that a shard has at most."""


@dataclass(frozen=True)
class Group:
    """Clips that share a shard."""

    tasks: tuple[ClipTask, ...]

    @property
    def class_name(self) -> str:
        return self.tasks[0].clip.class_name

    @property
    def name(self) -> str:
        """That of the first clip: it stays where clips are added elsewhere."""
        return self.tasks[0].clip.name

    @property
    def fingerprint(self) -> str:
        """Of the shard. The code is that of the clips, as the code that packs is a part of it."""
        clips = {task.clip.key: without_code(task.fingerprint) for task in self.tasks}
        return fingerprint(KIND, code_of(self.tasks[0].fingerprint), {}, clips)

    def file(self, output: Path) -> Path:
        """Where the shard is in a stage's output folder."""
        return output / self.class_name / SHARDS / f"{self.name}.h5"


def grouped(tasks: Sequence[ClipTask], size: int) -> list[Group]:
    """Cut the clips of each class, in the order of their names, into groups of about ``size``.

    Where a group ends is decided by the name of its last clip alone, so that a clip that is added or removed changes
    one shard, or two, and not all that follow.
    """
    groups = []
    ordered = sorted(tasks, key=lambda task: (task.clip.class_name, task.clip.name))
    for _, of_class in groupby(ordered, key=lambda task: task.clip.class_name):
        current: list[ClipTask] = []
        for task in of_class:
            current.append(task)
            if _ends(task.clip.name, size) or len(current) == _LARGEST * size:
                groups.append(Group(tuple(current)))
                current = []
        if current:
            groups.append(Group(tuple(current)))
    return groups


def _ends(name: str, size: int) -> bool:
    return int.from_bytes(hashlib.sha256(name.encode("utf-8")).digest()[:8]) % size == 0


class Shards:
    """The shards of one run of a stage.

    Args:
        output: the stage's folder.
        size: clips of a shard, about.
        tasks: the clips.
    """

    def __init__(self, cache: ClipCache, output: Path, size: int, tasks: Sequence[ClipTask]) -> None:
        self._cache, self._output = cache, output
        self._groups = grouped(tasks, size)
        self._packed: set[str] = set()  # keys of clips
        self.files: set[Path] = set()
        """Of the output folder: the shards so far."""

    def found(self) -> Iterator[tuple[ClipTask, Trailer]]:
        """Put the shards that the cache has into the output folder; their clips."""
        for group in self._groups:
            yield from self._link(group) or ()

    def rest(self) -> list[ClipTask]:
        """The clips that no shard has yet."""
        return [task for group in self._groups for task in group.tasks if task.clip.key not in self._packed]

    def pack(self, made: Container[str]) -> Set[Path]:
        """Pack the files of the clips that were made, which lie in the output folder.

        Args:
            made: keys of the clips that have a file.

        Returns:
            All shards: what the output folder is to hold in place of those files.

        Raises:
            ClipFileError: a clip's file is damaged.
            OSError: the disk does not take it.
        """
        for whole in self._groups:
            tasks = [task for task in whole.tasks if task.clip.key in made and task.clip.key not in self._packed]
            if not tasks:
                continue
            group = Group(tuple(tasks))
            files = {task.clip.name: clip_file(self._output, group.class_name, task.clip.name) for task in tasks}
            if self._link(group) is None:
                with self._cache.create(KIND, group.fingerprint) as path:
                    write_shard(path, name=group.name, fingerprint=group.fingerprint, files=files)
                if self._link(group) is None:
                    raise ClipFileError(f"{group.file(self._output)}: cannot be read back. {REMAKE}")
        return self.files

    def _link(self, group: Group) -> list[tuple[ClipTask, Trailer]] | None:
        """Put a group's shard into the output folder; its clips. None if the cache has none, or a damaged one."""
        file = group.file(self._output)
        try:
            self._cache.link(KIND, group.fingerprint, file)
            trailers = {clip.name: clip.trailer for clip in clips_of_shard(file)}
        except FileNotFoundError:
            return None
        except ClipFileError as error:
            log.warning("damaged shard, will be packed again: %s", error)
            file.unlink()
            return None
        self.files.add(file)
        self._packed |= {task.clip.key for task in group.tasks}
        return [(task, trailers[task.clip.name]) for task in group.tasks]
