"""One picture of a few validation images: ground truth and the detections of the three models side by side."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ds2d2_yolo.bridge.data.images import label_paths, read_image
from ds2d2_yolo.predict import predict

Image = NDArray[np.uint8]

SIDE = 640  # pixels of a panel
GAP = 8
BAND = 44  # height of a line of text
INK = (40, 40, 40)


@dataclass(frozen=True)
class Boxes:
    """Oriented boxes of an image.

    Attributes:
        corners (NDArray[np.float32]): N x 4 x 2 in pixels of the image.
        classes (NDArray[np.int64]): N class indices.
        scores (NDArray[np.float32]): N scores, 1 for labels.
    """

    corners: NDArray[np.float32]
    classes: NDArray[np.int64]
    scores: NDArray[np.float32]


def ground_truth(images: Sequence[Path]) -> list[Boxes]:
    """Return the labelled boxes of images.

    Args:
        images (Sequence[Path]): Images with oriented labels.

    Returns:
        (list[Boxes]): Boxes of each image; an image without labels has none.
    """
    labelled = []
    for image, label in zip(images, label_paths(images), strict=True):
        text = label.read_text(encoding="utf-8") if label.is_file() else ""
        rows = np.array([line.split()[:9] for line in text.splitlines() if line.strip()], dtype=np.float32)
        rows = rows.reshape(-1, 9)
        height, width = read_image(image).shape[:2]
        corners = rows[:, 1:].reshape(-1, 4, 2) * np.array([width, height], dtype=np.float32)
        labelled.append(Boxes(corners, rows[:, 0].astype(np.int64), np.ones(len(rows), np.float32)))
    return labelled


def detect(weights: Path, images: Sequence[Path], imgsz: int, conf: float, device: Any) -> list[Boxes]:
    """Return the detections of a checkpoint in images.

    Args:
        weights (Path): Checkpoint of an OBB model.
        images (Sequence[Path]): The images.
        imgsz (int): Image size in pixels.
        conf (float): Lowest score.
        device (Any): Device as Ultralytics takes it, None for its choice.

    Returns:
        (list[Boxes]): Boxes of each image.
    """
    keys = {"imgsz": imgsz, "conf": conf, "save": False, "verbose": False} | (
        {} if device is None else {"device": device}
    )
    detected = []
    for image in images:
        obb: Any = predict(model=str(weights), source=str(image), **keys).results[0].obb
        corners, classes, scores = (x.cpu().numpy() for x in (obb.xyxyxyxy, obb.cls, obb.conf))
        detected.append(Boxes(corners.reshape(-1, 4, 2), classes.astype(np.int64), scores))
    return detected


def draw(
    images: Sequence[Path],
    columns: Mapping[str, Sequence[Boxes]],
    names: Mapping[int, str],
    path: Path,
    note: str = "",
) -> None:
    """Write a JPEG with a row for each image and a column for each source of boxes.

    Args:
        images (Sequence[Path]): The images.
        columns (Mapping[str, Sequence[Boxes]]): Title of each column -> its boxes in each image.
        names (Mapping[int, str]): Class names.
        path (Path): The JPEG file.
        note (str): Text behind the class names.
    """
    palette = [_colour(i, len(names)) for i in range(len(names))]
    heads = [_text(title, SIDE) for title in columns]
    rows = [_joined(heads)]
    for i, image in enumerate(images):
        pixels = read_image(image)
        rows.append(_joined([_panel(pixels, boxes[i], palette) for boxes in columns.values()]))
    rows.append(_legend([names[k] for k in sorted(names)], palette, rows[0].shape[1], note))
    ok, data = cv2.imencode(".jpg", np.concatenate(rows), [cv2.IMWRITE_JPEG_QUALITY, 90])
    if ok:
        path.write_bytes(data.tobytes())  # imwrite cannot write every path on Windows


def _panel(pixels: Image, boxes: Boxes, palette: Sequence[tuple[int, int, int]]) -> Image:
    """Return an image fitted into a square panel, with its boxes and their number."""
    scale = SIDE / max(pixels.shape[:2])
    size = (round(pixels.shape[1] * scale), round(pixels.shape[0] * scale))
    panel: Image = np.full((SIDE, SIDE, 3), 255, np.uint8)
    panel[: size[1], : size[0]] = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    for corners, kind in zip(boxes.corners * scale, boxes.classes, strict=True):
        fine = [np.round(corners * 16).astype(np.int32)]
        cv2.polylines(panel, fine, True, palette[int(kind) % len(palette)], 2, cv2.LINE_AA, shift=4)
    count = f"{len(boxes.classes)} boxes"
    width = cv2.getTextSize(count, cv2.FONT_HERSHEY_SIMPLEX, 0.6, 1)[0][0]
    cv2.rectangle(panel, (0, 0), (width + 12, 26), (255, 255, 255), -1)
    cv2.putText(panel, count, (6, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.6, INK, 1, cv2.LINE_AA)
    return panel


def _joined(panels: Sequence[Image]) -> Image:
    """Return panels side by side, with a gap on the right of each and below."""
    padded = [cv2.copyMakeBorder(p, 0, GAP, 0, GAP, cv2.BORDER_CONSTANT, value=(255, 255, 255)) for p in panels]
    return np.concatenate(padded, axis=1).astype(np.uint8)


def _text(text: str, width: int) -> Image:
    """Return a white band with a line of text."""
    band: Image = np.full((BAND, width, 3), 255, np.uint8)
    cv2.putText(band, text, (6, 30), cv2.FONT_HERSHEY_SIMPLEX, 0.9, INK, 2, cv2.LINE_AA)
    return band


def _legend(names: Sequence[str], palette: Sequence[tuple[int, int, int]], width: int, note: str) -> Image:
    """Return a band with the class names in their colours and a note; names that do not fit are left out."""
    band: Image = np.full((BAND, width, 3), 255, np.uint8)
    x = 6
    for name, colour in zip(names, palette, strict=True):
        end = x + 60 + cv2.getTextSize(name, cv2.FONT_HERSHEY_SIMPLEX, 0.8, 2)[0][0]
        if end > width:
            break
        cv2.rectangle(band, (x, 12), (x + 22, 32), colour, -1)
        cv2.putText(band, name, (x + 30, 30), cv2.FONT_HERSHEY_SIMPLEX, 0.8, INK, 2, cv2.LINE_AA)
        x = end
    cv2.putText(band, note, (x, 30), cv2.FONT_HERSHEY_SIMPLEX, 0.8, INK, 1, cv2.LINE_AA)
    return band


def _colour(index: int, count: int) -> tuple[int, int, int]:
    """Return the BGR colour of a class; the hues of all classes are evenly spaced."""
    red, green, blue = colorsys.hsv_to_rgb(index / max(count, 1), 0.95, 1.0)
    return int(255 * blue), int(255 * green), int(255 * red)
