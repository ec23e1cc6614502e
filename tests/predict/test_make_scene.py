"""The tool that makes a large scene out of the built-in ones."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ds2d2_yolo.scenes.render import draw_scene

rasterio = pytest.importorskip("rasterio")
TOOL = Path(__file__).resolve().parents[2] / "tools" / "make_scene.py"


def test_a_scene_of_scenes(tmp_path: Path) -> None:
    out = tmp_path / "scene.tif"
    command = [sys.executable, str(TOOL), str(out), "--side", "900", "--cell", "512", "--seed", "3"]
    stdout = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    with rasterio.open(out) as data:
        pixels = data.read()
        assert data.crs.to_epsg() == 32633
        assert data.block_shapes[0] == (256, 256)
    assert pixels.shape == (3, 900, 900)
    image, labels = draw_scene(3, 1, 3, 512)  # the cell at the lower right
    np.testing.assert_array_equal(pixels[:, 512:, 512:], image[:388, :388, ::-1].transpose(2, 0, 1))
    lines = [line.split() for line in out.with_suffix(".txt").read_text().splitlines()]
    assert f"{len(lines)} objects" in stdout
    corners = np.array([line[:8] for line in lines], float).reshape(-1, 4, 2)
    cell_corners = corners[(corners.min(1) >= 512).all(1)]
    expected_corners = [c for _, c in labels if (c.min(0) < 388).all()]
    assert len(cell_corners) == len(expected_corners) > 0
    np.testing.assert_allclose(cell_corners[0], expected_corners[0] + 512, atol=0.006)
    cut = np.array([line[9] == "1" for line in lines])
    np.testing.assert_array_equal(cut, (corners > 900).any((1, 2)))
