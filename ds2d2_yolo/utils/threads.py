"""CPU threads: how many a process computes with, and how long they spin while they wait for each other."""

from __future__ import annotations

import os
from collections.abc import MutableMapping

MAX_THREADS = 8  # Ultralytics' limit (8.4.190)
# The OpenMP runtimes that torch's wheels bring, each with its setting for a short spin. GNU's (Linux) counts rounds,
# LLVM's (macOS, Windows) and Intel's count milliseconds; both wait far longer by default.
SHORT_SPIN = {"GOMP_SPINCOUNT": "2000", "KMP_BLOCKTIME": "1"}
WAIT_POLICY = "OMP_WAIT_POLICY"  # the user's own choice for every runtime


def shorten_openmp_spin(environment: MutableMapping[str, str] | None = None) -> None:
    """Let OpenMP threads spin briefly at a barrier, in this process and its children, unless the user chose.

    By default they spin for milliseconds. Beside another busy process one thread then burns its core while it waits
    for a thread that has no core: a training step on two cores took four times as long.

    The runtime reads its environment when it is loaded, so this must run before torch is imported.

    Args:
        environment (MutableMapping[str, str] | None): Environment to change, None is this process's.
    """
    environment = os.environ if environment is None else environment
    if WAIT_POLICY in environment:
        return
    for name, value in SHORT_SPIN.items():
        environment.setdefault(name, value)


def usable_cores() -> int:
    """Return the CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def thread_count() -> int:
    """Return the CPU threads to compute with: `OMP_NUM_THREADS`, or every usable core up to `MAX_THREADS`."""
    requested = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()  # a list names one number a level
    if requested.isdigit() and int(requested) > 0:
        return int(requested)
    return min(usable_cores(), MAX_THREADS)
