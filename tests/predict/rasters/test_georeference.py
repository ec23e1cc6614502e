"""Georeference and nodata that lie beside an image: world files, .prj, .aux.xml, control points; nothing is written."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely
from numpy.typing import NDArray
from PIL import Image
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.transform import Affine, from_gcps
from rasterio.warp import transform as reproject

from ds2d2_yolo.errors import BadUseError
from ds2d2_yolo.utils.detections import box_corners
from tests.helpers.rasters import drawn, objects_of, write_raster

WIDTH, HEIGHT = 420, 330
PLACE = Affine(0.3, 0, 500000, 0, -0.3, 5300000)
UTM = CRS.from_epsg(32632)
WORLD = "0.3\n0\n0\n-0.3\n500000.15\n5299999.85\n"  # it gives the centre of the first pixel
GEOTRANSFORM = "<GeoTransform>500000, 0.3, 0, 5300000, 0, -0.3</GeoTransform>"
SRS = f"<SRS>{UTM.to_wkt()}</SRS>".replace('"', "&quot;")
PLAIN = dict.fromkeys(("tiled", "blockxsize", "blockysize", "compress"))
FORMATS = {
    "tif": {},
    "png": {"driver": "PNG", **PLAIN},
    "jpg": {"driver": "JPEG", "quality": 95, **PLAIN},
    "jp2": {"driver": "JP2OpenJPEG", "QUALITY": "100", "REVERSIBLE": "YES", **PLAIN},
    "bmp": {"driver": "BMP", **PLAIN},
}
WORLD_SUFFIX = {"tif": "tfw", "png": "pgw", "jpg": "jgw", "jp2": "j2w", "bmp": "bpw"}
Go = Callable[..., Any]


@pytest.fixture
def objects() -> NDArray[np.float64]:
    return objects_of(WIDTH, HEIGHT, 8)


def pam(content: str) -> str:
    return f"<PAMDataset>{content}</PAMDataset>"


def on_map(objects: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return longitude and latitude (N, 4, 2) of the objects' corners."""
    corners = box_corners(objects)
    x, y = corners[..., 0].ravel(), corners[..., 1].ravel()
    degrees = reproject(UTM, "OGC:CRS84", PLACE.c + PLACE.a * x, PLACE.f + PLACE.e * y)
    return np.array(degrees).T.reshape(corners.shape)


def assert_on_map(folder: Path, objects: NDArray[np.float64]) -> None:
    (file,) = folder.glob("*.geojson")
    geojson = json.loads(file.read_text())
    assert geojson["coordinate_space"].startswith("WGS84"), geojson["coordinate_space"]
    polygons = np.array([shapely.Polygon(f["geometry"]["coordinates"][0]) for f in geojson["features"]])
    assert len(polygons) == len(objects)
    expected = shapely.polygons(on_map(objects))
    shared = shapely.area(shapely.intersection(polygons[:, None], expected[None]))
    iou = shared / (shapely.area(polygons)[:, None] + shapely.area(expected)[None] - shared)
    assert (iou.max(0) > 0.7).all()


def listing(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in folder.iterdir()}


@pytest.mark.parametrize("slice", [200, None])
@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("sidecars", ["world+prj", "world+aux", "aux", "WORLD+PRJ", "wld+prj"])
def test_a_georeference_beside_the_image_is_used_and_nothing_is_written(
    bright: Go, tmp_path: Path, objects: NDArray[np.float64], slice: int | None, suffix: str, sidecars: str
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    grey = drawn(objects, WIDTH, HEIGHT).max(0)  # OpenCV 5.0 reads the first band of a JP2 for all three
    path = write_raster(folder / f"a.{suffix}", np.stack([grey] * 3), **FORMATS[suffix])
    (folder / f"a.{suffix}.aux.xml").unlink(missing_ok=True)
    esri = UTM.to_wkt(morph_to_esri_dialect=True)
    texts = {
        "world+prj": {f"a.{WORLD_SUFFIX[suffix]}": WORLD, "a.prj": esri},
        "WORLD+PRJ": {f"a.{WORLD_SUFFIX[suffix].upper()}": WORLD, "a.PRJ": UTM.to_wkt()},
        "wld+prj": {"a.wld": WORLD, "a.prj": esri},
        "world+aux": {f"a.{WORLD_SUFFIX[suffix]}": WORLD, f"a.{suffix}.aux.xml": pam(SRS)},
        "aux": {f"a.{suffix}.aux.xml": pam(SRS + GEOTRANSFORM)},
    }
    for name, text in texts[sidecars].items():
        (folder / name).write_text(text)
    before = listing(folder)
    bright(source=str(path), slice=slice, formats="geojson,csv,picture" if slice else "geojson")
    assert_on_map(tmp_path / "runs" / "p", objects)
    assert listing(folder) == before


@pytest.mark.parametrize("slice", [200, None])
@pytest.mark.parametrize("driver", ["GTiff", "COG"])
def test_a_georeference_inside_the_file_is_used(
    bright: Go, tmp_path: Path, objects: NDArray[np.float64], slice: int | None, driver: str
) -> None:
    layout = {"driver": "COG", **PLAIN} if driver == "COG" else {}
    path = write_raster(tmp_path / "a.tif", drawn(objects, WIDTH, HEIGHT), crs=UTM, transform=PLACE, **layout)
    bright(source=str(path), slice=slice, formats="geojson")
    assert_on_map(tmp_path / "runs" / "p", objects)


@pytest.mark.parametrize("suffix", ["tif", "png", "jpg"])
def test_nodata_beside_the_image_is_nodata(
    bright: Go, tmp_path: Path, objects: NDArray[np.float64], suffix: str
) -> None:
    pixels = drawn(objects, WIDTH, HEIGHT)
    pixels[:, :, 200:] = 0
    folder = tmp_path / "images"
    folder.mkdir()
    path = write_raster(folder / f"a.{suffix}", pixels, **FORMATS[suffix])
    bands = "".join(f'<PAMRasterBand band="{b}"><NoDataValue>0</NoDataValue></PAMRasterBand>' for b in (1, 2, 3))
    (folder / f"a.{suffix}.aux.xml").write_text(pam(bands))
    before = listing(folder)
    image = bright(source=str(path), slice=100, overlap=0.0).images[0]
    assert image.empty >= 4 * 2
    assert listing(folder) == before


@pytest.mark.parametrize("slice", [200, None])
@pytest.mark.parametrize("suffix", ["jpg", "tif", "png"])
def test_a_turned_photo_on_a_map_lies_where_its_stored_pixels_lie(
    bright: Go, tmp_path: Path, objects: NDArray[np.float64], slice: int | None, suffix: str
) -> None:
    picture = Image.fromarray(drawn(objects, WIDTH, HEIGHT).transpose(1, 2, 0))
    exif = picture.getexif()
    exif[0x0112] = 6
    picture.save(tmp_path / f"a.{suffix}", quality=95, exif=exif)
    (tmp_path / f"a.{WORLD_SUFFIX[suffix]}").write_text(WORLD)
    (tmp_path / "a.prj").write_text(UTM.to_wkt())
    bright(source=str(tmp_path / f"a.{suffix}"), slice=slice, formats="geojson")
    assert_on_map(tmp_path / "runs" / "p", objects)


def pixels_with_reason(bright: Go, path: Path, slice: int | None) -> str:
    """Predict, and return why the GeoJSON is in pixels."""
    predicted = bright(source=str(path), slice=slice, formats="geojson")
    geojson = json.loads((predicted.folder / f"{path.stem}.geojson").read_text())
    assert geojson["coordinate_space"].startswith("pixels")
    assert np.array(geojson["features"][0]["geometry"]["coordinates"][0]).max() <= max(WIDTH, HEIGHT)
    return str(geojson["coordinate_space"])


@pytest.mark.parametrize("slice", [200, None])
@pytest.mark.parametrize("suffix", ["tif", "png"])
def test_control_points_are_named_with_the_command_that_warps_them(
    bright: Go, tmp_path: Path, objects: NDArray[np.float64], slice: int | None, suffix: str,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    corners = [(0, 0), (0, WIDTH), (HEIGHT, 0), (HEIGHT, WIDTH)]
    points = [GroundControlPoint(r, c, 500000 + 0.3 * c, 5300000 - 0.3 * r) for r, c in corners]
    assert from_gcps(points).a == pytest.approx(0.3)
    path = write_raster(tmp_path / f"a.{suffix}", drawn(objects, WIDTH, HEIGHT), **FORMATS[suffix])
    with rasterio.open(path, "r+") as data:
        data.gcps = points, UTM
    assert "control points" in pixels_with_reason(bright, path, slice)
    assert "gdalwarp" in caplog.text
    assert f"{tmp_path / 'a-warped.tif'}" in caplog.text
    assert len(caplog.records) == 1


def test_rational_polynomials_are_named_with_the_command_that_warps_them(
    bright: Go, tmp_path: Path, objects: NDArray[np.float64], caplog: pytest.LogCaptureFixture
) -> None:
    ones = " ".join(["1"] + ["0"] * 19)
    rpcs = {"ERR_BIAS": "1", "ERR_RAND": "0", "HEIGHT_OFF": "0", "HEIGHT_SCALE": "500", "LAT_OFF": "50",
            "LAT_SCALE": "1", "LINE_DEN_COEFF": ones, "LINE_NUM_COEFF": ones, "LINE_OFF": "9", "LINE_SCALE": "9",
            "LONG_OFF": "9", "LONG_SCALE": "1", "SAMP_DEN_COEFF": ones, "SAMP_NUM_COEFF": ones, "SAMP_OFF": "9",
            "SAMP_SCALE": "9"}  # fmt: skip
    path = write_raster(tmp_path / "a.tif", drawn(objects, WIDTH, HEIGHT))
    with rasterio.open(path, "r+") as data:
        data.update_tags(ns="RPC", **rpcs)
    assert "rational polynomial" in pixels_with_reason(bright, path, 200)
    assert "gdalwarp -rpc" in caplog.text


@pytest.mark.parametrize("slice", [200, None])
@pytest.mark.parametrize(
    ("prj", "reason"), [(None, r"no reference system.*a\.prj"), ("nonsense", r"a\.prj.*cannot be read")]
)
def test_a_transform_without_a_reference_system_is_named(
    bright: Go, tmp_path: Path, objects: NDArray[np.float64], slice: int | None, prj: str | None, reason: str,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    path = write_raster(tmp_path / "a.png", drawn(objects, WIDTH, HEIGHT), **FORMATS["png"])
    (tmp_path / "a.pgw").write_text(WORLD)
    if prj:
        (tmp_path / "a.prj").write_text(prj)
    pixels_with_reason(bright, path, slice)
    assert re.search(reason, caplog.text)
    assert len(caplog.records) == 1


@pytest.mark.parametrize("slice", [200, None])
def test_an_image_without_georeference_needs_no_warning(
    bright: Go, tmp_path: Path, objects: NDArray[np.float64], slice: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_raster(tmp_path / "a.png", drawn(objects, WIDTH, HEIGHT), **FORMATS["png"])
    assert "carries no georeference" in pixels_with_reason(bright, path, slice)
    assert not caplog.records


def test_a_sidecar_needs_rasterio_and_a_bare_photo_does_not(
    bright: Go, tmp_path: Path, objects: NDArray[np.float64], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_raster(tmp_path / "a.png", drawn(objects, WIDTH, HEIGHT), **FORMATS["png"])
    monkeypatch.setitem(sys.modules, "rasterio", None)
    assert "carries no georeference" in pixels_with_reason(bright, path, None)
    (tmp_path / "a.pgw").write_text(WORLD)
    with pytest.raises(BadUseError, match=r"of an image with a world file or \.aux\.xml needs rasterio"):
        bright(source=str(path), slice=None, formats="geojson")
