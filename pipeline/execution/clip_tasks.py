"""From the clips of a table to the work of a stage."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pipeline.execution.jobs import ClipTask
from pipeline.execution.ledger import read_failures
from pipeline.execution.runner import Summary, map_clips
from pipeline.execution.work import ClipWork
from pipeline.params import Params
from pipeline.paths import Paths, clip_file

if TYPE_CHECKING:  # torch takes seconds to import, and --help should not
    from han_core.cache.store import ClipCache
    from han_core.clips import Clip, ClipTable

_CLIPS_IN_WORK = 3  # one being read, one computed, one written
_MADE_BY = {"frames": "decode", "flow": "flow"}


def clip_tasks(
    clips: "Iterable[Clip]",
    source: Path,
    kind: Literal["frames", "flow"],
    fingerprint: Callable[[str], str],
    arguments: Callable[[Path], object] = lambda path: path,
) -> tuple[list[ClipTask], dict[str, str], dict[str, str]]:
    """One task for each clip, out of the clip's file of an earlier stage.

    Args:
        source: folder of these files.
        kind: of these files.
        fingerprint: identity of the file to be made, given the content of the clip's file.
        arguments: what the task needs beside the clip, given the path of the clip's file.

    Returns:
        The tasks; {clip's key: reason} of the clips that have no such file because they failed before; and of those
        whose file is missing or damaged all the same.
    """
    from han_core.clipfile.trailer import ClipFileError, read_trailer

    failed = {name: f"no {kind}: {reason}" for name, reason in read_failures(source).items()}
    faults: dict[str, str] = {}
    tasks = []
    for clip in clips:
        path = clip_file(source, clip.class_name, clip.name)
        identity = ""
        if clip.key not in failed:
            try:
                identity = fingerprint(read_trailer(path).content)
            except ClipFileError as error:
                faults[clip.key] = f"{error} (made by stage {_MADE_BY[kind]})"
        tasks.append(ClipTask(clip, identity, arguments(path)))
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
    executor: Executor,
) -> ClipWork:
    """The work of a stage whose one process holds a net, for each clip that has one of the roles in the split, out of
    its frames or flow file.

    Args:
        stage: also the kind of the files that are made.
        function: makes the file of a task, whose argument is the path of the frames or flow file; called from several
            threads.
        fingerprint: identity of the file to be made, given the content of the frames or flow file.
        executor: :func:`clip_threads`.
    """
    clips = (clip for role in roles for clip in table.select(split, role))
    tasks, failed, faults = clip_tasks(clips, *Paths.of(params).source(stream), fingerprint)
    return ClipWork(
        name=f"{stage}-{stream}-{split}",
        stage=f"{stage}-{stream}",
        kind=stage,
        function=function,
        tasks=tuple(tasks),
        output=output,
        failed=failed,
        faults=faults,
        executor=executor,
    )


@contextmanager
def clip_threads() -> Iterator[ThreadPoolExecutor]:
    """A few threads that read and decode the next clips, and write the last ones, while the net computes."""
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
    return map_clips(
        work,
        cache=cache,
        run=params.run,
        allowed_failures=params.dataset.allowed_failures,
        log_path=Paths.of(params).log(work.name),
    )
