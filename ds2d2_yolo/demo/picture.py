"""One picture: a few validation images, each with its ground truth and what the three models find in it."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ds2d2_yolo.bridge.data.images import read_image
from ds2d2_yolo.bridge.inference.plain_model import Boxes

Image = NDArray[np.uint8]

SIDE = 640  # pixels of a panel
GAP = 8
BAND = 44  # height of a line of text
INK = (40, 40, 40)


def choose(images: Sequence[Path], number: int) -> list[Path]:
    """Choose images evenly from a sorted list, the same ones every time."""
    count = min(number, len(images))
    return [images[(2 * i + 1) * len(images) // (2 * count)] for i in range(count)]


def choose_varied(images: Sequence[Path], truth: Sequence[Boxes], number: int) -> list[Path]:
    """Choose images that show as many classes as possible: for each class, the rarest first, the one richest in it.

    Args:
        images (Sequence[Path]): Images to choose from.
        truth (Sequence[Boxes]): The labelled boxes of each.
        number (int): How many to choose; fewer come back if there are fewer images.

    Returns:
        (list[Path]): In the order of choice, the same ones every time.
    """
    counts = np.zeros((len(images), 1 + max((int(b.classes.max(initial=0)) for b in truth), default=0)), dtype=np.int64)
    for row, boxes in zip(counts, truth, strict=True):
        np.add.at(row, boxes.classes, 1)
    totals = counts.sum(0)
    rarest = sorted((k for k in range(len(totals)) if totals[k]), key=lambda k: int(totals[k]))
    best = [images[int(counts[:, k].argmax())] for k in rarest]
    return list(dict.fromkeys([*best, *choose(images, number), *images]))[:number]


def draw(
    images: Sequence[Path],
    columns: Mapping[str, Sequence[Boxes]],
    names: Mapping[int, str],
    path: Path,
    note: str = "",
) -> None:
    """Draw a row for each image and a column for each source of boxes, and write it as a JPEG.

    Args:
        images (Sequence[Path]): The images.
        columns (Mapping[str, Sequence[Boxes]]): Heading of a column -> its boxes for each image.
        names (Mapping[int, str]): Class names.
        path (Path): File to write.
        note (str): What to say behind the class names.
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
    said = f"{len(boxes.classes)} boxes"
    width = cv2.getTextSize(said, cv2.FONT_HERSHEY_SIMPLEX, 0.6, 1)[0][0]
    cv2.rectangle(panel, (0, 0), (width + 12, 26), (255, 255, 255), -1)
    cv2.putText(panel, said, (6, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.6, INK, 1, cv2.LINE_AA)
    return panel


def _joined(panels: Sequence[Image]) -> Image:
    """Return panels side by side, with a gap after each and one below."""
    padded = [cv2.copyMakeBorder(p, 0, GAP, 0, GAP, cv2.BORDER_CONSTANT, value=(255, 255, 255)) for p in panels]
    return np.concatenate(padded, axis=1).astype(np.uint8)


def _text(said: str, width: int) -> Image:
    """Return a white band with a line of text."""
    band: Image = np.full((BAND, width, 3), 255, np.uint8)
    cv2.putText(band, said, (6, 30), cv2.FONT_HERSHEY_SIMPLEX, 0.9, INK, 2, cv2.LINE_AA)
    return band


def _legend(names: Sequence[str], palette: Sequence[tuple[int, int, int]], width: int, note: str) -> Image:
    """Return a band that names each class in its colour, with a note; names that do not fit are left out."""
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
    """Return the colour of a class, hues spread evenly, in BGR."""
    red, green, blue = colorsys.hsv_to_rgb(index / max(count, 1), 0.95, 1.0)
    return int(255 * blue), int(255 * green), int(255 * red)
