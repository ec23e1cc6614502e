"""The machine that runs are on: its devices, what is free on them, and what a process takes of it."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped,unused-ignore]  # comes with Ultralytics
import torch
from ultralytics.utils.checks import collect_system_info
from ultralytics.utils.torch_utils import get_cpu_info, get_gpu_info, parse_device

from ds2d2_yolo.bridge.upstream.devices import check_device

__all__ = [
    "BUSY_CORES",
    "LoadMeter",
    "collect_system_info",
    "devices_of",
    "free_memory",
    "hardware",
    "is_busy",
    "memory_now",
    "peak_memory",
]

BUSY_CORES = 0.25  # of other processes; an idle desktop or server stays below 0.1


def devices_of(device: Any) -> tuple[str, ...]:
    """Return the devices that runs are spread over: 'cpu', 'mps', or numbers of GPUs.

    Args:
        device (Any): As Ultralytics takes it; several GPUs take runs of their own each.

    Returns:
        (tuple[str, ...]): At least one.

    Raises:
        BadUseError: If this machine has no such device.
    """
    kind = check_device(device).type
    return tuple((parse_device(device) or "0").split(",")) if kind == "cuda" else (kind,)


def free_memory(device: str) -> int:
    """Return the free bytes of a device of `devices_of`: of a GPU, or of the machine."""
    return int(torch.cuda.mem_get_info(int(device))[0] if device.isdigit() else psutil.virtual_memory().available)


def hardware(device: str, threads: int | None) -> str:
    """Return the name of a device of `devices_of`, with the threads of a run."""
    name = get_gpu_info(int(device)) if device.isdigit() else get_cpu_info()
    return name + (f", {threads} thread{'s' if threads > 1 else ''} a run" if threads else "")


def peak_memory(device: torch.device) -> float:
    """Return the most memory that this process has taken so far, in MB (1e6 bytes).

    Args:
        device (torch.device): A GPU's tensors count alone; elsewhere all of the process.

    Returns:
        (float): MB.
    """
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device)) / 1e6
    if sys.platform == "win32":
        return float(psutil.Process().memory_info().peak_wset) / 1e6
    status = Path("/proc/self/status")
    if status.is_file():  # what getrusage tells on Linux counts the process that this one was forked from
        return next(float(line.split()[1]) for line in status.read_text().splitlines() if "VmHWM" in line) * 1024 / 1e6
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # bytes on macOS


def memory_now() -> float:
    """Return the memory that this process takes now, in MB (1e6 bytes)."""
    return float(psutil.Process().memory_info().rss) / 1e6


class LoadMeter:
    """Measures how many cores others keep busy while the context lasts: processes, and guests that steal time.

    Only the cores that this process may use count.

    Attributes:
        other_cores (float): Cores that others kept busy, on average; 0 before the context ends.

    Examples:
        >>> with LoadMeter() as load:
        ...     _ = sum(range(1000))
        >>> load.other_cores >= 0
        True
    """

    other_cores: float = 0.0

    def __enter__(self) -> LoadMeter:
        """Begin to measure."""
        self._began, self._busy, self._own = time.monotonic(), _busy_seconds(), _process_seconds()
        return self

    def __exit__(self, *_: object) -> None:
        """Take what all did and leave out what this process did."""
        elapsed = max(time.monotonic() - self._began, 1e-9)
        busy, process = _busy_seconds() - self._busy, _process_seconds() - self._own
        self.other_cores = max(0.0, busy - process) / elapsed


def is_busy(other_cores: float) -> bool:
    """Return whether others keep so much of the machine busy that timings are not to be trusted."""
    return other_cores >= BUSY_CORES


def _busy_seconds() -> float:
    """Return the seconds that the usable cores have computed for anyone since the machine started."""
    cores = psutil.cpu_times(percpu=True)
    if hasattr(os, "sched_getaffinity"):
        cores = [core for number, core in enumerate(cores) if number in os.sched_getaffinity(0)] or cores
    # guest time is part of user time; waiting for a disk leaves the core free
    idle = ("idle", "iowait", "guest", "guest_nice")
    return sum(seconds for core in cores for name, seconds in core._asdict().items() if name not in idle)


def _process_seconds() -> float:
    """Return the seconds that this process has computed."""
    times = psutil.Process().cpu_times()
    return float(times.user + times.system)
