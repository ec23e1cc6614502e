"""Jobs in processes of their own, several at a time: a crash of one ends no other, and none outlives its parent."""

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

PATIENCE = 10.0  # seconds that a process has to end by itself
POLL = 0.1


@dataclass(frozen=True)
class Job:
    """One process.

    Attributes:
        name (str): What is said of it.
        folder (Path): Where its log and its result lie.
        task (dict[str, Any]): What it does, as its process takes it.
        needs (tuple[str, ...]): Names of jobs that have to succeed first.
    """

    name: str
    folder: Path
    task: dict[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()

    @property
    def log(self) -> Path:
        """(Path): What its process printed."""
        return self.folder / "log.txt"


@dataclass
class Running:
    """A job whose process runs."""

    job: Job
    device: str
    process: subprocess.Popen[bytes]


def run_jobs(
    jobs: Sequence[Job],
    slots: Sequence[str],
    command: Callable[[Job, str], list[str]],
    begun: Callable[[Job], None],
    ended: Callable[[Job], None],
    environment: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Run jobs in their order, as many at a time as there are slots.

    A job that waits for another lets those behind it go first.

    Args:
        jobs (Sequence[Job]): The jobs.
        slots (Sequence[str]): Device of each process that may run at a time.
        command (Callable[[Job, str], list[str]]): Command line of a job on a device.
        begun (Callable[[Job], None]): Called when its process has started.
        ended (Callable[[Job], None]): Called when it has succeeded.
        environment (Mapping[str, str] | None): Of the processes, over this one's.

    Returns:
        (dict[str, str]): For each job that failed, why.

    Raises:
        KeyboardInterrupt: On Ctrl-C or SIGTERM, once all processes are stopped.
    """
    waiting, free = list(jobs), list(slots)
    running: list[Running] = []
    failed: dict[str, str] = {}
    with _interruptible():
        try:
            while waiting or running:
                left = {job.name for job in (*waiting, *(r.job for r in running))}
                for job in [job for job in waiting if failed.keys() & set(job.needs)]:
                    waiting.remove(job)
                    failed[job.name] = f"it needs {', '.join(job.needs)}"
                for job in [job for job in waiting if not left & set(job.needs)][: len(free)]:
                    waiting.remove(job)
                    device = free.pop(0)
                    running.append(Running(job, device, _start(job, command(job, device), environment)))
                    begun(job)
                time.sleep(POLL)
                for one in [one for one in running if one.process.poll() is not None]:
                    running.remove(one)
                    free.append(one.device)
                    if one.process.returncode == 0:
                        ended(one.job)
                    else:
                        failed[one.job.name] = _reason(one)
        finally:
            _stop(running)
    return failed


def die_with_parent() -> None:
    """End this process, and those that it started, when the one that started it is gone, killed or not.

    The parent holds the other end of this process' standard input, which the system closes for it.
    """

    def watch() -> None:
        while os.read(0, 1024):
            pass
        if os.name == "posix":
            os.killpg(0, signal.SIGKILL)  # type: ignore[attr-defined,unused-ignore]
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _start(job: Job, command: list[str], environment: Mapping[str, str] | None) -> subprocess.Popen[bytes]:
    """Start the process of a job, in a session of its own: Ctrl-C reaches the parent alone, which stops it."""
    job.folder.mkdir(parents=True, exist_ok=True)
    with job.log.open("ab") as log:
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {})},
        )  # fmt: skip


def _stop(running: Sequence[Running]) -> None:
    """Stop processes, by force those that take too long."""
    for one in running:
        one.process.terminate()
    until = time.monotonic() + PATIENCE
    for one in running:
        with suppress(subprocess.TimeoutExpired):
            one.process.wait(max(0.0, until - time.monotonic()))
        _kill(one.process)
        one.process.wait()


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process with those that it started."""
    if os.name != "posix":
        process.kill()
        return
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _reason(one: Running) -> str:
    """Say why a process failed: the last line that it printed."""
    code = one.process.returncode
    if code < 0:
        return f"killed by signal {-code}"
    lines = one.job.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else f"status {code}"


@contextmanager
def _interruptible() -> Iterator[None]:
    """Take SIGTERM for Ctrl-C while the context lasts."""
    ours = signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL  # the command line takes it already
    if ours or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
