"""Progress of a long task: a bar with the remaining time on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress


class Task:
    """A running task; `tracked` makes it.

    Args:
        title (str): Title of the task.
        total (float | None): Number of units of work, None while it is unknown.
        stream (TextIO): Where notes and lines are written.
        bars (Progress | None): Bar of a terminal, None where there is no terminal.
    """

    def __init__(self, title: str, total: float | None, stream: TextIO, bars: Progress | None = None) -> None:
        self.title, self.completed = title, 0.0
        self._total, self._stream, self._bars = total, stream, bars
        self._bar: Any = bars.add_task(title, total=total) if bars else None

    @property
    def total(self) -> float | None:
        """(float | None): Number of units of work; it may be set once it is known, or when it changes."""
        return self._total

    @total.setter
    def total(self, total: float | None) -> None:
        """Set the number of units of work."""
        self._total = total
        self._refresh()

    def advance(self, units: float = 1) -> None:
        """Record finished work.

        Args:
            units (float): Number of units that have been finished since the last call.
        """
        self.reach(self.completed + units)

    def reach(self, completed: float) -> None:
        """Record the number of units that are finished.

        Args:
            completed (float): Units since the start of the task.
        """
        self.completed = completed
        self._refresh()

    def note(self, text: str) -> None:
        """Write a line above the bar.

        Args:
            text (str): The line.
        """
        if self._bars:
            self._bars.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            print(text, file=self._stream, flush=True)

    def finish(self) -> None:
        """Fill the bar."""
        self._total = self._total or 1
        self.reach(self._total)

    def _refresh(self) -> None:
        """Hand the numbers to the bar."""
        if self._bars:
            self._bars.update(self._bar, total=self._total, completed=self.completed)


@contextmanager
def tracked(title: str, total: float | None = None, stream: TextIO | None = None) -> Iterator[Task]:
    """Show the progress of a task while the context lasts.

    On a terminal this is one bar with the elapsed and the remaining time, which stays on the screen. Elsewhere, as in a
    file or a pipe, it is a line at the start and one with the duration at the end.

    Args:
        title (str): Title of the task.
        total (float | None): Number of units of work; without one the bar moves to and fro until `Task.total` is set.
        stream (TextIO | None): Where to write, None for the standard output of this moment.

    Yields:
        (Task): Takes the finished units. It is full when the context ends without an error.

    Examples:
        >>> with tracked("squares", total=3) as task:  # doctest: +SKIP
        ...     for number in range(3):
        ...         task.advance()
    """
    stream = stream or sys.stdout
    start = time.monotonic()
    if stream.isatty():
        with _bars(stream) as bars:
            task = Task(title, total, stream, bars)
            yield task
            task.finish()
        return
    task = Task(title, total, stream)
    task.note(title)
    yield task
    task.finish()
    task.note(f"{title}: {duration(time.monotonic() - start)}")


def _bars(stream: TextIO) -> Progress:
    """Return a display of bars on a terminal."""
    from rich import progress  # here, so that programs without a terminal do not load it
    from rich.console import Console

    columns = (
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(bar_width=24),
        progress.MofNCompleteColumn(),
        progress.TimeElapsedColumn(),
        progress.TimeRemainingColumn(compact=True),
    )
    # what others print while the bar is shown goes where they send it
    return progress.Progress(*columns, console=Console(file=stream), redirect_stdout=False, redirect_stderr=False)


def duration(seconds: float) -> str:
    """Return a duration in words.

    Args:
        seconds (float): The duration.

    Returns:
        (str): Whole seconds under 90 s, then minutes with a decimal.

    Examples:
        >>> duration(12.4), duration(150)
        ('12 s', '2.5 min')
    """
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"
