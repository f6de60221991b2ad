"""One net over the clips of a split: what stages ``cubes`` and ``scores`` share.

Such a stage is one process that holds the net; a few threads read and decode the next clips, and write the last ones,
while it computes.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.params import Params
from pipeline.paths import Paths, clip_file
from pipeline.runner import ClipTask, Summary, map_clips, read_failures

if TYPE_CHECKING:  # torch takes seconds to import, and --help should not
    from han_core.cache import ClipCache
    from han_core.datasets.clips import ClipTable
    from han_core.two_stream import VGG16, Convention

_CLIPS_IN_WORK = 3  # one being read, one computed, one written


@dataclass(frozen=True)
class StreamNet:
    """The net of a stream and what its input is."""

    path: Path
    net: "VGG16"
    identity: str
    """Fingerprint of the net."""
    input: "Convention"
    stack: int
    """0 for the spatial stream."""


def open_net(params: Params, stream: str, split: int) -> StreamNet:
    """The net of a stream and split, checked against the params.

    Raises:
        WeightsError: the file is missing or damaged, or the net is not one for this stream and stack.
    """
    from han_core.weights import WeightsError, net_identity, read_net, resolve_convention

    path = net_file(params, stream, split)
    net, metadata = read_net(path)
    stack = params.stack if stream == "temporal" else 0
    wanted = 2 * stack or 3
    if net.in_channels != wanted:
        raise WeightsError(
            f"{path}: the net takes {net.in_channels} channels, but the {stream} stream has {wanted}"
            + (f" (stack: {stack})" if stack else "")
        )
    told = metadata.get("stream", stream)
    if told != stream:
        raise WeightsError(f"{path}: is a net of the {told} stream")
    convention = resolve_convention(str(path), getattr(params.finetune, stream).input)
    return StreamNet(path, net, net_identity(path, metadata), convention, stack)


def net_file(params: Params, stream: str, split: int) -> Path:
    """The file of a stream's net.

    Raises:
        WeightsError: it is missing.
    """
    from han_core.weights import WeightsError

    path = Paths.of(params).net(stream, split)
    if not path.exists():
        raise WeightsError(f"{path}: is missing; make it with stage finetune of dataset {params.cubes.nets}")
    return path


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

    Args:
        stage: also the kind of the files that are made.
        function: makes the file of a task, whose argument is the path of the frames or flow file; called from several
            threads.
        fingerprint: identity of the file to be made, given that of the frames or flow file.

    Raises:
        click.ClickException: too many clips failed, or nothing can go on.
    """
    from han_core.trailer import ClipFileError, read_trailer

    source, kind = Paths.of(params).source(stream)
    failed = {name: f"no {kind}: {reason}" for name, reason in read_failures(source).items()}
    tasks = []
    for clip in (clip for role in roles for clip in table.select(split, role)):
        path = clip_file(source, clip.class_name, clip.name)
        identity = ""
        if clip.name not in failed:
            try:
                identity = fingerprint(read_trailer(path).fingerprint)
            except ClipFileError:
                failed[clip.name] = f"its {kind} file is missing or damaged; run the stage that makes {kind} again"
        tasks.append(ClipTask(clip, identity, path))
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
