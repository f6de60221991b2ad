"""What goes wrong in a stage, told to a person."""

from collections.abc import Iterator
from contextlib import contextmanager

import click

from han_core.cache.folders import advice
from han_core.devices import gpu_fault
from han_core.errors import HanError


@contextmanager
def told_plainly(stage: str) -> Iterator[None]:
    """Errors of the data and of the machine as one sentence, without a traceback.

    Args:
        stage: named in front of it.

    Raises:
        click.ClickException: in place of a ``HanError``; of an ``OSError``: a full disk, no permission, a file that is
            missing; or of an error of the GPU.
    """
    try:
        yield
    except HanError as error:
        raise click.ClickException(f"{stage}: {error}") from None
    except FileNotFoundError as error:
        raise click.ClickException(
            f"{stage}: {error.filename or error} is missing; run the stages before {stage} first"
        ) from None
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise click.ClickException(f"{stage}: {where}{error.strerror or error}: {advice(error)}") from None
    except RuntimeError as error:
        if fault := gpu_fault(error):
            raise click.ClickException(f"{stage}: {fault}. What is done is kept; run the stage again") from error
        raise
