"""Reader of the published DOTA: its folders and its labelTxt files."""

from __future__ import annotations

import re
from collections.abc import Container
from functools import partial
from pathlib import Path

import yaml

from ds2d2_yolo.config.resources import resource_dir
from ds2d2_yolo.errors import BadUseError
from ds2d2_yolo.prepare.boxes import class_key
from ds2d2_yolo.prepare.options import SPLITS, PrepareOptions
from ds2d2_yolo.prepare.records import Annotation, Box, BrokenFileError, Layout, corners_of
from ds2d2_yolo.prepare.source_folder import IMAGES, by_stem, folders_below, holds, pair, read_lines, selected_splits

ALL_CLASSES = "dota-v1.5.yaml"  # its classes include those of 1.0
HORIZONTAL = ("reclabel", "task2", "hbb")  # parts of the names of folders with horizontal labels
LOOKED_FOR = "train/images and val/images (or images/train and images/val)"


def find_dota(root: Path, options: PrepareOptions) -> Layout:
    """Find the images and labels of DOTA.

    Args:
        root (Path): The folder with train/ and val/, or with images/train and images/val as in Ultralytics' layout.
        options (PrepareOptions): `version` selects the labels, `splits` the splits.

    Returns:
        (Layout): Its images.

    Raises:
        BadUseError: If a split or its labels are missing.
    """
    image_folders = {split: folder for split in SPLITS if (folder := _images(root, split))}
    splits = selected_splits(options.chosen, image_folders, root, LOOKED_FOR)
    items, label_folders = [], []
    for split in splits:
        images, labels = image_folders[split], None
        if split != "test":  # labels of the test split are not published
            labels = _labels(root, split, float(options.version))
            label_folders.append(str(labels.relative_to(root)))
        by_name = by_stem([images], IMAGES)
        texts = by_stem([labels], [".txt"]) if labels else None
        where = " and ".join(str(f.relative_to(root)) for f in (images, labels) if f)
        items += [pair(split, name, by_name, texts, where) for name in sorted({*by_name, *(texts or ())})]
    names = yaml.safe_load((resource_dir("data") / ALL_CLASSES).read_text(encoding="utf-8"))["names"].values()
    read = partial(read_dota, classes=frozenset(map(class_key, names)))
    return Layout(root, items, read, oriented=True, annotation_folders=tuple(label_folders))


def _images(root: Path, split: str) -> Path | None:
    """Return the folder of a split's images, None if it is missing."""
    places = (root / split / "images", root / "images" / split, root / split / "images" / "images")
    return next((p for p in places if p.is_dir() and any(holds(p, suffix) for suffix in IMAGES)), None)


def _labels(root: Path, split: str, version: float) -> Path:
    """Return the folder of a split's oriented labels: one that names the version, otherwise labelTxt.

    The archives unpack to folders such as labelTxt, labelTxt-v1.0/labelTxt, labelTxt-v1.5/DOTA-v1.5_train. Folders of
    horizontal labels lie beside them, such as labelTxt-v1.0/trainset_reclabelTxt; they are never used.
    """
    starts = [root / split, root / "labels" / f"{split}_original"]
    starts += [f / split for f in sorted(root.glob("labelTxt*"))]
    ranked = []
    for folder in (f for start in starts if start.is_dir() for f in folders_below(start, 3)):
        words = str(folder.relative_to(root)).lower()
        versions = {float(v) for v in re.findall(r"v(\d\.\d)", words)}
        named = any(word in words for word in ("labeltxt", "dota", "_original"))
        horizontal = any(word in words for word in HORIZONTAL)
        if named and not horizontal and versions <= {version} and holds(folder, ".txt"):
            ranked.append((not versions, len(words), folder))
    if not ranked:
        looked_for = f"{split}/labelTxt, {split}/labelTxt-v{version} or {split}/labelTxt-v{version}/labelTxt"
        raise BadUseError(f"source={root} has no oriented labels v{version} for {split}: looked for {looked_for}")
    return min(ranked)[2]


def read_dota(file: Path, width: int, height: int, classes: Container[str] = ()) -> Annotation:
    """Read a labelTxt file: `x1 y1 x2 y2 x3 y3 x4 y4 class difficult` a line, in pixels, after lines like 'gsd:0.3'.

    A class name may hold spaces. The last field may be missing.

    Args:
        file (Path): The file.
        width (int): Width of the image; unused, since labelTxt files hold pixels.
        height (int): Height of the image; unused.
        classes (Container[str]): Keys of the class names (`class_key`), which tell a name with spaces from a wrong
            last field.

    Returns:
        (Annotation): Its boxes.

    Raises:
        BrokenFileError: If a line has neither of the two forms.
    """
    boxes = []
    for number, line in enumerate(read_lines(file), 1):
        fields = line.split()
        if not fields or ":" in line:  # neither class names nor numbers hold a colon
            continue
        if len(fields) < 9:
            raise BrokenFileError(f"line {number} has {len(fields)} fields instead of 10")
        words, difficult = fields[8:], "0"
        if len(words) > 1 and class_key("".join(words)) not in classes:
            difficult = words.pop()
        if not difficult.isdigit():
            raise BrokenFileError(f"line {number}: difficult is {difficult[:20]!r} instead of 0 or 1")
        corners = corners_of(fields[:8], f"line {number}")
        boxes.append(Box(f"line {number}", " ".join(words), corners, difficult != "0"))
    return Annotation(boxes)
