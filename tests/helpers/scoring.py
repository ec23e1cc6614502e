"""Hand-made objects and detections, matched by Ultralytics' own validators."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from ds2d2_yolo.bridge.validation.recording import VALIDATORS, MatchedDetections

SIDE = 512
Box = tuple[float, ...]  # x, y, w, h in pixels and, for oriented boxes, degrees


class Image:
    """Objects as (class, box) and detections as (class, confidence, box)."""

    def __init__(self, objects: Sequence[tuple[int, Box]], detections: Sequence[tuple[int, float, Box]]) -> None:
        self.objects, self.detections = list(objects), list(detections)


def validator_of(images: Sequence[Image], rotated: bool = False, names: int = 2) -> Any:
    """Return Ultralytics' validator, of the kind that keeps, after it has seen these images."""
    with tempfile.TemporaryDirectory() as folder:
        validator = VALIDATORS["obb" if rotated else "detect"](
            save_dir=Path(folder), args={"plots": False, "task": "obb" if rotated else "detect"}
        )
    classes = {i: f"class{i}" for i in range(names)}
    validator.device, validator.data = torch.device("cpu"), {"names": classes}
    validator.init_metrics(SimpleNamespace(names=classes))
    for image in images:
        validator.update_metrics([_predictions(image, rotated)], _batch(image, rotated))
    return validator


def matched_detections(images: Sequence[Image], rotated: bool = False, names: int = 2) -> MatchedDetections:
    """Return what was found in these images."""
    validator = validator_of(images, rotated, names)
    validator.get_stats()
    return validator.detections


def _boxes(boxes: Sequence[Box], rotated: bool) -> torch.Tensor:
    """Return boxes as xywhr in radians, or as xywh."""
    rows = [(*b[:4], np.deg2rad(b[4] if len(b) > 4 else 0)) for b in boxes]
    return torch.tensor(rows, dtype=torch.float32).reshape(-1, 5)[:, : 5 if rotated else 4]


def _predictions(image: Image, rotated: bool) -> dict[str, torch.Tensor]:
    """Return detections as a validator's `postprocess` does, the most confident first."""
    ordered = sorted(image.detections, key=lambda d: -d[1])
    boxes = _boxes([d[2] for d in ordered], rotated)
    if not rotated:
        boxes = torch.cat([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], 1)
    return {
        "bboxes": boxes, "conf": torch.tensor([d[1] for d in ordered]),
        "cls": torch.tensor([float(d[0]) for d in ordered]),
    }  # fmt: skip


def _batch(image: Image, rotated: bool) -> dict[str, Any]:
    """Return a batch of one image, with boxes from 0 to 1 as Ultralytics' data loader has them."""
    boxes = _boxes([b for _, b in image.objects], rotated)
    boxes[:, :4] /= SIDE
    return {
        "batch_idx": torch.zeros(len(boxes)), "cls": torch.tensor([float(c) for c, _ in image.objects]).reshape(-1, 1),
        "bboxes": boxes, "ori_shape": [(SIDE, SIDE)], "ratio_pad": [((1.0, 1.0), (0, 0))],
        "img": torch.zeros(1, 3, SIDE, SIDE), "im_file": ["image.png"],
    }  # fmt: skip


def random_images(seed: int, rotated: bool, number: int = 12, apart: bool = False) -> list[Image]:
    """Return images of random objects: some found well, some badly, some twice, some not, and false alarms.

    Args:
        seed (int): Seed.
        rotated (bool): Whether the boxes are oriented.
        number (int): Number of images.
        apart (bool): Whether objects keep so far apart that no detection overlaps two of them.

    Returns:
        (list[Image]): Images of 2 classes; every confidence differs.
    """
    rng = np.random.default_rng(seed)
    confidences = iter(rng.permutation(number * 60) / (number * 60))
    images = []
    for _ in range(number):
        cells = rng.permutation(16)[: rng.integers(0, 12)]
        objects, detections = [], []
        for cell in cells:
            middle = np.array([cell % 4, cell // 4]) * 128 + 64 if apart else rng.uniform(100, 250, 2)
            size = np.exp(rng.uniform(np.log(6), np.log(90 if apart else 160), 2))
            box = (*middle, *size, float(rng.uniform(-45, 135)))
            objects.append((int(rng.integers(0, 2)), box))
            for _ in range(rng.integers(0, 3)):
                jitter = rng.normal(0, 0.08, 4)
                moved = (*(middle + jitter[:2] * size), *(size * np.exp(jitter[2:])), box[4] + rng.normal(0, 5))
                kind = objects[-1][0] if rng.random() < 0.9 else 1 - objects[-1][0]
                detections.append((kind, float(next(confidences)), moved))
        for _ in range(rng.integers(0, 6)):
            box = (*rng.uniform(20, SIDE - 20, 2), *np.exp(rng.uniform(1.5, 4, 2)), float(rng.uniform(-45, 135)))
            detections.append((int(rng.integers(0, 2)), float(next(confidences)), box))
        images.append(Image(objects, detections))
    return images
