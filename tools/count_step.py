"""Count what a distilled training step does on a GPU, part by part, and print tables; needs neither GPU nor data.

Bytes, operations and kernels are counted from the operators of the step (`operator_count.py`), with models from YAMLs.
Nothing is timed. For each GPU the tables give a lower bound of the time of a part: its kernels one after the other,
each at the full memory bandwidth or at the full rate of the matrix units, whichever takes longer. The time to launch
the kernels is not in the bound. Optimizer, EMA, loss scaling and loading of data are not counted.

    PYTHONPATH=. python tools/count_step.py                 all cases
    PYTHONPATH=. python tools/count_step.py --markdown      the tables of docs/cost.md
"""

from __future__ import annotations

import argparse
import itertools

from operator_count import Device
from step_work import EXPLICIT, FUSED, Case, Counted, Part, Step

DEVICES = (
    # NVIDIA H200 Tensor Core GPU datasheet, SXM: 4.8 TB/s; 1979 and 989 TFLOPS with sparsity, half of it dense
    Device("H200", 4.8e12, 989e12, 494.5e12),
    # NVIDIA Ada GPU architecture whitepaper, appendix A: 1008 GB/s; FP16 with FP32 accumulate and TF32, dense
    Device("RTX 4090", 1.008e12, 165.2e12, 82.6e12),
    # NVIDIA Jetson AGX Orin series technical brief, 64 GB: 204.8 GB/s; 170 TOPS of the GPU in INT8 with sparsity, a
    # quarter of it in FP16 without sparsity, an eighth in TF32
    Device("Orin AGX", 204.8e9, 42.5e12, 21.25e12),
)
LAUNCH = 5e-6  # seconds that PyTorch takes on the host to launch a kernel, about


def parts_table(counted: Counted) -> str:
    """Return the table of the parts of a case."""
    half, rows = counted.case.half, dict(counted.parts)
    sums = {
        "floor": counted.floor,
        "all four terms": counted.step(),
        "all four terms, fused": counted.step(fused=True),
        "`imhi=0`, fused": counted.step(fused=True, without=("amplifier", "imhi")),
    }
    rows |= {FUSED: counted.fused, "exlo, exhi, least traffic": counted.minimum}
    columns = ["part", "GB forward", "GB backward", "GFLOP", "kernels", *(f"{d.name}, ms" for d in DEVICES)]
    columns.append("launch, ms")
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)]]
    for name, part in [*rows.items(), *((name, Part(work)) for name, work in sums.items())]:
        work = part.work
        traffic = [""] * 2 if name in sums else [f"{x.bytes / 1e9:.2f}" for x in (part.forward, part.backward)]
        bounds = [f"{1e3 * work.seconds(device, half):.2f}" for device in DEVICES]
        launch = f"{1e3 * LAUNCH * work.launches:.1f}"
        lines.append([name, *traffic, f"{work.flops / 1e9:.0f}", str(work.launches), *bounds, launch])
    return markdown(lines)


def cases_table(cases: list[Counted]) -> str:
    """Return the table that compares cases: explicit terms over their least traffic, a step over the floor."""
    columns = ["teacher to student", "px", "type"]
    columns += [
        text for name in ("traffic", "kernels", *(d.name for d in DEVICES)) for text in (name, f"{name}, fused")
    ]
    lines = [columns, ["---", "---:", "---", *["---:"] * (len(columns) - 3)]]
    for c in cases:
        floor, steps = c.floor, (c.step(), c.step(fused=True))
        ratios = [part.work.bytes / c.minimum.work.bytes for part in (c.parts[EXPLICIT], c.fused)]
        ratios += [step.launches / floor.launches for step in steps]
        ratios += [s.seconds(d, c.case.half) / floor.seconds(d, c.case.half) for d in DEVICES for s in steps]
        kind = "float16" if c.case.half else "float32"
        lines.append([c.case.name, str(c.case.imgsz), kind, *(f"{ratio:.2f}" for ratio in ratios)])
    return markdown(lines)


def markdown(lines: list[list[str]]) -> str:
    """Return rows as a table in Markdown."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def main(argv: list[str] | None = None) -> None:
    """Parse the arguments, count and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--teacher", nargs="+", default=["yolov8x-obb.yaml", "yolov8s-obb.yaml"])
    parser.add_argument("--student", default="yolov8n-obb.yaml", help="its task, detect or obb, is the teachers'")
    parser.add_argument("--imgsz", type=int, nargs="+", default=[640, 1024])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--boxes", type=int, default=50, help="boxes per image")
    parser.add_argument("--types", nargs="+", choices=["float16", "float32"], default=["float16", "float32"])
    parser.add_argument("--markdown", action="store_true", help="the parts of the first case only, as docs/cost.md")
    a = parser.parse_args(argv)
    cases = []
    for kind, teacher, size in itertools.product(a.types, a.teacher, a.imgsz):
        case = Case(teacher, a.student, size, kind == "float16", a.batch, a.boxes)
        cases.append(Step(case).count())
        if not a.markdown or len(cases) == 1:
            print(f"\n{case.name}, {size} px, batch {a.batch}, {kind}\n\n{parts_table(cases[-1])}", flush=True)
    print(f"\n{cases_table(cases)}")


if __name__ == "__main__":
    main()
