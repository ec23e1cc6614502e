"""The look at a data set before a training changes no image of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import pytest
from ultralytics.data import utils as data_utils

from ds2d2_yolo import check
from ds2d2_yolo.bridge.upstream.read_only import images_read_only
from tests.helpers.data import write_tiny_data


@pytest.fixture
def trailing(tmp_path: Path) -> Path:
    """A data set whose JPEGs have bytes behind their end marker."""
    data = write_tiny_data(tmp_path / "data", "obb")
    for file in list((tmp_path / "data" / "images").rglob("*.png")):
        cv2.imwrite(str(file.with_suffix(".jpg")), cv2.imread(str(file)))
        file.unlink()
        with file.with_suffix(".jpg").open("ab") as jpeg:
            jpeg.write(b"more")
    return data


def test_check_leaves_every_image_unchanged(trailing: Path, checkpoint: Callable[..., Path]) -> None:
    images = sorted((trailing.parent / "images").rglob("*.jpg"))
    before = [image.read_bytes() for image in images]
    keys: dict[str, Any] = {"imgsz": 96, "batch": 4, "device": "cpu", "epochs": 1}
    check(checkpoint("yolov8s-obb.yaml"), "yolov8n-obb.yaml", trailing, **keys)
    assert [image.read_bytes() for image in images] == before


def test_a_broken_image_is_still_refused_and_ultralytics_is_restored(trailing: Path) -> None:
    image = min((trailing.parent / "images" / "train").glob("*.jpg"))
    replace_image = data_utils._replace_image
    with images_read_only():
        before = image.read_bytes()
        assert data_utils.check_image(str(image))[1] == (96, 96)
        assert image.read_bytes() == before
        image.write_bytes(image.read_bytes()[:300])
        with pytest.raises(OSError, match=r"(?i)truncated|cannot identify|broken"):
            data_utils.check_image(str(image))
    assert data_utils._replace_image is replace_image
