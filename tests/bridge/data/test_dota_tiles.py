"""What is taken from Ultralytics' tiling, and the defects of it that are worked round."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from ultralytics.data.split_dota import crop_and_save, get_window_obj
from ultralytics.data.utils import verify_image_label

from ds2d2_yolo.bridge.data import dota_tiles as tiling
from ds2d2_yolo.bridge.data.dota_tiles import image_size, objects_in, save_tiles, windows_of
from ds2d2_yolo.bridge.data.image_format import UnreadableImageError
from ds2d2_yolo.errors import BadUseError


def picture(file: Path, width: int = 60, height: int = 40) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    rows, columns = np.mgrid[:height, :width]
    pixels = np.dstack([rows / height, columns / width, (rows + columns) / (height + width)]) * 255
    assert cv2.imwrite(str(file), pixels.astype(np.uint8))
    return file


def square(x: float, y: float, side: float) -> np.ndarray:
    return np.array([[x, y], [x + side, y], [x + side, y + side], [x, y + side]], dtype=float)


@pytest.mark.parametrize(("width", "height"), [(1000, 700), (100, 2000), (30, 20), (513, 512), (512, 512)])
@pytest.mark.parametrize("sides", [((512,), (100,)), ((1024, 512, 341), (200, 100, 66))])
def test_windows_cover_every_pixel(width: int, height: int, sides: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    covered = np.zeros((height, width), bool)
    windows = windows_of(width, height, *sides)
    for x1, y1, x2, y2 in windows:
        covered[y1:y2, x1:x2] = True
    assert covered.all()
    assert len(np.unique(windows, axis=0)) == len(windows)


def test_objects_by_the_share_that_a_window_has() -> None:
    windows = np.array([[0, 0, 100, 100], [80, 0, 180, 100]])
    corners = np.array([square(10, 10, 20), square(86, 10, 20), square(300, 10, 20), square(0, 0, 95)])
    before = corners.copy()
    assert objects_in(corners, 400, 100, windows, 0.7) == [[0, 1, 3], [1]]  # 14 of 20 px are the 0.7 that it takes
    assert objects_in(corners, 400, 100, windows, 0.71) == [[0, 3], [1]]
    assert objects_in(np.zeros((0, 4, 2)), 400, 100, windows, 0.7) == [[], []]
    np.testing.assert_array_equal(corners, before)


def test_an_outline_that_crosses_itself_is_placed_by_its_smallest_rectangle() -> None:
    bow_tie = square(10, 10, 20)[[0, 2, 1, 3]]
    windows = np.array([[0, 0, 100, 100], [25, 0, 125, 100]])
    assert objects_in(bow_tie[None], 200, 100, windows, 0.7) == [[0], []]


def test_tiles_hold_their_pixels(tmp_path: Path) -> None:
    image = picture(tmp_path / "P 1.png", 300, 200)
    windows = windows_of(300, 200, (128,), (32,))
    tiles = save_tiles(image, windows, tmp_path)
    assert tiles[0].name == "P 1__128__0___0.jpg"
    pixels = cv2.imread(str(image))
    for tile, (x1, y1, x2, y2) in zip(tiles, windows, strict=True):
        tile_pixels = cv2.imread(str(tile))
        assert tile_pixels.shape == pixels[y1:y2, x1:x2].shape
        assert np.abs(tile_pixels.astype(int) - pixels[y1:y2, x1:x2]).max() <= 6  # a JPEG, quality 95
    assert {f.suffix for f in tmp_path.iterdir()} == {".png", ".jpg"}  # labels are written elsewhere


def test_what_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    image = picture(tmp_path / "P1.png")
    with pytest.raises(OSError, match="could not be written"):
        save_tiles(image, windows_of(60, 40, (32,), (8,)), tmp_path / "missing")
    (tmp_path / "P2.png").write_bytes(b"no image")
    with pytest.raises(UnreadableImageError, match="cannot be decoded"):
        save_tiles(tmp_path / "P2.png", windows_of(60, 40, (32,), (8,)), tmp_path)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".bmp", ".webp"])
def test_sizes_and_files_that_are_cut_off(suffix: str, tmp_path: Path) -> None:
    file = picture(tmp_path / f"a{suffix}")
    assert image_size(file) == (60, 40)
    file.write_bytes(file.read_bytes()[: file.stat().st_size * 2 // 3])
    with pytest.raises(UnreadableImageError, match="is no whole image: "):
        image_size(file)


def test_sizes_of_odd_files(tmp_path: Path) -> None:
    for name, content in (("empty.png", b""), ("text.jpg", b"hello"), ("page.png", b"<html>")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UnreadableImageError, match="is no image"):
            image_size(tmp_path / name)
    with pytest.raises(UnreadableImageError, match="has 60 x 9 px; Ultralytics needs 10"):
        image_size(picture(tmp_path / "flat.png", 60, 9))
    turned = Image.new("RGB", (60, 40))
    exif = turned.getexif()
    exif[274] = 6
    turned.save(tmp_path / "turned.jpg", exif=exif)
    assert image_size(tmp_path / "turned.jpg") == cv2.imread(str(tmp_path / "turned.jpg")).shape[1::-1] == (40, 60)
    padded = picture(tmp_path / "padded.jpg")
    padded.write_bytes(padded.read_bytes() + b"\0\0")  # whole, with something behind its end
    assert image_size(padded) == (60, 40)


def test_an_image_that_pillow_takes_for_a_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = picture(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(Image.DecompressionBombError):
        Image.open(file)
    assert image_size(file) == (60, 40)


def test_shapely_is_asked_for_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "shapely", None)
    with pytest.raises(BadUseError, match=r"pip install 'ds2d2-yolo\[data\]'"):
        tiling.need_shapely()


def test_the_defects_that_are_worked_round_are_still_there(tmp_path: Path) -> None:
    """When this fails, Ultralytics has mended something: see whether the work-round is still needed."""
    image = picture(tmp_path / "P1.png", 128, 128)
    label = np.array([[0, -0.1, 0.2, 1.2, 0.2, 1.2, 0.4, -0.1, 0.4]])
    original_label = label.copy()
    window = np.array([[0, 0, 128, 128]])
    window_objects = get_window_obj({"ori_size": (128, 128), "label": label}, window, 0.7)
    assert not np.array_equal(label, original_label)  # multiplied in place
    crop_and_save({"filepath": str(image)}, window, window_objects, str(tmp_path), str(tmp_path))
    tile = tmp_path / "P1__128__0___0.jpg"
    *_, corrupt, message = verify_image_label((str(tile), str(tile.with_suffix(".txt")), "", False, 15, 0, 0, False))
    assert corrupt == 1  # the whole tile, for one wide label
    assert "ignoring corrupt image/label" in message
