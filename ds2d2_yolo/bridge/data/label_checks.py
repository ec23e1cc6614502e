"""Checks that images and labels of a data set can be used, before anything is trained or measured on them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

from ultralytics.data.utils import get_split_fraction, verify_image_label

from ds2d2_yolo.bridge.data.image_checks import READERS, refuse_other_bands
from ds2d2_yolo.bridge.data.images import label_paths, list_images, take_fraction
from ds2d2_yolo.bridge.data.tiff import explain_unreadable_tiff
from ds2d2_yolo.errors import BadUseError

COLUMNS = {"detect": "5 (class x y w h)", "obb": "9 (class and four corners)"}
OBB_COLUMNS = 9
BOX_COLUMNS = 5
SPLITS = {"train": "training", "val": "validation", "test": "test"}  # names of the splits in messages


def check_labels(data: Mapping[str, Any], task: str, split: str = "val", fraction: Any = 1.0) -> None:
    """Refuse a data set whose training or validation images cannot be used for a task.

    Every label file and the layout of every image that the run takes is looked at. Ultralytics leaves out single images
    that cannot be used, with a warning; at least one has to remain.

    Args:
        data (Mapping[str, Any]): Data set as `check_det_dataset` returns it.
        task (str): 'detect' or 'obb'.
        split (str): Split that the run validates on; one that the data set does not name is not looked at.
        fraction (Any): Ultralytics' `fraction=`.

    Raises:
        BadUseError: Naming the folder or the files and what is wrong.
    """
    images = take_fraction(list_images(data["train"]), get_split_fraction(fraction, "train"))
    if not images:
        raise BadUseError(f"no training images in {data['train']}: check 'path' and 'train' of the data YAML")
    _refuse_missing(images, "training", data["train"])
    check_split(data, images, task, "an obb student", "training")
    if data.get(split) and split != "train":
        name = SPLITS.get(split, split)
        images = take_fraction(list_images(data[split]), get_split_fraction(fraction, split))
        if not images:
            raise BadUseError(f"no {name} images in {data[split]}: check 'path' and '{split}' of the data YAML")
        _refuse_missing(images, name, data[split])
        check_split(data, images, task, "an obb student", name)


def _refuse_missing(images: list[Path], split: str, entry: str | list[str]) -> None:
    """Refuse a split of which no image, or no label file, exists.

    Args:
        images (list[Path]): Images of the split, one or more.
        split (str): Name of the split for the message, such as 'validation'.
        entry (str | list[str]): Entry of the data YAML, for the message.

    Raises:
        BadUseError: Naming the first image, or the folder where labels are expected.
    """
    existing = [image for image in images if image.is_file()]
    if not existing:
        missing = f"none of the {len(images)} {split} images is there, such as {images[0]}"
        raise BadUseError(f"{missing}: name them in {entry} by full paths, or with ./ before the path")
    if not _has_labels(images):
        folder = label_paths(existing[:1])[0].parent
        raise BadUseError(f"no labels for the {len(images)} {split} images: expected .txt files in {folder}")


def check_split(data: Mapping[str, Any], images: Sequence[Path], task: str, who: str, split: str) -> None:
    """Refuse the images of a split if their labels or bands do not fit, or if none of them can be used.

    Args:
        data (Mapping[str, Any]): Data set as `check_det_dataset` returns it.
        images (Sequence[Path]): The images that are used of the split, one or more.
        task (str): 'detect' or 'obb'.
        who (str): What needs oriented labels, for the message, such as 'an obb model'.
        split (str): Name of the split for the message, such as 'validation'.

    Raises:
        BadUseError: Naming the files and what is wrong with them.
    """
    refuse_upright(images, task, who)
    refuse_unusable(data, images)
    refuse_other_bands(images, data.get("channels", 3), split)


def refuse_upright(images: Sequence[Path], task: str, who: str) -> None:
    """Refuse label files of upright boxes where oriented ones are needed.

    Ultralytics (8.4.190) raises an error for the whole data set if one file has boxes without corners. A detect model
    takes the upright hull of oriented labels.

    Args:
        images (Sequence[Path]): Images of a split; every label file is read.
        task (str): 'detect' or 'obb'.
        who (str): What needs oriented labels, for the message.

    Raises:
        BadUseError: Naming the number of these files and the first one.
    """
    if task != "obb":
        return
    files = label_paths(images)
    with ThreadPool(READERS) as pool:
        columns = pool.map(_most_columns, files)
    upright = [(f, n) for f, n in zip(files, columns, strict=True) if BOX_COLUMNS <= n < OBB_COLUMNS]
    if upright:
        file, number = upright[0]
        columns_text = f"labels have {number} columns and {who} needs {COLUMNS['obb']}"
        where = f"{len(upright)} of {sum(n > 0 for n in columns)} label files, such as {file}"
        raise BadUseError(f"{columns_text}, in {where}: use obb labels")


def refuse_unusable(data: Mapping[str, Any], images: Sequence[Path]) -> None:
    """Refuse a split if Ultralytics could use none of its images, and a data YAML with unusable `channels`.

    Args:
        data (Mapping[str, Any]): Data set as `check_det_dataset` returns it.
        images (Sequence[Path]): Images of the split, one or more; those before the first usable one are read.

    Raises:
        BadUseError: Naming what is wrong with the first image.
    """
    channels = data.get("channels", 3)
    if not isinstance(channels, int) or isinstance(channels, bool) or channels < 1:
        raise BadUseError(f"channels: {channels!r} of the data YAML must be a whole number of at least 1")
    one_class = bool(data.get("single_cls"))  # labels keep their indices there
    first = ""
    for image, label in zip(images, label_paths(images), strict=True):
        # looked at first: for a TIFF that Pillow does not know Ultralytics tries to install a reader of HEIC
        reason = explain_unreadable_tiff(image)
        if reason is None:
            result = verify_image_label((str(image), str(label), "", False, data["nc"], 0, 0, one_class))
            if result[0] is not None:
                return
            reason = _first_line(str(result[-1]).replace("ignoring corrupt image/label: ", "")) + ": correct them"
        else:
            reason = f"{image}: {reason}"
        first = first or reason
    raise BadUseError(f"none of the {len(images)} images and labels can be used, such as {first}")


def _first_line(text: str) -> str:
    """Return the first line of Ultralytics' complaint about an image."""
    line = (text.splitlines() or ["it cannot be read"])[0]
    return line.replace("No module named 'pi_heif'", "it is no image")  # Ultralytics tries HEIC last


def _has_labels(images: Iterable[Path]) -> bool:
    """Return whether any image has a label file that is not empty."""
    return any(_most_columns(file) > 0 for file in label_paths(images))


def _most_columns(file: Path) -> int:
    """Return the number of columns of the longest row of a label file, 0 for one that is missing or empty.

    The longest one decides: Ultralytics leaves out a file that mixes rows of boxes and of corners.
    """
    try:
        text = file.read_text(encoding="utf-8-sig", errors="replace")
    except OSError:
        return 0
    return max((len(row.split()) for row in text.splitlines()), default=0)
