"""Runs jobs in child processes, several at a time: a crash ends no other job, and no child outlives its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ds2d2_yolo.utils.child_process import child_environment, reported_error

STOP_TIMEOUT_S = 10.0  # a process that was asked to end is killed after it
POLL_INTERVAL_S = 0.1


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


@dataclass
class RunningJob:
    """A job whose process runs on a device."""

    job: Job
    device: str
    process: subprocess.Popen[bytes]


def run_jobs(
    jobs: Sequence[Job],
    slots: Sequence[str],
    command: Callable[[Job, str], list[str]],
    on_start: Callable[[Job], None],
    on_success: Callable[[Job], None],
    environment: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Run jobs in their order, as many at a time as there are slots.

    Later jobs overtake a job that waits for another one.

    Args:
        jobs (Sequence[Job]): The jobs.
        slots (Sequence[str]): Device of each process that may run at the same time.
        command (Callable[[Job, str], list[str]]): Returns the command line of a job on a device.
        on_start (Callable[[Job], None]): Called after the process of a job has started.
        on_success (Callable[[Job], None]): Called after a job has succeeded.
        environment (Mapping[str, str] | None): Variables that are set for the processes.

    Returns:
        (dict[str, str]): Name of each failed job -> the reason.

    Raises:
        KeyboardInterrupt: On Ctrl-C or SIGTERM, once all processes are stopped.
    """
    waiting, free = list(jobs), list(slots)
    running: list[RunningJob] = []
    failed: dict[str, str] = {}
    with _interruptible():
        try:
            while waiting or running:
                unfinished = {job.name for job in (*waiting, *(r.job for r in running))}
                for job in [job for job in waiting if failed.keys() & set(job.needs)]:
                    waiting.remove(job)
                    failed[job.name] = f"it needs {', '.join(job.needs)}"
                for job in [job for job in waiting if not unfinished & set(job.needs)][: len(free)]:
                    waiting.remove(job)
                    device = free.pop(0)
                    running.append(RunningJob(job, device, _start(job, command(job, device), environment)))
                    on_start(job)
                time.sleep(POLL_INTERVAL_S)
                for one in [one for one in running if one.process.poll() is not None]:
                    running.remove(one)
                    free.append(one.device)
                    if one.process.returncode == 0:
                        on_success(one.job)
                    else:
                        failed[one.job.name] = _reason(one)
        finally:
            _stop(running)
    return failed


def die_with_parent() -> None:
    """End this process and its children when its parent ends, killed or not.

    The parent holds the other end of the pipe at this process's standard input. The system closes it with the parent.
    """

    def watch() -> None:
        while os.read(0, 1024):
            pass
        if os.name == "posix":
            os.killpg(0, signal.SIGKILL)  # type: ignore[attr-defined,unused-ignore]
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _start(job: Job, command: list[str], environment: Mapping[str, str] | None) -> subprocess.Popen[bytes]:
    """Start the process of a job in a new session: only the parent gets Ctrl-C, and stops the process."""
    job.folder.mkdir(parents=True, exist_ok=True)
    with job.log.open("ab") as log:
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            env=child_environment({"PYTHONUNBUFFERED": "1", **(environment or {})}, base=os.environ),
        )  # fmt: skip


def _stop(running: Sequence[RunningJob]) -> None:
    """Stop processes, and kill those that take longer than `STOP_TIMEOUT_S`."""
    for one in running:
        one.process.terminate()
    until = time.monotonic() + STOP_TIMEOUT_S
    for one in running:
        with suppress(subprocess.TimeoutExpired):
            one.process.wait(max(0.0, until - time.monotonic()))
        _kill(one.process)
        one.process.wait()


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process with its children."""
    if os.name != "posix":
        process.kill()
        return
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _reason(one: RunningJob) -> str:
    """Return why a job failed: the error that it reported, or the last line of its log."""
    code = one.process.returncode
    if code < 0:
        return f"killed by signal {-code}"
    log = one.job.log.read_text(encoding="utf-8", errors="replace").strip()
    return reported_error(log) or (log.splitlines()[-1].strip() if log else f"status {code}")


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
