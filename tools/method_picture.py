"""Draw the picture of DISW and the wavelet bands in docs/method.md from a built-in scene.

    PYTHONPATH=. python tools/method_picture.py

The boxes are those of the scene. Low and high bands are those of the image, in the place of neck features.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Polygon

from ds2d2_yolo.core import disw_map, dwt2
from ds2d2_yolo.scenes.render import draw_scene

PICTURE = Path(__file__).resolve().parents[1] / "docs" / "pictures" / "disw.webp"
SIDE, STRIDE, SCENE = 640, 8, 3  # pixels, pixels per cell of the neck, index of the scene


def main() -> None:
    """Draw the picture."""
    image, labels = draw_scene(0, 0, SCENE, SIDE)
    corners = [np.asarray(points, np.float32) for _, points in labels]
    grey = torch.from_numpy(image).float().mean(2)[None, None] / 255
    low, high = dwt2(grey)

    figure = Figure(figsize=(9, 9.4), layout="constrained")
    panels = figure.subplots(2, 2).ravel()
    panels[0].imshow(image[..., ::-1])
    for box in corners:
        panels[0].add_patch(Polygon(box, fill=False, edgecolor="yellow", linewidth=1.2))
    panels[1].imshow((weight_of(corners) - 1 + 1e-9).numpy(), norm=LogNorm(1e-2, 1, clip=True), cmap="viridis")
    panels[2].imshow(low[0, 0].numpy(), cmap="gray")
    panels[3].imshow(high[0, 0].sum(0).numpy(), cmap="gray", vmin=-0.3, vmax=0.3)
    titles = "scene and oriented boxes", f"DISW, stride {STRIDE}", "low band LL", "high bands LH + HL + HH"
    for panel, title in zip(panels, titles, strict=True):
        panel.set_title(title)
        panel.set_axis_off()
    figure.savefig(PICTURE, dpi=150, pil_kwargs={"quality": 85})


def weight_of(corners: list[np.ndarray]) -> torch.Tensor:
    """Return the DISW map of rotated boxes.

    Args:
        corners (list[np.ndarray]): Four corners of each box, pixels.

    Returns:
        (torch.Tensor): Map of the band's cells, which are two strides wide.
    """
    boxes = []
    for box in corners:
        (x, y), (width, height), angle = cv2.minAreaRect(box)
        boxes.append([x, y, width, height, np.deg2rad(angle)])
    side = SIDE // (2 * STRIDE)
    return disw_map(torch.tensor(boxes), torch.zeros(len(boxes)), 1, (side, side), (2 * STRIDE, 2 * STRIDE))[0, 0]


if __name__ == "__main__":
    main()
