"""Progress of a long task: a bar with the remaining time on a terminal, plain lines elsewhere."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress

LINE_INTERVAL_S = 60.0  # between two plain lines at least
LINE_SHARE = 0.1  # of the work between two plain lines at least


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
        self._skipped, self._step = 0.0, ""
        self._start = self._reached_at = time.monotonic()
        self._line = self._start, 0.0  # time and completed units of the last plain line
        self._bar: Any = bars.add_task(title, total=total, state=self._state) if bars else None

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
        self._reached_at = time.monotonic()
        self._refresh()

    def skip(self, units: float) -> None:
        """Record work that was finished before this task; it does not count for the remaining time.

        Args:
            units (float): Number of units.
        """
        self._skipped += units
        self._line = self._line[0], self._line[1] + units
        self.reach(self.completed + units)

    def remaining(self) -> float | None:
        """Return the estimated remaining time, from the mean duration of the finished units.

        The estimate of rich 15 needs two finished units of the last 30 seconds, and does not count down between them.

        Returns:
            (float | None): Seconds from now, 0 or more; None before the first unit, or without a total.
        """
        finished = self.completed - self._skipped
        if self._total is None or finished <= 0:
            return None
        left = (self._reached_at - self._start) / finished * (self._total - self.completed)
        return max(0.0, left - (time.monotonic() - self._reached_at))

    def show_step(self, text: str) -> None:
        """Show on a terminal what is being done.

        Args:
            text (str): The step; it is shown until the next one.
        """
        self._step = text

    def note(self, text: str) -> None:
        """Write a line above the bar.

        Args:
            text (str): The line.
        """
        if self._bars:
            self._bars.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            print(text, file=self._stream, flush=True)

    def finish(self, fill: bool = True) -> None:
        """End the task.

        Args:
            fill (bool): Whether all units are finished.
        """
        self._step = ""
        if fill:
            self._total = self._total or 1
            self.reach(self._total)

    def _state(self) -> str:
        """Return the remaining time, unless a unit takes longer than those before, and the step."""
        left = self.remaining()
        return ", ".join(filter(None, (f"{duration(left)} left" if left else "", self._step)))

    def _refresh(self) -> None:
        """Hand the numbers to the bar, or write a plain line if one is due."""
        if self._bars:
            self._bars.update(self._bar, total=self._total, completed=self.completed)
            return
        now, (last, completed) = time.monotonic(), self._line
        left = self.remaining()
        due = now - last >= LINE_INTERVAL_S and self.completed - completed >= LINE_SHARE * (self._total or 0)
        if due and left is not None and self.completed < (self._total or 0):
            self._line = now, self.completed
            self.note(f"{self.title}: {self.completed:g} of {self._total:g}, {duration(left)} left")


@contextmanager
def tracked(
    title: str, total: float | None = None, stream: TextIO | None = None, *, shown: bool = True, fill: bool = True
) -> Iterator[Task]:
    """Show the progress of a task while the context lasts.

    On a terminal this is one bar with the elapsed and the remaining time, which stays on the screen. Elsewhere, as in a
    file or a pipe, it is a line at the start and one with the duration at the end. Lines between them show the
    remaining time: at most one a minute, and at most one for each tenth of the work.

    Args:
        title (str): Title of the task.
        total (float | None): Number of units of work; without one the bar moves to and fro until `Task.total` is set.
        stream (TextIO | None): Where to write, None for the standard output of this moment.
        shown (bool): Whether anything is written.
        fill (bool): Whether all units are finished when the context ends without an error.

    Yields:
        (Task): Takes the finished units.

    Examples:
        >>> with tracked("squares", total=3) as task:  # doctest: +SKIP
        ...     for number in range(3):
        ...         task.advance()
    """
    stream = (stream or sys.stdout) if shown else io.StringIO()
    start = time.monotonic()
    if stream.isatty():
        with _bars(stream) as bars:
            task = Task(title, total, stream, bars)
            yield task
            task.finish(fill)
        return
    task = Task(title, total, stream)
    task.note(title)
    yield task
    task.finish(fill)
    task.note(f"{title}: {duration(time.monotonic() - start)}")


def _bars(stream: TextIO) -> Progress:
    """Return a display of bars on a terminal."""
    from rich import progress  # here, so that programs without a terminal do not load it
    from rich.console import Console
    from rich.table import Column
    from rich.text import Text

    class StateColumn(progress.ProgressColumn):
        """The state of the task; it alone is cut on a narrow terminal."""

        def render(self, task: progress.Task) -> Text:
            """Return the text of the column."""
            text = "" if task.finished else task.fields["state"]()
            return Text(text, style="progress.remaining", no_wrap=True, overflow="ellipsis")

    fixed = Column(no_wrap=True)
    columns = (
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(bar_width=24, table_column=fixed),
        progress.MofNCompleteColumn(table_column=fixed),
        progress.TimeElapsedColumn(table_column=fixed),
        StateColumn(),
    )
    # what others print while the bar is shown goes where they send it
    return progress.Progress(*columns, console=Console(file=stream), redirect_stdout=False, redirect_stderr=False)


def duration(seconds: float) -> str:
    """Return a duration in words.

    Args:
        seconds (float): The duration.

    Returns:
        (str): Whole seconds under 90 s, then minutes with a decimal, from two hours hours.

    Examples:
        >>> duration(12.4), duration(150), duration(9000)
        ('12 s', '2.5 min', '2.5 h')
    """
    if seconds >= 7200:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"
