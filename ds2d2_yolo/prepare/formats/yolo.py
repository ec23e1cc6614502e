"""Reader of data sets in the YOLO layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ds2d2_yolo.errors import BadUseError
from ds2d2_yolo.prepare.options import SPLITS, PrepareOptions
from ds2d2_yolo.prepare.records import Annotation, Box, BrokenFileError, Layout, corners_of, number_of
from ds2d2_yolo.prepare.source_folder import IMAGES, by_stem, pair, read_bytes, read_lines, selected_splits


def find_yolo(root: Path, options: PrepareOptions) -> Layout:
    """Find the images and labels of a data set in the YOLO layout. An image without a label file is background.

    Args:
        root (Path): The folder with images/train, labels/train, and so on, and a data YAML.
        options (PrepareOptions): `splits` selects the splits.

    Returns:
        (Layout): Its images, with the classes of its YAML.

    Raises:
        BadUseError: If a split, the YAML or every label file is missing.
    """
    present = [s for s in SPLITS if (root / "images" / s).is_dir()]
    items, oriented, classes, label_count = [], None, _classes(root), 0
    splits = selected_splits(options.chosen, present, root, "images/train and images/val")
    for split in splits:
        images = by_stem([root / "images" / split], IMAGES)
        folder = root / "labels" / split
        labels = by_stem([folder] if folder.is_dir() else [], [".txt"])
        where = f"images/{split} and labels/{split}"
        names = sorted({*images, *labels})
        items += [pair(split, name, images, labels if name in labels else None, where) for name in names]
        label_count += len(labels)
        oriented = _oriented(labels) if oriented is None else oriented
    if not label_count and splits != ["test"]:
        raise BadUseError(f"source={root} has no label files: looked for labels/train/*.txt and labels/val/*.txt")
    read = _reader(bool(oriented), classes)
    return Layout(root, items, read, bool(oriented), classes, annotation_folders=("labels",))


def _classes(root: Path) -> tuple[str, ...]:
    """Return the class names of the YAML in a folder."""
    for file in sorted(f for pattern in ("*.yaml", "*.yml") for f in root.glob(pattern) if f.is_file()):
        try:
            content: Any = yaml.safe_load(read_bytes(file))
        except (BrokenFileError, yaml.YAMLError, UnicodeDecodeError, RecursionError):
            continue
        names = content.get("names") if isinstance(content, dict) else None
        listed = dict(enumerate(names)) if isinstance(names, list) else names
        if isinstance(listed, dict) and sorted(map(str, listed)) == sorted(map(str, range(len(listed)))):
            return tuple(str(listed[key]) for key in sorted(listed, key=int))
    raise BadUseError(f"source={root} has no data YAML with the class names of its labels: looked for data.yaml")


def _oriented(labels: dict[str, list[Path]]) -> bool | None:
    """Return whether the first label has four corners; None without labels."""
    for files in labels.values():
        try:
            rows = [row for line in read_lines(files[0]) if (row := line.split())]
        except BrokenFileError:
            continue
        if rows:
            return len(rows[0]) == 9
    return None


def _reader(oriented: bool, classes: tuple[str, ...]) -> Any:
    """Return a reader of label files: `class x1 y1 .. x4 y4` or `class x y w h`, as shares of the image."""
    columns = 9 if oriented else 5

    def read(file: Path, width: int, height: int) -> Annotation:
        boxes = []
        for number, line in enumerate(read_lines(file), 1):
            fields, place = line.split(), f"line {number}"
            if not fields:
                continue
            if len(fields) != columns:
                raise BrokenFileError(f"{place} has {len(fields)} fields instead of {columns}")
            name = classes[_class_index(fields[0], len(classes), place)]
            if oriented:
                corners = corners_of(fields[1:], place)
            else:
                x, y, w, h = (number_of(f, place) for f in fields[1:])
                corners = np.array([x, y]) + np.array([[-w, -h], [w, -h], [w, h], [-w, h]]) / 2
            boxes.append(Box(place, name, corners * [width, height]))
        return Annotation(boxes)

    return read


def _class_index(text: str, count: int, place: str) -> int:
    """Return a class index below `count`. As in Ultralytics, '1.0' is 1: NumPy writes tables of labels that way."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not (value.is_integer() and 0 <= value < count):
        raise BrokenFileError(f"{place}: class {text[:20]!r} is none of the {count} classes")
    return int(value)
