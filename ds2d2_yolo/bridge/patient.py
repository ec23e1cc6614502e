"""Validation whose result does not hang on how busy the machine is."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from ultralytics.models.yolo.detect import DetectionValidator


class PatientValidator(DetectionValidator):
    """Ultralytics' validator, but that no image goes without detections because suppressing those before it took long.

    Ultralytics (8.4.190, `utils/nms.py`) stops a batch's suppression after 2 s and 50 ms an image, and the images that
    were left then have no detections: a young model with many faint oriented boxes loses mAP on a slow or busy machine.
    Of a batch of one image nothing is left out. Ultralytics' warning about the time stays.
    """

    def postprocess(self, preds: Any) -> list[dict[str, Tensor]]:
        """Return the detections of each image, as Ultralytics would with all the time in the world."""
        whole: Tensor = preds[0] if isinstance(preds, (list, tuple)) else preds
        return [found for image in torch.split(whole, 1) for found in super(PatientValidator, self).postprocess(image)]
