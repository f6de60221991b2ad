"""Lines on standard output: the bytes do not depend on the locale, and that they cannot be written is said plainly."""

import errno
import json
import os
import re
import sys
from contextlib import suppress

import click

_NOT_DECODED = re.compile("[\udc80-\udcff]+")
"""What Python makes of the bytes of a file's name that it cannot decode."""


def print_json(values: dict) -> None:
    """Print one line of JSON, in UTF-8 whatever the locale.

    A file's name that is no UTF-8 is written with escapes, ``\\udcff`` for the byte 0xff, so that in Python
    ``os.fsencode(json.loads(line)[..])`` is the name again.

    Raises:
        click.ClickException: standard output cannot be written, e.g. the disk is full.
    """
    print_line(json.dumps(values, ensure_ascii=False))


def print_line(text: str) -> None:
    """Print a line in UTF-8; what has no place in UTF-8 becomes ``\\udcff`` and the like.

    Raises:
        click.ClickException: standard output cannot be written, e.g. the disk is full.
    """
    # Where the locale is ASCII, Python has not decoded any letter beyond it.
    text = _NOT_DECODED.sub(lambda found: os.fsencode(found[0]).decode("utf-8", "surrogateescape"), text)
    try:
        click.echo(text.encode("utf-8", "backslashreplace"))
    except OSError as error:
        if error.errno == errno.EPIPE:  # the reader, e.g. `head`, has seen enough; click ends quietly
            raise
        _forget_unwritten()
        raise click.ClickException(f"standard output cannot be written ({error.strerror})") from None


def _forget_unwritten() -> None:
    """Turn standard output to nowhere: Python writes what is left of it at its end, and would fail again."""
    with suppress(OSError, ValueError):  # one that is no file, as in tests
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
