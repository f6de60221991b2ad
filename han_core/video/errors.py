"""The one error of this room."""

from han_core.errors import ClipError


class VideoError(ClipError):
    """A video cannot be decoded, or is too damaged; the message says why, without the file's name."""
