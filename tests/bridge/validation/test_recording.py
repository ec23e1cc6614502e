"""Validation through Ultralytics: its numbers and files stay, boxes come back to the image's own pixels."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from ultralytics import YOLO
from ultralytics.models.yolo.detect import DetectionValidator
from ultralytics.models.yolo.detect import val as detect_val
from ultralytics.models.yolo.obb import OBBValidator
from ultralytics.models.yolo.obb import val as obb_val
from ultralytics.utils.plotting import plot_images

from ds2d2_yolo.bridge.validation import recording
from ds2d2_yolo.bridge.validation.recording import RecordingOBBValidator, RecordingValidator
from ds2d2_yolo.bridge.validation.validate import validate
from ds2d2_yolo.errors import BadUseError, DS2D2Error
from ds2d2_yolo.evaluate import evaluate
from tests.helpers.scoring import random_images, validator_of
from tests.helpers.validation import MODELS, QUICK, TASKS

pytestmark = pytest.mark.usefixtures("unhurried")


class Knowing:
    """Makes a validator see the objects themselves, moved by noise, whatever the model says."""

    noise = 0.0

    def preprocess(self, batch: dict[str, Any]) -> dict[str, Any]:
        self.batch = super().preprocess(batch)
        return self.batch

    def postprocess(self, preds: Any) -> list[dict[str, torch.Tensor]]:
        rng = torch.Generator().manual_seed(self.seen)
        seen = []
        for i in range(len(self.batch["im_file"])):
            image = self._prepare_batch(i, self.batch)
            boxes = image["bboxes"].clone()
            boxes[:, :4] += self.noise * torch.randn(boxes[:, :4].shape, generator=rng)
            seen.append({"bboxes": boxes, "cls": image["cls"].clone(), "conf": torch.linspace(0.9, 0.5, len(boxes))})
        return seen


KINDS = {
    kind: {
        "ultralytics": type("KnowingUltralytics", (Knowing, ultralytics_validator), {}),
        "recording": type("KnowingRecording", (Knowing, recording_validator), {}),
    }
    for kind, ultralytics_validator, recording_validator in (
        ("detect", DetectionValidator, RecordingValidator), ("obb", OBBValidator, RecordingOBBValidator)
    )
}  # fmt: skip


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of several shapes with one oriented box each, whose size, angle and place are known."""
    root = tmp_path_factory.mktemp("uneven")
    for kind in ("images", "labels"):
        (root / kind / "val").mkdir(parents=True)
    for i, (h, w) in enumerate([(60, 200), (200, 60), (96, 96), (301, 207)]):
        cv2.imwrite(str(root / "images" / "val" / f"{i}.png"), np.zeros((h, w, 3), np.uint8))
        corners = cv2.boxPoints(((w * 0.4, h * 0.6), (24.0, 12.0), 30.0)) / (w, h)
        (root / "labels" / "val" / f"{i}.txt").write_text("0 " + " ".join(f"{v:.8f}" for v in corners.ravel()))
    yaml = root / "data.yaml"
    yaml.write_text(f"path: {root.as_posix()}\ntrain: images/val\nval: images/val\nnames: {{0: red, 1: green}}\n")
    return yaml


@TASKS
@pytest.mark.parametrize("rect", [True, False])
def test_boxes_come_back_to_the_pixels_of_the_image(
    task: str,
    rect: bool,
    uneven: Path,
    checkpoint: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setitem(recording.VALIDATORS, task, KINDS[task]["recording"])
    keys = {**QUICK, "rect": rect, "save_dir": str(tmp_path)}
    detections = validate(str(checkpoint(MODELS[task])), str(uneven), **keys).detections
    shapes = {(60, 200), (200, 60), (96, 96), (301, 207)}
    hull = (24 * np.cos(np.pi / 6) + 6, 12 + 12 * np.cos(np.pi / 6))
    sides = (24, 12) if task == "obb" else hull
    for boxes in (detections.object_boxes, detections.boxes):
        assert len(boxes) == 4
        centres = {min(shapes, key=lambda s, b=b: np.hypot(b[0] - s[1] * 0.4, b[1] - s[0] * 0.6)) for b in boxes}
        assert centres == shapes  # each box is nearest to where that of another image shape lies
        for box in boxes:
            off = min(np.hypot(box[0] - w * 0.4, box[1] - h * 0.6) for h, w in shapes)
            assert off < 0.05
            assert sorted(box[2:4]) == pytest.approx(sorted(sides), rel=0.02)
            if task == "obb":
                longer = box[4] if box[2] > box[3] else box[4] + np.pi / 2
                assert np.rad2deg(longer) % 180 == pytest.approx(30, abs=1)
    assert (detections.target[:, 0] == np.arange(4)).all()


@TASKS
@pytest.mark.parametrize("seed", range(3))
def test_matches_are_those_of_ultralytics(seed: int, task: str) -> None:
    validator = validator_of(random_images(seed, task == "obb", 30), task == "obb")
    correct = np.concatenate(validator.metrics.stats["tp"])
    validator.get_stats()
    detections = validator.detections
    assert ((detections.target >= 0) == correct).all()
    assert correct[:, :8].any(0).all()
    for column in detections.target.T:
        hit = column[column >= 0]
        assert len(set(hit.tolist())) == len(hit)  # an object is found once
        assert (detections.object_class[hit] == detections.classes[column >= 0]).all()
        assert (detections.object_image[hit] == detections.image[column >= 0]).all()


def test_which_object_was_found_is_the_one_overlapped_most() -> None:
    overlap = np.array([[0.9, 0.8, 0.0], [0.6, 0.7, 0.6]])
    correct = np.array([[True, True], [True, False], [False, False]])
    assert recording.matched_objects(correct, overlap).tolist() == [[0, 0], [1, -1], [-1, -1]]


@TASKS
def test_numbers_and_files_stay_those_of_ultralytics(
    task: str,
    tiny_data: Callable[[str], Path],
    checkpoint: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(Knowing, "noise", 1.0)
    monkeypatch.setitem(recording.VALIDATORS, task, KINDS[task]["recording"])
    for module in (detect_val, obb_val):  # Ultralytics' own threads draw from one memory: test_no_time_limit.py
        monkeypatch.setattr(module, "plot_images", partial(plot_images, threaded=False))
    model, data = str(checkpoint(MODELS[task])), str(tiny_data(task))
    keys = {**QUICK, "save_json": task == "obb", "save_txt": True, "save_conf": True, "plots": task == "obb"}
    ultralytics_metrics = YOLO(model).val(
        data=data, validator=KINDS[task]["ultralytics"], save_dir=str(tmp_path / "ultralytics"), **keys
    )
    evaluation = evaluate(model, data, save_dir=str(tmp_path / "evaluation"), **keys)
    assert (evaluation.rows[0].map50, evaluation.rows[0].map50_95) == (
        ultralytics_metrics.box.map50,
        ultralytics_metrics.box.map,
    )
    assert 0.1 < ultralytics_metrics.box.map < 0.99
    assert evaluation.metrics.results_dict == ultralytics_metrics.results_dict
    folders = tmp_path / "ultralytics", tmp_path / "evaluation"
    files = [{str(p.relative_to(f)) for p in f.rglob("*") if p.is_file()} for f in folders]
    added_files = {"val.csv", "val.json", *(["val.png"] if keys["plots"] else [])}
    assert files[1] - files[0] == added_files
    assert len(files[0]) > 7
    for name in files[0]:
        assert (tmp_path / "evaluation" / name).read_bytes() == (tmp_path / "ultralytics" / name).read_bytes(), name


@pytest.mark.parametrize("yaml", ["yolov10n.yaml", "yolo26n-obb.yaml"])
def test_end_to_end_models(
    yaml: str, tiny_data: Callable[[str], Path], checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    data = str(tiny_data("obb" if "obb" in yaml else "detect"))
    keys = {**QUICK, "conf": 1e-6, "max_det": 7}
    done = validate(str(checkpoint(yaml)), data, save_dir=str(tmp_path / "a"), **keys)
    assert np.bincount(done.detections.image).tolist() == [7] * 8
    ultralytics_metrics = YOLO(str(checkpoint(yaml))).val(data=data, save_dir=str(tmp_path / "b"), **keys)
    assert done.metrics.results_dict == ultralytics_metrics.results_dict


def test_classes_single_cls_and_splits_pass_through(
    tiny_data: Callable[[str], Path], checkpoint: Callable[..., Path]
) -> None:
    model, data = str(checkpoint(MODELS["obb"])), str(tiny_data("obb"))
    all_classes = evaluate(model, data, **QUICK)
    one_class = evaluate(model, data, classes=[1], **QUICK)
    assert (
        one_class.row("all", "all").objects
        == all_classes.row("class", "green").objects
        < all_classes.row("all", "all").objects
    )
    single = evaluate(model, data, single_cls=True, split="train", half=True, **QUICK)
    assert single.facts["split"] == "train"
    assert [r.group for r in single.rows if r.by == "class"] == ["item"]


def test_an_exported_model_says_its_task_itself(
    tiny_data: Callable[[str], Path], checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime")
    pt = tmp_path / "renamed.pt"
    pt.write_bytes(checkpoint(MODELS["obb"]).read_bytes())
    onnx = YOLO(str(pt)).export(format="onnx", imgsz=96, device="cpu", simplify=False)
    keys = {**QUICK, "conf": 1e-6}
    done = evaluate(onnx, tiny_data("obb"), **keys)
    assert done.facts["task"] == "obb"
    ultralytics_metrics = YOLO(onnx, task="obb").val(
        data=str(tiny_data("obb")), save_dir=str(tmp_path / "ultralytics"), **keys
    )
    assert done.metrics.results_dict == ultralytics_metrics.results_dict
    assert (done.rows[0].map50, done.rows[0].map50_95) == (ultralytics_metrics.box.map50, ultralytics_metrics.box.map)


def test_a_detect_model_takes_the_hulls_of_oriented_labels(
    tiny_data: Callable[[str], Path], checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    model, data = str(checkpoint(MODELS["detect"])), str(tiny_data("obb"))
    detections = validate(model, data, save_dir=str(tmp_path), **QUICK).detections
    lines = [(tiny_data("obb").parent / "labels" / "val" / f"{i}.txt").read_text().splitlines() for i in range(8)]
    for i, line in enumerate(row for rows in lines for row in rows):
        corners = np.array(line.split()[1:], float).reshape(4, 2) * 96
        hull = (*(corners.max(0) + corners.min(0)) / 2, *(corners.max(0) - corners.min(0)), 0)
        assert detections.object_boxes[i] == pytest.approx(hull, abs=1e-3)


def test_an_export_that_cannot_be_run_is_one_line(tiny_data: Callable[[str], Path], tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    broken = tmp_path / "broken-obb.onnx"
    broken.write_bytes(b"no graph")
    with pytest.raises(DS2D2Error, match=r"broken-obb\.onnx cannot be run: ") as caught:
        evaluate(broken, tiny_data("obb"), **QUICK)
    assert "\n" not in str(caught.value)


def test_bad_input_is_one_line(
    tiny_data: Callable[[str], Path], checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    obb, detect = str(checkpoint(MODELS["obb"])), str(checkpoint(MODELS["detect"]))
    broken = tmp_path / "broken.pt"
    broken.write_bytes(b"no checkpoint")
    bare = tmp_path / "bare.yaml"
    (tmp_path / "empty").mkdir()
    bare.write_text(f"path: {tmp_path.as_posix()}\ntrain: empty\nval: empty\nnames: {{0: red, 1: green}}\n")
    unlabelled = tmp_path / "unlabelled.yaml"
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images" / "0.png"), np.zeros((96, 96, 3), np.uint8))
    unlabelled.write_text(f"path: {tmp_path.as_posix()}\ntrain: images\nval: images\nnames: {{0: red, 1: green}}\n")
    for model, data, keys, message in (
        ("none.pt", tiny_data("obb"), {}, "model=none.pt does not exist"),
        (broken, tiny_data("obb"), {}, "cannot be read as an Ultralytics model"),
        ("yolov8n.yaml", tiny_data("obb"), {}, "is a model YAML"),
        ("rtdetr-l.yaml", tiny_data("obb"), {}, "is a model YAML"),
        (detect, tiny_data("detect"), {"task": "obb"}, "is a detect model"),
        (obb, tmp_path / "none.yaml", {}, "none.yaml"),
        (obb, bare, {}, "has no images for split=val"),
        (obb, unlabelled, {}, "no labels for the 1 images of split=val"),
        (obb, tiny_data("detect"), {}, "labels have 5 columns and an obb model needs 9"),
        (obb, tiny_data("obb"), {"split": "test"}, "test"),
        (obb, tiny_data("obb"), {"iou": 2}, "iou"),
        (obb, tiny_data("obb"), {"imgsz": "big"}, "imgsz"),
        (obb, tiny_data("obb"), {"device": "77"}, "device=77 is no device"),
        (obb, tiny_data("obb"), {"crowd_radus": 3}, "did you mean 'crowd_radius'"),
        (obb, tiny_data("obb"), {"size_edges": [32, 16]}, "size_edges=[32, 16] must rise"),
        (obb, tiny_data("obb"), {"crowd_unit": "m"}, "crowd_unit='m' must be one of size, px"),
    ):  # fmt: skip
        with pytest.raises(BadUseError, match=re.escape(message)) as caught:
            evaluate(model, data, **keys)
        assert "\n" not in str(caught.value)
