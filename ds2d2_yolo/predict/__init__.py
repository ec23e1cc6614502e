"""Detection in images and in scenes of any size.

Scenes are cut into tiles, and the detections of the tiles are merged by `merging`. Two libraries were tried first.
supervision 0.31.2 (`InferenceSlicer`) reads rasterio datasets window by window, moves oriented boxes correctly and has
an oriented NMS. But it builds one dense N x N matrix of all detections at the end (20,000 of them took 26 s and
8.5 GB), refuses images in longitude and latitude, compares boxes by their shape only, so that parts of cut objects
stay (IoU) or covered neighbours are dropped (intersection over smaller area), returns no angles, and supports neither
resuming after a kill nor nodata. sahi 0.12.8 (`get_sliced_prediction`) decodes the entire image as 8-bit RGB (2.3 GiB
for 20,000 px a side), and its NMS compares the upright hulls of oriented boxes: of two parallel ships at 45 degrees,
20 px apart, it keeps one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ds2d2_yolo.predict.result import Prediction


def predict(**keys: Any) -> Prediction:
    """Detect objects: see `ds2d2_yolo.predict.run.predict`."""
    from ds2d2_yolo.predict.run import predict as run  # imports torch, which the help does not need

    return run(**keys)
