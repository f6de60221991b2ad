"""A project folder that uses the cache, as DVC keeps it: which file belongs to which stage, and DVC's own copies.

DVC's files are read as files; DVC itself is not imported. ``dvc.lock`` lists for each stage its command, dependencies
and outputs; DVC's cache holds every output under the MD5 of its content (``files/md5/ab/cdef..``), and under ``runs``
what each command made of what, so that going back to earlier settings runs nothing."""

import configparser
import hashlib
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import yaml


@dataclass(frozen=True)
class Stage:
    """What ``dvc.lock`` says of a stage."""

    name: str
    command: str
    dependencies: tuple[str, ...]
    """POSIX, relative to the workspace."""
    outputs: tuple[str, ...]


class Workspace:
    """One project folder.

    Args:
        folder: that holds ``dvc.lock`` and ``.dvc``; one without them is an empty workspace.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = folder / "dvc.lock"

    def stages(self) -> list[Stage]:
        """All stages that have run; none where the lock is missing or cannot be read."""
        try:
            entries = yaml.safe_load(self._lock.read_text(encoding="utf-8"))["stages"]
            return [
                Stage(
                    name,
                    _text(entry["cmd"]),
                    tuple(item["path"] for item in entry.get("deps", [])),
                    tuple(item["path"] for item in entry.get("outs", [])),
                )
                for name, entry in entries.items()
            ]
        except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError):
            return []

    def makers(self, paths: Iterable[Path]) -> list[Stage]:
        """The stages among whose outputs the files are."""
        root = self.folder.resolve()
        inside = [path.resolve().relative_to(root) for path in paths if path.resolve().is_relative_to(root)]
        return [s for s in self.stages() if any(path.is_relative_to(out) for path in inside for out in s.outputs)]

    def users(self, makers: Iterable[Stage]) -> list[Stage]:
        """The stages that depend on what some stages make, directly or not, in the order of the lock."""
        stages = self.stages()
        made = [out for stage in makers for out in stage.outputs]
        found: set[str] = set()
        while more := [s for s in stages if s.name not in found and _reads(s, made)]:
            found.update(stage.name for stage in more)
            made += [out for stage in more for out in stage.outputs]
        return [stage for stage in stages if stage.name in found]

    def objects(self) -> Iterator[tuple[Path, str]]:
        """The files of DVC's cache, each with the MD5 that its content should have."""
        for path in sorted((self._cache() / "files" / "md5").glob("[0-9a-f][0-9a-f]/*")):
            name = path.name.removesuffix(".dir")
            if len(name) == 30:
                yield path, path.parent.name + name

    def files(self) -> Iterator[Path]:
        """The outputs in the workspace: files under ``data`` and ``models``."""
        for folder in ("data", "models"):
            yield from (path for path in sorted((self.folder / folder).rglob("*")) if path.is_file())

    def folders(self) -> list[Path]:
        """Where other names of a cached file may be: the workspace, and DVC's cache if it lies elsewhere."""
        cache = self._cache()
        return [self.folder] if cache.resolve().is_relative_to(self.folder.resolve()) else [self.folder, cache]

    def forget(self, stages: Iterable[Stage]) -> None:
        """Make DVC run stages again: it forgets that they have run, and what they made.

        Raises:
            OSError: the lock or DVC's cache cannot be written.
        """
        names, commands = {stage.name for stage in stages}, {stage.command for stage in stages}
        lock = yaml.safe_load(self._lock.read_text(encoding="utf-8"))
        for name in names & lock["stages"].keys():
            lock["stages"][name] = {"cmd": "forgotten"}  # keeps its place, so that the lock ends as it was
        beside = self._lock.with_name(f".{secrets.token_hex(8)}.tmp")
        beside.write_text(yaml.safe_dump(lock, sort_keys=False), encoding="utf-8")
        os.replace(beside, self._lock)
        for path in (self._cache() / "runs").glob("*/*/*"):
            with suppress(OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
                if _text(yaml.safe_load(path.read_text(encoding="utf-8"))["cmd"]) in commands:
                    path.unlink()
                    for folder in (path.parent, path.parent.parent):  # DVC stumbles over an empty one
                        if not any(folder.iterdir()):
                            folder.rmdir()

    def _cache(self) -> Path:
        settings = configparser.ConfigParser(interpolation=None)
        with suppress(configparser.Error, OSError):
            settings.read([self.folder / ".dvc" / "config", self.folder / ".dvc" / "config.local"], encoding="utf-8")
        return self.folder / ".dvc" / settings.get("cache", "dir", fallback="cache")


def md5_of(path: Path) -> str:
    """MD5 of a file as DVC takes it, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _text(command: object) -> str:
    return command if isinstance(command, str) else "\n".join(map(str, command))


def _reads(stage: Stage, outputs: Iterable[str]) -> bool:
    """Whether a dependency of a stage is one of the outputs, lies in one, or holds one."""
    made = [Path(output) for output in outputs]
    wanted = [Path(dependency) for dependency in stage.dependencies]
    return any(one.is_relative_to(other) or other.is_relative_to(one) for one in wanted for other in made)
