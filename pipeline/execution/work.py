"""The work of a stage that makes one file for each clip, as plain facts: who does it, and where, is decided
elsewhere."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path

from han_core.clipfile.trailer import Trailer
from pipeline.execution.jobs import ClipTask


@dataclass(frozen=True)
class ClipWork:
    """What a stage makes of its clips."""

    name: str
    """Shown and logged, e.g. ``cubes-spatial-1``."""
    stage: str
    """In ``dvc.yaml``, e.g. ``cubes-spatial``: its packages are the code that makes the files. "" where none does."""
    kind: str
    """Of the clip files."""
    function: Callable[[ClipTask, Path], None]
    """Writes the clip file of a task to the path it is given; raises ``ClipError`` for a clip that cannot be processed.
    A top-level function or a plain object, because it is called in other processes."""
    tasks: tuple[ClipTask, ...]
    """One for each clip."""
    output: Path
    """Folder of the results. Whatever else is in it is removed: it belongs to the stage."""
    failed: Mapping[str, str] = field(default_factory=dict)
    """Clip's key -> reason, for clips that failed in an earlier stage; their tasks are not run, and they count as
    failed here too."""
    faults: Mapping[str, str] = field(default_factory=dict)
    """The same for clips that cannot be done, through no fault of theirs."""
    executor: Executor | None = None
    """Threads of this process, beside a net that takes all its cores, in place of workers; it is not shut down."""
    gpus: int = 0
    """How many GPUs to use, with a few local workers on each, so that one clip is read or written while another is
    computed; 0 uses none."""
    net: bool = False
    """Whether the function opens a net, once in each process (:class:`~pipeline.execution.opened.Opened`), and may be
    called from several threads: then there is one process a GPU, with threads."""
    precision: str = "float32"
    """Arithmetic of the net."""
    shard: int = 0
    """About so many clips of a class share one file of the output folder; 0: one file a clip."""
    before: Callable[[], object] = lambda: None
    """Called in this process before the first clip is made; not at all where none is to be made."""
    noticed: Callable[[Trailer], None] = lambda trailer: None
    """Called in this process with the trailer of each clip's file, reused or made."""


class TaskQueue(Iterator[ClipTask]):
    """Tasks that are still to be done. Unlike other iterators it may go on after its end: a task can come back."""

    def __init__(self, tasks: Iterable[ClipTask]) -> None:
        self._tasks = deque(tasks)

    def __next__(self) -> ClipTask:
        if not self._tasks:
            raise StopIteration
        return self._tasks.popleft()

    def __len__(self) -> int:
        return len(self._tasks)

    def put_back(self, task: ClipTask) -> None:
        """Do this one last."""
        self._tasks.append(task)
