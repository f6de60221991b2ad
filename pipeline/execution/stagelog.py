"""The log of a stage: ``logs/<dataset>/<stage>.log``, one paragraph appended a run. Never an output of a stage."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SOURCES = ("han_core", "pipeline")


@contextmanager
def stage_log(path: Path) -> Iterator[logging.Logger]:
    """Send what the packages log to a file (from ``info`` on) and to standard error (from ``warning`` on)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = logging.FileHandler(path, encoding="utf-8", delay=True)
    file.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    terminal = logging.StreamHandler(sys.stderr)
    terminal.setLevel(logging.WARNING)
    terminal.setFormatter(logging.Formatter("%(message)s"))
    loggers = [logging.getLogger(name) for name in _SOURCES]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.INFO)
        logger.addHandler(file)
        logger.addHandler(terminal)
    try:
        yield logging.getLogger("pipeline")
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
            logger.removeHandler(file)
            logger.removeHandler(terminal)
        file.close()
