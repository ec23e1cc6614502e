"""Contexts in which Ultralytics logs less."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from ultralytics.utils import LOGGER


@contextmanager
def quiet(level: int = logging.WARNING) -> Iterator[None]:
    """Drop Ultralytics' log messages and progress bars below a level while the context lasts.

    Args:
        level (int): Lowest level that is logged, of the standard library's `logging`.

    Yields:
        (None): While it lasts, Ultralytics' logger has this level.
    """
    previous = LOGGER.level
    LOGGER.setLevel(level)
    try:
        yield
    finally:
        LOGGER.setLevel(previous)


@contextmanager
def warnings_only(verbose: bool = False) -> Iterator[None]:
    """Log only the warnings of Ultralytics and NNCF, and none of Python's, while the context lasts.

    What Ultralytics logs as an error it also raises, and the command prints it: the log line would repeat it.

    Args:
        verbose (bool): Whether everything is logged, as without this context.

    Yields:
        (None): While it lasts, the loggers have a filter.
    """
    if verbose:
        yield
        return
    loggers = (LOGGER, logging.getLogger("nncf"))
    for logger in loggers:
        logger.addFilter(_is_warning)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's tracer warns about every shape that it takes as constant
            yield
    finally:
        for logger in loggers:
            logger.removeFilter(_is_warning)


def _is_warning(record: logging.LogRecord) -> bool:
    """Return whether a log message is a warning."""
    return record.levelno == logging.WARNING
