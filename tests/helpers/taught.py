"""A teacher that knows a data set without having been trained: the labels are written from its own answers."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from ultralytics import YOLO
from ultralytics.cfg import get_cfg
from ultralytics.nn.tasks import DetectionModel, OBBModel
from ultralytics.utils.ops import xyxy2xywh

from ds2d2_yolo.bridge.data.images import list_images
from tests.helpers.data import write_tiny_data

NAMES = ("red", "green", "blue")
SIZE = 96
CONF = 0.1
PAD = 16  # that Ultralytics validates with


def write_teacher(file: Path, task: str, data: Path) -> Path:
    """Write an untrained teacher whose answers follow its input: small boxes, scores all over the scale."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        kind = OBBModel if task == "obb" else DetectionModel
        model = kind("yolov8n-obb.yaml" if task == "obb" else "yolov8n.yaml", nc=len(NAMES), verbose=False)
        images = [cv2.imread(str(p))[..., ::-1].copy() for p in list_images(str(data.parent / "images" / "train"))]
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = 1.0
        model.train()(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255)
        for box, score in zip(model.model[-1].cv2, model.model[-1].cv3, strict=True):
            box[-1].bias.view(4, -1)[:, 1] += 12  # a cell's side to the left, to the top, ...
            score[-1].weight *= 3
            score[-1].bias.fill_(-2)  # few sure answers: they are suppressed in pairs
    model.names, model.task = dict(enumerate(NAMES)), task
    torch.save({"model": model.eval(), "train_args": {"task": task, "imgsz": SIZE}}, file)
    return file


def write_answers(teacher: Path, data: Path, task: str) -> None:
    """Write the teacher's surest boxes as labels, every second one moved, so that its mAP is neither 0 nor 1."""
    model = YOLO(teacher)
    for split in ("train", "val"):
        for image in list_images(str(data.parent / "images" / split)):
            padded = cv2.copyMakeBorder(cv2.imread(str(image)), *[PAD] * 4, cv2.BORDER_CONSTANT, value=(114, 114, 114))
            result = model.predict(padded, imgsz=SIZE + 2 * PAD, conf=CONF, iou=0.5, device="cpu", verbose=False)[0]
            boxes = result.obb if task == "obb" else result.boxes
            corners = (boxes.xyxyxyxy.flatten(1) if task == "obb" else boxes.xyxy).sub(PAD).div(SIZE)
            corners[1::2] += 0.02
            inside = ((corners > 0.01) & (corners < 0.99)).all(1).nonzero().flatten()[:12]
            shown = corners if task == "obb" else xyxy2xywh(corners)
            rows = [[int(c), *b] for c, b in zip(boxes.cls[inside], shown[inside].tolist(), strict=True)]
            label = Path(str(image).replace("images", "labels")).with_suffix(".txt")
            label.write_text("\n".join(" ".join(map(str, row)) for row in rows), encoding="utf-8")


def rename(data: Path, names: tuple[str, ...], folder: Path, index: dict[int, int]) -> Path:
    """Write a data set like another with other names; `index` tells a class's new index, one that lacks is dropped."""
    for file in sorted(data.parent.rglob("*.*")):
        if file.suffix in {".png", ".txt"}:
            copy = folder / file.relative_to(data.parent)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(file.read_bytes())
            if file.suffix == ".txt":
                rows = [row.split(" ", 1) for row in file.read_text().splitlines()]
                rows = [[str(index[int(c)]), box] for c, box in rows if int(c) in index]
                copy.write_text("\n".join(" ".join(row) for row in rows), encoding="utf-8")
    yaml = folder / "data.yaml"
    split = "train: images/train\nval: images/val\n"
    yaml.write_text(f"path: {folder.as_posix()}\n{split}names: {list(names)}\n", encoding="utf-8")
    return yaml


def write_taught(root: Path, task: str) -> tuple[Path, Path]:
    """Write a teacher and the data set that it knows, and return checkpoint and YAML."""
    first = write_tiny_data(root / "first", task)
    teacher = write_teacher(root / "teacher.pt", task, first)
    write_answers(teacher, first, task)
    return teacher, rename(first, NAMES, root / "data", {0: 0, 1: 1, 2: 2})


def settings(task: str, data: Path, **keys: Any) -> Namespace:
    """Return the Ultralytics settings of a run."""
    base = {"task": task, "data": str(data), "imgsz": SIZE, "batch": 4, "conf": CONF, "device": "cpu", "workers": 0}
    return get_cfg(overrides={**base, **keys})
