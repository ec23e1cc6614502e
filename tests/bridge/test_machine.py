"""Devices, threads and memory of the machine that runs are on."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from ultralytics.utils import torch_utils

from ds2d2_yolo.bridge.machine import cores, devices_of, free_memory, hardware, use_threads
from ds2d2_yolo.errors import BadUseError


def test_devices_and_what_they_are_called() -> None:
    assert devices_of("cpu") == ("cpu",)
    assert free_memory("cpu") > 1e8
    assert cores() >= 1
    assert hardware("cpu", 1).endswith(", 1 thread a run")
    assert hardware("cpu", 2).endswith(", 2 threads a run")
    with pytest.raises(BadUseError, match="device=99 is no device"):
        devices_of(99)


def test_threads_stay_when_ultralytics_selects_a_device() -> None:
    before, own = torch.get_num_threads(), torch_utils.NUM_THREADS
    try:
        use_threads(before + 1)
        torch_utils.select_device("cpu", verbose=False)
        assert torch.get_num_threads() == before + 1
    finally:
        torch_utils.NUM_THREADS = own
        torch.set_num_threads(before)


@pytest.mark.slow
def test_peak_memory_is_the_process_own() -> None:
    """A process that is forked from a big one and takes 200 MB itself."""
    ballast = bytearray(1_500_000_000)
    code = (
        "import torch; from ds2d2_yolo.bridge.machine import peak_memory; x = bytearray(200_000_000);"
        "a = peak_memory(torch.device('cpu')); del x; print(a, peak_memory(torch.device('cpu')))"
    )
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    first, after = map(float, said.split()[-2:])
    assert len(ballast) == 1_500_000_000
    assert 200 < first < 1500
    assert after > first - 50  # the kernel counts in steps
