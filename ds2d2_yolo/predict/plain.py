"""Prediction without tiles: Ultralytics reads and predicts, then the formats are written."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from ds2d2_yolo.bridge.inference import tile_detector
from ds2d2_yolo.errors import BadUseError
from ds2d2_yolo.predict.geojson import write_geojson
from ds2d2_yolo.predict.options import PredictOptions
from ds2d2_yolo.predict.rasters.georeference import GEOREFERENCED, Georeference, has_sidecar
from ds2d2_yolo.predict.rasters.reading import need_rasterio, read_georeference
from ds2d2_yolo.predict.rasters.sample_type import check_ultralytics_reads
from ds2d2_yolo.predict.result import ImageSummary, Prediction
from ds2d2_yolo.predict.sources import local_images
from ds2d2_yolo.predict.writing import ImageDetections, unique_stems, write_tables
from ds2d2_yolo.utils.progress import tracked


def predict_plain(
    options: PredictOptions, ultralytics_args: dict[str, Any], yolo: Any, formats: set[str]
) -> Prediction:
    """Run Ultralytics' prediction, then write the formats.

    Args:
        options (PredictOptions): Source and formats.
        ultralytics_args (dict[str, Any]): Ultralytics' keys.
        yolo (YOLO): The loaded model.
        formats (set[str]): Files to write, with 'dota' resolved.

    Returns:
        (Prediction): Results and files.

    Raises:
        BadUseError: If Ultralytics cannot read the images, or their georeference needs a missing package.
    """
    local = local_images(str(options.source))
    check_ultralytics_reads(local)
    if "geojson" in formats:
        _need_rasterio_for(local)
    results, summaries = [], []
    ultralytics_args = {**ultralytics_args, "save": True} if "picture" in formats else ultralytics_args
    # a bar replaces Ultralytics' line for each image, unless verbose= is given or the number of images is unknown
    shown = "verbose" not in ultralytics_args and bool(local)
    ultralytics_args = {**ultralytics_args, "verbose": False} if shown else ultralytics_args
    with tracked("images", len(local), sys.stderr, shown=shown, fill=False) as task:
        for result in tile_detector.plain_results(yolo, str(options.source), ultralytics_args):
            size = (result.orig_shape[1], result.orig_shape[0])
            path, detections = Path(result.path), tile_detector.detections_of(result)
            summaries.append(ImageSummary(ImageDetections(path, size, detections, _place(path, yolo, formats))))
            result.orig_img = np.broadcast_to(np.zeros((), np.uint8), result.orig_img.shape)
            results.append(result)
            task.advance()
    folder = Path(yolo.predictor.save_dir)
    if not results:
        tile_detector.remove_empty_run(folder)
        raise BadUseError(f"source={options.source} holds no image that can be read: look at the warnings above")
    files: list[Path] = []
    images = [summary.image for summary in summaries]
    for image, stem in zip(images, unique_stems([i.path for i in images]), strict=True):
        if "geojson" in formats:
            files.append(write_geojson(folder / f"{stem}.geojson", image, yolo.names))
    files += write_tables(folder, formats, images, yolo.names)
    return Prediction(results, summaries, dict(yolo.names), folder if folder.is_dir() else None, files)


def _need_rasterio_for(images: list[Path]) -> None:
    """Require rasterio if an image has a georeference, or a file beside it that may hold one."""
    if any(image.suffix.lower() in GEOREFERENCED for image in images):
        need_rasterio("formats=geojson of a TIFF or JPEG 2000")
    if any(has_sidecar(image) for image in images):
        need_rasterio("formats=geojson of an image with a world file or .aux.xml")


def _place(path: Path, yolo: Any, formats: set[str]) -> Georeference:
    """Return the georeference of an image that Ultralytics read, if its format or a file beside it may hold one."""
    if "geojson" not in formats or not (path.suffix.lower() in GEOREFERENCED or has_sidecar(path)):
        return Georeference()
    return read_georeference(path, int(getattr(yolo.predictor.model, "channels", 3)))
