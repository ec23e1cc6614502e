"""Copies to a device: the same values, and no wait for CUDA."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from ds2d2_yolo.core.transfer import copy_to_device
from tests.helpers.fake_device import DeviceWaitError, WaitDetector


def test_is_the_tensor_itself_on_a_cpu() -> None:
    x = torch.tensor([2, 0])
    assert copy_to_device(x, torch.device("cpu")) is x


def test_does_not_wait_for_cuda() -> None:
    x = torch.ones(3)
    with FakeTensorMode(allow_non_fake_inputs=True):
        device = torch.device("cuda")
        with WaitDetector():
            assert copy_to_device(x, device).device.type == "cuda"
        with WaitDetector(), pytest.raises(DeviceWaitError, match="a copy to the device"):
            x.to(device)
