"""The number of runs at the same time, for each kind of device."""

from __future__ import annotations

import pytest

from ds2d2_yolo.compare.workplace import run_slots


@pytest.mark.parametrize(
    ("devices", "cores", "threads", "gigabytes", "step", "expected"),
    [
        (["cpu"], 8, 1, 64, 1.0, 8),  # a run for each core
        (["cpu"], 8, 3, 64, 1.0, 2),
        (["cpu"], 64, 1, 32, 1.0, 8),  # 0.8 * 32 / (2 * 1 + 1): memory is what there is least of
        (["cpu"], 1, 4, 1, 9.0, 1),  # always one
        (["cpu"], 4, 2, 1, None, 2),
        (["0"], 32, 1, 80, 7.5, 4),  # 0.8 * 80 / (2 * 7.5 + 1)
        (["0"], 4, 1, 80, 7.5, 2),  # every run wants two cores
        (["0", "1"], 2, 1, 8, 7.5, 2),
        (["0", "1"], 32, 1, 40, None, 2),
        (["0", "1", "2", "3"], 64, 1, 80, 7.5, 4),  # several GPUs take one run each, whatever their memory
        (["mps"], 8, 1, 64, 1.0, 1),
    ],
)
def test_run_slots(
    devices: list[str], cores: int, threads: int, gigabytes: int, step: float | None, expected: int
) -> None:
    memory = dict.fromkeys(devices, gigabytes * 10**9)
    slots = run_slots(devices, cores, threads, memory, None if step is None else int(step * 10**9))
    assert len(slots) == expected
    assert slots[: len(devices)] == devices[:expected]
