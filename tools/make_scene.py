"""Make one large georeferenced scene out of the built-in scenes, with its known objects.

The scene is written row by row of cells into a tiled TIFF, so that making it holds one row in memory. Each cell is one
built-in scene; no object crosses a cell's border, and cells do not fall on the tiles of a prediction. Beside the image
lies a DOTA label file (`x1 y1 ... x4 y4 class difficult`, pixels of the scene); difficult is 1 for an object that the
right or bottom border of the scene cuts.

    python tools/make_scene.py scene.tif --side 20000

Needs rasterio: pip install 'ds2d2-yolo[geo]'.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import from_origin
from rasterio.windows import Window

from ds2d2_yolo.scenes.drawing.noise import U8
from ds2d2_yolo.scenes.render import draw_scene
from ds2d2_yolo.scenes.world import NAMES, Label
from ds2d2_yolo.utils.atomic_files import replacing, write_atomically

BLOCK = 256  # side of the TIFF's own tiles
GSD, EAST, NORTH, CRS = 0.3, 400000.0, 5700000.0, "EPSG:32633"


def rows(side: int, cell: int, seed: int) -> Iterator[tuple[int, U8, list[Label]]]:
    """Draw the scene from top to bottom.

    Args:
        side (int): Side of the scene in pixels.
        cell (int): Side of a built-in scene in pixels.
        seed (int): Seed of the scenes.

    Yields:
        top (int): First pixel row.
        strip (np.ndarray): RGB pixels (3, up to cell, side), uint8.
        labels (list[Label]): Objects of the row, corners in pixels of the whole scene.
    """
    across = -(-side // cell)
    for y in range(across):
        strip: U8 = np.zeros((3, cell, across * cell), np.uint8)
        labels: list[Label] = []
        for x in range(across):
            image, cell_labels = draw_scene(seed, 1, y * across + x, cell)
            strip[:, :, x * cell : (x + 1) * cell] = image[:, :, ::-1].transpose(2, 0, 1)
            labels += [(kind, corners + np.array([x * cell, y * cell])) for kind, corners in cell_labels]
        yield y * cell, strip[:, : side - y * cell, :side], labels


def label_lines(labels: list[Label], side: int) -> str:
    """Return the objects that the scene shows as DOTA label lines."""
    lines = []
    for kind, corners in labels:
        if (corners.min(0) < side).all():
            numbers = " ".join(f"{v:.2f}" for v in corners.ravel())
            lines.append(f"{numbers} {NAMES[kind]} {int((corners > side).any())}\n")
    return "".join(lines)


def make(path: Path, side: int, cell: int, seed: int) -> int:
    """Write the scene and its labels, the image last; return the number of objects."""
    profile = {
        "driver": "GTiff", "width": side, "height": side, "count": 3, "dtype": "uint8", "photometric": "RGB",
        "tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK, "compress": "deflate", "zlevel": 1,
        "crs": CRS, "transform": from_origin(EAST, NORTH, GSD, GSD),
    }  # fmt: skip
    text = []
    with replacing(path) as part:
        with rasterio.open(part, "w", **profile) as out:
            for top, strip, labels in rows(side, cell, seed):
                out.write(strip, window=Window(0, top, side, strip.shape[1]))
                text.append(label_lines(labels, side))
                print(f"\r{min(side, top + cell)}/{side} rows", end="", file=sys.stderr, flush=True)
        write_atomically(path.with_suffix(".txt"), "".join(text))
    print(file=sys.stderr)
    return "".join(text).count("\n")


def main() -> None:
    """Read the arguments and make the scene."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="TIFF file to write; the labels lie beside it as .txt")
    parser.add_argument("--side", type=int, default=20000, help="side of the scene in pixels")
    parser.add_argument("--cell", type=int, default=1280, help=f"side of a built-in scene, a multiple of {BLOCK}")
    parser.add_argument("--seed", type=int, default=0)
    a = parser.parse_args()
    if a.cell < 512 or a.cell % BLOCK or a.side < 1 or a.out.suffix.lower() not in (".tif", ".tiff"):
        parser.error(f"--cell must be a multiple of {BLOCK} from 512 up, --side 1 or more, the file a .tif")
    print(f"{a.out}: {a.side} x {a.side} px, {make(a.out, a.side, a.cell, a.seed)} objects")


if __name__ == "__main__":
    main()
