"""From the clips of a table to the tasks of a stage, and the map of a stage whose one process holds a net."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pipeline.execution.jobs import ClipTask
from pipeline.execution.ledger import read_failures
from pipeline.execution.runner import Summary, map_clips
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
) -> tuple[list[ClipTask], dict[str, str]]:
    """One task for each clip, out of the clip's file of an earlier stage.

    Args:
        source: folder of these files.
        kind: of these files.
        fingerprint: identity of the file to be made, given that of the clip's file.
        arguments: what the task needs beside the clip, given the path of the clip's file.

    Returns:
        The tasks, and {clip's key: reason} of the clips that have no such file.
    """
    from han_core.clipfile.trailer import ClipFileError, read_trailer

    failed = {name: f"no {kind}: {reason}" for name, reason in read_failures(source).items()}
    tasks = []
    for clip in clips:
        path = clip_file(source, clip.class_name, clip.name)
        identity = ""
        if clip.key not in failed:
            try:
                identity = fingerprint(read_trailer(path).fingerprint)
            except ClipFileError:
                failed[clip.key] = f"its {kind} file is missing or damaged; run {_MADE_BY[kind]} again"
        tasks.append(ClipTask(clip, identity, arguments(path)))
    return tasks, failed


def map_stream(
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
    cache: "ClipCache",
) -> Summary:
    """Make one file for each clip that has one of the roles in the split, out of its frames or flow file.

    The process that calls holds the net; a few threads read and decode the next clips, and write the last ones, while
    it computes.

    Args:
        stage: also the kind of the files that are made.
        function: makes the file of a task, whose argument is the path of the frames or flow file; called from several
            threads.
        fingerprint: identity of the file to be made, given that of the frames or flow file.

    Raises:
        click.ClickException: too many clips failed, or the stage cannot continue.
    """
    clips = (clip for role in roles for clip in table.select(split, role))
    tasks, failed = clip_tasks(clips, *Paths.of(params).source(stream), fingerprint)
    name = f"{stage}-{stream}-{split}"
    with ThreadPoolExecutor(_CLIPS_IN_WORK, thread_name_prefix="clips") as pool:
        try:
            return map_clips(
                name,
                function,
                tasks,
                kind=stage,
                output=output,
                cache=cache,
                run=params.run,
                allowed_failures=params.dataset.allowed_failures,
                failed=failed,
                executor=pool,
                log_path=Paths.of(params).log(name),
            )
        finally:
            pool.shutdown(cancel_futures=True)
