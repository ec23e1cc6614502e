"""Images of other than 8 bits and of many bands: stretched as `predict slice=` does, or refused with the reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from ultralytics.data.split_dota import crop_and_save, get_windows

from ds2d2_yolo.bridge.data.image_format import image_format
from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.prepare import prepare
from tests.helpers.published import dota, dota_line, draw, tree, write

LINE = dota_line(40, 30, 30, 20)
DOTA = {"train/P1": LINE, "val/P2": LINE}
TILES = {"crop_size": 128, "gap": 32}


def eleven_bits(width: int = 300, height: int = 200, bands: int = 3) -> NDArray[np.float64]:
    """Return smooth bands of values from 100 to 2000, (H, W, bands)."""
    rows, columns = np.mgrid[:height, :width]
    waves = [np.sin(rows / (17 + 5 * b)) + np.cos(columns / (23 - 4 * b)) for b in range(bands)]
    return np.asarray(np.rint(1050 + 475 * np.dstack(waves)))


def write_tiff(file: Path, bands: NDArray[Any], **keys: Any) -> Path:
    """Write bands (C, H, W) as a GeoTIFF."""
    rasterio = pytest.importorskip("rasterio")
    count, height, width = bands.shape
    profile = {"driver": "GTiff", "count": count, "height": height, "width": width, "dtype": bands.dtype, **keys}
    with rasterio.open(file, "w", **profile) as opened:
        opened.write(bands)
    return file


def replace_images(source: Path, pixels: NDArray[Any], suffix: str = ".tif") -> Path:
    """Write the same pixels (H, W, C) in the place of every image of a data set."""
    for image in source.rglob("*.png"):
        image.unlink()
        assert cv2.imwrite(str(image.with_suffix(suffix)), pixels)
    return source


@pytest.mark.filterwarnings("ignore:Dataset has no geotransform")
@pytest.mark.parametrize(
    ("dtype", "suffix", "bands"),
    [
        ("uint16", ".tif", 3),
        ("uint16", ".png", 3),
        ("uint16", ".tif", 1),
        ("float32", ".tif", 3),
        ("float64", ".tif", 1),
    ],
)
def test_tiles_are_those_that_predict_detects_in(dtype: str, suffix: str, bands: int, tmp_path: Path) -> None:
    pytest.importorskip("rasterio")
    from ds2d2_yolo.predict.options import PredictOptions
    from ds2d2_yolo.predict.rasters.reading import open_scene

    pixels = eleven_bits(bands=bands).astype(dtype)
    source = replace_images(dota(tmp_path / "DOTA", DOTA), pixels, suffix)
    made = prepare("dota", source=source, out=tmp_path / "out", **TILES)
    assert f"stretched to 8 bits, {dtype}: 2 (each band from its percentiles 2 to 98)" in str(made)
    tiles = sorted((tmp_path / "out" / "images" / "train").iterdir())
    assert len(tiles) == 6
    with open_scene(source / "train" / "images" / f"P1{suffix}", 3, PredictOptions()) as scene:
        for tile in tiles:
            side, x, y = (int(v) for v in tile.stem.replace("___", "__").split("__")[1:])
            expected = scene.tile((x, y, min(x + side, 300), min(y + side, 200)))
            assert expected is not None
            image = cv2.imread(str(tile))
            assert image.shape == expected.shape
            assert np.abs(image.astype(int) - expected).mean() < 3, "JPEG changes little"
            assert len(np.unique(image)) > 100


@pytest.mark.parametrize(("suffix", "nodata"), [(".tif", 0), (".tif", 65535)])
def test_nodata_neither_counts_nor_shines(suffix: str, nodata: int, tmp_path: Path) -> None:
    bands = eleven_bits().transpose(2, 0, 1).astype("uint16")
    source = dota(tmp_path / "DOTA", DOTA)
    for image in source.rglob("*.png"):
        image.unlink()
        bands[:, :, 150:] = nodata
        write_tiff(image.with_suffix(suffix), bands, photometric="RGB", nodata=nodata)
    prepare("dota", source=source, out=tmp_path / "out", crop_size=512)
    tile = cv2.imread(str(next((tmp_path / "out" / "images" / "train").iterdir())))
    assert tile[:, 160:].max() < 8
    assert np.ptp(tile[:, :140]) > 240


def test_eight_bits_are_the_bytes_of_ultralytics(tmp_path: Path) -> None:
    source = dota(tmp_path / "DOTA", DOTA)
    made = prepare("dota", source=source, out=tmp_path / "out", **TILES)
    assert "stretched" not in str(made)
    windows = get_windows((200, 300), (128,), (32,))
    (tmp_path / "theirs").mkdir()
    image, empty = source / "train" / "images" / "P1.png", [np.zeros((0, 9))] * len(windows)
    crop_and_save({"filepath": str(image)}, windows, empty, str(tmp_path / "theirs"), str(tmp_path / "theirs"))
    assert tree(tmp_path / "out" / "images" / "train") == tree(tmp_path / "theirs")


@pytest.mark.parametrize("suffix", [".tif", ".png"])
def test_images_without_tiling_become_eight_bits_too(suffix: str, tmp_path: Path) -> None:
    source = tmp_path / "layout"
    for split in ("train", "val"):
        (source / "images" / split).mkdir(parents=True)
        assert cv2.imwrite(str(source / "images" / split / f"a{suffix}"), eleven_bits().astype("uint16"))
        draw(source / "images" / split / "b.png", 80, 60)
        write(source / "labels" / split / "a.txt", "0 0.5 0.5 0.2 0.2\n")
    write(source / "data.yaml", "names: [car]\n")
    made = prepare("hit-uav", source=source, out=tmp_path / "out")
    assert "stretched to 8 bits, uint16: 2 (" in str(made)
    assert sorted(f.name for f in (tmp_path / "out" / "images" / "train").iterdir()) == ["a.png", "b.png"]
    image = cv2.imread(str(tmp_path / "out" / "images" / "train" / "a.png"), cv2.IMREAD_UNCHANGED)
    assert (image.dtype, image.shape, int(np.ptp(image))) == (np.uint8, (200, 300, 3), 255)
    journal = [line for line in (tmp_path / "out" / "prepared.jsonl").read_text().splitlines() if '"uint16"' in line]
    assert len(journal) == 2
    assert str(prepare("hit-uav", source=source, out=tmp_path / "out")) == str(made), "said again when all is there"


def test_tiles_of_an_earlier_version_that_cut_bits_off_are_made_again(tmp_path: Path) -> None:
    source = replace_images(dota(tmp_path / "DOTA", DOTA), eleven_bits().astype("uint16"))
    prepare("dota", source=source, out=tmp_path / "out")
    fresh = tree(tmp_path / "out")
    journal = tmp_path / "out" / "prepared.jsonl"
    journal.write_text(journal.read_text().replace(', "stretched": "uint16"', ""))
    tile = next((tmp_path / "out" / "images" / "train").iterdir())
    draw(tile, 300, 200)
    assert "uint16: 2 (" in str(prepare("dota", source=source, out=tmp_path / "out"))
    assert tree(tmp_path / "out") == fresh


@pytest.mark.parametrize(
    ("count", "dtype", "keys", "reason"),
    [
        (
            5,
            "uint8",
            {},
            "has 5 bands side by side: Ultralytics reads up to 4, and more channels as pages of a TIFF",
        ),
        (5, "uint8", {"photometric": "RGB"}, "has 5 bands side by side"),
        (5, "uint8", {"BIGTIFF": "YES"}, "has 5 bands side by side"),
        (6, "float32", {}, "has 6 bands side by side"),
        (2, "float32", {}, "does not read 2 bands of float32"),
        (2, "uint16", {}, "does not read 2 bands of uint16"),
        (3, "complex64", {}, "does not read 3 bands of complex64"),
        (
            3,
            "uint16",
            {"interleave": "band"},
            "which OpenCV misreads: rewrite it with gdal_translate -co INTERLEAVE",
        ),
    ],
)
def test_what_cannot_be_read_says_why(
    count: int, dtype: str, keys: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    source = dota(tmp_path / "DOTA", DOTA)
    (source / "train" / "images" / "P1.png").unlink()
    bands = eleven_bits(bands=count).transpose(2, 0, 1) / (10 if dtype == "uint8" else 1)
    write_tiff(source / "train" / "images" / "P1.tif", bands.astype(dtype), **keys)
    with pytest.raises(DS2D2Error) as caught:
        prepare("dota", source=source, out=tmp_path / "out")
    assert reason in str(caught.value)
    assert "P1.tif" in str(caught.value)
    assert "pi_heif" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_damaged_image_of_sixteen_bits_is_broken(tmp_path: Path) -> None:
    source = replace_images(dota(tmp_path / "DOTA", DOTA), eleven_bits().astype("uint16"))
    image = source / "train" / "images" / "P1.tif"
    image.write_bytes(image.read_bytes()[: image.stat().st_size // 2])
    with pytest.raises(DS2D2Error, match=r"1 of 2 images are broken.*P1\.tif "):
        prepare("dota", source=source, out=tmp_path / "out")


@pytest.mark.parametrize(
    "content", [b"", b"II*\0", b"II*\0\xff\xff\xff\xff", b"MM\0*" + bytes(40), b"II+\0" + bytes(9)]
)
def test_damaged_headers_have_no_format(content: bytes, tmp_path: Path) -> None:
    assert image_format(write(tmp_path / "a.tif", content)) is None


def test_pages_are_told_from_overviews(tmp_path: Path) -> None:
    pages = [eleven_bits(bands=1).astype("uint16") for _ in range(5)]
    assert cv2.imwritemulti(str(tmp_path / "pages.tif"), pages)
    layout = image_format(tmp_path / "pages.tif")
    assert layout is not None
    assert (layout.bands, layout.dtype, layout.pages) == (1, np.uint16, True)
    rasterio = pytest.importorskip("rasterio")
    file = write_tiff(tmp_path / "overviews.tif", eleven_bits().transpose(2, 0, 1).astype("uint16"), photometric="RGB")
    with rasterio.open(file, "r+") as opened:
        opened.build_overviews([2])
    layout = image_format(file)
    assert layout is not None
    assert (layout.bands, layout.pages) == (3, False)
