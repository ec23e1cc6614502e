"""Draw a contact sheet of scenes: `python -m ds2d2_yolo.scenes sheet.png`."""

from __future__ import annotations

import argparse

import cv2
import numpy as np

from ds2d2_yolo.scenes.drawing.noise import U8
from ds2d2_yolo.scenes.render import draw_scene
from ds2d2_yolo.scenes.world import Label

COLOURS = ((60, 220, 255), (60, 120, 255), (255, 200, 60), (255, 80, 220), (80, 255, 80), (255, 255, 255))


def outlined(image: U8, labels: list[Label]) -> U8:
    """Return a copy of an image with its oriented boxes drawn."""
    picture = image.copy()
    for category, corners in labels:
        points = np.rint(corners * 16 - 8).astype(np.int32)
        cv2.polylines(picture, [points], True, COLOURS[category], 1, cv2.LINE_AA, 4)
    return picture


def sheet(columns: int, rows: int, seed: int, split: int, start: int, tile: int, boxes: bool) -> U8:
    """Return a grid of scenes, each reduced to a tile of the given side."""
    tiles = []
    for index in range(start, start + columns * rows):
        image, labels = draw_scene(seed, split, index)
        shown = outlined(image, labels) if boxes else image
        tiles.append(cv2.resize(shown, (tile, tile), interpolation=cv2.INTER_AREA))
    lines = [np.concatenate(tiles[r * columns : (r + 1) * columns], axis=1) for r in range(rows)]
    return np.concatenate(lines, axis=0)


def main() -> None:
    """Read the arguments and write the sheet."""
    parser = argparse.ArgumentParser(prog="python -m ds2d2_yolo.scenes", description=__doc__)
    parser.add_argument("out", help="image file to write")
    parser.add_argument("--columns", type=int, default=4)
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--split", type=int, default=0, help="0 train, 1 val")
    parser.add_argument("--start", type=int, default=0, help="first image")
    parser.add_argument("--tile", type=int, default=320, help="side of a tile in pixels")
    parser.add_argument("--boxes", action="store_true", help="draw the oriented boxes")
    a = parser.parse_args()
    if not cv2.imwrite(a.out, sheet(a.columns, a.rows, a.seed, a.split, a.start, a.tile, a.boxes)):
        parser.error(f"cannot write '{a.out}': choose a folder that exists and an image suffix such as .png")


if __name__ == "__main__":
    main()
