"""Broken images and duplicates among the unlabelled ones are named and left out."""

from __future__ import annotations

import shutil
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from ultralytics.data.utils import check_det_dataset

from ds2d2_yolo.bridge.data.unlabelled.selection import NAMED, UnlabelledImages, select_unlabelled
from ds2d2_yolo.errors import BadUseError

ARGS = Namespace(fraction=0.5, split="val")


@pytest.fixture
def data(tiny_data: Callable[[str], Path]) -> dict[str, Any]:
    return dict(check_det_dataset(str(tiny_data("obb"))))


def write(file: Path, shade: int) -> Path:
    file.parent.mkdir(exist_ok=True)
    pixels = np.random.default_rng(shade).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    cv2.imwrite(str(file), pixels)
    return file


def test_broken_images_are_left_out(tmp_path: Path, data: dict[str, Any]) -> None:
    good = write(tmp_path / "good.png", 1)
    damaged = bytearray(write(tmp_path / "damaged.png", 2).read_bytes())
    damaged[200] ^= 0xFF
    (tmp_path / "damaged.png").write_bytes(damaged)
    cut = write(tmp_path / "cut.jpg", 3)
    cut.write_bytes(cut.read_bytes()[:800])
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "empty.png").touch()
    png_as_jpg = shutil.copy(write(tmp_path / "x.png", 4), tmp_path / "renamed.jpg")
    (tmp_path / "x.png").unlink()
    list_file = tmp_path / "list.txt"
    files = sorted(tmp_path.glob("*.*g"))
    list_file.write_text("\n".join(map(str, [*files, tmp_path / "gone.png"])), encoding="utf-8")
    selection = select_unlabelled(str(list_file), data, ARGS)
    assert selection.images == (good, png_as_jpg)
    broken = {image.name for image, _ in selection.broken}
    assert broken == {"damaged.png", "cut.jpg", "text.jpg", "empty.png", "gone.png"}
    (line,) = selection.warnings
    assert line.startswith("5 of the 7 unlabelled images cannot be read and are left out: ")
    assert "gone.png: it does not exist" in line


def test_duplicates_are_left_out(tmp_path: Path, data: dict[str, Any]) -> None:
    first = write(tmp_path / "a.png", 1)
    shutil.copy(first, tmp_path / "b.png")
    root = Path(data["path"]) / "images"
    shutil.copy(root / "train" / "1.png", tmp_path / "labelled.png")
    shutil.copy(root / "val" / "2.png", tmp_path / "validated.png")
    left_out = Path(shutil.copy(root / "train" / "6.png", tmp_path / "unused.png"))  # fraction=0.5 does not take it
    selection = select_unlabelled(str(tmp_path), data, ARGS)
    assert selection.images == (first, left_out)
    reasons = {image.name: reason for image, reason in selection.duplicates}
    assert reasons["b.png"] == f"it equals the unlabelled image {first}"
    assert reasons["labelled.png"] == f"it equals the labelled image {root / 'train' / '1.png'}"
    assert reasons["validated.png"] == f"it equals the validation image {root / 'val' / '2.png'}"
    assert len(selection.warnings) == 1
    assert "3 of the 5 unlabelled images are duplicates" in selection.warnings[0]


def test_long_lists_are_cut() -> None:
    broken = tuple((Path(f"{i}.png"), "it is empty") for i in range(NAMED + 7))
    (line,) = UnlabelledImages((), broken).warnings
    assert line.endswith("; and 7 more")
    assert f"{NAMED - 1}.png" in line
    assert f" {NAMED}.png" not in line


def test_nothing_left_is_refused(data: dict[str, Any]) -> None:
    with pytest.raises(BadUseError, match="leaves no image: 8 of the 8 unlabelled images are duplicates"):
        select_unlabelled(str(Path(data["path"]) / "images" / "val"), data, ARGS)
