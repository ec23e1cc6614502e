"""Detections as GeoJSON (RFC 7946): on the map where the image lies on it, in pixels otherwise."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np

from ds2d2_yolo.predict.merging import Floats, corners_of
from ds2d2_yolo.predict.reading import first_line
from ds2d2_yolo.predict.writing import Found
from ds2d2_yolo.utils.atomic_files import write_whole

WGS84 = "OGC:CRS84"  # longitude first, as RFC 7946 has it
MAP = "WGS84 longitude, latitude in degrees"
PIXELS = "pixels: x right, y down, (0, 0) the upper left corner; the image"
BARE = " carries no georeference"
UNTURNED = "'s georeference cannot be turned into longitude and latitude"

logger = logging.getLogger("ds2d2_yolo")


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
    corners = corners_of(image.rows)
    degrees = to_map(corners, image) if _on_map(image) else None
    on_map, places = degrees is not None, corners if degrees is None else degrees
    digits = 8 if on_map else 2  # 1e-8 degrees are 1 mm
    features = (
        {
            "type": "Feature",
            "geometry": _geometry(ring, on_map, digits),
            "properties": _properties(row, names, oriented),
        }
        for ring, row in zip(places, image.rows.tolist(), strict=True)
    )
    space = MAP if on_map else PIXELS + (UNTURNED if _on_map(image) else BARE)
    head = {"type": "FeatureCollection", "coordinate_space": space, "image": image.path.name,
            "width": image.size[0], "height": image.size[1]}  # fmt: skip
    lines = ",\n".join(json.dumps(f, ensure_ascii=False) for f in features)
    write_whole(target, json.dumps(head, ensure_ascii=False)[:-1] + ', "features": [\n' + lines + "\n]}\n")
    return target


def to_map(corners: Floats, image: Found) -> Floats | None:
    """Return pixel corners (N, 4, 2) as longitude and latitude.

    A local reference system, or a corner outside a projection's domain, has none. The objects are worth their pixels
    then, with a warning: what was found is not lost for it.

    Args:
        corners (np.ndarray): Pixels, (0, 0) the outer corner of the first pixel.
        image (Found): With a georeference.

    Returns:
        (np.ndarray | None): Degrees (N, 4, 2), longitude in [-180, 180]; None where there are none.
    """
    from rasterio.warp import transform

    t = image.transform
    x, y = corners[..., 0].ravel(), corners[..., 1].ravel()
    east, north = t.a * x + t.b * y + t.c, t.d * x + t.e * y + t.f
    try:
        found = np.array(transform(image.crs, WGS84, east, north) if len(x) else ([], []), np.float64)
    except Exception as e:  # GDAL's errors come through as classes of their own (rasterio 1.4)
        logger.warning(f"{image.path}: no longitude and latitude, its objects are written in pixels: {first_line(e)}")
        return None
    if not np.isfinite(found).all() or (abs(found[1]) > 91).any():  # what a vertical system makes of metres
        logger.warning(f"{image.path}: outside its map projection, its objects are written in pixels")
        return None
    found[0] = np.where(abs(found[0]) > 180, (found[0] + 180) % 360 - 180, found[0])
    return found.T.reshape(corners.shape)


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
    if not shape.is_valid:  # over a pole, which no ring of longitudes goes round
        return {"type": "Polygon", "coordinates": [_ring(ring, digits)]}
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
