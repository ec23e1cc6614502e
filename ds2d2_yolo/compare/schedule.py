"""Order of the jobs of a comparison: their needs, their slots and their failures; a launcher runs them."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True)
class Job:
    """Work for one child process.

    Attributes:
        name (str): Name of the job in messages.
        folder (Path): Folder of its log and its result.
        task (dict[str, Any]): Request for the child process.
        needs (tuple[str, ...]): Names of jobs that have to succeed first.
    """

    name: str
    folder: Path
    task: dict[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()

    @property
    def log(self) -> Path:
        """(Path): Standard output and error of the child process."""
        return self.folder / "log.txt"


Command = Callable[[Job, str], list[str]]  # returns the command line of a job on a device


class Launcher(Protocol):
    """Starts the child processes of jobs and notices their ends.

    Attributes:
        poll_interval_s (float): Seconds between two calls of `ended`.
    """

    poll_interval_s: float

    def start(self, job: Job, device: str) -> str:
        """Start a job.

        Args:
            job (Job): The job.
            device (str): Device that it runs on.

        Returns:
            (str): What happened, for the progress.
        """

    def ended(self) -> list[tuple[Job, str]]:
        """Return the jobs that have ended since the last call.

        Returns:
            (list[tuple[Job, str]]): Each with the reason of its failure, which is empty after a success.
        """

    def stop(self) -> None:
        """Leave the jobs that have not ended, because the comparison is interrupted or has failed."""

    def unfinished(self) -> str:
        """Return what goes on after `stop`, as the end of a sentence; empty if nothing does."""


def run_jobs(
    jobs: Sequence[Job],
    slots: Sequence[str],
    launcher: Launcher,
    on_start: Callable[[Job, str], None],
    on_success: Callable[[Job], None],
) -> dict[str, str]:
    """Run jobs in their order, as many at a time as there are slots.

    Later jobs overtake a job that waits for another one.

    Args:
        jobs (Sequence[Job]): The jobs.
        slots (Sequence[str]): Device of each job that may run at the same time.
        launcher (Launcher): Starts the jobs.
        on_start (Callable[[Job, str], None]): Called after a job has started, with what the launcher says of it.
        on_success (Callable[[Job], None]): Called after a job has succeeded.

    Returns:
        (dict[str, str]): Name of each failed job -> the reason.

    Raises:
        KeyboardInterrupt: On Ctrl-C or SIGTERM, once the launcher has stopped.
    """
    waiting, free = list(jobs), list(slots)
    running: dict[str, str] = {}  # name of the job -> its device
    failed: dict[str, str] = {}
    with _interruptible():
        try:
            while waiting or running:
                unfinished = {*(job.name for job in waiting), *running}
                for job in [job for job in waiting if failed.keys() & set(job.needs)]:
                    waiting.remove(job)
                    failed[job.name] = f"it needs {', '.join(job.needs)}"
                for job in [job for job in waiting if not unfinished & set(job.needs)][: len(free)]:
                    waiting.remove(job)
                    running[job.name] = free.pop(0)
                    on_start(job, launcher.start(job, running[job.name]))
                time.sleep(launcher.poll_interval_s)
                for job, reason in launcher.ended():
                    free.append(running.pop(job.name))
                    if reason:
                        failed[job.name] = reason
                    else:
                        on_success(job)
        finally:
            launcher.stop()
    return failed


@contextmanager
def _interruptible() -> Iterator[None]:
    """Handle SIGTERM like Ctrl-C while the context lasts."""
    handled = signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL  # by the command line
    if handled or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
