"""A validator that records what Ultralytics discards: the boxes, and which object each detection was matched to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from ultralytics.models.yolo.obb import OBBValidator
from ultralytics.utils.metrics import ap_per_class

from ds2d2_yolo.bridge.validation.class_names import ClassNameValidator


@dataclass(frozen=True)
class MatchedDetections:
    """Objects and detections of a split, in pixels of the original images, and Ultralytics' matches between them.

    M objects, N detections, T = 10 IoU thresholds from 0.5 to 0.95. Boxes are x, y, w, h and the angle in radians of
    the side w, clockwise from the x axis in the image. Upright boxes have the angle 0 and are clipped to the image, as
    in the files that Ultralytics writes; it matches them before it clips them.

    Attributes:
        names (Mapping[int, str]): Class names.
        rotated (bool): Whether the boxes are oriented.
        images (int): Number of images.
        object_image (NDArray[np.int64]): M, the image of each object.
        object_class (NDArray[np.float64]): M class indices.
        object_boxes (NDArray[np.float32]): M x 5.
        image (NDArray[np.int64]): N, the image of each detection.
        classes (NDArray[np.float64]): N class indices.
        confidence (NDArray[np.float64]): N, 0 to 1.
        boxes (NDArray[np.float32]): N x 5.
        target (NDArray[np.int32]): N x T, index of the object that Ultralytics' matching gives the detection, -1 none.
    """

    names: Mapping[int, str]
    rotated: bool
    images: int
    object_image: NDArray[Any]
    object_class: NDArray[Any]
    object_boxes: NDArray[Any]
    image: NDArray[Any]
    classes: NDArray[Any]
    confidence: NDArray[Any]
    boxes: NDArray[Any]
    target: NDArray[Any]


def class_ap(
    correct: NDArray[Any], confidence: NDArray[Any], classes: NDArray[Any], object_class: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return Ultralytics' average precision of each class that has objects.

    Args:
        correct (NDArray[Any]): N x T booleans: whether a detection is matched to an object.
        confidence (NDArray[Any]): N.
        classes (NDArray[Any]): N class indices.
        object_class (NDArray[Any]): M class indices.

    Returns:
        classes (NDArray[Any]): K class indices, ascending.
        ap (NDArray[Any]): K x T, 0 to 1.
    """
    result = ap_per_class(correct, confidence, classes, object_class)
    return result[6], result[5]


class RecordingValidator(ClassNameValidator):
    """A validator that also records boxes and matches; numbers and files of Ultralytics stay as they are.

    Attributes:
        detections (MatchedDetections | None): What was recorded, None until the validation ends.
    """

    def init_metrics(self, model: nn.Module) -> None:
        """Start the metrics and an empty record.

        Args:
            model (nn.Module): The model, with `names`.
        """
        super().init_metrics(model)
        # boxes of the objects, boxes of the detections, matches of the detections, for each image
        self._records: list[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]] = []
        self.detections: MatchedDetections | None = None

    def match_predictions(
        self, pred_classes: Tensor, true_classes: Tensor, iou: Tensor, use_scipy: bool = False
    ) -> Tensor:
        """Match as Ultralytics does, and record which object each detection was matched to.

        Args:
            pred_classes (Tensor): N class indices of detections.
            true_classes (Tensor): M class indices of objects.
            iou (Tensor): M x N.
            use_scipy (bool): As in Ultralytics.

        Returns:
            (Tensor): N x T booleans of Ultralytics.
        """
        correct: Tensor = super().match_predictions(pred_classes, true_classes, iou, use_scipy)
        overlap = (iou * (true_classes[:, None] == pred_classes)).cpu().numpy()
        self._targets = matched_objects(correct.cpu().numpy(), overlap)
        return correct

    def _process_batch(self, preds: dict[str, Tensor], batch: dict[str, Any]) -> dict[str, NDArray[Any]]:
        """Record one image."""
        self._targets = np.full((len(preds["cls"]), self.niou), -1, dtype=np.int32)
        correct: dict[str, NDArray[Any]] = super()._process_batch(preds, batch)
        objects, detections = (
            to_xywhr(self.scale_preds({"bboxes": x["bboxes"]}, batch)["bboxes"]) for x in (batch, preds)
        )
        self._records.append((objects, detections, self._targets))
        return correct

    def get_stats(self) -> dict[str, Any]:
        """Join the records of all images with Ultralytics' statistics, which it discards afterwards.

        Returns:
            (dict[str, Any]): Ultralytics' metrics.
        """
        stats = {k: np.concatenate(self.metrics.stats[k], 0) for k in ("conf", "pred_cls", "target_cls")}
        objects, detections, targets = zip(*self._records, strict=True)
        counts = [len(x) for x in objects]
        first = np.cumsum([0, *counts[:-1]])
        target = np.concatenate([np.where(t >= 0, t + start, -1) for t, start in zip(targets, first, strict=True)])
        self.detections = MatchedDetections(
            names={0: "item"} if self.args.single_cls else dict(self.names), rotated=self.args.task == "obb",
            images=self.seen,
            object_image=np.repeat(np.arange(len(counts)), counts), object_class=stats["target_cls"],
            object_boxes=np.concatenate(objects),
            image=np.repeat(np.arange(len(counts)), [len(x) for x in detections]), classes=stats["pred_cls"],
            confidence=stats["conf"], boxes=np.concatenate(detections), target=target.astype(np.int32),
        )  # fmt: skip
        self._records.clear()
        return super().get_stats()


class RecordingOBBValidator(RecordingValidator, OBBValidator):
    """The same for oriented boxes."""


VALIDATORS = {"detect": RecordingValidator, "obb": RecordingOBBValidator}


def matched_objects(correct: NDArray[Any], overlap: NDArray[Any]) -> NDArray[np.int32]:
    """Return which object each correct detection was matched to.

    Ultralytics (8.4.190) goes through the detections from the most confident and gives each, at each threshold, the
    object of its class that it overlaps most among those that are not matched yet. It returns only whether there was
    one.

    Args:
        correct (NDArray[Any]): N x T booleans from `match_predictions`.
        overlap (NDArray[Any]): M x N IoU, 0 where the classes differ.

    Returns:
        (NDArray[np.int32]): N x T indices of objects, -1 where the detection is not correct.
    """
    target = np.full(correct.shape, -1, dtype=np.int32)
    taken = np.zeros((overlap.shape[0], correct.shape[1]), dtype=bool)
    columns = np.arange(correct.shape[1])
    for j in np.flatnonzero(correct.any(1)):
        best = np.where(taken, 0, overlap[:, j, None]).argmax(0)
        target[j] = np.where(correct[j], best, -1)
        taken[best, columns] |= correct[j]
    return target


def to_xywhr(boxes: Tensor) -> NDArray[np.float32]:
    """Return boxes as N x 5: centre, size and angle.

    Args:
        boxes (Tensor): N x 5 x, y, w, h, angle, which stay as they are, or N x 4 x1, y1, x2, y2, which get the angle 0.

    Returns:
        (NDArray[np.float32]): N x 5.
    """
    values: NDArray[np.float32] = boxes.float().cpu().numpy()
    if values.shape[1] == 5:
        return values
    low, high = values[:, :2], values[:, 2:]
    return np.concatenate([(low + high) / 2, high - low, np.zeros_like(values[:, :1])], 1)
