"""A teacher that sees larger images: the student's image, the levels, the frame of the boxes and of the weight maps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ds2d2_yolo.bridge.distillation.batch import StudentInputs
from ds2d2_yolo.bridge.distillation.distiller import Distiller
from ds2d2_yolo.bridge.distillation.gradients.levels import TASK
from ds2d2_yolo.bridge.distillation.gradients.norms import measure_gradients
from ds2d2_yolo.bridge.distillation.probing import probe
from ds2d2_yolo.bridge.distillation.targets import Targets, capture_assigner_calls
from ds2d2_yolo.bridge.distillation.teacher_size import (
    TEACHER_IMAGE,
    enlarge,
    in_student_frame,
    share_batch,
    teacher_images,
)
from ds2d2_yolo.bridge.models.heads import level_channels, logits_and_boxes
from ds2d2_yolo.core import explicit_loss
from ds2d2_yolo.core.disw import disw_map
from ds2d2_yolo.core.wavelet import band_origin
from tests.helpers.distillation import batch_of, build
from tests.helpers.terms import ACTIVE

Checkpoint = Callable[..., Path]
TEACHERS = ["yolov8s.yaml", "yolov10s.yaml", "yolo26s-obb.yaml", "yolov8s-p2.yaml", "yolov8s-p6.yaml"]
STRIDES = {"yolov8s-p2.yaml": (8.0, 16.0), "yolov8s-p6.yaml": (8.0, 16.0, 32.0)}


def pair(teacher: str, checkpoint: Checkpoint, **keys: Any) -> tuple[nn.Module, Any]:
    """A student whose teacher sees twice its size."""
    return build("yolov8n-obb.yaml" if "obb" in teacher else "yolov8n.yaml", checkpoint(teacher), ratio=2, **keys)


def outputs_of(model: Any, criterion: Any, batch: dict[str, Any]) -> StudentInputs:
    """The student's side of a batch."""
    outputs = model(batch["img"])
    with capture_assigner_calls(criterion.base) as calls:
        criterion.base(outputs, batch)
    return StudentInputs.of(criterion.base, outputs, calls[0].targets)


@pytest.mark.parametrize("ratio", [2, 4])
def test_student_sees_the_mean_of_each_square_of_the_teachers_image(ratio: int) -> None:
    images = torch.rand(2, 3, 8 * ratio, 12 * ratio, generator=torch.Generator().manual_seed(0))
    batch = share_batch({"img": images, "cls": torch.zeros(1)}, ratio)
    squares = images.reshape(2, 3, 8, ratio, 12, ratio)
    torch.testing.assert_close(batch["img"], squares.mean((3, 5)))
    assert batch[TEACHER_IMAGE] is teacher_images(batch) is images
    torch.testing.assert_close(share_batch({"img": enlarge(batch["img"], ratio)}, ratio)["img"], batch["img"])


def test_one_size_leaves_the_batch_alone() -> None:
    batch = {"img": torch.rand(1, 3, 8, 8)}
    assert share_batch(batch, 1) is batch
    assert teacher_images(batch) is batch["img"] is enlarge(batch["img"], 1)
    assert list(batch) == ["img"]


def test_boxes_change_their_frame_but_not_their_angle() -> None:
    assert in_student_frame(torch.tensor([8.0, 4, 16, 2, 0.5]), 2).tolist() == [4, 2, 8, 1, 0.5]
    assert in_student_frame(torch.tensor([8.0, 4, 16, 2]), 4).tolist() == [2, 1, 4, 0.5]


@pytest.mark.parametrize("teacher", TEACHERS)
def test_every_term_reaches_neck_and_adapters(teacher: str, checkpoint: Checkpoint) -> None:
    model, criterion = pair(teacher, checkpoint)
    distiller: Distiller = criterion.distiller
    assert distiller.strides == STRIDES.get(teacher, (8.0, 16.0))
    batch = share_batch(batch_of("obb" in teacher, size=256), 2)
    loss, items = criterion(model(batch["img"]), batch)
    loss.sum().backward()
    assert all(float(items[f"{term}_loss"]) > 0 for term in ACTIVE)
    assert all(float(a.weight.grad.norm()) > 0 for a in distiller.adapters)  # type: ignore[union-attr]
    assert float(model.model[15].cv2.conv.weight.grad.norm()) > 0


@pytest.mark.parametrize("teacher", TEACHERS)
def test_terms_are_zero_where_the_adapted_features_are_the_teachers(teacher: str, checkpoint: Checkpoint) -> None:
    _, criterion = pair(teacher, checkpoint)
    distiller: Distiller = criterion.distiller
    teacher_outputs = distiller.teacher_outputs(batch_of("obb" in teacher, size=256)["img"])
    count = 1 + max(distiller.levels)
    features = [torch.zeros(0)] * count
    for level, feature in zip(distiller.levels, teacher_outputs.features, strict=True):
        features[level] = feature.clone()
    widths = level_channels(distiller.teacher.head)
    for adapter, width in zip(distiller.adapters, widths, strict=True):
        adapter.weight = nn.Parameter(torch.eye(width)[..., None, None])
    boxes = torch.zeros(2, 1, 5 if "obb" in teacher else 4)
    student = StudentInputs(features, Targets(boxes, torch.zeros(2, 1, dtype=torch.bool)))
    losses = distiller(student, teacher_outputs)
    assert {term: float(loss.detach()) for term, loss in losses.items()} == pytest.approx(
        dict.fromkeys(ACTIVE, 0.0), abs=1e-5
    )
    moved = [f + 10 * torch.randn(f.shape, generator=torch.Generator().manual_seed(0)) for f in features]
    others = distiller(StudentInputs(moved, student.targets), teacher_outputs)
    assert all(float(loss.detach()) > 1e-3 for loss in others.values())


def test_both_sides_decode_in_the_teachers_frame(checkpoint: Checkpoint) -> None:
    _, criterion = pair("yolov8s.yaml", checkpoint)
    distiller: Distiller = criterion.distiller
    raw = distiller.teacher(batch_of(rotated=False, size=256)["img"])
    _, boxes = logits_and_boxes(distiller.teacher.head, raw)
    centres = (boxes[..., :2] + boxes[..., 2:]) / 2
    side = 256 // 16
    steps = torch.arange(side) * 16 + 8.0  # the cells of the finest pair, 16 px wide in the teacher's image
    cells = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), -1).reshape(-1, 2)
    off = (centres[0, : side * side] - cells).abs()
    assert float(off.mean()) < 16, "an untrained head predicts boxes about its cells"


def test_weight_map_is_in_the_students_frame(checkpoint: Checkpoint) -> None:
    model, criterion = pair("yolov8s.yaml", checkpoint, imfu=0.0, imhi=0.0)
    distiller: Distiller = criterion.distiller
    batch = share_batch(batch_of(rotated=False, size=256), 2)
    student = outputs_of(model, criterion, batch)
    x, y, w, h = (128 * batch["bboxes"]).unbind(1)  # pixels of the student's image
    boxes = torch.stack((x - w / 2, y - h / 2, x + w / 2, y + h / 2), 1)
    teacher = distiller.teacher_outputs(batch[TEACHER_IMAGE])
    expected: dict[str, Any] = {"exlo": 0.0, "exhi": 0.0}
    for level, stride, adapter, feature in zip((0, 1), (8, 16), distiller.adapters, teacher.features, strict=True):
        grid = (128 // stride // 2,) * 2
        step = (2.0 * stride, 2.0 * stride)
        weight = disw_map(boxes, batch["batch_idx"], 2, grid, step, band_origin("haar", stride))
        low, high = explicit_loss(adapter(student.features[level]), feature, weight, "haar", "none", False)
        expected = {"exlo": expected["exlo"] + low, "exhi": expected["exhi"] + high}
    losses = distiller(student, teacher)
    for term, value in expected.items():
        torch.testing.assert_close(losses[term], value)


@pytest.mark.parametrize(
    "keys",
    [
        {"weight_map": "score"}, {"weight_map": "both"},
        {"teacher_bf16": True}, {"feature_norm": "standard"}, {"levels": [16]},
    ],
)  # fmt: skip
def test_other_settings_go_with_it(keys: dict[str, Any], checkpoint: Checkpoint) -> None:
    model, criterion = pair("yolov8s.yaml", checkpoint, **keys)
    batch = share_batch(batch_of(rotated=False, size=256), 2)
    loss, items = criterion(model(batch["img"]), batch)
    assert bool(loss.isfinite().all())
    assert all(float(items[f"{term}_loss"]) > 0 for term in ACTIVE)


def test_gradients_are_measured_on_the_students_levels(checkpoint: Checkpoint) -> None:
    model, criterion = pair("yolov8s.yaml", checkpoint)
    batch = share_batch(batch_of(rotated=False, size=256), 2)
    student = outputs_of(model, criterion, batch)
    teacher = criterion.distiller.teacher_outputs(teacher_images(batch))
    norms = measure_gradients(criterion.base, criterion.head, criterion.distiller, student, teacher, batch)
    assert set(norms) == {f"{name}{at}" for name in (TASK, *ACTIVE) for at in ("", "@8", "@16")}
    assert all(value > 0 for value in norms.values())


def test_probe_compares_boxes_in_the_students_frame(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """The teacher has a grid for every level of the student, and its boxes are those of the student's frame."""
    model, criterion = pair("yolov8s-p6.yaml", checkpoint, imhi=0.0)
    seen: list[Tensor] = []
    original = probe.reassigned

    def record(criterion: Any, call: Any, scores: Tensor, boxes: Tensor) -> Any:
        seen.append(boxes)
        return original(criterion, call, scores, boxes)

    monkeypatch.setattr(probe, "reassigned", record)
    result = probe.Prober(model, criterion.distiller).measure([share_batch(batch_of(rotated=False, size=256), 2)])
    assert result.strides == (8.0, 16.0, 32.0)
    assert probe.TEACHER in result.assignment
    batch = share_batch(batch_of(rotated=False, size=256), 2)
    head = criterion.distiller.teacher.head
    _, boxes = logits_and_boxes(head, criterion.distiller.teacher(batch[TEACHER_IMAGE]))
    torch.testing.assert_close(seen[0], boxes / 2)
