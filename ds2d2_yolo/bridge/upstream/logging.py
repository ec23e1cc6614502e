"""Contexts in which Ultralytics logs less, or to a file."""

from __future__ import annotations

import io
import logging
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any, TextIO

from ultralytics.utils import LOGGER

CONTROL_SEQUENCES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")  # of a terminal: colours, and the removal of a line


class LineLog(io.TextIOBase):
    """A text stream that writes complete lines to a file, as a terminal would show them in the end.

    A progress bar that is drawn again and again with a carriage return leaves its last state only.

    Args:
        file (TextIO): The file.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._line = ""

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, text: str) -> int:
        """Take text, and write the lines that it completes."""
        *lines, incomplete = (self._line + CONTROL_SEQUENCES.sub("", text)).replace("\r\n", "\n").split("\n")
        for line in lines:
            self._file.write(line.rpartition("\r")[2].rstrip() + "\n")
        # a carriage return at the end may belong to a line break whose second half comes next
        self._line = incomplete[max(0, incomplete[:-1].rfind("\r")) :]
        return len(text)

    def flush(self) -> None:
        """Write the complete lines to the disk."""
        self._file.flush()

    def end(self) -> None:
        """Write the last line, if it is incomplete."""
        if self._line:
            self.write("\n")


@contextmanager
def logged_to(path: Path) -> Iterator[None]:
    """Append to a file what Ultralytics logs and what any code prints or warns, while the context lasts.

    Ultralytics' logger (8.4.190) holds the standard output that it found when it was imported, so its handlers get the
    file here, and their stream again afterwards. Its progress bars look for the standard output each time.

    Args:
        path (Path): The file; it is made if it is missing.

    Yields:
        (None): While it lasts, standard output and error of Python's code are the file.
    """
    handlers = _stream_handlers()
    previous, outside = {handler: handler.stream for handler in handlers}, sys.stdout
    with path.open("a", encoding="utf-8", buffering=1) as file:
        log = LineLog(file)
        try:
            for handler in handlers:
                _set_stream(handler, log)
            with redirect_stdout(log), redirect_stderr(log):
                yield
        finally:
            for handler in _stream_handlers():
                if handler.stream is log:  # one that was made meanwhile took it as the standard output
                    _set_stream(handler, previous.get(handler, outside))
            log.end()


def _stream_handlers() -> list[logging.StreamHandler[Any]]:
    """Return the handlers of Ultralytics' logger that write to a stream."""
    return [handler for handler in LOGGER.handlers if isinstance(handler, logging.StreamHandler)]


def _set_stream(handler: logging.StreamHandler[Any], stream: Any) -> None:
    """Replace the stream of a handler; the former one may be closed, which `setStream` does not bear."""
    with suppress(ValueError):
        handler.flush()
    handler.stream = stream


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
