"""Devices and CPU threads as Ultralytics selects them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from ultralytics.utils import torch_utils
from ultralytics.utils.torch_utils import select_device

from ds2d2_yolo.errors import BadUseError
from ds2d2_yolo.utils.threads import thread_count


@contextmanager
def cpu_threads() -> Iterator[None]:
    """Make Ultralytics compute with `thread_count()` threads while the context lasts.

    Ultralytics leaves one core free whenever it selects a device, and ignores `OMP_NUM_THREADS`. It has no setting for
    this (8.4.190): `select_device` reads a module value, which is changed and restored here.

    Yields:
        (None): Torch uses `thread_count()` threads inside the context.
    """
    torch_threads, ultralytics_threads = torch.get_num_threads(), torch_utils.NUM_THREADS
    torch_utils.NUM_THREADS = thread_count()
    torch.set_num_threads(torch_utils.NUM_THREADS)
    try:
        yield
    finally:
        torch_utils.NUM_THREADS = ultralytics_threads
        torch.set_num_threads(torch_threads)


def check_device(device: Any) -> torch.device:
    """Resolve a device setting.

    Args:
        device (Any): As Ultralytics takes it: None, 'cpu', 'mps', 0, '0'.

    Returns:
        (torch.device): The device.

    Raises:
        BadUseError: If this machine has no such device.
    """
    try:
        selected = select_device(device, verbose=False)
    except (ValueError, RuntimeError, AssertionError) as e:
        raise BadUseError(f"device={device} is no device of this machine: use device=cpu, or leave it out") from e
    if not isinstance(selected, torch.device):  # Ultralytics (8.4.190) returns names of other runtimes' devices
        raise BadUseError(f"device={device} is no device of torch: use device=cpu, mps or the number of a GPU")
    return selected
