"""Data sets: loading, identity, and their boxes in a teacher's classes. `label_checks` refuses what cannot be used."""

from __future__ import annotations

import hashlib
from argparse import Namespace
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from ultralytics.data.utils import check_det_dataset, convert_ndjson_to_yolo_if_needed

from ds2d2_yolo.bridge.data.class_map import ClassMap
from ds2d2_yolo.bridge.data.images import label_paths, list_images
from ds2d2_yolo.bridge.data.label_checks import check_labels
from ds2d2_yolo.bridge.upstream.messages import first_line
from ds2d2_yolo.errors import BadUseError


def data_hash(data: Mapping[str, Any]) -> str:
    """Return a hash of the contents of a training split: class names, image names and sizes, label contents.

    Pixels are not read: a change of an image that keeps its name and its number of bytes goes unnoticed.

    Args:
        data (Mapping[str, Any]): Data set as `check_det_dataset` returns it.

    Returns:
        (str): SHA-256. It does not depend on the folder of the data set.
    """
    digest = hashlib.sha256(repr(sorted(data["names"].items())).encode())
    images = list_images(data["train"])
    for image, label in zip(images, label_paths(images), strict=True):
        digest.update(f"{image.name} {image.stat().st_size if image.exists() else -1}".encode())
        digest.update(label.read_bytes() if label.is_file() else b"")
    return digest.hexdigest()


def load_data(args: Namespace) -> dict[str, Any]:
    """Load the data set of a run as a trainer of Ultralytics does.

    Args:
        args (Namespace): Ultralytics settings of the run; they are not changed.

    Returns:
        (dict[str, Any]): As `check_det_dataset` returns it; under `single_cls` with one class and that key.

    Raises:
        BadUseError: If it cannot be found or read.
    """
    try:
        yaml = convert_ndjson_to_yolo_if_needed(args.data, args.fraction, split=args.split)
        data: dict[str, Any] = check_det_dataset(yaml, split=args.split)
    except Exception as e:  # loading may unpack and download
        raise BadUseError(f"data={args.data}: {first_line(e)}") from e
    return {**data, "names": {0: "item"}, "nc": 1, "single_cls": True} if args.single_cls else data


def map_to_teacher_classes(labels: Iterable[dict[str, Any]], class_map: ClassMap) -> int:
    """Replace the class indices of boxes by the teacher's, in place, and drop boxes of classes that it does not have.

    Args:
        labels (Iterable[dict[str, Any]]): The `labels` of an Ultralytics data set, with the data's class indices.
        class_map (ClassMap): The data's classes and the teacher's.

    Returns:
        (int): Number of remaining boxes.
    """
    teacher_index = np.full(len(class_map.data), -1)
    for data_class, teacher_class in class_map.pairs:
        teacher_index[data_class] = teacher_class
    remaining = 0
    for label in labels:
        classes = label["cls"]
        mapped = teacher_index[classes[:, 0].astype(int)]
        shared = mapped >= 0
        label["cls"] = mapped[shared, None].astype(classes.dtype)
        label["bboxes"] = label["bboxes"][shared]
        # not every data set has these two; segments hold the corners of oriented boxes
        if len(label["segments"]):
            label["segments"] = [s for s, is_shared in zip(label["segments"], shared, strict=True) if is_shared]
        if label.get("keypoints") is not None:
            label["keypoints"] = label["keypoints"][shared]
        remaining += int(shared.sum())
    return remaining


def obb_data(data: str) -> dict[str, Any]:
    """Load an oriented-box data set; it is drawn or downloaded first where its YAML has code for that.

    Args:
        data (str): Data-set YAML. Its `download:` entry is run as code.

    Returns:
        (dict[str, Any]): As Ultralytics' `check_det_dataset` returns it.

    Raises:
        BadUseError: If it is missing, malformed or has no oriented labels.
    """
    try:
        dataset: dict[str, Any] = check_det_dataset(data)
    except (OSError, SyntaxError, TypeError, ValueError, RuntimeError) as e:
        raise BadUseError(f"data={data}: {first_line(e)}") from e
    check_labels(dataset, "obb")
    return dataset
