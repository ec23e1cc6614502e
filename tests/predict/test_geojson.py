"""GeoJSON: coordinates by hand, rings, properties, the 180th meridian."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ds2d2_yolo.predict.geojson import write_geojson
from ds2d2_yolo.predict.rasters.georeference import georeference_of
from ds2d2_yolo.predict.writing import ImageDetections
from ds2d2_yolo.utils.detections import Detections

pytest.importorskip("rasterio")
from rasterio.crs import CRS
from rasterio.transform import Affine

NAMES = {0: "plane", 1: "ship"}


def written(tmp_path: Path, row: list[float], crs: str | None, transform: Affine, oriented: bool = True) -> Any:
    detections = Detections.from_rows(np.array([row]), oriented)
    data = SimpleNamespace(crs=crs and CRS.from_user_input(crs), transform=transform, gcps=([], None), rpcs=None)
    place = georeference_of(Path("scene.tif"), data)
    image = ImageDetections(Path("scene.tif"), (400, 300), detections, place)
    return json.loads(write_geojson(tmp_path / "a.geojson", image, NAMES).read_text())


def turning(ring: list[list[float]]) -> float:
    """Return twice the signed area: above 0 is counter-clockwise."""
    (x, y) = np.array(ring).T
    return float(np.dot(x[:-1], y[1:]) - np.dot(x[1:], y[:-1]))


def test_degrees_by_hand(tmp_path: Path) -> None:
    geojson = written(tmp_path, [100, 50, 20, 10, 0.0, 0.75, 1], "EPSG:4326", Affine(0.001, 0, 10, 0, -0.002, 50))
    feature = geojson["features"][0]
    ring = feature["geometry"]["coordinates"][0]
    assert feature["geometry"]["type"] == "Polygon"
    assert ring[0] == ring[-1]
    assert len(ring) == 5
    assert turning(ring) > 0
    corners = {(10.09, 49.91), (10.11, 49.91), (10.11, 49.89), (10.09, 49.89)}
    assert {tuple(np.round(p, 8).tolist()) for p in ring} == corners
    assert feature["properties"] == {"class": "ship", "class_id": 1, "score": 0.75, "angle": 0.0}
    assert geojson["coordinate_space"].startswith("WGS84")
    assert not {"coordinates", "geometry", "properties"} & set(geojson)  # RFC 7946, section 7.1


def test_metres_by_hand(tmp_path: Path) -> None:
    """UTM zone 33 at the equator on its middle meridian, 15 degrees east: its scale is 0.9996 there."""
    geojson = written(tmp_path, [100, 100, 20, 20, 0.0, 0.5, 0], "EPSG:32633", Affine(0.5, 0, 499950, 0, -0.5, 50))
    ring = np.array(geojson["features"][0]["geometry"]["coordinates"][0])
    east = 5 / 0.9996 / (np.pi / 180 * 6378137)
    north = 5 / 0.9996 / (np.pi / 180 * 6378137 * (1 - 0.00669437999014))  # radius of curvature of the meridian
    np.testing.assert_allclose([ring[:, 0].min(), ring[:, 0].max()], [15 - east, 15 + east], atol=2e-8)
    np.testing.assert_allclose([ring[:, 1].min(), ring[:, 1].max()], [-north, north], atol=2e-8)


def test_a_turned_georeference(tmp_path: Path) -> None:
    """The image's x runs north, its y east."""
    geojson = written(tmp_path, [100, 50, 20, 10, 0.0, 0.75, 1], "EPSG:4326", Affine(0, 0.001, 10, 0.001, 0, 50))
    ring = np.array(geojson["features"][0]["geometry"]["coordinates"][0])
    np.testing.assert_allclose(ring.min(0), [10.045, 50.09], atol=1e-9)
    np.testing.assert_allclose(ring.max(0), [10.055, 50.11], atol=1e-9)
    assert turning(ring.tolist()) > 0


@pytest.mark.parametrize(
    ("crs", "transform"), [(None, Affine(0.5, 0, 9, 0, -0.5, 9)), ("EPSG:4326", Affine.identity())]
)
def test_pixels_where_there_is_no_georeference(tmp_path: Path, crs: str | None, transform: Affine) -> None:
    geojson = written(tmp_path, [100, 50, 10, 20, 0.0, 0.75, 1], crs, transform)
    ring = geojson["features"][0]["geometry"]["coordinates"][0]
    assert sorted(ring[:4]) == [[95, 40], [95, 60], [105, 40], [105, 60]]
    assert turning(ring) > 0
    assert geojson["coordinate_space"].startswith("pixels")
    assert geojson["features"][0]["properties"]["angle"] == 90  # of the longer side


def test_upright_boxes_have_no_angle(tmp_path: Path) -> None:
    geojson = written(tmp_path, [100, 50, 10, 20, 0.0, 0.75, 1], None, Affine.identity(), oriented=False)
    assert "angle" not in geojson["features"][0]["properties"]


def test_an_object_across_the_180th_meridian_is_two_polygons(tmp_path: Path) -> None:
    geojson = written(tmp_path, [100, 50, 20, 10, 0.0, 0.9, 0], "EPSG:3832", Affine(1000, 0, 3239581, 0, -1000, 50000))
    geometry = geojson["features"][0]["geometry"]
    assert geometry["type"] == "MultiPolygon"
    rings = [polygon[0] for polygon in geometry["coordinates"]]
    assert len(rings) == 2
    assert sum(turning(r) > 0 for r in rings) == 2
    assert all(np.ptp(np.array(r)[:, 0]) < 1 for r in rings)
    assert {round(max(abs(p[0]) for p in r), 6) for r in rings} == {180.0}


@pytest.mark.parametrize(
    ("crs", "transform", "message"),
    [
        ('LOCAL_CS["site grid",UNIT["metre",1]]', Affine(0.5, 0, 9, 0, -0.5, 9), "no longitude and latitude"),
        ("EPSG:5773", Affine(0.3, 0, 4e5, 0, -0.3, 5e5), "outside its map projection"),
        ("ESRI:54030", Affine(1e6, 0, -1.7e7, 0, -1e6, 9e8), "no longitude|outside its map projection"),
    ],
)
def test_pixels_where_the_georeference_leads_nowhere(
    tmp_path: Path, crs: str, transform: Affine, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    geojson = written(tmp_path, [100, 50, 10, 20, 0.0, 0.75, 1], crs, transform)
    ring = geojson["features"][0]["geometry"]["coordinates"][0]
    assert sorted(ring[:4]) == [[95, 40], [95, 60], [105, 40], [105, 60]]
    assert geojson["coordinate_space"].endswith("'s georeference cannot be turned into longitude and latitude")
    assert re.search(message, caplog.text)
    assert len(caplog.records) == 1


def test_degrees_over_180_are_wrapped(tmp_path: Path) -> None:
    """Scenes in degrees go over the 180th meridian without a jump, some count from 0 to 360."""
    crossing = written(tmp_path, [5, 5, 6, 2, 0.0, 0.9, 0], "EPSG:4326", Affine(2e-5, 0, 179.9999, 0, -2e-5, 10))
    geometry = crossing["features"][0]["geometry"]
    assert geometry["type"] == "MultiPolygon"
    east, west = sorted((np.array(p[0]) for p in geometry["coordinates"]), key=lambda r: -r[:, 0].max())
    np.testing.assert_allclose([east[:, 0].min(), east[:, 0].max()], [179.99994, 180], atol=1e-8)
    np.testing.assert_allclose([west[:, 0].min(), west[:, 0].max()], [-180, -179.99994], atol=1e-8)
    far = written(tmp_path, [100, 50, 20, 10, 0.0, 0.9, 0], "EPSG:4326", Affine(0.001, 0, 190, 0, -0.001, 50))
    ring = np.array(far["features"][0]["geometry"]["coordinates"][0])
    np.testing.assert_allclose([ring[:, 0].min(), ring[:, 0].max()], [-169.91, -169.89], atol=1e-8)


def test_an_object_over_a_pole_is_written(tmp_path: Path) -> None:
    geojson = written(tmp_path, [5, 5, 6, 6, 0.0, 0.9, 0], "EPSG:3413", Affine(1, 0, -5, 0, -1, 5))
    (ring,) = geojson["features"][0]["geometry"]["coordinates"]
    assert len(ring) == 5
    assert min(p[1] for p in ring) > 89.99
