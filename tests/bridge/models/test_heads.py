"""Heads: raw predictions and boxes equal Ultralytics' own, levels pair by stride, other heads are refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import nn
from ultralytics.nn.tasks import DetectionModel, OBBModel
from ultralytics.utils import ROOT, YAML
from ultralytics.utils.ops import xywh2xyxy
from ultralytics.utils.tal import make_anchors

from ds2d2_yolo.bridge.models.heads import (
    DENSE,
    OTHERS,
    WORKS,
    _anchors,
    dense_head,
    is_rotated,
    level_channels,
    logits_and_boxes,
    pair_levels,
    raw_predictions,
    refuse_yaml,
    take_levels,
    unpaired_levels,
)
from ds2d2_yolo.bridge.models.loading import load_student
from ds2d2_yolo.errors import BadUseError

MODELS = ["yolov8n.yaml", "yolov8n-obb.yaml", "yolo11n-obb.yaml", "yolov10n.yaml", "yolo26n.yaml", "yolo26n-obb.yaml"]


def model_of(yaml: str) -> nn.Module:
    torch.manual_seed(0)
    model = (OBBModel if "obb" in yaml else DetectionModel)(yaml, nc=3, verbose=False).eval()
    for module in model.modules():  # fresh BatchNorm layers would hide a mistake in the order of levels
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
    return model


def test_anchors_equal_ultralytics() -> None:
    features = [torch.empty(2, 4, *size, dtype=torch.float16) for size in ((12, 20), (6, 10), (3, 5))]
    anchors = _anchors(features, (8.0, 16.0, 32.0))
    expected = make_anchors([f.float() for f in features], (8.0, 16.0, 32.0), 0.5)
    for a, b in zip(anchors, expected, strict=True):
        assert torch.equal(a, b)
        assert (a.dtype, a.stride()) == (b.dtype, b.stride())


@pytest.mark.parametrize("yaml", MODELS)
def test_boxes_equal_the_heads_own(yaml: str) -> None:
    model = model_of(yaml)
    head = dense_head(model, "student")
    head.end2end = False  # its one-to-many answer, decoded
    images = torch.rand(2, 3, 96, 128)
    with torch.no_grad():
        decoded, raw = model(images)
        one2many = raw.get("one2many", raw)
        view = take_levels(head, [0, 1, 2])
        logits, boxes = logits_and_boxes(view, raw_predictions(view, one2many["feats"]))
    expected = decoded.transpose(1, 2)
    torch.testing.assert_close(logits.sigmoid(), expected[..., 4:7])
    if is_rotated(head):
        torch.testing.assert_close(boxes[..., :4], expected[..., :4])
        torch.testing.assert_close(boxes[..., 4], expected[..., 7])
    else:
        torch.testing.assert_close(boxes, xywh2xyxy(expected[..., :4]), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("yaml", ["yolov8n.yaml", "yolo26n-obb.yaml"])
def test_a_view_of_some_levels(yaml: str) -> None:
    model = model_of(yaml)
    head = dense_head(model, "student")
    names = set(head.state_dict())
    features = [torch.rand(1, c, n, n) for c, n in zip(level_channels(head), (16, 8, 4), strict=True)]
    with torch.no_grad():
        all_levels = raw_predictions(take_levels(head, [0, 1, 2]), features)
        some_levels = raw_predictions(take_levels(head, [1, 2]), features[1:])
    assert torch.equal(some_levels["scores"], all_levels["scores"][..., 256:])
    assert set(head.state_dict()) == names, "the view must leave the head as it was"
    assert not head.training


def test_levels_pair_by_stride() -> None:
    assert pair_levels((8, 16, 32), (8, 16, 32)) == [(0, 0), (1, 1), (2, 2)]
    assert pair_levels((4, 8, 16, 32), (8, 16, 32, 64)) == [(1, 0), (2, 1), (3, 2)]
    assert pair_levels((32, 16, 8), (16, 32)) == [(1, 0), (0, 1)], "finest first, whatever the heads' order"
    with pytest.raises(BadUseError, match="student strides 4 and teacher strides 8, 16 share no level"):
        pair_levels((4,), (8, 16))


def test_levels_can_be_chosen() -> None:
    assert pair_levels((4, 8, 16, 32), (8, 16, 32, 64), [32, 8]) == [(1, 0), (3, 2)]
    for wrong in ([4], [8, 64], [12]):
        with pytest.raises(BadUseError, match="share the strides 8, 16, 32, choose among them"):
            pair_levels((4, 8, 16, 32), (8, 16, 32, 64), wrong)


@pytest.mark.parametrize("ratio", [1, 2, 4, 8])
@pytest.mark.parametrize("teacher", [(8, 16, 32), (4, 8, 16, 32), (8, 16, 32, 64), (32, 16, 8)])
@pytest.mark.parametrize("student", [(8, 16, 32), (4, 8, 16, 32), (8, 16, 32, 64)])
def test_levels_pair_by_grid(student: tuple[float, ...], teacher: tuple[float, ...], ratio: int) -> None:
    grids = [640 // s for s in student], [640 * ratio // t for t in teacher]
    expected = [(i, grids[1].index(g)) for i, g in enumerate(grids[0]) if g in grids[1]]
    if not expected:
        with pytest.raises(BadUseError, match=f"at {ratio} times the image size share no level"):
            pair_levels(student, teacher, ratio=ratio)
        return
    assert pair_levels(student, teacher, ratio=ratio) == expected
    student_only, teacher_only = unpaired_levels(student, teacher, ratio)
    assert set(student_only) == {s for i, s in enumerate(student) if i not in dict(expected)}
    assert set(teacher_only) == set(teacher) - {teacher[t] for _, t in expected}


def test_levels_are_named_by_the_students_strides() -> None:
    assert pair_levels((8, 16, 32), (8, 16, 32), [16], ratio=2) == [(1, 2)]
    with pytest.raises(BadUseError, match="share the strides 8, 16, choose among them"):
        pair_levels((8, 16, 32), (8, 16, 32), [32], ratio=2)


def test_unpaired_levels_are_named() -> None:
    assert unpaired_levels((4, 8, 16, 32), (8, 16, 32, 64, 128)) == ((4,), (64, 128))
    assert unpaired_levels((8, 16, 32), (8, 16, 32)) == ((), ())


def test_every_model_of_ultralytics_is_taken_or_refused_by_name() -> None:
    """What WORKS promises is what the YAMLs of Ultralytics with a head of ours are."""
    dense: dict[str, set[str]] = {"detect": set(), "obb": set()}
    for yaml in sorted((ROOT / "cfg" / "models").rglob("*.yaml")):
        head = YAML.load(yaml)["head"][-1][-2]
        if head in DENSE:
            refuse_yaml(str(yaml), "the student")
            dense["obb" if "OBB" in head else "detect"].add(yaml.parent.name.removeprefix("v"))
        else:
            assert head in OTHERS, yaml.name
            with pytest.raises(BadUseError, match=f"the student is {OTHERS[head]}.*YOLOv3u, v5u, v6, v8"):
                refuse_yaml(str(yaml), "the student")
    versions = [re.findall(r"\d+", part) for part in WORKS.split(" for detect")]
    assert dense == {"detect": set(versions[0]), "obb": set(versions[1])}


def test_a_yaml_that_is_no_model_is_left_to_ultralytics(tmp_path: Path) -> None:
    (tmp_path / "data.yaml").write_text("names: [a]")
    refuse_yaml(str(tmp_path / "data.yaml"), "the student")
    for other in ("missing.yaml", "missing.pt", None, {}):
        refuse_yaml(other, "the student")


def test_a_model_that_was_built_is_refused_by_what_its_yaml_held() -> None:
    with pytest.raises(BadUseError, match="the student is an RT-DETR model"):
        refuse_yaml({"head": [[-1, 1, "RTDETRDecoder", ["nc"]]]}, "the student")


def test_refuses_a_model_that_is_none_of_ultralytics() -> None:
    model = nn.Module()
    model.model = nn.ModuleList([nn.Linear(1, 1)])
    with pytest.raises(BadUseError, match="teacher is a model that ends in Linear"):
        dense_head(model, "teacher")
    with pytest.raises(BadUseError, match="teacher is a model that ends in Conv2d"):
        dense_head(nn.Conv2d(1, 1, 1), "teacher")


@pytest.mark.parametrize(
    ("student", "message"),
    [
        ("rtdetr-l.yaml", "student=rtdetr-l.yaml is an RT-DETR model"),
        ("yolov8n-world.yaml", "is a YOLO-World model"),
        ("yoloe-11n.yaml", "is a YOLOE model"),
        ("yolo26n-sem.yaml", "is a semantic segmentation model"),
    ],
)
def test_a_student_of_another_kind_is_refused(student: str, message: str) -> None:
    with pytest.raises(BadUseError, match=f"{message}, which DS2D2 does not distil: use YOLOv3u"):
        load_student(student)


def test_a_student_that_was_exported_is_refused(tmp_path: Path) -> None:
    (tmp_path / "best.onnx").write_bytes(b"")
    with pytest.raises(BadUseError, match="exported model: name a checkpoint"):
        load_student(str(tmp_path / "best.onnx"))
