"""Files of detections: DOTA submissions, CSV and a reduced picture. GeoJSON is in `geojson`."""

from __future__ import annotations

import csv
import io
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ds2d2_yolo.errors import BadUseError
from ds2d2_yolo.predict.rasters.georeference import Georeference
from ds2d2_yolo.utils.atomic_files import write_atomically
from ds2d2_yolo.utils.detections import Detections

TASKS = ("Task1", "Task2")
COLUMNS = ("image", "class_id", "class", "score", "x", "y", "w", "h", "angle",
           "x1", "y1", "x2", "y2", "x3", "y3", "x4", "y4")  # fmt: skip
PLACEHOLDER = {
    "Task1": ("-2.00", "-2.00", "-1.00", "-2.00", "-1.00", "-1.00", "-2.00", "-1.00"),
    "Task2": ("-2.00", "-2.00", "-1.00", "-1.00"),
}  # see `write_dota`
PICTURE = 4096  # longest side of the picture in pixels, where the memory bound allows it


@dataclass(frozen=True)
class ImageDetections:
    """The detections of one image and its georeference.

    Attributes:
        path (Path): The image.
        size (tuple[int, int]): Width and height in pixels.
        detections (Detections): Objects in pixels of the image.
        georeference (Georeference): Reference system and transform.
    """

    path: Path
    size: tuple[int, int]
    detections: Detections
    georeference: Georeference


def check_dota_names(images: Sequence[Path], names: dict[int, str]) -> None:
    """Refuse images and classes that DOTA files cannot tell apart.

    Args:
        images (Sequence[Path]): Images.
        names (dict[int, str]): Class names.

    Raises:
        BadUseError: In one line.
    """
    by_stem: dict[str, Path] = {}
    for path in images:
        if re.search(r"\s", path.stem):
            raise BadUseError(f"DOTA files separate by spaces: rename {path}")
        if path.stem in by_stem:
            raise BadUseError(
                f"DOTA files name images without suffix and folder: rename {path} or {by_stem[path.stem]}"
            )
        by_stem[path.stem] = path
    files = [file_name(name) for name in names.values()]
    duplicates = sorted({f for f in files if files.count(f) > 1})
    if duplicates:
        raise BadUseError(f"two classes would share the DOTA file Task1_{duplicates[0]}.txt: rename one")


def file_name(name: str) -> str:
    """Return a class name as part of a DOTA file name: spaces become '-', characters that are not allowed '_'.

    Args:
        name (str): Class name.

    Returns:
        (str): Without suffix.
    """
    return re.sub(r'[\\/:*?"<>|\x00-\x1f]', "_", re.sub(r"\s+", "-", name.strip()))


def write_dota(folder: Path, task: str, images: Sequence[ImageDetections], names: dict[int, str]) -> list[Path]:
    """Write a DOTA submission: a file for each class, and all of them in a zip file.

    Lines are `image score x1 y1 x2 y2 x3 y3 x4 y4` (Task 1, corners clockwise) or `image score xmin ymin xmax ymax`
    (Task 2, the upright box around the object, within the image); images without suffix.
    Source: https://captain-whu.github.io/DOTA/tasks.html.

    DOTA's evaluation (DOTA_devkit, `dota_evaluation_task1.py`) ends with an IndexError on an empty file, and with a
    FileNotFoundError on a missing one. A class without detections therefore gets one placeholder: a square of 1 px with
    score 0 beside the first image. It cannot match an object, so the average precision stays 0.

    Args:
        folder (Path): Folder of the run.
        task (str): 'Task1' or 'Task2'.
        images (Sequence[ImageDetections]): Detections of all images.
        names (dict[int, str]): Class names.

    Returns:
        (list[Path]): The folder and the zip file.
    """
    lines: dict[int, list[str]] = {kind: [] for kind in names}
    for image in images:
        detections, corners = image.detections, image.detections.corners
        if task == "Task2":
            low, high = corners.min(1).clip(0, image.size), corners.max(1).clip(0, image.size)
            corners = np.stack([low, high], 1)
        coordinates = corners.reshape(len(corners), 2 * corners.shape[1]).tolist()
        for kind, score, place in zip(
            detections.classes.tolist(), detections.scores.tolist(), coordinates, strict=True
        ):
            lines[kind].append(f"{image.path.stem} {score:.6f} {' '.join(f'{v:.2f}' for v in place)}\n")
    placeholder = " ".join(PLACEHOLDER[task])
    for kind in classes_without_detections(images, names):
        lines[kind] += [f"{image.path.stem} 0.000000 {placeholder}\n" for image in images[:1]]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for kind, text in lines.items():
            name = f"{task}_{file_name(names[kind])}.txt"
            write_atomically(folder / task / name, "".join(text))
            archive.writestr(name, "".join(text))
    write_atomically(folder / f"{task}.zip", buffer.getvalue())
    return [folder / task, folder / f"{task}.zip"]


def classes_without_detections(images: Sequence[ImageDetections], names: dict[int, str]) -> list[int]:
    """Return the classes of a model that none of the images has.

    Args:
        images (Sequence[ImageDetections]): Detections of all images.
        names (dict[int, str]): Class names.

    Returns:
        (list[int]): Class indices.
    """
    present = {kind for image in images for kind in image.detections.classes.tolist()}
    return [kind for kind in names if kind not in present]


def write_csv(folder: Path, images: Sequence[ImageDetections], names: dict[int, str]) -> list[Path]:
    """Write the detections of all images into one table: pixels, angles in radians clockwise from x to the side w.

    Args:
        folder (Path): Folder of the run.
        images (Sequence[ImageDetections]): Detections of all images.
        names (dict[int, str]): Class names.

    Returns:
        (list[Path]): The file.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for image in images:
        objects = image.detections
        columns = objects.boxes, objects.scores, objects.classes, objects.corners.reshape(-1, 8)
        for box, score, kind, corners in zip(*(c.tolist() for c in columns), strict=True):
            place = [*(f"{v:.3f}" for v in box[:4]), f"{box[4]:.6f}", *(f"{v:.3f}" for v in corners)]
            writer.writerow([str(image.path), kind, names[kind], f"{score:.6f}", *place])
    write_atomically(folder / "detections.csv", text.getvalue())
    return [folder / "detections.csv"]


def write_picture(target: Path, thumbnail: Any, image: ImageDetections) -> Path:
    """Write a reduced picture with the detections drawn on it.

    Args:
        target (Path): JPEG file to write.
        thumbnail (np.ndarray): The reduced image, BGR; it is drawn on.
        image (ImageDetections): Its detections.

    Returns:
        (Path): The file.
    """
    factor = np.array([thumbnail.shape[1] / image.size[0], thumbnail.shape[0] / image.size[1]])
    points = np.rint(image.detections.corners * factor * 16).astype(np.int32)
    palette = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], cv2.COLORMAP_HSV)[:, 0].tolist()
    for corners, kind in zip(points, image.detections.classes.tolist(), strict=True):
        cv2.polylines(thumbnail, [corners], True, palette[kind * 47 % 256], 1, cv2.LINE_AA, 4)
    write_atomically(target, cv2.imencode(".jpg", thumbnail, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes())
    return target


def write_tables(folder: Path, formats: set[str], images: list[ImageDetections], names: dict[int, str]) -> list[Path]:
    """Write the files that cover all images: CSV and DOTA.

    Args:
        folder (Path): Folder of the run.
        formats (set[str]): Formats to write; others than 'csv', 'task1' and 'task2' are ignored.
        images (list[ImageDetections]): Detections of all images.
        names (dict[int, str]): Class names.

    Returns:
        (list[Path]): The files and folders.
    """
    files = []
    if "csv" in formats:
        files += write_csv(folder, images, names)
    for task in TASKS:
        if task.lower() in formats:
            files += write_dota(folder, task, images, names)
    return files


def unique_stems(images: list[Path]) -> list[str]:
    """Return a unique file name without suffix for each image.

    Args:
        images (list[Path]): Images; several may share a name.

    Returns:
        (list[str]): Names that differ in more than case.
    """
    taken: set[str] = set()
    stems = []
    for path in images:
        stem, number = path.stem, 1
        while stem.casefold() in taken:  # some file systems take 'A' for 'a'
            number += 1
            stem = f"{path.stem}-{number}"
        taken.add(stem.casefold())
        stems.append(stem)
    return stems
