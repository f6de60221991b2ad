"""An executor without workers, to see what runs where."""

from collections.abc import Callable
from concurrent.futures import Executor, Future


class InlineExecutor(Executor):
    """Runs each call at once in this process."""

    def submit(self, function: Callable, /, *arguments: object, **named: object) -> Future:
        """Call now; the future is done when this returns. ``KeyboardInterrupt`` passes through."""
        future: Future = Future()
        try:
            future.set_result(function(*arguments, **named))
        except Exception as error:
            future.set_exception(error)
        return future
