"""What is refused of labels and images before anything is trained: every file of every split counts."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from ultralytics.data.utils import check_det_dataset

from ds2d2_yolo.bridge.data import image_checks
from ds2d2_yolo.bridge.data.image_checks import refuse_other_bands
from ds2d2_yolo.bridge.data.images import take_fraction
from ds2d2_yolo.bridge.data.label_checks import check_labels, refuse_upright
from ds2d2_yolo.errors import BadUseError
from tests.helpers.data import write_bands

UPRIGHT = "0 0.5 0.5 0.2 0.2\n"
ORIENTED = "0 0.1 0.1 0.2 0.1 0.2 0.2 0.1 0.2\n"


def label(data: dict[str, Any], split: str, number: int) -> Path:
    return Path(data[split]).parents[1] / "labels" / Path(data[split]).name / f"{number}.txt"


def images(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


@pytest.mark.parametrize("split", ["train", "val"])
def test_one_upright_label_file_among_many(data: dict[str, Any], split: str) -> None:
    label(data, split, 5).write_text(UPRIGHT)
    with pytest.raises(BadUseError, match=r"labels have 5 columns .* in 1 of 8 label files, such as .*5\.txt: use obb"):
        check_labels(data, "obb")
    check_labels(data, "detect")


def test_only_the_images_that_a_run_takes_count(data: dict[str, Any]) -> None:
    label(data, "train", 7).write_text(UPRIGHT)
    check_labels(data, "obb", fraction=0.5)
    check_labels(data, "obb", fraction=3)
    with pytest.raises(BadUseError, match="labels have 5 columns"):
        check_labels(data, "obb")
    label(data, "val", 7).write_text(UPRIGHT)
    check_labels(data, "obb", fraction=[0.5, 0.5])
    with pytest.raises(BadUseError, match="labels have 5 columns"):
        check_labels(data, "obb", fraction=[0.5, 1.0])
    check_labels(data, "obb", split="test", fraction=0.5)  # there is none
    assert take_fraction([Path("a"), Path("b")], 0.1) == [Path("a")]


def test_the_split_that_is_validated_is_checked(data: dict[str, Any]) -> None:
    label(data, "val", 0).write_text(UPRIGHT)
    with pytest.raises(BadUseError, match="labels have 5 columns"):
        check_labels({**data, "test": data["val"], "val": data["train"]}, "obb", split="test")
    check_labels(data, "obb", split="train")
    with pytest.raises(BadUseError, match="no test images in"):
        check_labels({**data, "test": str(Path(data["val"]).parent / "none")}, "obb", split="test")


@pytest.mark.parametrize(
    "text", ["", "\n\n", ORIENTED + UPRIGHT, "0 0.5 0.5\n", "a ship with two masts on the way to sea\n"]
)
def test_files_that_ultralytics_leaves_out_are_left_to_it(data: dict[str, Any], text: str) -> None:
    label(data, "train", 2).write_text(text)
    label(data, "train", 3).write_bytes(b"\xff\xfe\x00\x01")
    label(data, "train", 4).unlink()
    check_labels(data, "obb")


def test_classes_beyond_a_data_yaml_of_one_class(data: dict[str, Any]) -> None:
    for split in ("train", "val"):
        for number in range(8):
            label(data, split, number).write_text(ORIENTED.replace("0 0", "1 0", 1))
    with pytest.raises(BadUseError, match=r"none of the 8 images .* Label class 1 exceeds dataset class count 1"):
        check_labels({**data, "names": {0: "ship"}, "nc": 1}, "obb")
    check_labels({**data, "names": {0: "item"}, "nc": 1, "single_cls": True}, "obb")


def test_images_that_a_list_names_and_that_are_not_there(data: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("0.png\n1.png\n")
    with pytest.raises(BadUseError, match=r"none of the 2 training images is there, such as 0\.png: name them"):
        check_labels({**data, "train": str(tmp_path / "train.txt")}, "obb")


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize(("suffix", "bands"), [(".png", 3), (".png", 1), (".jpg", 3), (".tif", 3), (".bmp", 3)])
def test_bands_of_each_split_fit_the_data_yaml(tmp_path: Path, split: str, suffix: str, bands: int) -> None:
    data = dict(check_det_dataset(write_bands(tmp_path / "bands", 4)))
    check_labels(data, "obb")
    for image in images(Path(data[split]))[2:4]:
        pixels = np.zeros((96, 96, bands), np.uint8).squeeze()
        image.unlink()
        assert cv2.imwrite(str(image.with_suffix(suffix)), pixels)
    name = "training" if split == "train" else "validation"
    reason = f"it has {bands} bands? and the data YAML says channels: 4"
    message = f"2 of the 8 {name} images do not fit, such as .*2{suffix}: {reason}"
    with pytest.raises(BadUseError, match=message):
        check_labels(data, "obb")


def test_ultralytics_converts_what_is_no_tiff_to_colour_or_grey(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("grey.png", "alpha.png", "palette.png", "grey.jpg", "cmyk.jpg")]
    for file, mode in zip(files, ("L", "RGBA", "P", "L", "CMYK"), strict=True):
        Image.new(mode, (32, 32)).save(file)
    refuse_other_bands(files, 3, "training")
    refuse_other_bands(files, 1, "training")
    refuse_other_bands([files[1]], 4, "training")
    with pytest.raises(BadUseError, match=r"2 of the 2 .*palette\.png: it has 3 bands"):
        refuse_other_bands([files[2], files[4]], 4, "training")


def test_floats_and_wide_numbers_are_refused_though_they_can_be_opened(tmp_path: Path) -> None:
    grey, floats, wide = (np.zeros((32, 32), t) for t in (np.uint16, np.float32, np.int32))
    for name, pixels in (("grey", grey), ("floats", floats), ("wide", wide)):
        Image.fromarray(pixels).save(tmp_path / f"{name}.tif")
    refuse_other_bands([tmp_path / "grey.tif"], 1, "training")
    for channels in (1, 2, 3):
        with pytest.raises(BadUseError, match=r"floats\.tif: it holds 32-bit floats, Ultralytics takes whole numbers"):
            refuse_other_bands([tmp_path / "floats.tif"], channels, "training")
    with pytest.raises(BadUseError, match=r"wide\.tif: it holds 32-bit numbers, Ultralytics takes 8 or 16 bits"):
        refuse_other_bands([tmp_path / "wide.tif"], 3, "training")


def test_a_cached_array_stands_for_its_image(tmp_path: Path) -> None:
    """As in Ultralytics: an .npy that is not older and has the bands is read in the image's place."""
    image = tmp_path / "a.png"
    Image.new("RGB", (32, 32)).save(image)
    np.save(image.with_suffix(".npy"), np.zeros((32, 32, 5), np.uint8))
    refuse_other_bands([image], 5, "training")
    with pytest.raises(BadUseError, match="it has 3 bands"):
        refuse_other_bands([image], 4, "training")


def test_damaged_images_are_left_to_ultralytics(tmp_path: Path) -> None:
    good = tmp_path / "good.png"
    Image.new("RGBA", (32, 32)).save(good)
    damaged = {
        "cut.png": good.read_bytes()[:50],
        "empty.png": b"",
        "text.tif": b"hello",
        "loop.tif": b"II*\0\x08\0\0\0\0\0\x08\0\0\0",
        "short.tif": b"II*\0\xff\0\0\0",
    }
    for name, content in damaged.items():
        (tmp_path / name).write_bytes(content)
    refuse_other_bands(images(tmp_path), 4, "training")
    refuse_other_bands([*images(tmp_path), tmp_path / "gone.png"], 4, "training")


def test_one_image_of_each_layout_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [tmp_path / f"{i}.png" for i in range(40)]
    for i, file in enumerate(files):
        Image.new("RGBA", (32 + i, 32)).save(file)
    decoded: list[Path] = []
    decode = image_checks.decode_image
    monkeypatch.setattr(
        image_checks, "decode_image", lambda image, channels: decoded.append(image) or decode(image, channels)
    )
    refuse_other_bands(files, 4, "training")
    assert decoded == files[:1]


def test_many_label_files_take_seconds(tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    for i in range(5000):
        (tmp_path / "labels" / f"{i}.txt").write_text(ORIENTED * 10)
    began = time.monotonic()
    refuse_upright([tmp_path / "images" / f"{i}.png" for i in range(5000)], "obb", "an obb student")
    assert time.monotonic() - began < 30, "50,000 files must not take minutes"


@pytest.mark.parametrize(
    ("bands", "dtype", "reason"),
    [
        (5, np.uint8, r"it has 5 bands side by side in one page, above 4 Ultralytics takes a page for each band"),
        (3, np.float32, r"it holds 32-bit floats, Ultralytics takes whole numbers of 8 or 16 bits: scale and convert"),
        (4, np.uint16, r"it has 4 bands of 16 bits side by side in one page, Ultralytics takes those of 8 bits"),
        (1, np.float64, r"it holds 64-bit floats"),
    ],
)
def test_images_that_cannot_be_read_say_why(
    data: dict[str, Any], bands: int, dtype: type, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    for split in ("train", "val"):
        for image in images(Path(data[split])):
            write_tiff(image.with_suffix(".tif"), np.zeros((96, 96, bands), dtype))
            image.unlink()
    with pytest.raises(BadUseError, match=rf"none of the 8 images .* such as .*0\.tif: {reason}"):
        check_labels({**data, "channels": bands}, "obb")
    assert "pi-heif" not in caplog.text


def write_tiff(file: Path, pixels: np.ndarray) -> None:
    """Write an uncompressed TIFF of one page, its bands side by side, which Pillow and OpenCV do not write."""
    height, width, bands = pixels.shape
    kind = {"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]
    bits = pixels.dtype.itemsize * 8
    offset = 8 + 2 + 11 * 12 + 4
    several = bands > 2  # two numbers of 16 bits fit into the tag itself
    tags = [
        (256, 3, 1, width),
        (257, 3, 1, height),
        (258, 3, bands, offset if several else bits),
        (259, 3, 1, 1),
        (262, 3, 1, 1),
        (273, 4, 1, offset + 4 * bands),
        (277, 3, 1, bands),
        (278, 3, 1, height),
        (279, 4, 1, pixels.nbytes),
        (284, 3, 1, 1),
        (339, 3, bands, offset + 2 * bands if several else kind),
    ]
    directory = b"".join(np.array(t[:2], "<u2").tobytes() + np.array(t[2:], "<u4").tobytes() for t in tags)
    arrays = np.array([bits] * bands + [kind] * bands, "<u2").tobytes()
    file.write_bytes(
        b"II*\0\x08\0\0\0" + np.array(len(tags), "<u2").tobytes() + directory + b"\0\0\0\0" + arrays + pixels.tobytes()
    )
