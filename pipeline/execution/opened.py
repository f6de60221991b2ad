"""What a process opens once for all the clips that it does: a net, in memory or on a GPU."""

from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from threading import Lock, local
from typing import Any, Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")

_KEPT = 2
"""A worker of a cluster may have clips of two stages, in turns."""

_thread = local()


@contextmanager
def one_task() -> Iterator[None]:
    """While the block runs, what its thread asks for stays open."""
    _thread.uses = []
    try:
        yield
    finally:
        for opened, key in _thread.uses:
            opened._let_go(key)
        _thread.uses = None


class Opened(Generic[Key, Value]):
    """The last things that were opened, for whichever thread asks for them.

    Args:
        open_it: opens what a key stands for.
    """

    def __init__(self, open_it: Callable[[Key], AbstractContextManager[Value]]) -> None:
        self._open = open_it
        self._lock = Lock()
        self._found: OrderedDict[Key, tuple[Value, ExitStack]] = OrderedDict()
        self._used: Counter[Key] = Counter()

    def get(self, key: Key) -> Value:
        """Open it, unless it is open; of what is in no task's use, all but the last is closed before."""
        with self._lock:
            if key not in self._found:
                self._make_room()
                stack = ExitStack()
                self._found[key] = stack.enter_context(self._open(key)), stack
            self._found.move_to_end(key)
            self._use(key)
            return self._found[key][0]

    def close(self) -> None:
        """Close what is open."""
        with self._lock:
            while self._found:
                self._close(next(iter(self._found)))

    def _make_room(self) -> None:
        for key in [key for key in self._found if not self._used[key]]:
            if len(self._found) >= _KEPT:
                self._close(key)

    def _close(self, key: Key) -> None:
        _, stack = self._found.pop(key)
        stack.close()

    def _use(self, key: Key) -> None:
        uses: list[tuple[Opened[Any, Any], Hashable]] | None = getattr(_thread, "uses", None)
        if uses is not None:
            uses.append((self, key))
            self._used[key] += 1

    def _let_go(self, key: Key) -> None:
        with self._lock:
            self._used[key] -= 1
            if not self._used[key]:
                del self._used[key]
