"""Validation that keeps what Ultralytics throws away: which object each detection found, and where both lie."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from ultralytics import YOLO
from ultralytics.cfg import get_cfg
from ultralytics.models.yolo.obb import OBBValidator
from ultralytics.utils import DEFAULT_CFG_KEYS, LOGGER
from ultralytics.utils.checks import check_model_file_from_stem
from ultralytics.utils.metrics import ap_per_class

from ds2d2_yolo.bridge.data.dataset import COLUMNS, load_data, refuse_unusable
from ds2d2_yolo.bridge.data.images import images_of, labels_of
from ds2d2_yolo.bridge.data.security import refuse_code, refuse_program, safe_loading
from ds2d2_yolo.bridge.models.heads import dense_head
from ds2d2_yolo.bridge.upstream.arguments import check_theirs
from ds2d2_yolo.bridge.upstream.compat import check_ultralytics
from ds2d2_yolo.bridge.upstream.devices import check_device
from ds2d2_yolo.bridge.upstream.messages import first_line
from ds2d2_yolo.bridge.validation.class_names import ClassNameValidator
from ds2d2_yolo.config.resources import resolve_data
from ds2d2_yolo.errors import BadUseError, DS2D2Error

# save_dir is a setting without a default; the others are old names that Ultralytics still reads
VAL_KEYS = frozenset({*DEFAULT_CFG_KEYS, "save_dir", "half", "end2end"}) - {"model", "data", "mode", "cfg"}


@dataclass(frozen=True)
class Found:
    """What a model found in a split, in pixels of the original images.

    M objects, N detections, T = 10 IoU thresholds from 0.5 to 0.95. Boxes are x, y, w, h and the angle in radians of
    the side w, clockwise as one sees it from the x axis. The angle of upright boxes is 0, and they end at the edge of
    the image, as in the files that Ultralytics writes; it matches them before they are cut there.

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


@dataclass(frozen=True)
class Validated:
    """A validation that has run.

    Attributes:
        found (Found): What the model found.
        metrics (Any): Ultralytics' own metrics.
        save_dir (Path): Folder of the run.
        facts (dict[str, Any]): model, task, data, split, imgsz, conf, iou and max_det as they were.
    """

    found: Found
    metrics: Any
    save_dir: Path
    facts: dict[str, Any]


def class_ap(
    found: NDArray[Any], confidence: NDArray[Any], classes: NDArray[Any], object_class: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return Ultralytics' average precision of each class that has objects.

    Args:
        found (NDArray[Any]): N x T booleans: whether a detection found an object.
        confidence (NDArray[Any]): N.
        classes (NDArray[Any]): N class indices.
        object_class (NDArray[Any]): M class indices.

    Returns:
        classes (NDArray[Any]): K class indices, ascending.
        ap (NDArray[Any]): K x T, 0 to 1.
    """
    result = ap_per_class(found, confidence, classes, object_class)
    return result[6], result[5]


class KeepingValidator(ClassNameValidator):
    """Ultralytics' validator, which also keeps boxes and matches; all it computes and writes stays as it is.

    Only classes under other indices than the data's are matched by name.
    """

    def init_metrics(self, model: nn.Module) -> None:
        """Start with nothing kept."""
        super().init_metrics(model)
        self.kept: list[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]] = []
        self.found: Found | None = None

    def match_predictions(
        self, pred_classes: Tensor, true_classes: Tensor, iou: Tensor, use_scipy: bool = False
    ) -> Tensor:
        """Match as Ultralytics does, and note which object each detection was matched to."""
        correct: Tensor = super().match_predictions(pred_classes, true_classes, iou, use_scipy)
        overlap = (iou * (true_classes[:, None] == pred_classes)).cpu().numpy()
        self.targets = targets_of(correct.cpu().numpy(), overlap)
        return correct

    def _process_batch(self, preds: dict[str, Tensor], batch: dict[str, Any]) -> dict[str, NDArray[Any]]:
        """Keep one image."""
        self.targets = np.full((len(preds["cls"]), self.niou), -1, dtype=np.int32)
        correct: dict[str, NDArray[Any]] = super()._process_batch(preds, batch)
        objects, found = (xywhr(self.scale_preds({"bboxes": x["bboxes"]}, batch)["bboxes"]) for x in (batch, preds))
        self.kept.append((objects, found, self.targets))
        return correct

    def get_stats(self) -> dict[str, Any]:
        """Put together what was kept; the statistics are Ultralytics' very arrays, which it drops afterwards."""
        stats = {k: np.concatenate(self.metrics.stats[k], 0) for k in ("conf", "pred_cls", "target_cls")}
        objects, detections, targets = zip(*self.kept, strict=True)
        counts = [len(x) for x in objects]
        first = np.cumsum([0, *counts[:-1]])
        target = np.concatenate([np.where(t >= 0, t + start, -1) for t, start in zip(targets, first, strict=True)])
        self.found = Found(
            names={0: "item"} if self.args.single_cls else dict(self.names), rotated=self.args.task == "obb",
            images=self.seen,
            object_image=np.repeat(np.arange(len(counts)), counts), object_class=stats["target_cls"],
            object_boxes=np.concatenate(objects),
            image=np.repeat(np.arange(len(counts)), [len(x) for x in detections]), classes=stats["pred_cls"],
            confidence=stats["conf"], boxes=np.concatenate(detections), target=target.astype(np.int32),
        )  # fmt: skip
        self.kept.clear()
        return super().get_stats()


class KeepingOBBValidator(KeepingValidator, OBBValidator):
    """The same for oriented boxes."""


VALIDATORS = {"detect": KeepingValidator, "obb": KeepingOBBValidator}


def targets_of(correct: NDArray[Any], overlap: NDArray[Any]) -> NDArray[np.int32]:
    """Return which object each correct detection was matched to.

    Ultralytics (8.4.190) goes through the detections from the most confident and gives each, at each threshold, the
    object of its class that it overlaps most among those not yet taken; it returns only whether there was one.

    Args:
        correct (NDArray[Any]): N x T booleans from `match_predictions`.
        overlap (NDArray[Any]): M x N IoU, 0 where the classes differ.

    Returns:
        (NDArray[np.int32]): N x T indices of objects, -1 where the detection is not correct.
    """
    found = np.full(correct.shape, -1, dtype=np.int32)
    taken = np.zeros((overlap.shape[0], correct.shape[1]), dtype=bool)
    columns = np.arange(correct.shape[1])
    for j in np.flatnonzero(correct.any(1)):
        best = np.where(taken, 0, overlap[:, j, None]).argmax(0)
        found[j] = np.where(correct[j], best, -1)
        taken[best, columns] |= correct[j]
    return found


def xywhr(boxes: Tensor) -> NDArray[np.float32]:
    """Return boxes as N x 5: Ultralytics' oriented ones as they are, x1 y1 x2 y2 as centre, size and angle 0."""
    values: NDArray[np.float32] = boxes.float().cpu().numpy()
    if values.shape[1] == 5:
        return values
    low, high = values[:, :2], values[:, 2:]
    return np.concatenate([(low + high) / 2, high - low, np.zeros_like(values[:, :1])], 1)


def validate(model: str, data: str | None = None, safe: bool = False, **keys: Any) -> Validated:
    """Validate a model as Ultralytics does, and keep what it found.

    Args:
        model (str): Checkpoint, a release's name or an exported model.
        data (str | None): Data-set YAML; None is the one that the checkpoint was trained on.
        safe (bool): Whether a model or a data set that could run code is refused.
        **keys (Any): Ultralytics' settings.

    Returns:
        (Validated): Its outcome.

    Raises:
        BadUseError: If anything does not fit, before the first image.
        DS2D2Error: If an exported model cannot be run.
    """
    check_ultralytics()
    check_theirs(keys)
    check_device(keys.get("device"))
    with safe_loading(safe):
        if safe:
            refuse_program(model)
        opened = open_model(model, keys.pop("task", None))
        data = data or opened.overrides.get("data")
        if not data:
            raise BadUseError("data= missing: ds2d2-yolo val model=best.pt data=D.yaml")
        if safe:
            refuse_code(str(data))
        keys["data"] = resolve_data(str(data))
        _check_split(get_cfg(overrides=keys), str(opened.task))
        return _run(opened, model, str(data), keys)


def _run(opened: YOLO, model: str, data: str, keys: dict[str, Any]) -> Validated:
    """Run Ultralytics' validation of an opened model."""
    made: list[KeepingValidator] = []

    def build(**given: Any) -> KeepingValidator:
        """Make the validator and hold on to it: `YOLO.val` returns its metrics only."""
        made.append(VALIDATORS[str(opened.task)](**given))
        return made[0]

    try:
        metrics = opened.val(validator=build, **keys)
    except Exception as e:  # what a broken export raises depends on its runtime
        if isinstance(opened.model, nn.Module):
            raise
        if made and made[0].save_dir.is_dir() and not any(made[0].save_dir.iterdir()):
            made[0].save_dir.rmdir()
        kind = BadUseError if isinstance(e, TypeError) else DS2D2Error  # Ultralytics' for what is no model
        raise kind(f"model={model} cannot be run: {first_line(e)}") from e
    args = made[0].args
    facts = {k: getattr(args, k) for k in ("split", "imgsz", "conf", "iou", "max_det")}
    facts = {"model": str(model), "task": opened.task, "data": data, **facts}
    found = made[0].found
    assert found is not None  # every validation ends with get_stats
    return Validated(found, metrics, Path(made[0].save_dir), facts)


def open_model(name: str, task: str | None = None) -> YOLO:
    """Return a model to validate; whatever is wrong with it becomes one line.

    Args:
        name (str): Checkpoint, a release's name or an exported model.
        task (str | None): Its task, for an exported model that does not say it.

    Returns:
        (YOLO): With task 'detect' or 'obb'.

    Raises:
        BadUseError: If it is missing, unreadable, untrained or of another task.
    """
    if name.lower().endswith((".yaml", ".yml")):
        raise BadUseError(f"model={name} is a model YAML, which has learned nothing: name a checkpoint (.pt)")
    try:
        model = YOLO(str(check_model_file_from_stem(name)), task=task)
    except FileNotFoundError as e:
        raise BadUseError(f"model={name} does not exist, and Ultralytics has no release of that name") from e
    except Exception as e:  # unpickling an arbitrary file can raise anything
        raise BadUseError(f"model={name} cannot be read as an Ultralytics model: {first_line(e)}") from e
    if model.task not in VALIDATORS:
        raise BadUseError(f"model={name} is a {model.task} model: val takes detect and obb")
    if task not in (None, model.task):
        raise BadUseError(f"model={name} is a {model.task} model: leave task={task} out")
    if isinstance(model.model, nn.Module):
        dense_head(model.model, f"model={name}")
    return model


def _check_split(args: Namespace, task: str) -> None:
    """Refuse a split without images or labels, or with labels that an oriented model cannot be measured on."""
    data = load_data(args)
    place = data.get(args.split)
    images = images_of(place) if place else []
    if not images:
        raise BadUseError(f"data={args.data} has no images for split={args.split}: check that entry of the data YAML")
    labels = labels_of(images)
    texts = (f.read_text(encoding="utf-8", errors="replace").strip() for f in labels if f.is_file())
    line = next((t.splitlines()[0] for t in texts if t), None)
    if line is None:
        raise BadUseError(f"no labels for the {len(images)} images of split={args.split} in {labels[0].parent}")
    columns = len(line.split())
    if task == "detect" and columns == 9:
        LOGGER.info("The labels are oriented: their upright hulls are the objects of a detect model.")
    if task == "obb" and columns < 9:
        raise BadUseError(f"labels have {columns} columns and an obb model needs {COLUMNS['obb']}: use obb labels")
    refuse_unusable(data, images)
