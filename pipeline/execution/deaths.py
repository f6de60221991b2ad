"""Workers that die: when a clip is to blame, and when it is the place where workers live.

Whoever hands out several clips at once cannot tell which of them brought a worker down. All of them are suspects, and
each is tried alone: the one that is in work when a worker dies again is to blame.
"""

from han_core.errors import HanError

_IN_A_ROW = 10  # with no clip done in between; more means that workers cannot live here at all


class WorkersDied(HanError, RuntimeError):
    """There are no workers to go on with."""


class Deaths:
    """Counts the workers that died of a clip that they did alone."""

    def __init__(self) -> None:
        self._in_a_row = 0

    def one(self, reason: str) -> None:
        """A worker died.

        Raises:
            WorkersDied: too many did, one after the other.
        """
        self._in_a_row += 1
        if self._in_a_row > _IN_A_ROW:
            raise WorkersDied(f"{self._in_a_row} worker processes died one after the other: {reason}")

    def none(self) -> None:
        """A clip was done."""
        self._in_a_row = 0
