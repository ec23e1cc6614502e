"""The task loss sees labelled images alone; the terms see all, with the teacher's detections as boxes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from ultralytics import YOLO

from ds2d2_yolo.bridge.distillation.batch import StudentInputs
from ds2d2_yolo.bridge.distillation.gradients.levels import TASK
from ds2d2_yolo.bridge.distillation.gradients.norms import neck_losses
from ds2d2_yolo.bridge.distillation.targets import Targets, capture_assigner_calls
from ds2d2_yolo.bridge.distillation.unlabelled.labelled_rows import LABELLED, LOSS_IMAGES, task_loss
from ds2d2_yolo.bridge.distillation.unlabelled.teacher_boxes import append_detections, teacher_detections
from ds2d2_yolo.bridge.models.heads import logits_and_boxes
from tests.helpers.distillation import batch_of, build

STUDENTS = {"yolov8n-obb.yaml": "yolov8s-obb.yaml", "yolov8n.yaml": "yolov8s.yaml", "yolo26n.yaml": "yolov8s.yaml"}


def freeze_statistics(model: nn.Module) -> None:
    """Let predictions of an image not depend on the other images of its batch."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


def half_labelled(rotated: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """A batch with one labelled and one unlabelled image, and the labelled image alone."""
    batch: dict[str, Any] = dict(batch_of(rotated))
    is_labelled = batch["batch_idx"] == 0
    labelled_batch = {"img": batch["img"][:1], **{k: batch[k][is_labelled] for k in ("batch_idx", "cls", "bboxes")}}
    mixed_batch = {**labelled_batch, "img": batch["img"], LABELLED: torch.tensor([True, False]), LOSS_IMAGES: 1}
    return mixed_batch, labelled_batch


@pytest.mark.parametrize("student", STUDENTS)
def test_task_loss_is_that_of_the_labelled_images_alone(student: str, checkpoint: Callable[..., Path]) -> None:
    model, criterion = build(student, checkpoint(STUDENTS[student]))
    freeze_statistics(model)
    mixed_batch, labelled_batch = half_labelled("obb" in student)
    loss, items = task_loss(criterion.base, model(mixed_batch["img"]), mixed_batch)
    expected_loss, expected_items = criterion.base(model(labelled_batch["img"]), labelled_batch)
    torch.testing.assert_close(loss, expected_loss)
    torch.testing.assert_close(items, expected_items)
    loss.sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_no_gradient_of_the_task_loss_reaches_an_unlabelled_image(checkpoint: Callable[..., Path]) -> None:
    model, criterion = build("yolov8n.yaml", checkpoint("yolov8s.yaml"))
    freeze_statistics(model)
    mixed_batch, _ = half_labelled(False)
    images = mixed_batch["img"].clone().requires_grad_()
    task_loss(criterion.base, model(images), mixed_batch)[0].sum().backward()
    assert images.grad is not None
    assert images.grad[0].abs().sum() > 0
    assert images.grad[1].abs().sum() == 0


def test_a_batch_without_the_key_is_untouched(checkpoint: Callable[..., Path]) -> None:
    model, criterion = build("yolov8n.yaml", checkpoint("yolov8s.yaml"))
    batch = batch_of(False)
    outputs = model(batch["img"])
    assert torch.equal(task_loss(criterion.base, outputs, batch)[0], criterion.base(outputs, batch)[0])


def test_losses_of_pseudo_labelled_images_are_scaled_to_the_labelled_part(checkpoint: Callable[..., Path]) -> None:
    model, criterion = build("yolov8n.yaml", checkpoint("yolov8s.yaml"))
    batch: dict[str, Any] = dict(batch_of(False))
    outputs = model(batch["img"])
    usual = criterion.base(outputs, batch)[0]
    scaled, _ = task_loss(criterion.base, outputs, {**batch, LABELLED: torch.ones(2, dtype=torch.bool), LOSS_IMAGES: 1})
    torch.testing.assert_close(scaled, usual / 2)


@pytest.mark.parametrize("student", ["yolov8n-obb.yaml", "yolov8n.yaml"])
def test_terms_see_the_unlabelled_image_with_the_detections_as_its_boxes(
    student: str, detecting: Callable[..., Path], tmp_path: Path
) -> None:
    """An unlabelled image counts as one whose labels are the teacher's detections."""
    rotated = "obb" in student
    teacher = detecting(STUDENTS[student], tmp_path)
    model, criterion = build(student, teacher, imhi=0.0, unlabelled_conf=0.4)
    freeze_statistics(model)
    mixed_batch, _ = half_labelled(rotated)
    size = mixed_batch["img"].shape[2]
    outputs = criterion.distiller.teacher_outputs(mixed_batch["img"], 1)
    (detections,) = outputs.detections
    assert len(detections) > 0
    assert (detections[:, -2] > 0.4).all()
    labels = detections[:, : 5 if rotated else 4].clone()
    if not rotated:  # a data set drops labels without an area; corners to centre and size
        detections = detections[(detections[:, 2:4] > detections[:, :2]).all(1)]
        labels = torch.cat(((detections[:, :2] + detections[:, 2:4]) / 2, detections[:, 2:4] - detections[:, :2]), 1)
    labels[:, :4] /= size
    pseudo_labelled = {
        "img": mixed_batch["img"],
        "batch_idx": torch.cat((mixed_batch["batch_idx"], torch.ones(len(detections)))),
        "cls": torch.cat((mixed_batch["cls"], detections[:, -1:])),
        "bboxes": torch.cat((mixed_batch["bboxes"], labels)),
    }
    loss, items = criterion(model(mixed_batch["img"]), mixed_batch)
    expected_loss, expected_items = criterion(model(mixed_batch["img"]), pseudo_labelled)
    for term in ("exlo_loss", "exhi_loss", "imfu_loss"):
        torch.testing.assert_close(items[term], expected_items[term])
    # the terms of two images, multiplied by the one labelled image
    torch.testing.assert_close(loss[-4:] * 2, expected_loss[-4:])


@pytest.mark.parametrize("yaml", ["yolov8s-obb.yaml", "yolov8s.yaml"])
def test_detections_are_those_of_the_predictor(
    yaml: str, detecting: Callable[..., Path], tmp_path: Path, unhurried: None
) -> None:
    teacher = detecting(yaml, tmp_path)
    _, criterion = build(yaml.replace("8s", "8n"), teacher, imhi=0.0)
    images = batch_of(False)["img"]
    batch_detections = criterion.distiller.teacher_outputs(images, 0).detections
    results = YOLO(str(teacher)).predict(images, conf=0.25, iou=0.7, max_det=1000, verbose=False, device="cpu")
    assert sum(map(len, batch_detections)) > 0
    for detections, result in zip(batch_detections, results, strict=True):
        boxes = result.obb if "obb" in yaml else result.boxes
        expected_boxes = boxes.xywhr if "obb" in yaml else boxes.xyxy
        assert len(detections) == len(expected_boxes)
        torch.testing.assert_close(detections[:, -2], boxes.conf, rtol=1e-3, atol=1e-4)  # the best one first
        # rounding decides the order of detections whose confidences are nearly equal
        actual = torch.cat((detections[:, :4], detections[:, -2:]), 1)
        expected = torch.cat((expected_boxes[:, :4], boxes.conf[:, None], boxes.cls[:, None]), 1)
        rows, columns = linear_sum_assignment(torch.cdist(actual, expected).numpy())
        torch.testing.assert_close(actual[rows, :4], expected[columns, :4], rtol=1e-3, atol=0.05)
        torch.testing.assert_close(actual[rows, 4:], expected[columns, 4:], rtol=1e-3, atol=1e-4)


def test_detections_are_in_the_frame_of_a_student_that_sees_smaller_images(
    detecting: Callable[..., Path], tmp_path: Path
) -> None:
    teacher = detecting("yolov8s-obb.yaml", tmp_path)
    images = batch_of(True)["img"]
    distiller = build("yolov8n-obb.yaml", teacher, imhi=0.0, ratio=2)[1].distiller
    decoded = logits_and_boxes(distiller.teacher.head, distiller.teacher(images))
    logits, boxes = decoded
    boxes = torch.cat((boxes[..., :4] / 2, boxes[..., 4:]), -1)
    valid = torch.ones(len(images), dtype=torch.bool)
    conf, size = distiller.settings.unlabelled_conf, [side // 2 for side in images.shape[2:]]
    expected = teacher_detections(logits, boxes, valid, conf, size)
    assert sum(map(len, expected)) > 0
    for one, other in zip(expected, distiller.teacher_outputs(images, 0).detections, strict=True):
        assert torch.equal(one, other)


def no_targets(columns: int) -> Targets:
    """Ground truth of no image."""
    return Targets(torch.zeros(0, 0, columns), torch.zeros(0, 0, dtype=torch.bool))


@pytest.mark.parametrize(("side", "number"), [(1.5, 0), (2.5, 1)])
def test_oriented_boxes_of_less_than_two_pixels_are_no_labels(side: float, number: int) -> None:
    """As for labelled images, whose loss drops them."""
    boxes = torch.tensor([[[8.0, 8, 6, side, 0.3]]])
    detections = teacher_detections(torch.full((1, 1, 1), 4.0), boxes, torch.tensor([True]), 0.25, (16, 16))
    assert append_detections(no_targets(5), detections).mask.sum() == number


def test_upright_boxes_are_cut_at_the_border_and_left_out_beyond_it() -> None:
    boxes = torch.tensor([[[-4.0, 2, 6, 9], [17, 2, 30, 9]]])
    detections = teacher_detections(torch.full((1, 2, 1), 4.0), boxes, torch.tensor([True]), 0.25, (16, 16))
    targets = append_detections(no_targets(4), detections)
    assert targets.boxes[targets.mask].tolist() == [[0, 2, 6, 9]]


def test_images_that_are_not_valid_have_no_detection() -> None:
    logits, boxes = torch.full((2, 3, 1), 4.0), torch.tensor([0.0, 0, 9, 9]).expand(2, 3, 4)
    detections = teacher_detections(logits, boxes, torch.tensor([True, False]), 0.25, (16, 16))
    assert [len(d) for d in detections] == [1, 0]


def test_targets_are_padded_to_the_longest_image() -> None:
    targets = Targets(torch.ones(1, 1, 4), torch.ones(1, 1, dtype=torch.bool))
    detections = torch.tensor([[1.0, 1, 2, 2, 0.9, 0]] * 3)
    joined = append_detections(targets, [detections, torch.zeros(0, 6)])
    assert joined.boxes.shape == (3, 3, 4)
    assert joined.mask.tolist() == [[True, False, False], [True, True, True], [False, False, False]]
    assert torch.equal(joined.boxes[1], detections[:, :4])


def test_no_detection_is_computed_where_no_term_needs_boxes(checkpoint: Callable[..., Path]) -> None:
    images = batch_of(False)["img"]
    for keys in ({"explicit": False}, {"weight_map": "score"}):
        _, criterion = build("yolov8n.yaml", checkpoint("yolov8s.yaml"), imhi=0.0, **keys)
        assert criterion.distiller.teacher_outputs(images, 1).detections == []
    assert criterion.distiller.teacher_outputs(images, 2).detections == []


def test_measured_task_loss_is_that_of_the_labelled_image(checkpoint: Callable[..., Path]) -> None:
    model, criterion = build("yolov8n.yaml", checkpoint("yolov8s.yaml"), imhi=0.0)
    freeze_statistics(model)
    mixed_batch, labelled_batch = half_labelled(False)

    def measure(batch: dict[str, Any], labelled: int) -> dict[str, Tensor]:
        teacher = criterion.distiller.teacher_outputs(batch["img"], labelled)
        with capture_assigner_calls(criterion.base) as calls:
            outputs = model(batch["img"])
            task_loss(criterion.base, outputs, batch)
        student = StudentInputs.of(criterion.base, outputs, teacher.complete_targets(calls[0].targets))
        return neck_losses(criterion.base, criterion.head, criterion.distiller, student, teacher, batch)[0]

    torch.testing.assert_close(measure(mixed_batch, 1)[TASK], measure(labelled_batch, 1)[TASK])
