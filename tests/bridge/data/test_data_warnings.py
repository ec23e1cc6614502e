"""What a training leaves out or mixes up without a word is said before it begins."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from ds2d2_yolo.bridge.data.data_warnings import data_warnings

ROW = "0 0.1 0.1 0.2 0.1 0.2 0.2 0.1 0.2"


def label(data: dict[str, Any], split: str, number: int) -> Path:
    return Path(data[split]).parents[1] / "labels" / Path(data[split]).name / f"{number}.txt"


def test_a_whole_data_set_has_no_warnings(data: dict[str, Any]) -> None:
    label(data, "train", 0).unlink()  # background
    label(data, "train", 1).write_text("")
    label(data, "train", 2).write_text(ROW.replace("0 0.1", "0.000e+00 0.1"), encoding="utf-8-sig")
    assert data_warnings(data) == []


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (ROW.replace("0 0", "11 0", 1), "Label class 11 exceeds dataset class count"),  # VisDrone's 'others'
        ("-" + ROW.replace("0 0", "1 0", 1), "negative label values"),  # xView's classes without a name
        (ROW.replace("0.2", "1.37"), "non-normalized or out of bounds coordinates"),
        (ROW.replace(" ", ","), "could not convert string to float"),
        (ROW.replace("0.2", "nan"), "coordinates"),
        (ROW.replace(" ", " " * 9 + "x" * 900), "could not convert string to float"),
    ],
)
def test_label_files_that_are_left_out(data: dict[str, Any], split: str, text: str, reason: str) -> None:
    label(data, split, 5).write_text(text)
    label(data, split, 6).write_bytes(ROW.encode("utf-16"))
    (warning,) = data_warnings(data)
    name = {"train": "training", "val": "validation"}[split]
    assert warning.startswith(f"2 of the 8 {name} images are left out, such as {Path(data[split]) / '5'}")
    assert reason in warning
    assert "\n" not in warning
    assert len(warning) < 500


def test_only_what_the_run_takes_counts(data: dict[str, Any]) -> None:
    label(data, "train", 7).write_text(ROW.replace("0 0", "11 0", 1))
    assert data_warnings(data, fraction=0.5) == []
    assert data_warnings({**data, "nc": 1, "single_cls": True}) == []
    assert len(data_warnings(data)) == 1
    assert len(data_warnings(data, split="train")) == 1
    assert data_warnings({**data, "train": data["val"], "test": None}, split="test") == []


@pytest.mark.parametrize(
    ("name", "write", "reason"),
    [
        ("small.png", lambda file: Image.new("L", (9, 40)).save(file), "9 x 40 px"),
        ("empty.png", lambda file: file.touch(), "it is empty"),
        ("cut.jpg", lambda file: file.write_bytes(_jpeg()[:-4000]), "cut off or damaged"),
    ],
)
def test_images_that_are_left_out(data: dict[str, Any], name: str, write: Callable[[Path], Any], reason: str) -> None:
    write(Path(data["train"]) / name)
    (warning,) = data_warnings(data)
    assert warning.startswith(f"1 of the 9 training images is left out, such as {Path(data['train']) / name}: ")
    assert reason in warning


def test_images_above_pillows_limit_are_left_out(data: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)
    Image.new("L", (101, 200)).save(Path(data["train"]) / "scene.png")
    (warning,) = data_warnings(data)
    assert "scene.png: it has 101 x 200 px, Ultralytics takes at most 20,000 px: cut it into tiles" in warning


def test_a_jpeg_with_bytes_behind_its_end_is_used_and_not_rewritten(data: dict[str, Any]) -> None:
    image = Path(data["train"]) / "drone.jpg"
    image.write_bytes(_jpeg() + b"a thumbnail")
    assert data_warnings(data) == []
    assert image.read_bytes() == _jpeg() + b"a thumbnail"


def test_images_that_share_a_label_file(data: dict[str, Any]) -> None:
    image = next(Path(data["train"]).glob("3.*"))
    (image.parent / "3.jpg").write_bytes(_jpeg())
    (warning,) = data_warnings(data)
    assert warning.startswith("2 of the 9 training images share a label file, such as ")
    assert "3.jpg and " in warning
    assert warning.endswith(f"both get the objects of {label(data, 'train', 3)}, rename one")


def test_labels_beside_images_where_they_are_not_read(data: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / "flight" / "images"
    folder.mkdir(parents=True)
    (folder / "a.jpg").write_bytes(_jpeg())
    (folder / "a.txt").write_text(ROW)
    (folder / "b.jpg").write_bytes(_jpeg())
    (warning,) = data_warnings({**data, "train": [data["train"], str(folder)]})
    assert warning == (
        "1 of the 10 training images count as background, though labels lie beside them, such as "
        f"{folder / 'a.txt'}: move it to {tmp_path / 'flight/labels/a.txt'}"
    )


def _jpeg() -> bytes:
    """Return a JPEG of noise, which cannot be decoded without its last bytes."""
    noise = np.random.default_rng(0).integers(0, 255, (96, 96, 3), np.uint8)
    return bytes(cv2.imencode(".jpg", noise)[1].tobytes())
