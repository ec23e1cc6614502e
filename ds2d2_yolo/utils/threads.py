"""CPU threads of a process: their number and the time that they spin while they wait for each other."""

from __future__ import annotations

import os
from collections.abc import MutableMapping

MAX_THREADS = 8  # Ultralytics' limit (8.4.190)
# Settings for a short spin in the OpenMP runtimes of torch's wheels. That of GNU (Linux) counts rounds, those of LLVM
# (macOS, Windows) and Intel count milliseconds; all of them spin far longer by default.
SHORT_SPIN = {"GOMP_SPINCOUNT": "2000", "KMP_BLOCKTIME": "1"}
WAIT_POLICY = "OMP_WAIT_POLICY"  # set by a user, it holds for every runtime


def shorten_openmp_spin(environment: MutableMapping[str, str] | None = None) -> None:
    """Shorten the spin of OpenMP threads at barriers, in this process and its children, unless the user set a policy.

    By default they spin for milliseconds. Beside another busy process, one thread then occupies its core while it waits
    for a thread that has no core: a training step on two cores took four times as long.

    The runtime reads the environment when it is loaded, so this must run before torch is imported.

    Args:
        environment (MutableMapping[str, str] | None): Environment to change, None for that of this process.
    """
    environment = os.environ if environment is None else environment
    if WAIT_POLICY in environment:
        return
    for name, value in SHORT_SPIN.items():
        environment.setdefault(name, value)


def usable_cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def thread_count() -> int:
    """Return the number of CPU threads to use: `OMP_NUM_THREADS`, or every usable core up to `MAX_THREADS`."""
    requested = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()  # a list names one number a level
    if requested.isdigit() and int(requested) > 0:
        return int(requested)
    return min(usable_cores(), MAX_THREADS)
