"""What a process opens once for all the clips that it does: a net, in memory or on a GPU."""

from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager, ExitStack
from threading import Lock
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Opened(Generic[Key, Value]):
    """The last thing that was opened, for whichever thread asks for it.

    Args:
        open_it: opens what a key stands for.
    """

    def __init__(self, open_it: Callable[[Key], AbstractContextManager[Value]]) -> None:
        self._open = open_it
        self._lock = Lock()
        self._stack = ExitStack()
        self._found: tuple[Key, Value] | None = None

    def get(self, key: Key) -> Value:
        """Open it, unless it is open; what was open before is closed."""
        with self._lock:
            if self._found is None or self._found[0] != key:
                self._replace(key, self._open)
            assert self._found is not None
            return self._found[1]

    def put(self, key: Key, value: AbstractContextManager[Value]) -> None:
        """This is what the key stands for: it need not be opened again."""
        with self._lock:
            self._replace(key, lambda _: value)

    def close(self) -> None:
        """Close what is open."""
        with self._lock:
            self._found = None
            self._stack.close()

    def _replace(self, key: Key, open_it: Callable[[Key], AbstractContextManager[Value]]) -> None:
        self._found = None
        self._stack.close()
        self._found = key, self._stack.enter_context(open_it(key))
