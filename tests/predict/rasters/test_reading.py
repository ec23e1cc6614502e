"""Reading windows: bands, stretch, palettes, masks, orientation, memory, damage."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from PIL import Image, ImageOps, PngImagePlugin, TiffImagePlugin
from ultralytics.utils.patches import imread

from ds2d2_yolo.errors import BadUseError, DS2D2Error
from ds2d2_yolo.predict.options import PredictOptions
from ds2d2_yolo.predict.rasters.reading import open_scene
from tests.helpers.rasters import write_raster

RNG = np.random.default_rng(0)
FULL = (0, 0, 90, 70)
PLAIN = {"driver": "PNG", "tiled": None, "blockxsize": None, "blockysize": None, "compress": None}


def tile(path: Path, window: tuple[int, int, int, int] = FULL, channels: int = 3, **keys: Any) -> NDArray[np.uint8]:
    with open_scene(path, channels, PredictOptions(slice=64, **keys)) as scene:
        pixels = scene.tile(window)
    assert pixels is not None
    return pixels


def noise(bands: int, dtype: Any = np.uint8, high: int = 256) -> NDArray[Any]:
    return RNG.integers(0, high, (bands, 70, 90)).astype(dtype)


def test_a_window_is_bgr_of_the_place(tmp_path: Path) -> None:
    pixels = noise(3)
    path = write_raster(tmp_path / "a.tif", pixels)
    np.testing.assert_array_equal(tile(path, (10, 20, 50, 40)), pixels[::-1, 20:40, 10:50].transpose(1, 2, 0))


@pytest.mark.parametrize("bands", [1, 4, 5])
def test_default_bands(tmp_path: Path, bands: int) -> None:
    pixels = noise(bands)
    path = write_raster(tmp_path / "a.tif", pixels, photometric="MINISBLACK")
    expected = pixels[[0, 0, 0]] if bands == 1 else pixels[[2, 1, 0]]
    np.testing.assert_array_equal(tile(path), expected.transpose(1, 2, 0))


def test_bands_that_are_called_red_green_and_blue_come_first(tmp_path: Path) -> None:
    import rasterio
    from rasterio.enums import ColorInterp

    pixels = noise(4)
    path = write_raster(tmp_path / "a.tif", pixels, photometric="MINISBLACK")
    with rasterio.open(path, "r+") as data:
        data.colorinterp = [ColorInterp.blue, ColorInterp.green, ColorInterp.red, ColorInterp.undefined]
    np.testing.assert_array_equal(tile(path), pixels[[0, 1, 2]].transpose(1, 2, 0))


def test_named_bands(tmp_path: Path) -> None:
    pixels = noise(5)
    path = write_raster(tmp_path / "a.tif", pixels, photometric="MINISBLACK")
    np.testing.assert_array_equal(tile(path, bands=[5, 3, 1]), pixels[[0, 2, 4]].transpose(1, 2, 0))
    np.testing.assert_array_equal(tile(path, bands=[4])[..., 0], pixels[3])
    np.testing.assert_array_equal(tile(path, channels=5), pixels.transpose(1, 2, 0))  # more than 3: as stored
    np.testing.assert_array_equal(tile(path, channels=1, bands=[2]), pixels[1][..., None])
    with pytest.raises(BadUseError, match="has 5 bands, the model takes 4"):
        tile(path, channels=4)


def test_16_bits_are_stretched_between_percentiles_of_each_band(tmp_path: Path) -> None:
    ramp = np.linspace(1000, 3000, 70 * 90).reshape(70, 90)
    pixels = np.stack([ramp, ramp * 2, ramp * 3]).astype(np.uint16)
    path = write_raster(tmp_path / "a.tif", pixels)
    got = tile(path).astype(float)
    low, high = np.percentile(ramp, [2, 98])
    expected = ((ramp - low) / (high - low) * 255).clip(0, 255)
    for band in range(3):
        np.testing.assert_allclose(got[..., band], expected, atol=1)
    np.testing.assert_allclose(tile(path, stretch=[0, 100])[..., 2], (ramp - 1000) / 2000 * 255, atol=1)
    np.testing.assert_allclose(tile(path, stretch="none")[..., 2], ramp / 65535 * 255, atol=1)
    left, right = tile(path, (0, 0, 45, 70)), tile(path, (45, 0, 90, 70))  # every tile by the same values
    np.testing.assert_array_equal(np.concatenate([left, right], 1), tile(path))


def test_8_bits_stay_unless_asked(tmp_path: Path) -> None:
    pixels = noise(3, high=100)
    path = write_raster(tmp_path / "a.tif", pixels)
    assert tile(path).max() < 100
    assert tile(path, stretch=[1, 99]).max() == 255


def test_floats_with_holes(tmp_path: Path) -> None:
    pixels = RNG.normal(5, 1, (1, 70, 90)).astype(np.float32)
    pixels[0, :10] = np.nan
    pixels[0, 10:20] = -9999
    path = write_raster(tmp_path / "a.tif", pixels, nodata=-9999)
    got = tile(path)
    assert (got[:20] == 0).all()
    assert 100 < got[20:].mean() < 155
    with open_scene(path, 3, PredictOptions(slice=64)) as scene:
        assert scene.tile((0, 12, 90, 18)) is None


def test_a_palette_becomes_its_colours(tmp_path: Path) -> None:
    index = noise(1, high=4)[0]
    picture = Image.fromarray(index, "P")
    picture.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 8, 7])
    picture.save(tmp_path / "a.png")
    colours = np.array([[0, 0, 255], [0, 255, 0], [255, 0, 0], [7, 8, 9]])
    np.testing.assert_array_equal(tile(tmp_path / "a.png"), colours[index])


def test_transparent_pixels_are_no_data(tmp_path: Path) -> None:
    pixels = noise(4)
    pixels[3] = 255
    pixels[3, :, :30] = 0
    path = write_raster(tmp_path / "a.png", pixels, **PLAIN)
    got = tile(path)
    assert (got[:, :30] == 0).all()
    np.testing.assert_array_equal(got[:, 30:], pixels[2::-1, :, 30:].transpose(1, 2, 0))
    with open_scene(path, 3, PredictOptions(slice=64)) as scene:
        assert scene.tile((0, 0, 30, 70)) is None


def test_four_bands_come_as_ultralytics_reads_them_for_training(tmp_path: Path) -> None:
    pixels = noise(4)
    path = write_raster(tmp_path / "a.tif", pixels, photometric="RGB")
    for channels in (4, 3):
        flag = cv2.IMREAD_UNCHANGED if channels == 4 else cv2.IMREAD_COLOR
        np.testing.assert_array_equal(tile(path, channels=channels), imread(str(path), flag))
    np.testing.assert_array_equal(tile(path, channels=4), pixels[[2, 1, 0, 3]].transpose(1, 2, 0))
    np.testing.assert_array_equal(tile(path, channels=4, bands=[1, 2, 3, 4]), pixels.transpose(1, 2, 0))


def test_a_fourth_band_that_is_read_hides_no_pixels(tmp_path: Path) -> None:
    """GDAL calls it alpha unless told otherwise; in near infrared, water is 0."""
    pixels = noise(4)
    pixels[3, :40] = 0
    path = write_raster(tmp_path / "a.tif", pixels)
    np.testing.assert_array_equal(tile(path, channels=4), pixels[[2, 1, 0, 3]].transpose(1, 2, 0))
    np.testing.assert_array_equal(tile(path, (0, 0, 90, 40), bands=[4, 1, 2])[..., 2], pixels[3, :40])
    assert not tile(path)[:40].any(), "left out, it is the file's mask"
    holes = write_raster(tmp_path / "b.tif", pixels, nodata=0)
    with open_scene(holes, 4, PredictOptions(slice=64)) as scene:
        scene.tile(FULL)
        assert scene._mask, "nodata stays nodata"


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_is_turned_as_pillow_turns_it(tmp_path: Path, suffix: str, orientation: int) -> None:
    smooth = Image.fromarray(RNG.integers(0, 256, (3, 4, 3)).astype(np.uint8))
    picture = smooth.resize((90, 70), Image.Resampling.BICUBIC)
    exif = picture.getexif()
    exif[0x0112] = orientation
    picture.save(tmp_path / f"a.{suffix}", quality=95, exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / f"a.{suffix}")).convert("RGB")).astype(int)
    got = tile(tmp_path / f"a.{suffix}", (0, 0, expected.shape[1], expected.shape[0]))[..., ::-1]
    assert got.shape == expected.shape
    assert abs(got - expected).mean() < 3
    part = tile(tmp_path / f"a.{suffix}", (10, 20, 50, 65))[..., ::-1]
    np.testing.assert_array_equal(part, got[20:65, 10:50])


def test_a_picture_is_not_decoded_to_find_how_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_raster(tmp_path / "a.png", noise(3), **PLAIN)
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", lambda self: pytest.fail("decoded"))
    with open_scene(path, 3, PredictOptions(slice=64)) as scene:
        assert (scene.width, scene.height) == (90, 70)


@pytest.mark.parametrize("exif", [b"MM\0*", b"Exif\0\0", b"nonsense", b"MM\0*\0\0\0\x08\xff"])
def test_a_broken_exif_block_turns_nothing(tmp_path: Path, exif: bytes) -> None:
    pixels = noise(3)
    Image.fromarray(pixels.transpose(1, 2, 0)).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(tile(tmp_path / "a.png"), pixels[::-1].transpose(1, 2, 0))


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_a_turned_png_lies_as_ultralytics_reads_it(tmp_path: Path, mode: str) -> None:
    pixels = noise(len(mode))
    pixels[3:] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels.transpose(1, 2, 0)).save(tmp_path / "a.png", exif=exif)
    expected = imread(str(tmp_path / "a.png"), cv2.IMREAD_COLOR if mode == "RGB" else cv2.IMREAD_UNCHANGED)
    got = tile(tmp_path / "a.png", (0, 0, expected.shape[1], expected.shape[0]), channels=len(mode))
    np.testing.assert_array_equal(got, expected)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_an_image_on_a_map_stays_as_it_is_stored(tmp_path: Path) -> None:
    pixels = noise(3)
    path = write_raster(tmp_path / "a.tif", pixels, crs="EPSG:32633")
    with Image.open(path) as picture:
        assert picture.tag_v2.get(0x0112, 1) == 1
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[0x0112] = 6
    Image.fromarray(pixels.transpose(1, 2, 0)).save(tmp_path / "b.tif", tiffinfo=tags)
    with rasterio.open(tmp_path / "b.tif", "r+") as data:
        assert tile(tmp_path / "b.tif", (0, 0, 70, 90)).shape == (90, 70, 3)
        data.crs, data.transform = "EPSG:32633", rasterio.transform.from_origin(4e5, 5.7e6, 0.3, 0.3)
    np.testing.assert_array_equal(tile(tmp_path / "b.tif"), tile(path))


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_values_of_few_bits_become_8(tmp_path: Path, bits: int) -> None:
    pixels = noise(1, high=2**bits)
    path = write_raster(tmp_path / "a.tif", pixels, nbits=bits, photometric="MINISBLACK")
    np.testing.assert_array_equal(tile(path)[..., 0], pixels[0] * (255 // (2**bits - 1)))
    if bits == 1:
        Image.fromarray(pixels[0] > 0).save(tmp_path / "a.png")
        np.testing.assert_array_equal(tile(tmp_path / "a.png"), cv2.imread(str(tmp_path / "a.png")))


def test_pages_are_refused_with_what_to_do(tmp_path: Path) -> None:
    pages = [Image.fromarray(p) for p in noise(4)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(BadUseError, match="holds 4 pages, of which slice= reads the first: write them as the bands"):
        tile(tmp_path / "a.tif", channels=4)


def test_what_does_not_fit_the_memory_is_refused_with_the_number_that_does(tmp_path: Path) -> None:
    big = write_raster(tmp_path / "a.png", np.zeros((3, 4000, 5000), np.uint8), **PLAIN)
    with pytest.raises(BadUseError, match=r"needs 57 MiB decoded whole.*give memory=0\.1 or more") as caught:
        tile(big, memory=0.03)
    assert "\n" not in str(caught.value)
    assert tile(big, memory=0.1).shape == (70, 90, 3)
    coarse = write_raster(tmp_path / "a.tif", np.zeros((3, 4000, 5000), np.uint8), blockxsize=4096, blockysize=4096)
    with pytest.raises(BadUseError, match="needs 48 MiB read in its blocks of 4096 x 4096 px"):
        tile(coarse, memory=0.05)


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp"])
def test_a_file_that_ends_early_is_said_to(tmp_path: Path, suffix: str) -> None:
    stream = io.BytesIO()
    picture = Image.fromarray(noise(3).transpose(1, 2, 0))
    picture.save(stream, {"jpg": "JPEG"}.get(suffix, suffix.upper()))
    (tmp_path / f"a.{suffix}").write_bytes(stream.getvalue()[: len(stream.getvalue()) // 2])
    with pytest.raises(DS2D2Error, match=r"cut off or damaged|cannot be read") as caught:
        tile(tmp_path / f"a.{suffix}")
    assert "\n" not in str(caught.value)


def test_jpeg_2000_is_read_in_windows(tmp_path: Path) -> None:
    layout = {**PLAIN, "driver": "JP2OpenJPEG", "QUALITY": "100", "REVERSIBLE": "YES"}
    pixels = noise(3)
    path = write_raster(tmp_path / "a.jp2", pixels, **layout)
    with open_scene(path, 3, PredictOptions(slice=64)) as scene:
        assert scene.windowed
    np.testing.assert_array_equal(tile(path, (10, 20, 50, 40)), pixels[::-1, 20:40, 10:50].transpose(1, 2, 0))


def test_a_small_picture(tmp_path: Path) -> None:
    pixels = np.zeros((3, 300, 900), np.uint8)
    pixels[0, :150] = 200
    path = write_raster(tmp_path / "a.tif", pixels)
    with open_scene(path, 3, PredictOptions(slice=64)) as scene:
        small = scene.thumbnail(90)
    assert small.shape == (30, 90, 3)
    assert (small[:15, :, 2] == 200).all()
    assert not small[15:].any()
