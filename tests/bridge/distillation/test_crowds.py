"""Crowds and empties: whatever a batch holds, the terms are finite, the map counts right and the memory is bounded."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ds2d2_yolo import DS2D2Trainer
from ds2d2_yolo.bridge.distillation.criterion import LOSS_NAMES, DistillationCriterion
from ds2d2_yolo.bridge.distillation.targets import capture_assigner_calls
from ds2d2_yolo.bridge.distillation.weighting import weight_maps
from ds2d2_yolo.config.settings import TERMS
from tests.helpers.crowd import COUNTS, IMAGES, batch_of, targets_of
from tests.helpers.data import write_tiny_data
from tests.helpers.distillation import build
from tests.helpers.memory import Live
from tests.helpers.terms import ACTIVE

REPOSITORY = Path(__file__).resolve().parents[3]
SIZE = 128
# bytes that a weight map may take for a moment, per object of 4 to 40 px; 185 and 432 were measured
UPRIGHT, ROTATED = 250, 600
GROWTH = 2**25  # of the whole process from 0 to 3000 objects an image in each of 4 images

FULL_IMAGE = [0.5, 0.5, 1.0, 1.0]
SPECK = [0.4, 0.6, 0.5 / SIZE, 0.5 / SIZE]
COLUMN, ROW = [0.3, 0.5, 1 / SIZE, 0.8], [0.5, 0.3, 0.8, 1 / SIZE]
EDGE = [0.001, 0.999, 0.1, 0.1]


def many(count: int) -> list[list[float]]:
    rng = np.random.default_rng(0)
    return [[*rng.uniform(0.02, 0.98, 2), *rng.uniform(2.5 / SIZE, 0.2, 2)] for _ in range(count)]


CASES: dict[str, list[list[list[float]]]] = {
    "nothing": [[], []],
    "nothing in one": [[], many(5)],
    "one": [many(1), []],
    "3000 beside none": [many(3000), []],
    "half a pixel": [[SPECK], [SPECK] * 40],
    "the whole image": [[FULL_IMAGE], [FULL_IMAGE] * 30],
    "one pixel wide": [[COLUMN, ROW], [COLUMN] * 50],
    "over the edge": [[EDGE], [EDGE, FULL_IMAGE, SPECK, ROW]],
}


@pytest.fixture(scope="module")
def models(checkpoint: Callable[..., Path]) -> Callable[[str], tuple[torch.nn.Module, DistillationCriterion]]:
    """A student and its criterion for a task; class 1 is never seen."""
    made: dict[str, tuple[torch.nn.Module, DistillationCriterion]] = {}

    def get(task: str) -> tuple[torch.nn.Module, DistillationCriterion]:
        if task not in made:
            yaml = "yolov8n-obb.yaml" if task == "obb" else "yolov8n.yaml"
            made[task] = build(yaml, checkpoint(yaml, seed=1))
        return made[task]

    return get


def make_batch(images: list[list[list[float]]], rotated: bool) -> dict[str, Tensor]:
    boxes = torch.tensor([b for image in images for b in image], dtype=torch.float32).reshape(-1, 4)
    if rotated:
        boxes = torch.cat((boxes, torch.linspace(0, math.pi / 2 - 0.01, len(boxes))[:, None]), 1)
    return {
        "img": torch.rand(len(images), 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1)),
        "batch_idx": torch.tensor([float(i) for i, image in enumerate(images) for _ in image]),
        "cls": torch.zeros(len(boxes), 1),
        "bboxes": boxes,
    }


@pytest.mark.parametrize("case", list(CASES))
@pytest.mark.parametrize("task", ["obb", "detect"])
def test_terms_and_maps(
    task: str, case: str, models: Callable[[str], tuple[torch.nn.Module, DistillationCriterion]]
) -> None:
    model, criterion = models(task)
    d, batch = criterion.distiller, make_batch(CASES[case], task == "obb")
    assert d is not None
    with capture_assigner_calls(criterion.base) as calls:
        preds = model(batch["img"])
        loss, items = criterion(preds, batch)
    assert all(0 < items[LOSS_NAMES[t]] < math.inf for t in ACTIVE)
    parameters = [p for p in model.parameters() if p.requires_grad]
    grads = torch.autograd.grad(loss[-len(TERMS) :].sum(), parameters, allow_unused=True)
    assert all(g.isfinite().all() for g in grads if g is not None)
    assert sum(bool(g.any()) for g in grads if g is not None) > 50

    for weight in weight_maps(d.settings, preds["feats"], d.strides, calls[0].targets, None):
        cells = weight[0].numel()
        sums = weight.double().sum((1, 2, 3)) - cells  # each object adds 1, however small or crowded
        torch.testing.assert_close(sums, calls[0].targets.mask.sum(1).double(), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(("task", "bound"), [("obb", ROTATED), ("detect", UPRIGHT)])
def test_memory_of_the_maps_is_linear_in_the_objects(
    task: str, bound: int, models: Callable[[str], tuple[torch.nn.Module, DistillationCriterion]]
) -> None:
    _, criterion = models(task)
    d = criterion.distiller
    assert d is not None
    features = [torch.zeros(IMAGES, 1, 320 // s, 320 // s) for s in (8, 16, 32)]
    peaks = []
    for count in COUNTS:
        targets = targets_of(batch_of(count, task == "obb"), task == "obb")
        with Live() as live:
            for weight in weight_maps(d.settings, features, d.strides, targets, None):
                del weight
        peaks.append(live.peak)
    objects = np.array(COUNTS) * IMAGES
    slope, start = np.polyfit(objects, peaks, 1)
    print(f"{task}: {slope:.0f} bytes an object, {peaks}")
    assert np.abs(np.polyval([slope, start], objects) - peaks).max() < 0.05 * max(peaks), "a line"
    assert slope < bound


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of a process in KiB, as Linux gives it")
@pytest.mark.parametrize("task", ["obb", "detect"])
def test_peak_of_a_process(task: str) -> None:
    """The terms add next to nothing for objects; Ultralytics' own assigner takes a row of anchors for each."""

    def peaks(part: str) -> list[int]:
        command = [sys.executable, "-m", "tests.helpers.crowd", part, task]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
        peak_bytes: list[int] = json.loads(done.stdout.splitlines()[-1])
        return peak_bytes

    term_peaks, task_peaks = peaks("terms"), peaks("task")
    print(task, term_peaks, task_peaks)
    assert term_peaks[-1] - term_peaks[0] < GROWTH
    assert term_peaks[-1] - term_peaks[0] < 0.2 * (task_peaks[-1] - task_peaks[0])


@pytest.mark.parametrize("task", ["obb", pytest.param("detect", marks=pytest.mark.slow)])
def test_a_run_on_extremes(
    task: str, tmp_path: Path, tiny_trainer: Callable[..., DS2D2Trainer], checkpoint: Callable[..., Path]
) -> None:
    """Images with none, one, hundreds, the tiniest and the largest objects, and a class that is never seen."""
    data = write_tiny_data(tmp_path / "data", task)
    images = [[], many(1), many(400), [SPECK], [FULL_IMAGE], [COLUMN, ROW], [], [EDGE]]
    for i, boxes in enumerate(images):
        rows = []
        for x, y, w, h in boxes:
            corners = [x - w / 2, y - h / 2, x + w / 2, y - h / 2, x + w / 2, y + h / 2, x - w / 2, y + h / 2]
            numbers = [min(max(v, 0.0), 1.0) for v in (corners if task == "obb" else (x, y, w, h))]
            rows.append(f"0 {' '.join(f'{v:.6f}' for v in numbers)}")
        (tmp_path / "data" / "labels" / "train" / f"{i}.txt").write_text("\n".join(rows), encoding="utf-8")
    teacher = checkpoint("yolov8n-obb.yaml" if task == "obb" else "yolov8n.yaml", seed=7)
    trainer = tiny_trainer(task, data=str(data), teacher=str(teacher), amplifier_epochs=1, batch=2, mosaic=0.5)
    losses: list[float] = []
    trainer.add_callback(
        "on_train_batch_end", lambda t: losses.extend(float(t.loss_items[f"{x}_loss"]) for x in ACTIVE)
    )
    trainer.train()
    assert len(losses) == 4 * len(ACTIVE)
    assert all(0 < v < math.inf for v in losses[len(ACTIVE) :])
    assert all(v.isfinite().all() for v in trainer.model.state_dict().values())
