"""The machine that runs are on: its devices, what is free on them, and what a process takes of it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped,unused-ignore]  # comes with Ultralytics
import torch
from ultralytics.utils import torch_utils
from ultralytics.utils.torch_utils import get_cpu_info, get_gpu_info, parse_device

from ds2d2_yolo.bridge.plain import check_device


def use_threads(threads: int | None) -> None:
    """Let this process compute with a number of CPU threads.

    Ultralytics sets its own number whenever it selects a device, from a value of its module (8.4.190).

    Args:
        threads (int | None): The number; None leaves Ultralytics' own.
    """
    if threads is not None:
        torch_utils.NUM_THREADS = threads
        torch.set_num_threads(threads)


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


def cores() -> int:
    """Return the CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
