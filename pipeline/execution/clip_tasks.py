"""From the clips of a table to the work of a stage."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from han_core.devices import gpus
from pipeline.execution.accesses import each
from pipeline.execution.contents import check_listed, read_contents
from pipeline.execution.costs import counted
from pipeline.execution.jobs import ClipTask
from pipeline.execution.ledger import read_failures
from pipeline.execution.opened import Opened
from pipeline.execution.runner import Summary, map_clips
from pipeline.execution.work import ClipWork
from pipeline.params import Params, Run
from pipeline.paths import Paths, clip_file

if TYPE_CHECKING:  # torch takes seconds to import, and --help should not
    import torch

    from han_core.cache.store import ClipCache
    from han_core.clips import Clip, ClipTable

Source = tuple[Path, str]
"""A folder of clip files, and their kind."""

_CLIPS_IN_WORK = 3  # one being read, one computed, one written
_MADE_BY = {"frames": "decode", "steady": "steady"}  # folders whose stage is not named as the kind of their files


def clip_tasks(
    clips: "Iterable[Clip]",
    sources: Sequence[Source],
    fingerprint: Callable[..., str],
    arguments: Callable[..., object] = lambda path: path,
) -> tuple[list[ClipTask], dict[str, str], dict[str, str]]:
    """One task for each clip, out of the clip's files of earlier stages.

    Args:
        sources: where these files are, one of each for a clip.
        fingerprint: identity of the file to be made, given the content of each of the clip's files.
        arguments: what the task needs beside the clip, given the absolute path of each of the clip's files (of cubes,
            which may be in shards, a :class:`~han_core.cubes.folder.StoredClip`; None if there is none): a worker of a
            cluster may be in another folder.

    Returns:
        The tasks; {clip's key: reason} of the clips that lack a file because they failed before; and of those one of
        whose files is missing, damaged or another clip's all the same.

    Raises:
        ClipFileError: the list of a folder is damaged.
    """
    from han_core.clipfile.trailer import ClipFileError, read_trailer
    from han_core.cubes.folder import CubeFolder, StoredClip

    failed: dict[str, str] = {}
    for folder, kind in reversed(sources):  # of several reasons the first source's counts
        failed |= {name: f"no {kind}: {reason}" for name, reason in read_failures(folder).items()}
    faults: dict[str, str] = {}

    cubes = {folder: CubeFolder(folder) for folder, kind in sources if kind == "cubes"}
    listed = {folder: read_contents(folder) for folder, _ in sources}

    def place_of(clip: "Clip", folder: Path) -> tuple[Path | StoredClip, str]:
        """Where the clip's file is, and the identity of its content."""
        if folder in cubes:
            stored = cubes[folder].find(clip.class_name, clip.name)
            check_listed(stored.path, clip.key, stored.trailer.content, listed[folder])
            return stored.absolute(), stored.trailer.content
        path = clip_file(folder, clip.class_name, clip.name)
        content = read_trailer(path).content
        check_listed(path, clip.key, content, listed[folder])
        return path.absolute(), content

    def found_of(clip: "Clip") -> list[tuple[Path | StoredClip | None, str]]:
        """Of each source, as far as the clip's file is sound."""
        found: list[tuple[Path | StoredClip | None, str]] = [(None, "")] * len(sources)
        for number, (folder, kind) in enumerate(sources if clip.key not in failed else ()):
            try:
                found[number] = place_of(clip, folder)
            except ClipFileError as error:
                faults.setdefault(clip.key, f"{error} (made by stage {_MADE_BY.get(folder.name, kind)})")
        return found

    tasks = []
    for clip, found in each(found_of, list(clips)):
        places, contents = zip(*found, strict=True)
        tasks.append(ClipTask(clip, fingerprint(*contents) if all(contents) else "", arguments(*places)))
    return tasks, failed, faults


def stream_work(
    stage: str,
    function: Callable[[ClipTask, Path], None],
    params: Params,
    table: "ClipTable",
    stream: str,
    split: int,
    *,
    roles: Sequence[str],
    fingerprint: Callable[[str], str],
    output: Path,
) -> ClipWork:
    """The work of a stage that runs a stream's net, for each clip that has one of the roles in the split, out of its
    frames or flow file.

    Args:
        stage: also the kind of the files that are made.
        function: makes the file of a task, whose argument is the path of the frames or flow file; called from several
            threads.
        fingerprint: identity of the file to be made, given the content of the frames or flow file.
    """
    clips = (clip for role in roles for clip in table.select(split, role))
    tasks, failed, faults = clip_tasks(clips, [Paths.of(params).source(stream)], fingerprint)
    return ClipWork(
        name=f"{stage}-{stream}-{split}",
        stage=f"{stage}-{stream}",
        kind=stage,
        function=function,
        tasks=tuple(tasks),
        output=output,
        failed=failed,
        faults=faults,
    )


class NetJob(Hashable, Protocol):
    """What a process has to know to make clips with a net."""

    def open(self) -> Any:
        """The net, in main memory.

        Raises:
            WeightsError: it is missing or damaged, or another one by now.
        """

    def running(self, net: Any) -> AbstractContextManager[Any]:
        """The net, ready to run."""


@contextmanager
def net_work(
    work: ClipWork,
    nets: Opened[NetJob, object],
    job: NetJob,
    device: "torch.device",
    run: Run,
) -> Iterator[ClipWork]:
    """Who does a work whose function gets its net from ``nets``: a cluster, whose workers open it; on a CPU a few
    threads of this process, beside the net, which takes all cores; else a process for each GPU.

    Where all clips are in the cache, no net is opened. Else this process opens it first, whoever computes: a damaged
    net ends the stage, in place of failing with each clip.

    Args:
        nets, job: where the function gets its net, and by which key.
    """
    cards = max(1, gpus()) if device.type != "cpu" else 0
    if cards or run.executor == "dask":
        yield replace(work, gpus=cards, net=True, precision=_precision(job), before=job.open)
        return
    with closing(nets), clip_threads() as pool:
        yield replace(work, executor=pool, before=lambda: nets.get(job))


def _precision(job: NetJob) -> str:
    """Arithmetic of a job's net: one of the settings that the job holds."""
    (found,) = {part.precision for part in vars(job).values() if hasattr(part, "precision")}
    return found


@contextmanager
def clip_threads() -> Iterator[ThreadPoolExecutor]:
    """A few threads that read and decode the next clips, and write the last ones, while a net of this process
    computes."""
    with ThreadPoolExecutor(_CLIPS_IN_WORK, thread_name_prefix="clips") as pool:
        try:
            yield pool
        finally:
            pool.shutdown(cancel_futures=True)


def do(work: ClipWork, params: Params, cache: "ClipCache") -> Summary:
    """Do the work of a stage as the params say.

    Raises:
        click.ClickException: too many clips failed, or the stage cannot continue.
    """
    item = work.name.removeprefix(work.stage).lstrip("-")
    with counted(params, f"{work.stage}@{item}" if item else work.stage, made=0) as cost:
        summary = map_clips(
            work,
            cache=cache,
            run=params.run,
            allowed_failures=params.dataset.allowed_failures,
            log_path=Paths.of(params).log(work.name),
        )
        cost.made = summary.computed
    return summary
