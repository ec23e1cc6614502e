"""Copies from the host to a device that the host does not wait for."""

from __future__ import annotations

import torch
from torch import Tensor


def copy_to_device(x: Tensor, device: torch.device) -> Tensor:
    """Return a small tensor of the host on a device.

    The copy to a CUDA device is asynchronous. ``torch.tensor(values, device=...)`` makes the same copy but waits until
    the device has done all earlier work; so does an index that is a Python list. The copy to any other device is
    synchronous, as in Ultralytics.

    Args:
        x (torch.Tensor): On the CPU.
        device (torch.device): Target.

    Returns:
        (torch.Tensor): On the device; x itself where that is the CPU.

    Examples:
        >>> copy_to_device(torch.tensor([2, 0]), torch.device("cpu"))
        tensor([2, 0])
    """
    return x.to(device, non_blocking=device.type == "cuda")
