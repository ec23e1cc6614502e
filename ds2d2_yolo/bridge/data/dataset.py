"""What the bridge asks of a data set before anything is trained on it: labels of the right kind, and its identity."""

from __future__ import annotations

import hashlib
from argparse import Namespace
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ultralytics.data.utils import (
    check_det_dataset,
    convert_ndjson_to_yolo_if_needed,
    verify_image_label,
)

from ds2d2_yolo.bridge.data.class_map import ClassMap
from ds2d2_yolo.bridge.data.image_format import image_format, unsupported, why_unidentified
from ds2d2_yolo.bridge.data.images import images_of, labels_of
from ds2d2_yolo.errors import BadUseError

COLUMNS = {"detect": "5 (class x y w h)", "obb": "9 (class and four corners)"}


def check_labels(data: Mapping[str, Any], task: str) -> None:
    """Refuse a data set without usable training or validation images, without labels, or with those of another task.

    Single images that cannot be used are left out by Ultralytics, with a warning; there has to be one that can.

    Args:
        data (Mapping[str, Any]): Data set as `check_det_dataset` returns it.
        task (str): 'detect' or 'obb'.

    Raises:
        BadUseError: Naming the folder and what is missing.
    """
    images = images_of(data["train"])
    if not images:
        raise BadUseError(f"no training images in {data['train']}: check 'path' and 'train' of the data YAML")
    _refuse_missing(images, "training", data["train"])
    _refuse_unlabelled(images, "training")
    refuse_upright(images, task, "an obb student")
    refuse_unusable(data, images)
    if "val" in data:
        validated = images_of(data["val"])
        if not validated:
            raise BadUseError(f"no validation images in {data['val']}: check 'path' and 'val' of the data YAML")
        _refuse_missing(validated, "validation", data["val"])
        _refuse_unlabelled(validated, "validation")
        refuse_unusable(data, validated)


def _refuse_missing(images: list[Path], kind: str, split: str | list[str]) -> None:
    """Refuse a split none of whose images exists, such as a list of bare names.

    Args:
        images (list[Path]): Images of the split, one or more.
        kind (str): 'training' or 'validation', for the message.
        split (str | list[str]): Entry of the data YAML, for the message.

    Raises:
        BadUseError: Naming the list and the first image.
    """
    if not any(image.is_file() for image in images):
        raise BadUseError(
            f"none of the {len(images)} {kind} images that {split} lists exists, such as {images[0]}: a list holds "
            "absolute paths, or paths that begin with './' and are relative to the list's folder"
        )


def _refuse_unlabelled(images: list[Path], kind: str) -> None:
    """Refuse a split without labels.

    Args:
        images (list[Path]): Images of the split, one or more.
        kind (str): 'training' or 'validation', for the message.

    Raises:
        BadUseError: Naming the folder where labels are expected.
    """
    if _first_label(labels_of(images)) is None:
        folder = labels_of([next(image for image in images if image.is_file())])[0].parent
        raise BadUseError(f"no labels for the {len(images)} {kind} images: expected .txt files in {folder}")


def refuse_upright(images: Iterable[Path], task: str, who: str) -> None:
    """Refuse upright boxes for oriented ones; a detect model takes the hull of longer labels.

    Args:
        images (Iterable[Path]): Images of a split; the first label is looked at.
        task (str): 'detect' or 'obb'.
        who (str): What needs them, for the message.

    Raises:
        BadUseError: If the labels have too few columns.
    """
    columns = len((_first_label(labels_of(images)) or "").split())
    if task == "obb" and 0 < columns < 9:
        raise BadUseError(f"labels have {columns} columns and {who} needs {COLUMNS['obb']}: use obb labels")


def refuse_unusable(data: Mapping[str, Any], images: list[Path]) -> None:
    """Refuse a split if Ultralytics could use none of its images with their labels, and channels that are no number.

    Args:
        data (Mapping[str, Any]): Data set as `check_det_dataset` returns it.
        images (list[Path]): Its images, one or more; those before the first usable one are read.

    Raises:
        BadUseError: Naming what is wrong with the first of them.
    """
    channels = data.get("channels", 3)
    if not isinstance(channels, int) or channels < 1:
        raise BadUseError(f"channels: {channels!r} of the data YAML must be a whole number of at least 1")
    one_class = data["nc"] == 1  # as under single_cls, where labels keep their own indices
    first = ""
    for image, label in zip(images, labels_of(images), strict=True):
        reason = unsupported(image_format(image))  # the check below would accept some that the training cannot decode
        if reason is None:
            found = verify_image_label((str(image), str(label), "", False, data["nc"], 0, 0, one_class))
            if found[0] is not None:
                return
            unidentified = any(text in str(found[-1]) for text in ("pi_heif", "cannot identify image file"))
            reason = why_unidentified(image) if unidentified else None  # Ultralytics tries HEIC last
        first = first or (f"{image}: it {reason}" if reason else str(found[-1]))
    said = (first.splitlines() or ["it cannot be read"])[0].replace("ignoring corrupt image/label: ", "")
    raise BadUseError(f"none of the {len(images)} images and labels can be used, such as {said}: correct them")


def _first_label(files: Iterable[Path]) -> str | None:
    """Return the first line of the first label file that has one."""
    for file in files:
        if file.is_file() and (text := file.read_text(encoding="utf-8", errors="replace").strip()):
            return text.splitlines()[0]
    return None


def data_hash(data: Mapping[str, Any]) -> str:
    """Return a hash of what a training split holds: class names, image names and sizes, label contents.

    Pixels are not read: an image that changes and keeps its name and its number of bytes goes unnoticed.

    Args:
        data (Mapping[str, Any]): Data set as `check_det_dataset` returns it.

    Returns:
        (str): SHA-256, the same wherever the data set lies.
    """
    digest = hashlib.sha256(repr(sorted(data["names"].items())).encode())
    images = images_of(data["train"])
    for image, label in zip(images, labels_of(images), strict=True):
        digest.update(f"{image.name} {image.stat().st_size if image.exists() else -1}".encode())
        digest.update(label.read_bytes() if label.is_file() else b"")
    return digest.hexdigest()


def load_data(args: Namespace) -> dict[str, Any]:
    """Return the data set of a run as a trainer of Ultralytics would.

    Args:
        args (Namespace): The run's Ultralytics settings; they stay as they are.

    Returns:
        (dict[str, Any]): As `check_det_dataset` returns it, with one class under `single_cls`.

    Raises:
        BadUseError: If it cannot be found or read.
    """
    try:
        yaml = convert_ndjson_to_yolo_if_needed(args.data, args.fraction, split=args.split)
        data: dict[str, Any] = check_det_dataset(yaml, split=args.split)
    except Exception as e:  # reading it can mean unpacking and downloading
        said = str(e).strip().splitlines()
        raise BadUseError(f"data={args.data}: {said[0] if said else type(e).__name__}") from e
    return {**data, "names": {0: "item"}, "nc": 1} if args.single_cls else data


def take_teacher_classes(labels: Iterable[dict[str, Any]], class_map: ClassMap) -> int:
    """Give the boxes of a data set the teacher's class indices, in place, and drop those that it has no class for.

    Args:
        labels (Iterable[dict[str, Any]]): The `labels` of an Ultralytics data set, in the data's own indices.
        class_map (ClassMap): The data's classes and the teacher's.

    Returns:
        (int): Number of boxes that stay.
    """
    table = np.full(len(class_map.data), -1)
    for mine, theirs in class_map.pairs:
        table[mine] = theirs
    left = 0
    for label in labels:
        old = label["cls"]
        new = table[old[:, 0].astype(int)]
        keep = new >= 0
        label["cls"] = new[keep, None].astype(old.dtype)
        label["bboxes"] = label["bboxes"][keep]
        # neither is there in every data set; segments hold the corners of oriented boxes
        if len(label["segments"]):
            label["segments"] = [s for s, kept in zip(label["segments"], keep, strict=True) if kept]
        if label.get("keypoints") is not None:
            label["keypoints"] = label["keypoints"][keep]
        left += int(keep.sum())
    return left


def obb_data(data: str) -> dict[str, Any]:
    """Return an oriented-box data set, drawn or downloaded first where its YAML has the code for it.

    Args:
        data (str): Data-set YAML. Its `download:` entry is run as code.

    Returns:
        (dict[str, Any]): As Ultralytics' `check_det_dataset` returns it.

    Raises:
        BadUseError: If it is missing, malformed or has no oriented labels.
    """
    try:
        found: dict[str, Any] = check_det_dataset(data)
    except (OSError, SyntaxError, TypeError, ValueError, RuntimeError) as e:
        first = (str(e).strip().splitlines() or [type(e).__name__])[0]
        raise BadUseError(f"data={data}: {first}") from e
    check_labels(found, "obb")
    return found
