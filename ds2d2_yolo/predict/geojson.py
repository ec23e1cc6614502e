"""Detections as GeoJSON (RFC 7946): on the map where the image lies on it, in pixels otherwise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from ds2d2_yolo.files import write_whole
from ds2d2_yolo.predict.merging import Floats, corners_of
from ds2d2_yolo.predict.writing import Found

WGS84 = "OGC:CRS84"  # longitude first, as RFC 7946 has it
MAP = "WGS84 longitude, latitude in degrees"
PIXELS = "pixels: x right, y down, (0, 0) the upper left corner; the image carries no georeference"


def write_geojson(target: Path, image: Found, names: dict[int, str], oriented: bool) -> Path:
    """Write an image's objects as a feature collection, one polygon an object.

    Exterior rings are closed and counter-clockwise in their coordinates. Properties: class, class_id, score and, for
    rotated boxes, angle: degrees in [0, 180) from the picture's x axis, clockwise as seen, to the longer side. The
    foreign member `coordinate_space` says what the coordinates are. An object across the 180th meridian becomes two
    polygons, as RFC 7946, section 3.1.9, asks for.

    Args:
        target (Path): File to write.
        image (Found): Objects and georeference.
        names (dict[int, str]): Class names.
        oriented (bool): Whether boxes are rotated.

    Returns:
        (Path): The file.
    """
    corners, on_map = corners_of(image.rows), _on_map(image)
    places = to_map(corners, image) if on_map else corners
    digits = 8 if on_map else 2  # 1e-8 degrees are 1 mm
    features = (
        {
            "type": "Feature",
            "geometry": _geometry(ring, on_map, digits),
            "properties": _properties(row, names, oriented),
        }
        for ring, row in zip(places, image.rows.tolist(), strict=True)
    )
    head = {"type": "FeatureCollection", "coordinate_space": MAP if on_map else PIXELS, "image": image.path.name,
            "width": image.size[0], "height": image.size[1]}  # fmt: skip
    lines = ",\n".join(json.dumps(f, ensure_ascii=False) for f in features)
    write_whole(target, json.dumps(head, ensure_ascii=False)[:-1] + ', "features": [\n' + lines + "\n]}\n")
    return target


def to_map(corners: Floats, image: Found) -> Floats:
    """Return pixel corners (N, 4, 2) as longitude and latitude.

    Args:
        corners (np.ndarray): Pixels, (0, 0) the outer corner of the first pixel.
        image (Found): With a georeference.

    Returns:
        (np.ndarray): Degrees (N, 4, 2).
    """
    from rasterio.warp import transform

    t = image.transform
    x, y = corners[..., 0].ravel(), corners[..., 1].ravel()
    east, north = t.a * x + t.b * y + t.c, t.d * x + t.e * y + t.f
    longitude, latitude = transform(image.crs, WGS84, east, north) if len(x) else ([], [])
    return np.stack([longitude, latitude], 1).reshape(corners.shape)


def _on_map(image: Found) -> bool:
    """Return whether an image says where it lies."""
    return image.crs is not None and image.transform is not None and not image.transform.is_identity


def _geometry(ring: Floats, on_map: bool, digits: int) -> dict[str, Any]:
    """Return one object's polygon, or two across the 180th meridian."""
    if not on_map or np.ptp(ring[:, 0]) <= 180:
        return {"type": "Polygon", "coordinates": [_ring(ring, digits)]}
    import shapely

    eastern = ring + np.where(ring[:, :1] < 0, [360.0, 0.0], 0.0)
    shape = shapely.Polygon(eastern)
    halves = [shapely.intersection(shape, shapely.box(west, -90, west + 180, 90)) for west in (0, 180)]
    rings = [shapely.get_coordinates(h)[:-1] - [360.0 * side, 0.0] for side, h in enumerate(halves) if h.area]
    return {"type": "MultiPolygon", "coordinates": [[_ring(r, digits)] for r in rings]}


def _ring(ring: Floats, digits: int) -> list[list[float]]:
    """Return a closed, counter-clockwise ring."""
    x, y = (ring - ring.mean(0)).T
    turned = ring if float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) > 0 else ring[::-1]
    points = [[round(v, digits) for v in point] for point in turned.tolist()]
    return [*points, points[0]]


def _properties(row: list[float], names: dict[int, str], oriented: bool) -> dict[str, Any]:
    """Return what is said about one object."""
    said = {"class": names[int(row[6])], "class_id": int(row[6]), "score": round(row[5], 6)}
    if oriented:
        said["angle"] = round(float(np.rad2deg(row[4]) + (90 if row[2] < row[3] else 0)) % 180, 3) % 180
    return said
