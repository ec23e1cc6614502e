"""Where the pieces run."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Mapping
from typing import Any

import torch
import ultralytics

from gpu_pieces.runner import Save


def environment(options: Mapping[str, Any], save: Save) -> dict[str, Any]:
    """Return GPU, driver and versions.

    Args:
        options (Mapping[str, Any]): 'device': 'cpu' or the number of a GPU.
        save (Save): Not used.

    Returns:
        (dict[str, Any]): Names to texts; 'GPU' is 'none' without one.
    """
    versions = {"torch": str(torch.__version__), "ultralytics": ultralytics.__version__}
    if options["device"] == "cpu" or not torch.cuda.is_available():
        return {"GPU": "none", "processor": platform.machine(), **versions}
    properties = torch.cuda.get_device_properties(int(options["device"]))
    memory = f"{properties.total_memory / 2**30:.0f} GiB"
    return {"GPU": properties.name, "memory": memory, "driver": _driver(), "CUDA": torch.version.cuda, **versions}


def _driver() -> str:
    """Return the version of NVIDIA's driver."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        return "unknown"
