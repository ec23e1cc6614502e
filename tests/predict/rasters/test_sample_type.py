"""Without slice=: images whose values Ultralytics does not read are refused or named before it predicts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from ds2d2_yolo.errors import BadUseError
from ds2d2_yolo.predict.rasters.sample_type import check_ultralytics_reads, sample_type
from ds2d2_yolo.predict.sources import local_images
from tests.helpers.rasters import write_raster

PLAIN = dict.fromkeys(("tiled", "blockxsize", "blockysize", "compress"))
Go = Callable[..., Any]


def raster(folder: Path, dtype: str, driver: str = "GTiff", bands: int = 3, **keys: Any) -> Path:
    pixels = (np.random.default_rng(0).uniform(0, 1, (bands, 64, 64)) * 100).astype(dtype)
    suffix = {"GTiff": "tif", "PNG": "png", "JP2OpenJPEG": "jp2"}[driver]
    return write_raster(folder / f"{dtype}-{bands}.{suffix}", pixels, driver=driver, **PLAIN, **keys)


@pytest.mark.parametrize("layout", [{}, {"BIGTIFF": "YES"}, {"ENDIANNESS": "BIG"}, {"photometric": "MINISBLACK"}])
@pytest.mark.parametrize("bands", [1, 3, 5])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "uint32", "int32", "float32", "float64"])
def test_the_type_of_a_tiff(tmp_path: Path, dtype: str, bands: int, layout: dict[str, str]) -> None:
    assert sample_type(raster(tmp_path, dtype, bands=bands, **layout)) == dtype


@pytest.mark.parametrize("driver", ["PNG", "JP2OpenJPEG"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_the_type_of_a_png_and_a_jp2(tmp_path: Path, dtype: str, driver: str) -> None:
    assert sample_type(raster(tmp_path, dtype, driver)) == dtype


@pytest.mark.parametrize(
    "content", [b"", b"II*\0", b"MM\0*\0\0\0\x08\xff", b"\x89PNG\r\n\x1a\n", b"\0\0\0\x0cjP  ", b"x"]
)
def test_a_header_that_cannot_be_read_has_no_type(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.tif").write_bytes(content)
    assert sample_type(tmp_path / "a.tif") is None
    assert sample_type(tmp_path / "gone.tif") is None


def test_few_bits_and_other_formats_are_fine(tmp_path: Path, bright: Go, caplog: pytest.LogCaptureFixture) -> None:
    images = tmp_path / "images"
    images.mkdir()
    cv2.imwrite(str(images / "a.jpg"), np.zeros((64, 64, 3), np.uint8))
    cv2.imwrite(str(images / "b.bmp"), np.zeros((64, 64, 3), np.uint8))
    Image.fromarray(np.zeros((64, 64), bool)).save(images / "c.png")
    Image.fromarray(np.zeros((64, 64), bool)).save(images / "d.tif")
    assert len(bright(source=str(images), slice=None).images) == 4
    assert not caplog.records


@pytest.mark.parametrize("formats", [None, "geojson", "dota,csv"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int16", "uint32"])
def test_values_that_become_noise_are_refused_before_anything_is_written(
    tmp_path: Path, bright: Go, dtype: str, formats: str | None
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    path = raster(folder, dtype)
    raster(folder, dtype, bands=1)
    raster(folder, "uint8")
    with pytest.raises(BadUseError, match=rf"{dtype}-1\.tif and 1 more: {dtype} values.*give slice=") as caught:
        bright(source=str(folder), slice=None, formats=formats)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "runs").exists()
    assert bright(source=str(path), slice=64, overlap=0.2).images[0].tiles == 1


@pytest.mark.parametrize("driver", ["GTiff", "PNG"])
def test_16_bits_are_named_once(tmp_path: Path, bright: Go, driver: str, caplog: pytest.LogCaptureFixture) -> None:
    path = raster(tmp_path, "uint16", driver)
    assert len(bright(source=str(path), slice=None).images) == 1
    assert [r.levelname for r in caplog.records] == ["WARNING"]
    assert f"{path}: uint16 values, of which Ultralytics keeps the upper byte" in caplog.text
    assert "give slice=" in caplog.text


@pytest.mark.parametrize("source", ["0", "https://example.org/a.tif", "gone.tif", "screen"])
def test_sources_that_are_no_files_are_left_to_ultralytics(source: str) -> None:
    check_ultralytics_reads(local_images(source))
