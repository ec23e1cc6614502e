"""Measure what distillation costs: time and peak memory of a training step, variant by variant; print tables.

A step is forward, loss, backward, optimizer step and zero_grad, on synthetic images and boxes, with models from YAMLs.
Variants: the plain student; the floor, which is the plain step and the teacher's forward pass under no_grad as DS2D2
runs it (folded, one-to-many head, no decoding); Ultralytics' own `distill_model`; then DS2D2's terms, on all and on a
part of a batch's images. "FLOPs say" is the convolutions of a variant's step over those of the floor's; what a step
takes beyond it are passes over memory. Variants take turns, so that a busy machine slows all alike.

    python tools/bench_cost.py --device cuda --imgsz 640 1024 --batch 16        with AMP and channels_last
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import math
import multiprocessing
import platform
import statistics
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from bench_core import Meter, random_boxes
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry
from ultralytics.cfg import get_cfg
from ultralytics.nn.distill_model import DistillationModel
from ultralytics.nn.tasks import DetectionModel, OBBModel, load_checkpoint, yaml_model_load
from ultralytics.utils.ops import xyxy2xywh

from ds2d2_yolo.bridge.distillation.build import build_distiller
from ds2d2_yolo.bridge.distillation.criterion import DistillationCriterion
from ds2d2_yolo.bridge.distillation.gains import MONITOR_BATCHES, Gains
from ds2d2_yolo.bridge.models.adapters import attach_adapters
from ds2d2_yolo.bridge.models.heads import dense_head, level_channels, raw_predictions, strides_of
from ds2d2_yolo.bridge.models.teacher import FrozenTeacher, load_teacher
from ds2d2_yolo.config.settings import EXPLICIT, Settings
from ds2d2_yolo.utils.threads import shorten_openmp_spin

PLAIN, FLOOR, UPSTREAM, MEASURED = "plain student", "floor", "distill_model", "all four, gains measured"
DS2D2_VARIANTS: dict[str, dict[str, Any]] = {
    "explicit only": {"implicit": False},
    "explicit only, by scores": {"implicit": False, "weight_map": "score"},
    "imfu only": {"explicit": False, "imhi": 0.0},
    "explicit + imfu": {"imhi": 0.0},
    "explicit + imfu, balanced": {"imhi": 0.0, "level_balance": "measured", "feature_norm": "standard"},
    "all four terms": {},
    "all four, by scores": {"weight_map": "score"},
    "all four, stride 8 alone": {"levels": [8]},
    MEASURED: {},
}
VARIANTS = (PLAIN, FLOOR, UPSTREAM, *DS2D2_VARIANTS)
SCORE_BIAS = -4.0  # of the teacher's class logits: the scores of trained teachers are small at most anchors
Step = Callable[[], object]


@dataclass(frozen=True)
class Case:
    """What a table is about."""

    teacher: str
    student: str
    imgsz: int
    batch: int
    boxes: int
    classes: int
    device: str
    threads: int


class Bench:
    """The models, the batch and the step of each variant of one case."""

    def __init__(self, case: Case) -> None:
        torch.set_num_threads(case.threads or torch.get_num_threads())
        torch.manual_seed(0)
        self.case, self.device, self.rotated = case, torch.device(case.device), "obb" in case.student
        self.amp = self.device.type == "cuda"
        self.batch = self._make_batch()
        self.student = self._make_model(case.student)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "teacher.pt"
            torch.save({"model": self._make_teacher(), "train_args": {"imgsz": case.imgsz}}, file)
            self.loaded, self.upstream = load_teacher(str(file), self.student.task), load_checkpoint(file)[0]
        strides = strides_of(dense_head(self.student, "the student"))
        self.teacher = FrozenTeacher(copy.deepcopy(self.loaded), strides).to(self.device)

    def _make_batch(self) -> dict[str, Tensor]:
        """Return random images and boxes, as Ultralytics' loader hands them over."""
        case = self.case
        boxes, index = random_boxes(case.boxes, case.batch, float(case.imgsz), self.rotated, self.device)
        if not self.rotated:
            boxes = xyxy2xywh(boxes.clamp(0, case.imgsz))
        boxes[:, :4] /= case.imgsz
        image = torch.rand(case.batch, 3, case.imgsz, case.imgsz)
        classes = torch.randint(case.classes, (len(boxes), 1)).float()
        batch = {"img": image, "cls": classes, "bboxes": boxes, "batch_idx": index.float()}
        return {key: value.to(self.device) for key, value in batch.items()}

    def _make_model(self, yaml: str) -> Any:
        """Return an untrained model with Ultralytics' default arguments."""
        config = {**yaml_model_load(yaml), "nc": self.case.classes}
        model = (OBBModel if self.rotated else DetectionModel)(config, verbose=False)
        model.args, model.task = get_cfg(overrides={"imgsz": self.case.imgsz}), "obb" if self.rotated else "detect"
        return model

    def _make_teacher(self) -> Any:
        """Return a teacher whose features and scores have the magnitudes of a trained one's."""
        model = self._make_model(self.case.teacher)
        for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
            norm.momentum = 1.0  # one batch fills the statistics
        with torch.no_grad():
            model.train()(self.batch["img"][:2].cpu())
            for name in ("cv3", "one2one_cv3"):
                for branch in getattr(model.model[-1], name, None) or ():
                    branch[-1].bias.fill_(SCORE_BIAS)
        return model.eval()

    def _fresh_student(self) -> Any:
        """Return a student in training mode, laid out as Ultralytics does on the device."""
        layout = torch.channels_last if self.amp else torch.preserve_format
        return copy.deepcopy(self.student).to(self.device, memory_format=layout).train()

    def _distilled(self, name: str) -> Any:
        """Return a student with the criterion of one of DS2D2's variants."""
        model = self._fresh_student()
        head, settings = dense_head(model, "the student"), Settings(gains=1.0, **DS2D2_VARIANTS[name])
        # the amplifier is untrained, which costs as much as a trained one
        distiller = build_distiller(head, copy.deepcopy(self.loaded), settings).to(self.device)
        attach_adapters(model, distiller.adapters)
        weights = dict.fromkeys(EXPLICIT, [1.0] * len(distiller.strides))  # any weights cost the same
        gains = Gains(settings, {"automatic": {}, "level_weights": weights, "frozen": True})
        for _ in range(MONITOR_BATCHES):  # the measured batches of an epoch are a variant of their own
            gains.calibrate({}, 1.0, ())
        model.criterion = DistillationCriterion(model.init_criterion(), head, distiller, gains)
        return model

    def step(self, name: str) -> Step:
        """Return the training step of a variant; `distill_model` raises here or in a step what it does not take."""
        model = self._distilled(name) if name in DS2D2_VARIANTS else self._fresh_student()
        if name == UPSTREAM:
            model = DistillationModel(teacher_model=copy.deepcopy(self.upstream), student_model=model).train()
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-5)
        scaler = torch.amp.GradScaler(self.device.type, enabled=self.amp)

        def run() -> None:
            if name == MEASURED:
                model.criterion.gains.recalibrate()
            with self._autocast():
                loss = model(self.batch)[0].sum()
                if name == FLOOR:
                    self.teacher(self.batch["img"])
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()

        return run

    def _autocast(self) -> torch.autocast:
        """Return Ultralytics' autocast of the training step."""
        return torch.autocast(self.device.type, dtype=torch.float16 if self.amp else None, enabled=self.amp)

    def passes(self) -> dict[str, float]:
        """Return the GFLOPs of the passes that the steps are made of."""
        leaves = [f.requires_grad_() for f in self.teacher(self.batch["img"])["feats"]]
        answers = [v.sum() for k, v in raw_predictions(self.teacher.head, list(leaves)).items() if k != "feats"]
        full_teacher = gigaflops(lambda: self.teacher(self.batch["img"]))
        head = gigaflops(lambda: raw_predictions(self.teacher.head, list(leaves)))
        student_channels = level_channels(dense_head(self.student, "the student"))
        adapters = sum(
            f.numel() * student_channels[s] * 2e-9 for (s, _), f in zip(self.teacher.pairs, leaves, strict=True)
        )
        return {
            "student forward": gigaflops(lambda: self.student.to(self.device)(self.batch["img"])),
            "student forward and backward": gigaflops(self.step(PLAIN)),
            "teacher without head": full_teacher - head,
            "teacher's head": head,
            "input gradient of that head": gigaflops(lambda: torch.autograd.grad(answers, leaves)),
            "adapters forward and backward": 3 * adapters,
        }


class FlopCount(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sums the operations of convolutions and matrix products; torch's own counter fails on gradients of leaves."""

    total: float = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and add what it takes."""
        out = func(*args, **(kwargs or {}))
        if count := flop_registry.get(func._overloadpacket):
            self.total += count(*args, **(kwargs or {}), out_val=out)
        return out


def gigaflops(run: Step) -> float:
    """Return the floating-point operations of a function's convolutions and matrix products, in 1e9."""
    counter = FlopCount()  # type: ignore[no-untyped-call]
    with counter:
        run()
    return float(counter.total) / 1e9


def peak_of(case: Case, name: str) -> float:
    """Return the MiB that a step of a variant takes above what its models and optimizer hold."""
    (run := (bench := Bench(case)).step(name))()
    return Meter(bench.device, 1, False).peak(run) / 2**20


def peak_apart(case: Case, name: str) -> float:
    """Do what `peak_of` does in a new process: what other variants left behind would hide what this one takes."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(peak_of, case, name).result()


def times_of(meter: Meter, steps: dict[str, Step]) -> dict[str, list[float]]:
    """Return the step times of each variant in ms; they take turns."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(meter.repeats + 2):
        for name, run in steps.items():
            meter.synchronize()
            start = meter.clock()
            run()
            meter.synchronize()
            if turn > 1:  # the first two warm up
                times[name].append(1e3 * (meter.clock() - start))
    return times


def measure(
    case: Case, repeats: int, cpu_clock: bool, variants: tuple[str, ...] = VARIANTS
) -> tuple[dict[str, dict[str, Any]], dict[str, float]]:
    """Return the figures of each variant (or why it does not run) and the GFLOPs of the passes."""
    bench, steps = Bench(case), {}
    rows: dict[str, dict[str, Any]] = {name: {} for name in VARIANTS if name in {FLOOR, *variants}}
    meter = Meter(bench.device, repeats, cpu_clock)
    for name in rows:
        try:
            step = bench.step(name)
            rows[name]["gflops"], steps[name] = gigaflops(step), step
        except Exception as e:  # upstream takes fewer pairs, and says so in many ways
            if name != UPSTREAM:
                raise
            rows[name]["reason"] = f"{type(e).__name__}: {e}".splitlines()[0]
    for name, values in times_of(meter, steps).items():
        rows[name] |= {"ms": statistics.median(values), "minimum ms": min(values)}
    for name in steps:
        for other in {FLOOR, UPSTREAM} & steps.keys():
            rows[name][f"over {other}"] = rows[name]["ms"] / rows[other]["ms"]
        rows[name]["FLOPs say"] = rows[name]["gflops"] / rows[FLOOR]["gflops"]
        rows[name]["MiB"] = meter.peak(steps[name]) / 2**20 if bench.amp else peak_apart(case, name)
    return rows, bench.passes()


def print_table(case: Case, rows: dict[str, dict[str, Any]], passes: dict[str, float]) -> None:
    """Print the table of a case and what its passes count."""
    print(f"\n{case.teacher} -> {case.student}, {case.imgsz} px, batch {case.batch}, {case.boxes} boxes an image\n")
    columns = ("ms", "minimum ms", f"over {FLOOR}", f"over {UPSTREAM}", "FLOPs say", "MiB")
    print(f"| variant | {' | '.join(columns)} |\n|---|" + "---:|" * len(columns))
    for name, row in rows.items():
        figures = [row.get(c, math.nan) for c in columns]
        cells = ["-" if math.isnan(v) else f"{v:.0f}" if v >= 100 else f"{v:.2f}" for v in figures]
        print(f"| {name} | {' | '.join(cells)} |" + (f" {row['reason']}" if "reason" in row else ""))
    print(f"\nGFLOPs a batch: {'; '.join(f'{k} {v:.3g}' for k, v in passes.items())}", flush=True)


def main(argv: list[str] | None = None) -> None:
    """Parse the arguments, measure and print a table for each pair and size."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--teacher", nargs="+", default=["yolov8s.yaml", "yolov8m.yaml"])
    parser.add_argument("--student", default="yolov8n.yaml", help="its task, detect or obb, is the teachers'")
    parser.add_argument("--imgsz", type=int, nargs="+", default=[320])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--boxes", type=int, default=50, help="boxes per image")
    parser.add_argument("--classes", type=int, default=15)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=1, help="0 for all")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=VARIANTS, metavar="NAME", help=f"{VARIANTS}")
    parser.add_argument("--cpu-clock", action="store_true", help="count processor time: for one thread, busy machine")
    parser.add_argument("--json", type=Path, help="file for the figures")
    a = parser.parse_args(argv)
    shorten_openmp_spin()  # for the process that each table is measured in
    device = torch.cuda.get_device_name(a.device) if a.device.startswith("cuda") else platform.machine()
    print(f"torch {torch.__version__}, {a.device} ({device}), {a.threads or 'all'} threads, {a.repeats} repeats")
    tables = []
    for teacher, size in itertools.product(a.teacher, a.imgsz):
        case = Case(teacher, a.student, size, a.batch, a.boxes, a.classes, a.device, a.threads)
        rows, passes = measure(case, a.repeats, a.cpu_clock, tuple(a.variants))
        print_table(case, rows, passes)
        tables.append({"case": asdict(case), "variants": rows, "passes": passes})
    if a.json:
        a.json.write_text(json.dumps(tables, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
