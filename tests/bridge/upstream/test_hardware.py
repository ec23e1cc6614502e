"""Devices, threads and memory of the machine that runs are on."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
import torch

from ds2d2_yolo.bridge.upstream import hardware as machine
from ds2d2_yolo.bridge.upstream.hardware import BUSY_CORES, LoadMeter, devices_of, free_memory, hardware, is_busy
from ds2d2_yolo.errors import BadUseError


def test_devices_and_what_they_are_called() -> None:
    assert devices_of("cpu") == ("cpu",)
    assert free_memory("cpu") > 1e8
    assert hardware("cpu", 1).endswith(", 1 thread a run")
    assert hardware("cpu", 2).endswith(", 2 threads a run")
    with pytest.raises(BadUseError, match="device=99 is no device"):
        devices_of(99)


@pytest.mark.parametrize(("busy", "process", "other"), [(3.0, 3.0, 0.0), (5.0, 1.0, 2.0), (1.0, 1.1, 0.0)])
def test_the_load_is_what_others_compute(
    monkeypatch: pytest.MonkeyPatch, busy: float, process: float, other: float
) -> None:
    """Seconds of all cores and of this process in two seconds."""
    clock, core_seconds, process_seconds = iter([10.0, 12.0]), iter([100.0, 100.0 + busy]), iter([50.0, 50.0 + process])
    monkeypatch.setattr(machine.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(machine, "_busy_seconds", lambda: next(core_seconds))
    monkeypatch.setattr(machine, "_process_seconds", lambda: next(process_seconds))
    with LoadMeter() as load:
        pass
    assert load.other_cores == pytest.approx(other)
    assert is_busy(load.other_cores) == (other >= BUSY_CORES)


def test_a_process_beside_is_load_and_this_one_is_not() -> None:
    code = "import time; end = time.time() + 30\nwhile time.time() < end: pass"
    beside = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
    try:
        with LoadMeter() as load:
            time.sleep(1.5)
    finally:
        for process in beside:
            process.kill()
            process.wait()
    assert is_busy(load.other_cores)


@pytest.mark.parametrize(
    ("capabilities", "overflows"),
    [
        ({"architecture": "x86_64", "avx2": True}, True),
        ({"architecture": "x86_64", "avx512_f": True, "avx512_vnni": False}, True),
        ({"architecture": "x86_64", "avx512_vnni": True}, False),
        ({"architecture": "x86_64", "avx_vnni": True}, False),
        ({"architecture": "aarch64"}, False),
        ({}, False),
    ],
)
def test_int8_overflows_on_x86_without_vnni(
    capabilities: dict[str, object], overflows: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert machine.int8_overflows() is overflows
    monkeypatch.delattr(torch.cpu, "get_capabilities")  # an earlier torch
    assert machine.int8_overflows() is False


@pytest.mark.slow
def test_peak_memory_is_the_process_own() -> None:
    """A process that is forked from a big one and takes 200 MB itself."""
    ballast = bytearray(1_500_000_000)
    code = (
        "import torch; from ds2d2_yolo.bridge.upstream.hardware import peak_memory; x = bytearray(200_000_000);"
        "a = peak_memory(torch.device('cpu')); del x; print(a, peak_memory(torch.device('cpu')))"
    )
    stdout = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    first, after = map(float, stdout.split()[-2:])
    assert len(ballast) == 1_500_000_000
    assert 200 < first < 1500
    assert after > first - 50  # the kernel counts in steps
