"""Processes in groups of their own that are waited for or killed."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path


def start(words: list[str], log: Path, run: Callable[[list[str]], int] | None = None) -> int:
    """Run a command in a process group of its own and return its number.

    This process itself must not train: autograd's threads do not survive a fork.
    """
    process = os.fork()
    if process:
        return process
    status = 70
    try:
        os.setsid()
        with log.open("wb") as f:
            os.dup2(f.fileno(), 1)
            os.dup2(f.fileno(), 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        status = (run or command)(words)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status)


def wait(process: int, until: Callable[[], bool]) -> int | None:
    """Return a process's status once it has ended, None once the moment to kill it has come."""
    while True:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if until():
            return None
        time.sleep(0.002)


def kill(process: int) -> str | None:
    """Kill a process group; return what is wrong if a process that it had started lives on."""
    import psutil

    below = psutil.Process(process).children(recursive=True)
    try:
        os.killpg(process, signal.SIGKILL)
    except ProcessLookupError:  # it has no group of its own yet
        os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    alive = psutil.wait_procs(below, timeout=30)[1]
    return f"processes {[p.pid for p in alive]} outlived their parent" if alive else None


def command(words: list[str]) -> int:
    """Run a command of the package."""
    from ds2d2_yolo.cli import main

    return main(words)
