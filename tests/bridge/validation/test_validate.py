"""What a validation refuses before it starts: labels and bands of the split that is validated."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from ds2d2_yolo.deploy import benchmark
from ds2d2_yolo.errors import BadUseError
from ds2d2_yolo.evaluate import evaluate, val
from tests.helpers.data import write_bands, write_tiny_data
from tests.helpers.validation import MODELS, QUICK


def refused(model: Path, data: Path, out: Path, **keys: object) -> str:
    """Return the line with which `val` and `evaluate` refuse, alike and without a folder."""
    with pytest.raises(BadUseError) as caught:
        val(model=model, data=data, save_dir=str(out), **QUICK, **keys)
    with pytest.raises(BadUseError) as again:
        evaluate(model, data, **QUICK, **keys)
    assert not out.exists()
    assert str(again.value) == str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_one_file_of_upright_labels_is_named(checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    data, model = write_tiny_data(tmp_path / "data", "obb"), checkpoint(MODELS["obb"])
    label = data.parent / "labels" / "val" / "5.txt"
    label.write_text("0 0.5 0.5 0.2 0.2\n", encoding="utf-8")
    line = refused(model, data, tmp_path / "run")
    assert line.startswith("labels have 5 columns and an obb model needs 9")
    assert f"1 of 8 label files, such as {label}" in line
    assert evaluate(model, data, fraction=[1.0, 0.5], **QUICK).rows[0].images == 4  # the file is not among them
    keys = {"data": str(data), "imgsz": 96, "formats": "pt", "out": str(tmp_path / "bench")}
    with pytest.raises(BadUseError, match=r"1 of 8 label files, such as .*5\.txt"):
        benchmark(model=f"m:{model}", **keys)
    (data.parent / "labels" / "train" / "0.txt").write_text("0 0.5 0.5 0.2 0.2\n", encoding="utf-8")
    label.unlink()
    assert evaluate(model, data, **QUICK).rows[0].images == 8  # labels of other splits are not read


def test_images_with_other_bands_than_the_data_yaml_are_named(checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    data, model = write_tiny_data(tmp_path / "data", "obb"), checkpoint(MODELS["obb"])
    data.write_text(data.read_text(encoding="utf-8") + "channels: 4\n", encoding="utf-8")
    line = refused(model, data, tmp_path / "run")
    assert "8 of the 8 validation images" in line
    assert "0.png" in line
    assert "8 of the 8 training images" in refused(model, data, tmp_path / "run", split="train")


def test_a_checkpoint_of_other_channels_than_the_data_is_refused(
    checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    data, model = write_bands(tmp_path / "data", 4), checkpoint(MODELS["obb"])
    assert refused(model, data, tmp_path / "run") == f"model={model} takes 3 channels, and the data have 4"


def test_classes_that_the_data_do_not_have_are_refused(checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    data, model = write_tiny_data(tmp_path / "data", "obb"), checkpoint(MODELS["obb"])
    assert refused(model, data, tmp_path / "run", classes=[0, 7]).startswith("classes=[0, 7]: the data have ")


def test_labels_that_are_not_read_are_named(
    checkpoint: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data, model = write_tiny_data(tmp_path / "data", "obb"), checkpoint(MODELS["obb"])
    label = data.parent / "labels" / "val" / "5.txt"
    beside = label.rename(data.parent / "images" / "val" / "5.txt")
    monitor = logging.getLogger("ultralytics")
    monitor.addHandler(caplog.handler)
    try:
        evaluate(model, data, **QUICK)
    finally:
        monitor.removeHandler(caplog.handler)
    assert f"1 of the 8 validation images count as background, though labels lie beside them, such as {beside}" in (
        caplog.text
    )
