"""Measure the core against a straightforward implementation and against copying memory; print ratios as tables.

Explicit terms: time of forward and of forward + backward (adapter convolution excluded) over the time to copy one and a
half feature tensors, the traffic of reading student and teacher once and writing one gradient. The copy is timed twice:
into memory at hand ("copy"), and into new memory ("clone"), which the gradient needs as well; for large tensors the
operating system's page faults make the difference. Weight map: three levels, against a Python loop over boxes.

Runs are interleaved and medians are taken, so that a busy machine slows all sides alike. For figures to publish, run on
a quiet machine: ``python tools/bench_core.py`` (one thread), ``--threads 0`` (all), ``--device cuda``.
"""

from __future__ import annotations

import argparse
import ctypes
import math
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from ds2d2_yolo.utils.threads import shorten_openmp_spin

shorten_openmp_spin()  # before torch is imported

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from torch import Tensor  # noqa: E402

from ds2d2_yolo.core.disw import disw_map  # noqa: E402
from ds2d2_yolo.core.losses.explicit import explicit_loss  # noqa: E402

CHANNELS = 256
Run = Callable[[], object]


class Meter:
    """Time and peak memory of functions on one device."""

    def __init__(self, device: torch.device, repeats: int, cpu_clock: bool) -> None:
        self.device, self.repeats = device, repeats
        self.clock = time.process_time if cpu_clock else time.perf_counter

    def synchronize(self) -> None:
        """Wait for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def milliseconds(self, runs: dict[str, Run]) -> dict[str, float]:
        """Return the median time of each function; they take turns."""
        times: dict[str, list[float]] = {name: [] for name in runs}
        for turn in range(self.repeats + 1):
            for name, run in runs.items():
                self.synchronize()
                start = self.clock()
                result = run()
                self.synchronize()
                if turn:  # the first one warms up
                    times[name].append(1e3 * (self.clock() - start))
                del result
        return {name: statistics.median(values) for name, values in times.items()}

    def peak(self, run: Run) -> float:
        """Return the bytes that a function takes above what was taken before, NaN where that cannot be told."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            before = torch.cuda.memory_allocated(self.device)
            run()
            return torch.cuda.max_memory_allocated(self.device) - before
        if platform.system() != "Linux":
            return math.nan
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # what was freed must not hide what is taken
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the high-water mark starts here
        before = _status("VmRSS")
        run()
        return _status("VmHWM") - before


def _status(key: str) -> int:
    """Return a field of this process's Linux status in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def _haar_by_convolution(x: Tensor) -> Tensor:
    """Return the four bands (B, C, 4, h, w) by one grouped convolution."""
    signs = torch.tensor([[1, 1, 1, 1], [1, 1, -1, -1], [1, -1, 1, -1], [1, -1, -1, 1]], dtype=x.dtype, device=x.device)
    bank = (signs / 2).view(4, 1, 2, 2).repeat(x.shape[1], 1, 1, 1)
    bands = F.conv2d(F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2)), bank, stride=2, groups=x.shape[1])
    return bands.unflatten(1, (x.shape[1], 4))


def reference_explicit(student: Tensor, teacher: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return the explicit terms as the formulae are written: two transforms, then the weighted means."""
    energy = weight.unsqueeze(2) * (_haar_by_convolution(student) - _haar_by_convolution(teacher)).square()
    return energy[:, :, 0].mean(), energy[:, :, 1:].mean()


def reference_map(boxes: Tensor, image: Tensor, batch: int, side: int, cell: float) -> Tensor:
    """Return the weight map by a loop over boxes; rotated ones by separating axes over the cells of their hull."""
    weight = torch.ones(batch, 1, side, side, device=boxes.device)
    for box, index in zip((boxes / cell if boxes.shape[1] == 4 else boxes).tolist(), image.tolist(), strict=True):
        if len(box) == 4:
            x1, y1, x2, y2 = box
            inside = weight[index, 0, max(0, int(y1)) : math.ceil(y2), max(0, int(x1)) : math.ceil(x2)]
            if inside.numel():
                inside += 1 / inside.numel()
            continue
        x, y, w, h = (value / cell for value in box[:4])
        cos, sin = math.cos(box[4]), math.sin(box[4])
        hull_w, hull_h = (abs(w * cos) + abs(h * sin)) / 2, (abs(w * sin) + abs(h * cos)) / 2
        x0, x1 = max(0, math.floor(x - hull_w)), min(side, math.ceil(x + hull_w))
        y0, y1 = max(0, math.floor(y - hull_h)), min(side, math.ceil(y + hull_h))
        if x0 >= x1 or y0 >= y1:
            continue
        dx = torch.arange(x0, x1, device=boxes.device) + 0.5 - x
        dy = (torch.arange(y0, y1, device=boxes.device) + 0.5 - y).unsqueeze(1)
        reach = (abs(cos) + abs(sin)) / 2
        inside = ((dx * cos + dy * sin).abs() < w / 2 + reach) & ((dy * cos - dx * sin).abs() < h / 2 + reach)
        weight[index, 0, y0:y1, x0:x1] += inside / inside.sum().clamp(min=1)
    return weight


def random_boxes(count: int, batch: int, size: float, rotated: bool, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return boxes of 8 to 64 px sides over the images, as aerial data has them, and the image of each."""
    generator = torch.Generator().manual_seed(0)
    center = torch.rand(count * batch, 2, generator=generator) * size
    side = 8 + 56 * torch.rand(count * batch, 2, generator=generator).square()
    turn = torch.rand(count * batch, 1, generator=generator) * math.pi
    boxes = torch.cat((center, side, turn), 1) if rotated else torch.cat((center - side / 2, center + side / 2), 1)
    return boxes.to(device), torch.arange(batch, device=device).repeat_interleave(count)


def explicit_table(meter: Meter, cells: list[int], batches: list[int], reference: bool, compiled: bool) -> None:
    """Print the explicit terms of each level size and of the three levels together."""
    explicit = torch.compile(explicit_loss, fullgraph=True) if compiled else explicit_loss
    print(
        "| cells | batch | copy ms | clone ms | fwd / copy | fwd+bwd / copy | fwd+bwd / clone | peak, tensors |", end=""
    )
    print(" reference / fwd+bwd | reference peak, tensors |\n|" + "---:|" * 10)
    for top in cells:
        for batch in batches:
            total: dict[str, float] = {}
            for side in (top, top // 2, top // 4):
                shape = (batch, CHANNELS, side, side)
                student = torch.randn(shape, device=meter.device, requires_grad=True)
                teacher = torch.randn(shape, device=meter.device)
                weight = 1 + torch.rand(batch, 1, side // 2, side // 2, device=meter.device)
                values = measure_explicit(meter, student, teacher, weight, explicit, reference)
                for name, value in values.items():
                    total[name] = total.get(name, 0) + value
                print_explicit(str(side), batch, values)
            print_explicit(f"**{top}/{top // 2}/{top // 4}**", batch, total)


def measure_explicit(
    meter: Meter,
    student: Tensor,
    teacher: Tensor,
    weight: Tensor,
    explicit: Callable[..., tuple[Tensor, Tensor]],
    reference: bool,
) -> dict[str, float]:
    """Return times in ms and peaks in bytes of one level."""
    full, half = torch.empty_like(teacher), torch.empty(teacher.numel() // 2, device=teacher.device)
    source = teacher.view(-1)[: half.numel()]

    def step(terms: Callable[..., tuple[Tensor, Tensor]]) -> Tensor:
        low, high = terms(student, teacher, weight)
        return torch.autograd.grad(0.7 * low + 0.3 * high, student)[0]

    def forward() -> object:
        with torch.no_grad():
            return explicit(student, teacher, weight)

    runs: dict[str, Run] = {
        "copy": lambda: (full.copy_(teacher), half.copy_(source)),
        "clone": lambda: (teacher.clone(), source.clone()),
        "forward": forward,
        "both": lambda: step(explicit),
    }
    if reference:
        runs["reference"] = lambda: step(reference_explicit)
    values = meter.milliseconds(runs)
    values["bytes"] = teacher.numel() * teacher.element_size()
    values["peak"] = meter.peak(runs["both"])
    values["reference peak"] = meter.peak(runs["reference"]) if reference else math.nan
    return values


def print_explicit(name: str, batch: int, v: dict[str, float]) -> None:
    """Print one row of the table of the explicit terms."""
    reference = v.get("reference", math.nan) / v["both"]
    print(
        f"| {name} | {batch} | {v['copy']:.2f} | {v['clone']:.2f} | {v['forward'] / v['copy']:.2f} "
        f"| {v['both'] / v['copy']:.2f} | {v['both'] / v['clone']:.2f} | {v['peak'] / v['bytes']:.2f} "
        f"| {reference:.1f} | {v['reference peak'] / v['bytes']:.1f} |",
        flush=True,
    )


def map_table(meter: Meter, cells: list[int], batches: list[int], counts: list[int], reference: bool) -> None:
    """Print the weight maps of three levels, upright and rotated."""
    print("\n| cells | batch | boxes / image | kind | map ms | peak MiB | loop / map |\n|" + "---:|" * 7)
    for top in cells:
        for batch in batches:
            for count in counts:
                for rotated in (False, True):
                    boxes, image = random_boxes(count, batch, top * 8.0, rotated, meter.device)
                    sides = [(top // 2, 16.0), (top // 4, 32.0), (top // 8, 64.0)]

                    def maps(boxes=boxes, image=image, batch=batch, sides=sides) -> object:  # type: ignore[no-untyped-def]
                        return [disw_map(boxes, image, batch, (n, n), (cell, cell)) for n, cell in sides]

                    def loop(boxes=boxes, image=image, batch=batch, sides=sides) -> object:  # type: ignore[no-untyped-def]
                        return [reference_map(boxes, image, batch, n, cell) for n, cell in sides]

                    value, peak = meter.milliseconds({"maps": maps})["maps"], meter.peak(maps) / 2**20
                    slow = Meter(meter.device, 1, meter.clock is time.process_time)
                    ratio = slow.milliseconds({"loop": loop})["loop"] / value if reference and count else math.nan
                    kind = "rotated" if rotated else "upright"
                    print(
                        f"| {top // 2}/{top // 4}/{top // 8} | {batch} | {count} | {kind} | {value:.2f} | {peak:.1f} "
                        f"| {ratio:.0f} |",
                        flush=True,
                    )


def main() -> None:
    """Parse the arguments and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cells", type=int, nargs="+", default=[80, 128], help="side of the largest level")
    parser.add_argument("--batch", type=int, nargs="+", default=[4, 16])
    parser.add_argument("--boxes", type=int, nargs="+", default=[0, 100, 1000, 2000], help="boxes per image")
    parser.add_argument("--tables", nargs="+", choices=["explicit", "map"], default=["explicit", "map"])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1, help="0 for all")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--no-reference", action="store_true", help="leave the slow straightforward forms out")
    parser.add_argument("--compile", action="store_true", help="run the explicit terms under torch.compile")
    parser.add_argument("--cpu-clock", action="store_true", help="count processor time: for one thread, busy machine")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    print(f"torch {torch.__version__}, {device} ({name}), {torch.get_num_threads()} threads, {CHANNELS} channels\n")
    meter = Meter(device, arguments.repeats, arguments.cpu_clock)
    if "explicit" in arguments.tables:
        explicit_table(meter, arguments.cells, arguments.batch, not arguments.no_reference, arguments.compile)
    if "map" in arguments.tables:
        map_table(meter, arguments.cells, arguments.batch, arguments.boxes, not arguments.no_reference)


if __name__ == "__main__":
    main()
