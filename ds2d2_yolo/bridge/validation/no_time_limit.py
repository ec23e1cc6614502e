"""A validator without Ultralytics' NMS time limit, so that mAP does not depend on machine load."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from ultralytics.models.yolo.detect import DetectionValidator


class NoTimeLimitValidator(DetectionValidator):
    """Ultralytics' validator without its time limit of NMS, and without images that two threads write to.

    Ultralytics (8.4.190, `utils/nms.py`) stops the NMS of a batch after 2 s and 50 ms an image. The remaining images
    then have no detections: a young model with many faint oriented boxes loses mAP on a slow or busy machine. In a
    batch of one image no image remains, so NMS runs image by image here. Ultralytics' warning about the time stays.

    Ultralytics draws the objects and the detections of a batch in two threads (`utils/plotting.py`), each of which
    multiplies the images by 255 in place if their largest value is 1. On a CPU both have the same memory, and the
    picture depends on which thread comes first. Each thread gets a copy here.
    """

    def postprocess(self, preds: Any) -> list[dict[str, Tensor]]:
        """Return the detections of each image, as Ultralytics does without a time limit.

        Args:
            preds (Any): Output of the model, or a sequence that begins with it.

        Returns:
            (list[dict[str, Tensor]]): For each image `bboxes`, `conf` and `cls` of Ultralytics.
        """
        batch: Tensor = preds[0] if isinstance(preds, (list, tuple)) else preds
        return [
            detections
            for image in torch.split(batch, 1)
            for detections in super(NoTimeLimitValidator, self).postprocess(image)
        ]

    def plot_val_samples(self, batch: dict[str, Any], ni: int) -> None:
        """Draw the objects of a batch, as Ultralytics does.

        Args:
            batch (dict[str, Any]): The batch.
            ni (int): Its number.
        """
        super().plot_val_samples({**batch, "img": batch["img"].clone()}, ni)

    def plot_predictions(
        self, batch: dict[str, Any], preds: list[dict[str, Tensor]], ni: int, max_det: int | None = None
    ) -> None:
        """Draw the detections of a batch, as Ultralytics does.

        Args:
            batch (dict[str, Any]): The batch.
            preds (list[dict[str, Tensor]]): Its detections.
            ni (int): Its number.
            max_det (int | None): Largest number of detections that are drawn.
        """
        super().plot_predictions({**batch, "img": batch["img"].clone()}, preds, ni, max_det)
