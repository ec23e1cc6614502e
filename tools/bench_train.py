"""Measure what a setting adds to a training step: real runs of the trainers, variant by variant, over the plain step.

`tools/bench_cost.py` takes steps apart on synthetic data; this tool trains on a data set. A step begins with
Ultralytics' `on_train_batch_start` and ends with `on_train_batch_end`: the loader's work lies outside, and so do the
batches that determine the gains. The clock is the processor time of one thread, so that other processes count little.
Each round trains every variant in turn; the table has medians over the steps of all rounds.

    PYTHONPATH=. python tools/bench_train.py teacher.pt yolov8n-obb.yaml data.yaml
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from ultralytics import YOLO

from ds2d2_yolo.bridge.distillation.gains import CALIBRATION_BATCHES
from ds2d2_yolo.bridge.training.compared.arm_trainers import TRAINERS
from ds2d2_yolo.bridge.upstream.devices import cpu_threads
from ds2d2_yolo.bridge.upstream.modelopt import require_modelopt
from ds2d2_yolo.config.resources import resolve_data

PLAIN = "plain student"
BASE = {"imhi": 0.0}  # no amplifier is trained
# kind of arm and settings; 'batch' counts labelled and unlabelled images, as the setting of a run does
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    PLAIN: ("plain", {}),
    "`imhi=0`": ("ds2d2", BASE),
    "`imhi=0 box_distance=kfiou`": ("ds2d2", {**BASE, "box_distance": "kfiou"}),
    "`imhi=0 unlabelled=rest`, as many again": ("ds2d2", {**BASE, "unlabelled": "rest", "batch": 2}),
    # the labels of these images stand for the teacher's detections
    "arm `pseudo_labels`, as many again": ("pseudo_labels", {"gains": 0.0, "unlabelled": "rest", "batch": 2}),
    "`imhi=0`, teacher at twice the size": ("ds2d2", {**BASE, "teacher_imgsz": 2}),
    "plain, `quantize=8`": ("plain", {"quantize": 8}),
    "`imhi=0 quantize=8`": ("ds2d2", {**BASE, "quantize": 8}),
    "arm `pkd`": ("rival", {"rival": "pkd", "weight": 10.0}),
    "arm `cwd`": ("rival", {"rival": "cwd", "tau": 1.0, "weight": 10.0}),
    "arm `ld`": ("rival", {"rival": "ld", "temperature": 5.0, "weight": 10.0}),
}
FACTORS = ("batch", "teacher_imgsz")  # settings that VARIANTS gives as a multiple of the run's


class EnoughSteps(Exception):
    """A run has taken the steps that are measured."""


class StepClock:
    """Callbacks that take the processor time of steps.

    Args:
        steps (int): Steps to measure, after those that determine the gains.

    Attributes:
        seconds (list[float]): Processor time of each measured step.
    """

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.seconds: list[float] = []
        self._taken = 0
        self._began = 0.0

    def start(self, _: Any) -> None:
        """Note when a step begins."""
        self._began = time.process_time()

    def stop(self, _: Any) -> None:
        """Note the time of a step, and end the run after the last one."""
        self._taken += 1
        if self._taken > CALIBRATION_BATCHES:
            self.seconds.append(time.process_time() - self._began)
        if len(self.seconds) == self.steps:
            raise EnoughSteps


def step_seconds(name: str, args: argparse.Namespace, folder: Path) -> list[float]:
    """Train a variant for a few steps.

    Args:
        name (str): Key of `VARIANTS`.
        args (argparse.Namespace): Of the command line.
        folder (Path): Folder of the run.

    Returns:
        (list[float]): Processor time of each measured step in seconds.
    """
    kind, settings = VARIANTS[name]
    common = {"batch": args.batch, "teacher_imgsz": args.imgsz}
    settings = {k: common[k] * v if k in FACTORS else v for k, v in settings.items()}
    keys: dict[str, Any] = {
        **{"data": resolve_data(args.data), "imgsz": args.imgsz, "batch": args.batch, "fraction": args.fraction},
        **{"epochs": 1, "device": "cpu", "workers": 1, "save_dir": str(folder)},
        **{"plots": False, "val": False, "verbose": False},
    }
    student = YOLO(args.student)
    trainer: Any = TRAINERS[kind, student.task]
    if kind == "rival":
        trainer, settings = partial(trainer, rival=settings), {}
    if kind != "plain":
        keys["teacher"] = args.teacher
    clock = StepClock(args.steps)
    student.add_callback("on_train_batch_start", clock.start)
    student.add_callback("on_train_batch_end", clock.stop)
    try:
        student.train(trainer=trainer, **{**keys, **settings})
    except EnoughSteps:
        return clock.seconds
    raise SystemExit(f"{name}: an epoch has fewer than {CALIBRATION_BATCHES + args.steps} steps: raise --fraction")


def print_table(seconds: dict[str, list[float]]) -> None:
    """Print the median step of each variant, and its multiple of the plain one.

    Args:
        seconds (dict[str, list[float]]): Processor times of the steps by variant.
    """
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    print("| step | seconds | over the plain student's |\n| --- | ---: | ---: |")
    for name, median in medians.items():
        print(f"| {name} | {median:.2f} | {median / medians[PLAIN]:.2f} |")


def main(argv: list[str] | None = None) -> None:
    """Parse the arguments, measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("teacher")
    parser.add_argument("student")
    parser.add_argument("data")
    parser.add_argument("--imgsz", type=int, default=320)
    parser.add_argument("--batch", type=int, default=8, help="labelled images of a step")
    parser.add_argument("--fraction", type=float, default=0.5, help="labelled share of the training images")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS), metavar="NAME")
    parser.add_argument("--json", type=Path, help="file for the figures")
    args = parser.parse_args(argv)
    names = [PLAIN, *(name for name in args.variants if name != PLAIN)]
    if any("quantize" in VARIANTS[name][1] for name in names):
        require_modelopt("quantize=8")
    seconds: dict[str, list[float]] = {name: [] for name in names}
    os.environ["OMP_NUM_THREADS"] = "1"  # Ultralytics sets the threads of torch anew in each run
    with cpu_threads(), tempfile.TemporaryDirectory() as folder:
        for turn in range(args.rounds):
            for index, name in enumerate(names):
                seconds[name] += step_seconds(name, args, Path(folder, f"{turn}-{index}"))
    print_table(seconds)
    if args.json:
        args.json.write_text(json.dumps(seconds, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
