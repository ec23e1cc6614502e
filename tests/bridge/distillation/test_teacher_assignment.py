"""The teacher assigns: Ultralytics' own assigner with the teacher's scores and boxes, and nothing where it is off."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from ultralytics.utils.metrics import bbox_iou
from ultralytics.utils.ops import xywh2xyxy

from ds2d2_yolo.bridge.data.class_map import match_classes, match_run_classes
from ds2d2_yolo.bridge.distillation.criterion import DistillationCriterion
from ds2d2_yolo.bridge.distillation.targets import dense_criterion
from ds2d2_yolo.bridge.distillation.teacher_assignment import TeacherAssignment, refuse_unknown_classes
from ds2d2_yolo.bridge.models.teacher import load_teacher
from ds2d2_yolo.config.settings import TERMS, Settings
from ds2d2_yolo.errors import BadUseError
from tests.helpers.distillation import batch_of, build

PAIRS = [
    ("yolov8n.yaml", "yolov8s.yaml"),
    ("yolov8n-obb.yaml", "yolov8s-obb.yaml"),
    ("yolo26n-obb.yaml", "yolo11s-obb.yaml"),
    ("yolov8n-obb.yaml", "yolo26s-obb.yaml"),
    ("yolov8n.yaml", "yolov8s-p2.yaml"),
]
Call = tuple[tuple[Tensor, ...], tuple[Tensor, ...]]


@contextmanager
def recorded(assigner: nn.Module) -> Iterator[list[Call]]:
    """Arguments and results of each call of an assigner."""
    calls: list[Call] = []

    def record(_: nn.Module, args: tuple[Tensor, ...], results: tuple[Tensor, ...]) -> None:
        calls.append((args, tuple(x.clone() for x in results)))

    handle = assigner.register_forward_hook(record)
    yield calls
    handle.remove()


def loss_of(criterion: DistillationCriterion, preds: Any, batch: dict[str, Tensor]) -> tuple[Tensor, Call]:
    """The task loss of a batch, and the call of the one-to-many assigner that belongs to it."""
    assigner = dense_criterion(criterion.base).assigner
    with recorded(assigner) as calls:
        loss = criterion(preds, batch)[0]
    assert not assigner._forward_pre_hooks
    return loss[: len(criterion.base(preds, batch)[0])], calls[0]  # measurements of the gains call it again


def inference_outputs(file: Path, rotated: bool, images: Tensor) -> tuple[Tensor, Tensor]:
    """Scores and boxes of a teacher in Ultralytics' own inference: B x anchors x classes, B x anchors x 4 or 5."""
    model = load_teacher(str(file), "obb" if rotated else "detect").model
    model.model[-1].end2end = False
    with torch.no_grad():
        outputs = model(images)[0].transpose(1, 2)
    boxes, scores = outputs[..., :4], outputs[..., 4:6]
    return scores, torch.cat((boxes, outputs[..., 6:]), -1) if rotated else xywh2xyxy(boxes)


@pytest.mark.parametrize(("student", "teacher"), PAIRS)
def test_is_the_assigner_with_the_teachers_predictions(
    student: str, teacher: str, checkpoint: Callable[..., Path]
) -> None:
    rotated = "obb" in student
    model, criterion = build(student, checkpoint(teacher), assign_epochs=1)
    batch = batch_of(rotated)
    preds = model(batch["img"])
    loss, (args, assigned) = loss_of(criterion, preds, batch)
    scores, boxes = inference_outputs(checkpoint(teacher), rotated, batch["img"])
    finest = 1024 if "p2" in teacher else 0  # a level that the student lacks
    torch.testing.assert_close(args[0], scores[:, finest:], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(args[1], boxes[:, finest:], rtol=1e-4, atol=1e-3)
    plain = dense_criterion(criterion.base).assigner(*args)
    assert all(torch.equal(a, b) for a, b in zip(assigned, plain, strict=True))
    assert assigned[3].any()

    criterion.distiller.start_epoch(1)  # type: ignore[union-attr]
    own_loss, (own_args, own) = loss_of(criterion, preds, batch)
    assert not torch.equal(own_args[0], args[0])
    assert not torch.equal(own[2], assigned[2])
    assert not torch.equal(own_loss, loss)
    assert all(torch.equal(a, b) for a, b in zip(own_args[2:], args[2:], strict=True)), "the ground truth stays"


def test_targets_are_the_formula(checkpoint: Callable[..., Path]) -> None:
    """t / max t * max IoU, computed object by object; the boxes lie apart, so that no cell has two."""
    model, criterion = build("yolov8n.yaml", checkpoint("yolov8s.yaml"), assign_epochs=1)
    batch = batch_of(rotated=False, boxes=2)
    _, (args, assigned) = loss_of(criterion, model(batch["img"]), batch)
    scores, boxes, _, _, truth, _ = args
    for image in range(2):
        iou = bbox_iou(truth[image], boxes[image], xywh=False, CIoU=True).flatten().clamp(0)
        t = scores[image, :, 0].sqrt() * iou**6
        positive = assigned[3][image]
        assert positive.any()
        expected = t / (t[positive].max() + 1e-9) * iou[positive].max()
        torch.testing.assert_close(assigned[2][image, positive, 0], expected[positive])


@pytest.mark.parametrize(("student", "teacher"), PAIRS[:3])
def test_off_is_equal_to_the_bit(student: str, teacher: str, checkpoint: Callable[..., Path]) -> None:
    losses = []
    for epochs in (0, 1):
        model, criterion = build(student, checkpoint(teacher), assign_epochs=epochs)
        criterion.distiller.start_epoch(1)  # type: ignore[union-attr]
        batch = batch_of("obb" in student)
        preds = model(batch["img"])
        losses.append(criterion(preds, batch)[0])
        plain = criterion.base(preds, batch)[0]
        assert torch.equal(losses[-1][: plain.numel()], plain)
    assert torch.equal(*losses)


@pytest.mark.parametrize("name", ["yolov8n.yaml", "yolov8n-obb.yaml"])
def test_a_student_that_predicts_as_the_teacher_has_the_same_loss(name: str, checkpoint: Callable[..., Path]) -> None:
    model, criterion = build(name, checkpoint(name), assign_epochs=1)
    task = "obb" if "obb" in name else "detect"
    model.load_state_dict(load_teacher(str(checkpoint(name)), task).model.state_dict(), strict=False)
    model.eval()  # the teacher's BatchNorm statistics, not the batch's
    batch = batch_of("obb" in name)
    preds = model(batch["img"])
    loss, _ = loss_of(criterion, preds, batch)
    torch.testing.assert_close(loss, criterion.base(preds, batch)[0], rtol=1e-4, atol=1e-5)


def test_the_student_assigns_where_the_teacher_is_not_finite(checkpoint: Callable[..., Path]) -> None:
    model, criterion = build("yolov8n-obb.yaml", checkpoint("yolov8s-obb.yaml"), assign_epochs=1)
    batch = batch_of(rotated=True)
    preds = model(batch["img"])
    broken = batch["img"].clone()
    broken[0] = torch.nan
    loss, (args, assigned) = loss_of(criterion, preds, {**batch, "img": broken})
    _, (taught, _) = loss_of(criterion, preds, batch)
    criterion.distiller.start_epoch(1)  # type: ignore[union-attr]
    _, (own, _) = loss_of(criterion, preds, batch)
    for i in (0, 1):
        assert torch.equal(args[i][0], own[i][0])
        assert torch.equal(args[i][1], taught[i][1])
    assert loss.isfinite().all()
    assert assigned[3][0].any()


def test_scores_are_in_the_order_of_the_students_classes() -> None:
    logits, boxes, valid = torch.randn(1, 5, 2), torch.rand(1, 5, 4), torch.ones(1, dtype=torch.bool)
    same = TeacherAssignment.of(logits, boxes, valid, None, 2)
    assert torch.equal(same.scores, logits.sigmoid())
    other = TeacherAssignment.of(logits, boxes, valid, [2, 0], 3)
    assert torch.equal(other.scores[..., 2], logits[..., 0].sigmoid())
    assert torch.equal(other.scores[..., 0], logits[..., 1].sigmoid())
    assert not other.scores[..., 1].any()


def test_types_are_those_that_the_assigner_gets_from_the_student() -> None:
    taught = TeacherAssignment(torch.rand(2, 5, 2), torch.rand(2, 5, 4), torch.tensor([True, False]))
    student = torch.rand(2, 5, 2).half(), torch.rand(2, 5, 4), torch.rand(5, 2)
    scores, boxes, points = taught.replace_predictions(student)
    assert (scores.dtype, boxes.dtype) == (torch.float16, torch.float32)
    assert points is student[2]
    assert torch.equal(scores[1], student[0][1])
    assert torch.equal(boxes[0], taught.boxes[0])


def test_one_to_one_branch_keeps_its_assignment(checkpoint: Callable[..., Path]) -> None:
    calls = []
    for epoch in (0, 1):
        model, criterion = build("yolo26n-obb.yaml", checkpoint("yolo11s-obb.yaml"), assign_epochs=1)
        criterion.distiller.start_epoch(epoch)  # type: ignore[union-attr]
        batch = batch_of(rotated=True)
        with recorded(criterion.base.one2one.assigner) as one2one, recorded(criterion.base.one2many.assigner) as many:
            criterion(model(batch["img"]), batch)
        calls.append((one2one[0], many[0]))
    (one2one, many), (own_one2one, own_many) = calls
    for taught, own in zip((*one2one[0], *one2one[1]), (*own_one2one[0], *own_one2one[1]), strict=True):
        assert torch.equal(taught, own)
    assert not torch.equal(many[0][0], own_many[0][0])


def test_gains_are_measured_against_the_same_task_loss(checkpoint: Callable[..., Path]) -> None:
    """The criterion runs once for the step and once for the measurement, in float32 from the same features."""
    model, criterion = build("yolov8n-obb.yaml", checkpoint("yolov8s-obb.yaml"), gains="auto", assign_epochs=1)
    batch = batch_of(rotated=True)
    with recorded(criterion.base.assigner) as calls:
        criterion(model(batch["img"]), batch)
    (step, step_result), (measured, measured_result) = calls
    for i in (0, 1):
        assert torch.equal(step[i], measured[i])
    assert torch.equal(step_result[2], measured_result[2])


@pytest.mark.parametrize("keys", [{"gains": 0}, {"gains": 1, "implicit": False}, {"gain_epochs": 1}])
def test_needs_no_term(keys: dict[str, Any], checkpoint: Callable[..., Path]) -> None:
    """The head of the teacher runs without the implicit stream, and with all gains at 0 nothing but it counts."""
    model, criterion = build("yolov8n.yaml", checkpoint("yolov8s.yaml"), assign_epochs=2, **keys)
    batch = batch_of(rotated=False)
    preds = model(batch["img"])
    criterion.gains.start_epoch(1, 3, 2, warm=True)
    criterion.distiller.start_epoch(1)  # type: ignore[union-attr]
    loss, (args, _) = loss_of(criterion, preds, batch)
    scores, _ = inference_outputs(checkpoint("yolov8s.yaml"), False, batch["img"])
    torch.testing.assert_close(args[0], scores, rtol=1e-4, atol=1e-6)
    plain = criterion.base(preds, batch)[0]
    assert not torch.equal(loss, plain)
    whole, items = criterion(preds, batch)
    whole.sum().backward()  # DDP with a static graph: every adapter has a gradient
    adapters = list(criterion.distiller.adapters.parameters())  # type: ignore[union-attr]
    assert all(p.grad is not None for p in adapters)
    if "implicit" not in keys:
        assert [float(items[f"{t}_loss"]) for t in TERMS] == [0] * len(TERMS)
        assert not any(p.grad.any() for p in adapters if p.grad is not None)
    criterion.distiller.start_epoch(2)  # type: ignore[union-attr]
    assert torch.equal(loss_of(criterion, preds, batch)[0], plain)


def test_levels_that_the_teacher_lacks_are_refused(checkpoint: Callable[..., Path]) -> None:
    with pytest.raises(BadUseError, match=r"assign_epochs=2 needs every level of the student \(4, 8, 16, 32\)"):
        build("yolov8n-p2.yaml", checkpoint("yolov8s.yaml"), assign_epochs=2)
    with pytest.raises(BadUseError, match=r"distilled are 8, 16: use a teacher with these strides and no levels="):
        build("yolov8n.yaml", checkpoint("yolov8s.yaml"), assign_epochs=2, levels=[8, 16])
    build("yolov8n.yaml", checkpoint("yolov8s.yaml"), levels=[8, 16])


@pytest.mark.parametrize(
    ("teacher", "classes", "single_cls", "unknown"),
    [
        (["green", "red", "blue"], None, False, None),
        (["red"], None, False, "green"),
        (["red"], [0], False, None),
        (["red"], 1, False, "green"),
        (["blue"], None, False, "red, green"),
    ],
)
def test_classes_that_the_teacher_lacks_are_refused(
    teacher: list[str], classes: Any, single_cls: bool, unknown: str | None
) -> None:
    args = Namespace(classes=classes, single_cls=single_cls)
    settings = Settings(assign_epochs=1)
    class_map = match_run_classes(teacher, {"names": {0: "red", 1: "green"}}, args)
    refuse_unknown_classes(replace(settings, assign_epochs=0), class_map, args)
    if unknown is None:
        refuse_unknown_classes(settings, class_map, args)
        return
    with pytest.raises(BadUseError, match=f"assign_epochs=1: the teacher does not know the data's {unknown}, name"):
        refuse_unknown_classes(settings, class_map, args)


def test_the_one_class_of_single_cls_has_to_be_known() -> None:
    args = Namespace(classes=[1], single_cls=True)
    refuse_unknown_classes(Settings(assign_epochs=1), match_classes(["item"], ["item"]), args)
    with pytest.raises(BadUseError, match="does not know the data's item"):
        refuse_unknown_classes(Settings(assign_epochs=1), match_classes(["red"], ["item"]), args)
