"""How many bytes the page may still take."""


class Room:
    """What is left of ``report.megabytes``."""

    def __init__(self, left: float) -> None:
        self.left = max(0, int(left))
        """Bytes."""

    def take(self, size: int, most: int | None = None) -> bool:
        """Whether there is room for so many bytes, and if so, it is taken.

        Args:
            most: no more than so many bytes now.
        """
        fits = size <= self.left and (most is None or size <= most)
        if fits:
            self.left -= size
        return fits


def inside_a_page(data: bytes) -> int:
    """Bytes that a file takes inside a page, where its letters stand for six bits each."""
    return 4 * -(-len(data) // 3)
