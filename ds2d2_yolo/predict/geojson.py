"""Detections as GeoJSON (RFC 7946): map coordinates if the image is georeferenced, pixels otherwise."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np

from ds2d2_yolo.predict.rasters.reading import first_line
from ds2d2_yolo.predict.writing import ImageDetections
from ds2d2_yolo.utils.atomic_files import write_atomically
from ds2d2_yolo.utils.detections import Detections, Floats

WGS84 = "OGC:CRS84"  # longitude first, as RFC 7946 has it
MAP = "WGS84 longitude, latitude in degrees"
PIXELS = "pixels: x right, y down, (0, 0) the upper left corner; the image"
UNTURNED = "'s georeference cannot be turned into longitude and latitude"

logger = logging.getLogger("ds2d2_yolo")


def write_geojson(target: Path, image: ImageDetections, names: dict[int, str]) -> Path:
    """Write an image's detections as a feature collection, one polygon per object.

    Exterior rings are closed and counter-clockwise in their coordinates. Properties: class, class_id, score and, for
    rotated boxes, angle: degrees in [0, 180) from the picture's x axis, clockwise as seen, to the longer side. The
    foreign member `coordinate_space` says what the coordinates are. An object across the 180th meridian becomes two
    polygons, as RFC 7946, section 3.1.9, asks for.

    Args:
        target (Path): File to write.
        image (ImageDetections): Detections and georeference.
        names (dict[int, str]): Class names.

    Returns:
        (Path): The file.
    """
    objects, corners = image.detections, image.detections.corners
    degrees = to_degrees(corners, image)
    on_map, rings = degrees is not None, corners if degrees is None else degrees
    digits = 8 if on_map else 2  # 1e-8 degrees are 1 mm
    features = (
        {
            "type": "Feature",
            "geometry": _geometry(ring, on_map, digits),
            "properties": _properties(objects[i : i + 1], names),
        }
        for i, ring in enumerate(rings)
    )
    space = MAP if on_map else PIXELS + (image.georeference.missing or UNTURNED)
    head = {"type": "FeatureCollection", "coordinate_space": space, "image": image.path.name,
            "width": image.size[0], "height": image.size[1]}  # fmt: skip
    lines = ",\n".join(json.dumps(f, ensure_ascii=False) for f in features)
    write_atomically(target, json.dumps(head, ensure_ascii=False)[:-1] + ', "features": [\n' + lines + "\n]}\n")
    return target


def to_degrees(corners: Floats, image: ImageDetections) -> Floats | None:
    """Return pixel corners (N, 4, 2) as longitude and latitude.

    An incomplete georeference, a local reference system, or a corner outside a projection's domain has none: a warning
    says so, and the caller writes pixels.

    Args:
        corners (np.ndarray): Pixels, (0, 0) the outer corner of the first pixel.
        image (ImageDetections): Path and georeference.

    Returns:
        (np.ndarray | None): Degrees (N, 4, 2), longitude in [-180, 180]; None if they cannot be computed.
    """
    if not image.georeference.complete:
        if remedy := image.georeference.remedy:
            subject = f"{image.path}{image.georeference.missing}"
            logger.warning(f"{subject}: its objects are written in pixels. For map coordinates, {remedy}")
        return None
    from rasterio.warp import transform

    crs, t = image.georeference.crs, image.georeference.transform
    x, y = corners[..., 0].ravel(), corners[..., 1].ravel()
    east, north = t.a * x + t.b * y + t.c, t.d * x + t.e * y + t.f
    try:
        degrees = np.array(transform(crs, WGS84, east, north) if len(x) else ([], []), np.float64)
    except Exception as e:  # GDAL's errors come through as classes of their own (rasterio 1.4)
        logger.warning(f"{image.path}: no longitude and latitude, its objects are written in pixels: {first_line(e)}")
        return None
    if not np.isfinite(degrees).all() or (abs(degrees[1]) > 91).any():  # what a vertical system makes of metres
        logger.warning(f"{image.path}: outside its map projection, its objects are written in pixels")
        return None
    degrees[0] = np.where(abs(degrees[0]) > 180, (degrees[0] + 180) % 360 - 180, degrees[0])
    return degrees.T.reshape(corners.shape)


def _geometry(ring: Floats, on_map: bool, digits: int) -> dict[str, Any]:
    """Return one object's polygon, or two across the 180th meridian."""
    if not on_map or np.ptp(ring[:, 0]) <= 180:
        return {"type": "Polygon", "coordinates": [_ring(ring, digits)]}
    import shapely

    eastern = ring + np.where(ring[:, :1] < 0, [360.0, 0.0], 0.0)
    shape = shapely.Polygon(eastern)
    if not shape.is_valid:  # over a pole, which no ring of longitudes can enclose
        return {"type": "Polygon", "coordinates": [_ring(ring, digits)]}
    halves = [shapely.intersection(shape, shapely.box(west, -90, west + 180, 90)) for west in (0, 180)]
    rings = [shapely.get_coordinates(h)[:-1] - [360.0 * side, 0.0] for side, h in enumerate(halves) if h.area]
    return {"type": "MultiPolygon", "coordinates": [[_ring(r, digits)] for r in rings]}


def _ring(ring: Floats, digits: int) -> list[list[float]]:
    """Return a closed, counter-clockwise ring."""
    x, y = (ring - ring.mean(0)).T
    ordered = ring if float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) > 0 else ring[::-1]
    points = [[round(v, digits) for v in point] for point in ordered.tolist()]
    return [*points, points[0]]


def _properties(detection: Detections, names: dict[int, str]) -> dict[str, Any]:
    """Return the GeoJSON properties of one detection."""
    (_, _, w, h, angle), kind = detection.boxes[0].tolist(), int(detection.classes[0])
    properties = {"class": names[kind], "class_id": kind, "score": round(float(detection.scores[0]), 6)}
    if detection.oriented:
        properties["angle"] = round(float(np.rad2deg(angle) + (90 if w < h else 0)) % 180, 3) % 180
    return properties
