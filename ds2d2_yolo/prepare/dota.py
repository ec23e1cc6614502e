"""DOTA as published: its folders and its labelTxt files."""

from __future__ import annotations

import re
from pathlib import Path

from ds2d2_yolo.errors import BadUseError
from ds2d2_yolo.prepare.options import SPLITS, PrepareOptions
from ds2d2_yolo.prepare.records import Annotation, Box, BrokenFileError, Layout, corners_of
from ds2d2_yolo.prepare.source_folder import IMAGES, by_stem, folders_below, holds, pair, read_lines, wanted_splits

HORIZONTAL = ("reclabel", "task2", "hbb")  # what the folders of the horizontal labels are called
LOOKED_FOR = "train/images and val/images (or images/train and images/val)"


def find_dota(root: Path, options: PrepareOptions) -> Layout:
    """Find the images and labels of DOTA.

    Args:
        root (Path): The folder that holds train/ and val/ (or images/train and so on, as Ultralytics lays it out).
        options (PrepareOptions): `version` chooses the labels, `splits` the splits.

    Returns:
        (Layout): Its images.

    Raises:
        BadUseError: If a split or its labels are missing.
    """
    places = {split: folder for split in SPLITS if (folder := _images(root, split))}
    splits = wanted_splits(options.chosen, places, root, LOOKED_FOR)
    items, found = [], []
    for split in splits:
        images, labels = places[split], None
        if split != "test":  # its labels are not published
            labels = _labels(root, split, float(options.version))
            found.append(str(labels.relative_to(root)))
        by_name = by_stem([images], IMAGES)
        texts = by_stem([labels], [".txt"]) if labels else None
        where = " and ".join(str(f.relative_to(root)) for f in (images, labels) if f)
        items += [pair(split, name, by_name, texts, where) for name in sorted({*by_name, *(texts or ())})]
    return Layout(root, items, read_dota, oriented=True, found=tuple(found))


def _images(root: Path, split: str) -> Path | None:
    """Return the folder of a split's images, if it is there."""
    places = (root / split / "images", root / "images" / split, root / split / "images" / "images")
    return next((p for p in places if p.is_dir() and any(holds(p, suffix) for suffix in IMAGES)), None)


def _labels(root: Path, split: str, version: float) -> Path:
    """Return the folder of a split's oriented labels: one that names the version, else the plain labelTxt.

    The archives unpack to folders such as labelTxt, labelTxt-v1.0/labelTxt, labelTxt-v1.5/DOTA-v1.5_train; beside them
    lie those of the horizontal labels, labelTxt-v1.0/trainset_reclabelTxt and the like, which are never taken.
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


def read_dota(file: Path, width: int, height: int) -> Annotation:
    """Read a labelTxt file: `x1 y1 x2 y2 x3 y3 x4 y4 class difficult` a line, in pixels, under lines like 'gsd:0.3'.

    Args:
        file (Path): The file.
        width (int): Width of the image; labelTxt files do not give it.
        height (int): Its height.

    Returns:
        (Annotation): Its boxes.

    Raises:
        BrokenFileError: If a line is none of the two.
    """
    boxes = []
    for number, line in enumerate(read_lines(file), 1):
        fields = line.split()
        if not fields or ":" in line:  # no class name and no number holds a colon
            continue
        if len(fields) not in (9, 10):
            raise BrokenFileError(f"line {number} has {len(fields)} fields instead of 10")
        difficult = fields[9] if len(fields) == 10 else "0"
        if not difficult.isdigit():
            raise BrokenFileError(f"line {number}: difficult is {difficult[:20]!r} instead of 0 or 1")
        corners = corners_of(fields[:8], f"line {number}")
        boxes.append(Box(f"line {number}", fields[8], corners, difficult != "0"))
    return Annotation(boxes)
