"""Hardware of the machine: devices, free memory, memory of this process, load by other processes."""

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
    "int8_overflows",
    "is_busy",
    "memory_now",
    "peak_memory",
]

BUSY_CORES = 0.25  # of other processes; an idle desktop or server stays below 0.1


def devices_of(device: Any) -> tuple[str, ...]:
    """Return the devices that runs are distributed over: 'cpu', 'mps', or numbers of GPUs.

    Args:
        device (Any): As Ultralytics takes it; each of several GPUs takes separate runs.

    Returns:
        (tuple[str, ...]): At least one.

    Raises:
        BadUseError: If this machine has no such device.
    """
    kind = check_device(device).type
    return tuple((parse_device(device) or "0").split(",")) if kind == "cuda" else (kind,)


def free_memory(device: str) -> int:
    """Return the free memory of a device.

    Args:
        device (str): See `devices_of`; 'cpu' and 'mps' mean the machine.

    Returns:
        (int): Bytes.
    """
    return int(torch.cuda.mem_get_info(int(device))[0] if device.isdigit() else psutil.virtual_memory().available)


def hardware(device: str, threads: int | None) -> str:
    """Describe a device.

    Args:
        device (str): See `devices_of`.
        threads (int | None): CPU threads of a run, if they are to be named.

    Returns:
        (str): Its name, and the threads.
    """
    name = get_gpu_info(int(device)) if device.isdigit() else get_cpu_info()
    return name + (f", {threads} thread{'s' if threads > 1 else ''} a run" if threads else "")


def int8_overflows() -> bool:
    """Return whether INT8 sums overflow on this machine's CPU.

    An x86 CPU without VNNI adds products of 8-bit numbers in 16 bits, which saturate. Results of OpenVINO and
    onnxruntime then differ from those of other machines.

    Source: https://docs.openvino.ai/latest/pot_saturation_issue.html

    Returns:
        (bool): True on an x86 CPU without VNNI; False where torch does not tell, as in earlier versions.
    """
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return capabilities.get("architecture") == "x86_64" and not (
        capabilities.get("avx512_vnni") or capabilities.get("avx_vnni")
    )


def peak_memory(device: torch.device) -> float:
    """Return the peak memory of this process, in MB (1e6 bytes).

    Args:
        device (torch.device): On a GPU only tensors count, elsewhere all memory of the process.

    Returns:
        (float): MB.
    """
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device)) / 1e6
    if sys.platform == "win32":
        return float(psutil.Process().memory_info().peak_wset) / 1e6
    status = Path("/proc/self/status")
    if status.is_file():  # on Linux, getrusage counts the process that this one was forked from
        return next(float(line.split()[1]) for line in status.read_text().splitlines() if "VmHWM" in line) * 1024 / 1e6
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # bytes on macOS


def memory_now() -> float:
    """Return the current memory of this process, in MB (1e6 bytes)."""
    return float(psutil.Process().memory_info().rss) / 1e6


class LoadMeter:
    """Measures how many cores other processes, and guests that steal time, keep busy while the context lasts.

    Only the cores that this process may use count.

    Attributes:
        other_cores (float): Average number of cores that others keep busy; 0 before the context ends.

    Examples:
        >>> with LoadMeter() as load:
        ...     _ = sum(range(1000))
        >>> load.other_cores >= 0
        True
    """

    other_cores: float = 0.0

    def __enter__(self) -> LoadMeter:
        """Start the measurement."""
        self._start, self._start_busy, self._start_process = time.monotonic(), _busy_seconds(), _process_seconds()
        return self

    def __exit__(self, *_: object) -> None:
        """Subtract the time of this process from that of all."""
        elapsed = max(time.monotonic() - self._start, 1e-9)
        busy, process = _busy_seconds() - self._start_busy, _process_seconds() - self._start_process
        self.other_cores = max(0.0, busy - process) / elapsed


def is_busy(other_cores: float) -> bool:
    """Return whether the load by others makes timings unreliable.

    Args:
        other_cores (float): See `LoadMeter`.

    Returns:
        (bool): True from `BUSY_CORES` on.
    """
    return other_cores >= BUSY_CORES


def _busy_seconds() -> float:
    """Return the busy seconds of the usable cores, of all processes, since the machine started."""
    cores = psutil.cpu_times(percpu=True)
    if hasattr(os, "sched_getaffinity"):
        cores = [core for number, core in enumerate(cores) if number in os.sched_getaffinity(0)] or cores
    # guest time is part of user time; waiting for a disk leaves the core free
    idle = ("idle", "iowait", "guest", "guest_nice")
    return sum(seconds for core in cores for name, seconds in core._asdict().items() if name not in idle)


def _process_seconds() -> float:
    """Return the CPU seconds of this process."""
    times = psutil.Process().cpu_times()
    return float(times.user + times.system)
