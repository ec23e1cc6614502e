"""Peak memory over the objects per image: `python -m tests.helpers.crowd PART TASK`, bytes as JSON.

PART is `terms`, the four terms and their backward pass, or `task`, Ultralytics' own loss and its. The peak of a process
only grows, so the counts do too; each is reached twice, as what is left is freed late.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from ultralytics.nn.tasks import DetectionModel, OBBModel

from ds2d2_yolo.bridge.distillation.targets import Targets
from tests.helpers.distillation import build

COUNTS = (0, 300, 1000, 3000)
IMAGES, SIZE = 4, 320


def batch_of(count: int, rotated: bool, seed: int = 0) -> dict[str, Tensor]:
    """As many objects of 4 to 40 px in each of some images of noise, as Ultralytics' losses take them."""
    generator = torch.Generator().manual_seed(seed)
    boxes = torch.rand(IMAGES * count, 5 if rotated else 4, generator=generator)
    boxes[:, 2:4] = (4 + 36 * boxes[:, 2:4]) / SIZE
    return {
        "img": torch.rand(IMAGES, 3, SIZE, SIZE, generator=generator),
        "batch_idx": torch.arange(IMAGES).repeat_interleave(count).float(),
        "cls": torch.randint(2, (IMAGES * count, 1), generator=generator).float(),
        "bboxes": boxes,
    }


def targets_of(batch: dict[str, Tensor], rotated: bool) -> Targets:
    """The same objects as an assigner would have got them."""
    boxes = batch["bboxes"].clone().view(IMAGES, -1, 5 if rotated else 4)
    boxes[..., :4] *= SIZE
    if not rotated:
        centre, half = boxes[..., :2].clone(), boxes[..., 2:] / 2
        boxes = torch.cat((centre - half, centre + half), -1)
    return Targets(boxes, torch.ones(boxes.shape[:2], dtype=torch.bool))


def main(part: str, task: str) -> None:
    """Measure and print."""
    rotated = task == "obb"
    yaml = "yolov8n-obb.yaml" if rotated else "yolov8n.yaml"
    with tempfile.TemporaryDirectory() as folder:
        teacher: Any = (OBBModel if rotated else DetectionModel)(yaml, nc=2, verbose=False)
        teacher.names, teacher.task = {0: "red", 1: "green"}, task
        torch.save({"model": teacher, "train_args": {"task": task}}, Path(folder, "teacher.pt"))
        student, criterion = build(yaml, Path(folder, "teacher.pt"))
    d = criterion.distiller
    assert d is not None
    peaks = []
    for count in COUNTS:
        for seed in (0, 1):
            batch = batch_of(count, rotated, seed)
            if part == "task":
                criterion.base(student(batch["img"]), batch)[0].sum().backward()
                continue
            with torch.no_grad():
                features = student(batch["img"])["feats"]
            leaves = [f.requires_grad_() for f in features]
            torch.stack(
                list(d.terms(leaves, d.teacher_outputs(batch["img"]), targets_of(batch, rotated)).values())
            ).sum().backward()
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    print(json.dumps(peaks))


if __name__ == "__main__":
    main(*sys.argv[1:])
