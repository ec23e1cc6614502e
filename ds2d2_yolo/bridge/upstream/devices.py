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
    """Let Ultralytics compute with `thread_count()` threads while the context lasts.

    Ultralytics leaves one core free whenever it selects a device, and ignores `OMP_NUM_THREADS`. There is no setting
    for it (8.4.190): `select_device` reads a module value, which this changes and puts back.

    Yields:
        (None): While it lasts, torch takes `thread_count()` threads.
    """
    before, own = torch.get_num_threads(), torch_utils.NUM_THREADS
    torch_utils.NUM_THREADS = thread_count()
    torch.set_num_threads(torch_utils.NUM_THREADS)
    try:
        yield
    finally:
        torch_utils.NUM_THREADS = own
        torch.set_num_threads(before)


def check_device(device: Any) -> torch.device:
    """Return the device that a setting means.

    Args:
        device (Any): As Ultralytics takes it: None, 'cpu', 'mps', 0, '0'.

    Returns:
        (torch.device): The device.

    Raises:
        BadUseError: If this machine has no such device.
    """
    try:
        found = select_device(device, verbose=False)
    except (ValueError, RuntimeError, AssertionError) as e:
        raise BadUseError(f"device={device} is no device of this machine: use device=cpu, or leave it out") from e
    if not isinstance(found, torch.device):  # Ultralytics hands names of other runtimes' devices through (8.4.190)
        raise BadUseError(f"device={device} is no device of torch: use device=cpu, mps or the number of a GPU")
    return found
