"""The fused kernel of the explicit terms against its bound, the bytes that it must move over the memory's bandwidth."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any

import torch

from ds2d2_yolo.core.losses.explicit import explicit_loss
from gpu_pieces.runner import Save, Skip

CHANNELS, CELLS, REPEATS = 256, (80, 40, 20), 20
TENSORS = 3  # the features of student and teacher are read once, one gradient is written


def explicit_kernel(options: Mapping[str, Any], save: Save) -> dict[str, Any]:
    """Time forward and backward of the explicit terms with CUDA events, level by level.

    `explicit_loss` is called as a training with `fused_explicit=True` calls it. The
    bandwidth is that of a copy of 1 GiB on this device.

    Args:
        options (Mapping[str, Any]): 'batch', 'device'.
        save (Save): Stores the rows so far.

    Returns:
        (dict[str, Any]): 'GB/s' of the copy, and 'rows' by cells and precision: ms, ms of the bound, their ratio.

    Raises:
        Skip: If Triton is not installed.
    """
    if find_spec("triton") is None:
        raise Skip("not available: Triton is not installed")
    device, rows = torch.device(f"cuda:{options['device']}"), {}
    bandwidth = copy_bandwidth(device)
    for dtype in (torch.float32, torch.float16):
        for cells in CELLS:
            step, moved = explicit_step(options["batch"], cells, dtype, device)
            taken, bound = milliseconds(step), 1e3 * moved / bandwidth
            name = f"{cells} x {cells}, {str(dtype).removeprefix('torch.')}"
            rows[name] = {"ms": taken, "bound ms": bound, "over the bound": taken / bound}
            save({"GB/s": bandwidth / 1e9, "rows": rows})
    return {"GB/s": bandwidth / 1e9, "channels": CHANNELS, "batch": options["batch"], "rows": rows}


def copy_bandwidth(device: torch.device) -> float:
    """Return the bytes per second that a copy of 1 GiB reads and writes together."""
    source = torch.empty(2**28, device=device)
    target = torch.empty_like(source)
    return 2e3 * source.nbytes / milliseconds(lambda: target.copy_(source))


def explicit_step(batch: int, cells: int, dtype: torch.dtype, device: torch.device) -> tuple[Callable[[], object], int]:
    """Return forward and backward of the explicit terms on random features, and the bytes that they must move."""
    shape = (batch, CHANNELS, cells, cells)
    student = torch.randn(shape, device=device, dtype=dtype, requires_grad=True)
    teacher = torch.randn(shape, device=device, dtype=dtype)
    weight = 1 + torch.rand(batch, 1, cells // 2, cells // 2, device=device)

    def step() -> object:
        low, high = explicit_loss(student, teacher, weight, fused=True)
        return torch.autograd.grad(0.7 * low + 0.3 * high, student)

    return step, TENSORS * teacher.nbytes


def milliseconds(run: Callable[[], object]) -> float:
    """Return the median time of a function on the current CUDA device, by events; the first runs warm up."""
    times: list[float] = []
    for turn in range(REPEATS + 5):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        start.record()
        run()
        end.record()
        end.synchronize()
        if turn >= 5:
            times.append(start.elapsed_time(end))
    return statistics.median(times)
