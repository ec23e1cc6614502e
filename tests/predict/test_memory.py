"""The memory bound, measured in processes of their own.

The kernel's VmHWM is read and not getrusage, whose peak a new process takes over from the one that started it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

rasterio = pytest.importorskip("rasterio")
from rasterio.windows import Window  # noqa: E402

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")

PEAK = """
import sys
from ds2d2_yolo.predict import predict
model, source, project, memory = sys.argv[1:]
predicted = predict(model=model, source=source, slice=700, overlap=0.1, imgsz=64, memory=float(memory), device="cpu",
                    batch=1, project=project, name="p", formats="csv,picture")
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(predicted.images[0].tiles, int(peak.split()[1]) * 1024)
"""


def write_large(path: Path, side: int) -> None:
    """Write an image strip by strip: 3 bands of low noise."""
    block = np.random.default_rng(0).integers(0, 4, (3, 500, side), dtype=np.uint8)
    profile = {"driver": "GTiff", "width": side, "height": side, "count": 3, "dtype": "uint8", "tiled": True,
               "compress": "deflate", "zlevel": 1, "blockxsize": 256, "blockysize": 256}  # fmt: skip
    with rasterio.open(path, "w", **profile) as out:
        for top in range(0, side, 500):
            out.write(block, window=Window(0, top, side, 500))


def peak(model: Path, path: Path, memory: float) -> tuple[int, int]:
    """Return the number of tiles and the peak of a process that predicts, in bytes."""
    command = [sys.executable, "-c", PEAK, str(model), str(path), str(path.parent / path.stem), str(memory)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    stdout = subprocess.run(command, capture_output=True, text=True, env=environment, check=True).stdout
    tiles, size = stdout.splitlines()[-1].split()
    return int(tiles), int(size)


def test_a_large_image_takes_no_more_than_the_bound(checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    """Its 6000 x 6000 pixels alone are 103 MiB; what a small image takes is the program and the model."""
    sides, memory = (500, 6000), 0.0625
    peaks = []
    for side in sides:
        write_large(tmp_path / f"{side}.tif", side)
        tiles, size = peak(checkpoint("yolov8n-obb.yaml"), tmp_path / f"{side}.tif", memory)
        peaks.append(size)
    assert tiles == 100
    assert peaks[1] - peaks[0] < memory * 2**30


@pytest.mark.slow
def test_20000_pixels_a_side(checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    write_large(tmp_path / "500.tif", 500)
    write_large(tmp_path / "20000.tif", 20000)
    model, memory = checkpoint("yolov8n-obb.yaml"), 0.25
    small, large = (peak(model, tmp_path / f"{side}.tif", memory) for side in (500, 20000))
    assert large[0] > 900
    assert large[1] - small[1] < memory * 2**30
