"""Runs jobs in processes of this machine: a crash ends no other job, and no child outlives its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ds2d2_yolo.compare.schedule import Command, Job
from ds2d2_yolo.utils.child_process import child_environment, reported_error

STOP_TIMEOUT_S = 10.0  # a process that was asked to end is killed after it


@dataclass(frozen=True)
class RunningJob:
    """A job and its process."""

    job: Job
    process: subprocess.Popen[bytes]


class LocalLauncher:
    """Starts each job as a child process; see `schedule.Launcher`.

    Args:
        command (Command): Returns the command line of a job on a device.
        environment (Mapping[str, str] | None): Variables that are set for the processes.
    """

    poll_interval_s = 0.1

    def __init__(self, command: Command, environment: Mapping[str, str] | None = None) -> None:
        self._command, self._environment = command, environment
        self._running: list[RunningJob] = []

    def start(self, job: Job, device: str) -> str:
        """Start the process of a job."""
        self._running.append(RunningJob(job, start_process(self._command(job, device), job.log, self._environment)))
        return "begins"

    def ended(self) -> list[tuple[Job, str]]:
        """Return the jobs whose processes have ended, each with the reason of its failure."""
        ended = [one for one in self._running if one.process.poll() is not None]
        self._running = [one for one in self._running if one not in ended]
        return [(one.job, _reason(one)) for one in ended]

    def stop(self) -> None:
        """Stop the processes, and kill those that take longer than `STOP_TIMEOUT_S`."""
        for one in self._running:
            one.process.terminate()
        until = time.monotonic() + STOP_TIMEOUT_S
        for one in self._running:
            with suppress(subprocess.TimeoutExpired):
                one.process.wait(max(0.0, until - time.monotonic()))
            kill_process(one.process)
            one.process.wait()

    def unfinished(self) -> str:
        """Return an empty text: no process goes on."""
        return ""


def start_process(command: list[str], log: Path, environment: Mapping[str, str] | None) -> subprocess.Popen[bytes]:
    """Start a process in a new session: only the parent gets Ctrl-C, and stops the process.

    Args:
        command (list[str]): Command line of the process.
        log (Path): File that its standard output and error are appended to.
        environment (Mapping[str, str] | None): Variables that are set for it.

    Returns:
        (subprocess.Popen[bytes]): The process; `die_with_parent` reads the pipe at its standard input.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
            env=child_environment({"PYTHONUNBUFFERED": "1", **(environment or {})}, base=os.environ),
        )  # fmt: skip


def kill_process(process: subprocess.Popen[bytes]) -> None:
    """Kill a process of `start_process` with its children.

    Args:
        process (subprocess.Popen[bytes]): The process; it may have ended.
    """
    if os.name != "posix":
        process.kill()
        return
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


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


def _reason(one: RunningJob) -> str:
    """Return why a job failed: the error that it reported, or the last line of its log; empty after a success."""
    code = one.process.returncode
    if code == 0:
        return ""
    if code < 0:
        return f"killed by signal {-code}"
    log = one.job.log.read_text(encoding="utf-8", errors="replace").strip()
    return reported_error(log) or (log.splitlines()[-1].strip() if log else f"status {code}")
