"""Validation whose result and pictures do not hang on how busy the machine is."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from ultralytics.models.yolo.detect import DetectionValidator


class PatientValidator(DetectionValidator):
    """Ultralytics' validator, but that it leaves nothing out when it is slow, and its threads share no image.

    Ultralytics (8.4.190, `utils/nms.py`) stops a batch's suppression after 2 s and 50 ms an image, and the images that
    were left then have no detections: a young model with many faint oriented boxes loses mAP on a slow or busy machine.
    Of a batch of one image nothing is left out. Ultralytics' warning about the time stays.

    It draws a batch's objects and its detections in two threads (`utils/plotting.py`), each of which takes the images
    times 255 in place if they go up to 1. On a CPU both have the same memory, and what is drawn hangs on which of them
    is where. Each has a copy here.
    """

    def postprocess(self, preds: Any) -> list[dict[str, Tensor]]:
        """Return the detections of each image, as Ultralytics would with all the time in the world."""
        whole: Tensor = preds[0] if isinstance(preds, (list, tuple)) else preds
        return [found for image in torch.split(whole, 1) for found in super(PatientValidator, self).postprocess(image)]

    def plot_val_samples(self, batch: dict[str, Any], ni: int) -> None:
        """Draw a batch's objects, as Ultralytics does."""
        super().plot_val_samples({**batch, "img": batch["img"].clone()}, ni)

    def plot_predictions(
        self, batch: dict[str, Any], preds: list[dict[str, Tensor]], ni: int, max_det: int | None = None
    ) -> None:
        """Draw a batch's detections, as Ultralytics does."""
        super().plot_predictions({**batch, "img": batch["img"].clone()}, preds, ni, max_det)
