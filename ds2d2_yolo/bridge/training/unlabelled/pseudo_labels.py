"""The teacher's detections on unlabelled images, written as labels of a YOLO data set.

Pseudo-labels (Lee 2013) are the usual way to train on unlabelled images. They are a rival of the distillation, not a
part of it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ultralytics import YOLO
from ultralytics.cfg import get_cfg
from ultralytics.utils import YAML

from ds2d2_yolo.bridge.data.class_map import match_run_classes
from ds2d2_yolo.bridge.data.dataset import load_data
from ds2d2_yolo.bridge.data.unlabelled.selection import select_unlabelled
from ds2d2_yolo.bridge.data.unlabelled.sources import resolve_sources
from ds2d2_yolo.bridge.distillation.unlabelled.teacher_boxes import MAX_DETECTIONS, NMS_IOU
from ds2d2_yolo.bridge.models.teacher import load_teacher
from ds2d2_yolo.config.resources import resolve_data
from ds2d2_yolo.errors import BadUseError


@dataclass(frozen=True)
class PseudoLabels:
    """Unlabelled images with the teacher's detections as labels.

    Attributes:
        file (Path): Data-set YAML, with these images for training and the original ones for validation.
        images (Path): Folder of the images, which are links where the system allows them.
        number (int): Number of images.
        boxes (int): Number of labels.
    """

    file: Path
    images: Path
    number: int
    boxes: int


def write_pseudo_labels(
    teacher: str, data: str, keys: Mapping[str, Any], settings: Mapping[str, Any], folder: Path
) -> PseudoLabels:
    """Detect objects on unlabelled images with a teacher, and write them as labels.

    Detections above `unlabelled_conf` are written, after the suppression that the terms use too, in the classes of the
    data. Those of other classes are left out. Corners of oriented boxes are moved to the border of the image where they
    lie beyond it, since Ultralytics takes no such label. An image without a detection gets an empty label file, which
    makes it background.

    Args:
        teacher (str): Checkpoint of the teacher.
        data (str): Data-set YAML of the labelled images.
        keys (Mapping[str, Any]): Ultralytics' training settings.
        settings (Mapping[str, Any]): `unlabelled`, `unlabelled_conf` and `teacher_imgsz`, the size of the detections.
        folder (Path): Folder for images, labels and YAML; earlier ones are replaced.

    Returns:
        (PseudoLabels): What was written.

    Raises:
        BadUseError: If there are no unlabelled images, or no class that teacher and data share.
    """
    loaded = load_teacher(teacher)
    task = "obb" if loaded.rotated else "detect"
    args = get_cfg(overrides={**keys, "task": task, "data": resolve_data(data)})
    data_set = load_data(args)
    sources = resolve_sources(settings["unlabelled"], data_set)
    if sources is None:
        raise BadUseError("pseudo-labels need unlabelled images: give unlabelled=")
    selected = select_unlabelled(sources, data_set, args).images
    class_map = match_run_classes(loaded.names, data_set, args)
    classes = {t: d for d, t in class_map.pairs}
    if not classes:
        raise BadUseError(f"{class_map.describe()}: the teacher's detections are no labels of these data")
    images, labels = folder / "images", folder / "labels"
    for place in (images, labels):
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
    imgsz = settings.get("teacher_imgsz") or args.imgsz
    options = {"imgsz": imgsz, "device": args.device, "conf": settings["unlabelled_conf"], "iou": NMS_IOU}
    model, boxes = YOLO(teacher), 0
    for i, image in enumerate(selected):
        # one image a call: Ultralytics' time limit of the suppression (8.4.190) skips the later images of a batch
        (result,) = model.predict(str(image), **options, max_det=MAX_DETECTIONS, verbose=False)
        rows = _label_rows(result, classes)
        boxes += len(rows)
        name = f"{i:06d}_{image.stem}"  # images of several folders may have one name
        _link(image, images / f"{name}{image.suffix}")
        (labels / f"{name}.txt").write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
    file = folder / "data.yaml"
    YAML.save(file, _data_yaml(folder, data_set, args.split))
    return PseudoLabels(file, images, len(selected), boxes)


def _label_rows(result: Any, classes: Mapping[int, int]) -> Sequence[str]:
    """Return a row of a label file for each detection of a class of the data, in coordinates from 0 to 1."""
    detections = result.boxes if result.obb is None else result.obb
    places = detections.xywhn if result.obb is None else detections.xyxyxyxyn.flatten(1)
    rows = zip(detections.cls.int().tolist(), places.clamp(0, 1).tolist(), strict=True)
    return [" ".join([str(classes[c]), *(f"{x:.6f}" for x in place)]) for c, place in rows if c in classes]


def _link(image: Path, place: Path) -> None:
    """Link an image, or copy it where the system has no links."""
    try:
        os.symlink(image.absolute(), place)
    except OSError:
        shutil.copy2(image, place)


def _data_yaml(folder: Path, data: Mapping[str, Any], split: str) -> dict[str, Any]:
    """Return the content of the YAML: the images of the folder for training, the data's own for validation."""
    more = {key: data[key] for key in ("channels",) if key in data}
    return {"path": str(folder.absolute()), "train": "images", "val": data[split], "names": dict(data["names"]), **more}
