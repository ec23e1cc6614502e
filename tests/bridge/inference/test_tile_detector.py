"""The detector for tiles, light results, and the road that leads to Ultralytics' own prediction."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from ultralytics import YOLO

from ds2d2_yolo.bridge.inference.tile_detector import (
    TileDetector,
    detections_of,
    light_results,
    load_detector,
    run_folders,
)
from ds2d2_yolo.errors import BadUseError, DS2D2Error
from ds2d2_yolo.predict import predict
from ds2d2_yolo.utils.detections import Detections

Checkpoint = Callable[..., Path]
LOW = {"conf": 0.0005, "device": "cpu", "max_det": 20}


def noise(count: int, side: int = 96, channels: int = 3) -> list[NDArray[np.uint8]]:
    rng = np.random.default_rng(1)
    return [rng.integers(0, 256, (side, side, channels), dtype=np.uint8) for _ in range(count)]


@pytest.mark.parametrize("yaml", ["yolov8n-obb.yaml", "yolov8n.yaml"])
def test_a_tile_gives_what_ultralytics_gives(checkpoint: Checkpoint, yaml: str) -> None:
    path = str(checkpoint(yaml))
    tiles = noise(3)
    tile_detections = TileDetector(load_detector(path), dict(LOW), 96)(tiles)
    for detections, image in zip(tile_detections, tiles, strict=True):
        rows = detections.rows
        result = YOLO(path).predict(image, imgsz=96, verbose=False, **LOW)[0]
        table = result.obb if result.obb is not None else result.boxes
        assert len(rows) == len(table) > 0
        np.testing.assert_allclose(rows[:, 5], table.conf, atol=1e-5)
        np.testing.assert_allclose(rows[:, :4], table.xywh if result.obb is None else table.xywhr[:, :4], atol=0.05)


def test_the_network_sees_a_tile_at_its_own_size_unless_told(checkpoint: Checkpoint) -> None:
    yolo = load_detector(str(checkpoint("yolov8n-obb.yaml")))
    assert TileDetector(yolo, {"device": "cpu"}, 100).scale == 100 / 128  # rounded up to the stride
    assert TileDetector(yolo, {"device": "cpu", "imgsz": 64}, 256).scale == 4


def test_an_exported_model_finds_the_same(checkpoint: Checkpoint, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    copy = tmp_path / "renamed.pt"  # exports say their task themselves
    copy.write_bytes(checkpoint("yolov8n-obb.yaml").read_bytes())
    file = YOLO(str(copy)).export(format="onnx", imgsz=96, device="cpu", simplify=False, verbose=False)
    tiles = noise(3, side=128)
    exported = TileDetector(load_detector(file), dict(LOW), 128)
    assert exported.oriented
    assert exported.scale == 128 / 96  # it has a size and a batch of its own
    original = TileDetector(load_detector(str(copy)), {**LOW, "imgsz": 96}, 128)
    for a, b in zip(exported(tiles), original(tiles), strict=True):
        np.testing.assert_allclose(a.rows[:, :6], b.rows[:, :6], atol=0.01)


def test_results_are_ultralytics_own_and_light() -> None:
    rows = np.array([[100.25, 50, 20, 10, 0.5, 0.9, 1], [19000.123456, 5, 2, 4, 0, 0.4, 0]])
    turned = light_results(Path("a.tif"), (20000, 16000), {0: "a", 1: "b"}, Detections.from_rows(rows))
    assert turned.orig_shape == (16000, 20000)
    np.testing.assert_array_equal(turned.obb.xywhr, rows[:, :5])
    assert turned.obb.cls.tolist() == [1, 0]
    np.testing.assert_array_equal(detections_of(turned).rows, rows)
    upright = light_results(Path("a.tif"), (20000, 16000), {0: "a", 1: "b"}, Detections.from_rows(rows, oriented=False))
    np.testing.assert_allclose(upright.boxes.xyxy[0], [90.25, 45, 110.25, 55])
    assert upright[1].boxes.conf.tolist() == [0.4]
    assert len(light_results(Path("a"), (9, 9), {0: "a"}, Detections.empty())) == 0


def test_other_models_are_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.pt").write_bytes(b"nothing")
    for name, message in ((tmp_path / "bad.pt", "cannot be read"), (tmp_path / "gone.pt", "does not exist"),
                          ("yolov8n.yaml", "untrained")):  # fmt: skip
        with pytest.raises(BadUseError, match=message) as caught:
            load_detector(str(name))
        assert "\n" not in str(caught.value)


def test_a_segmentation_model_is_refused(tmp_path: Path) -> None:
    from ultralytics.nn.tasks import SegmentationModel

    model = SegmentationModel("yolov8n-seg.yaml", verbose=False)
    model.task = "segment"
    torch.save({"model": model, "train_args": {"task": "segment"}}, tmp_path / "seg.pt")
    with pytest.raises(BadUseError, match="is a segment model: predict takes detect and obb models"):
        predict(model=tmp_path / "seg.pt", source=__file__, slice=64)


def test_folders_are_those_of_ultralytics(tmp_path: Path) -> None:
    place: dict[str, Any] = {"project": str(tmp_path), "name": "p"}
    assert run_folders("obb", place) == (tmp_path / "p", [])
    (tmp_path / "p").mkdir()
    (tmp_path / "p-2").mkdir()
    assert run_folders("obb", place) == (tmp_path / "p-3", [tmp_path / "p-2", tmp_path / "p"])
    assert run_folders("obb", {**place, "exist_ok": True})[0] == tmp_path / "p"


def test_without_slice_ultralytics_predicts_and_saves(checkpoint: Checkpoint, tmp_path: Path) -> None:
    for n, image in enumerate(noise(2)):
        cv2.imwrite(str(tmp_path / f"{n}.png"), image)
    model = str(checkpoint("yolov8n-obb.yaml"))
    place = {"project": str(tmp_path / "runs"), "name": "p", "imgsz": 96, "verbose": False}
    predicted = predict(model=model, source=str(tmp_path), formats="dota,csv", save_txt=True, **place, **LOW)
    folder = tmp_path / "runs" / "p"
    assert predicted.folder == folder
    assert {p.name for p in folder.iterdir()} >= {
        "0.jpg",
        "1.jpg",
        "labels",
        "Task1.zip",
        "Task2.zip",
        "detections.csv",
    }
    result = YOLO(model).predict(str(tmp_path / "1.png"), imgsz=96, verbose=False, **LOW)[0]
    np.testing.assert_allclose(predicted.results[1].obb.data, result.obb.data, atol=1e-4)
    assert predicted.results[1].orig_img.base.nbytes == 1
    with pytest.raises(BadUseError, match="did you mean 'imgsz'"):
        predict(model=model, source=str(tmp_path), imgs=96)
    with pytest.raises(BadUseError, match="does not exist"):
        predict(model=model, source=str(tmp_path / "gone.png"), save=False, **LOW)


@pytest.mark.parametrize("channels", [1, 4])
def test_models_of_other_than_three_channels(channels: int, tmp_path: Path) -> None:
    from ultralytics.nn.tasks import OBBModel

    model = OBBModel("yolov8n-obb.yaml", ch=channels, nc=2, verbose=False)
    model.names, model.task = {0: "a", 1: "b"}, "obb"
    torch.save({"model": model, "train_args": {"task": "obb"}}, tmp_path / "m.pt")
    detector = TileDetector(load_detector(str(tmp_path / "m.pt")), dict(LOW), 96)
    assert detector.channels == channels
    assert len(detector(noise(2, channels=channels))) == 2


def test_a_model_that_fails_says_so_in_one_line(checkpoint: Checkpoint) -> None:
    detector = TileDetector(load_detector(str(checkpoint("yolov8n-obb.yaml"))), dict(LOW), 96)
    with pytest.raises(DS2D2Error, match="the model fails on a tile of") as caught:
        detector([np.zeros((0, 4, 3), np.uint8)])
    assert "\n" not in str(caught.value)
