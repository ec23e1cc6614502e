"""The losses of the implicit stream: dense and two-stage detectors, upright and rotated boxes."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from torch import Tensor

from ds2d2_yolo import core
from tests.helpers.core_inputs import dense_predictions
from tests.helpers.loss_tests import LossTests, Terms, assert_half_is_exact

LOGITS, BOXES = torch.zeros(2, 6, 3), torch.zeros(2, 6, 4)


class TestQualityFocalKD(LossTests):
    cases: ClassVar = {"beta 1": {}, "beta 2": {"beta": 2.0}}
    errors: ClassVar = {
        "logits must have one shape": lambda: core.quality_focal_kd(LOGITS, LOGITS[:1]),
        "beta must be at least 1": lambda: core.quality_focal_kd(LOGITS, LOGITS, beta=0.5),
    }

    def teacher_tensor(self, dtype: torch.dtype, device: torch.device | str = "cpu", beta: float = 1.0) -> Tensor:
        return dense_predictions(dtype)[2].to(device)

    def terms(self, student: Tensor, teacher: Tensor, beta: float = 1.0) -> Terms:
        return (core.quality_focal_kd(student, teacher, beta).sum(),)

    def test_is_elementwise(self) -> None:
        logits, _, teacher, _ = dense_predictions()
        expected = (logits.sigmoid() - teacher.sigmoid()).abs() * -(
            teacher.sigmoid() * logits.sigmoid().log() + (1 - teacher.sigmoid()) * (1 - logits.sigmoid()).log()
        )
        torch.testing.assert_close(core.quality_focal_kd(logits, teacher), expected, rtol=1e-10, atol=0)


class TestSoftmaxKD(LossTests):
    cases: ClassVar = {"T 3": {}, "T 1": {"temperature": 1.0}}
    errors: ClassVar = {
        "logits must have one shape": lambda: core.softmax_kd(LOGITS, LOGITS[:1]),
        "temperature must be positive": lambda: core.softmax_kd(LOGITS, LOGITS, temperature=0),
    }

    def teacher_tensor(self, dtype: torch.dtype, device: torch.device | str = "cpu", **_: float) -> Tensor:
        return dense_predictions(dtype)[2].to(device)

    def terms(self, student: Tensor, teacher: Tensor, temperature: float = 3.0) -> Terms:
        return (core.softmax_kd(student, teacher, temperature).sum(),)


class TestImplicitClassLoss(LossTests):
    cases: ClassVar = {"beta 1": {}, "beta 2": {"beta": 2.0}, "weighted": {"weighted": True}}
    errors: ClassVar = {
        "logits must have one shape": lambda: core.implicit_class_loss(LOGITS, LOGITS[:1], 1),
        "beta must be at least 1": lambda: core.implicit_class_loss(LOGITS, LOGITS, 1, beta=0.5),
    }

    def teacher_tensor(self, dtype: torch.dtype, device: torch.device | str = "cpu", **_: float) -> Tensor:
        return dense_predictions(dtype)[2].to(device)

    def terms(self, student: Tensor, teacher: Tensor, beta: float = 1.0, weighted: bool = False) -> Terms:
        weight = torch.linspace(0.1, 1, 6, device=student.device).expand(len(student), 6) if weighted else None
        return (core.implicit_class_loss(student, teacher, 3.0, beta, weight),)

    def test_is_linear_in_the_weight(self) -> None:
        logits, _, teacher, _ = dense_predictions()
        first, second = torch.rand(2, 2, 6, dtype=torch.float64)
        mixed, one, two = (
            core.implicit_class_loss(logits, teacher, 3, weight=w) for w in (0.3 * first + 1.7 * second, first, second)
        )
        torch.testing.assert_close(mixed, 0.3 * one + 1.7 * two, rtol=1e-12, atol=0)


class TestImplicitBoxLoss(LossTests):
    cases: ClassVar = {"upright": {"columns": 4}, "rotated": {"columns": 5}}
    errors: ClassVar = {
        "boxes must have one shape": lambda: core.implicit_box_loss(BOXES, BOXES[:1], LOGITS, 1),
        "boxes must be \\(B, N, 4\\)": lambda: core.implicit_box_loss(LOGITS, LOGITS, LOGITS, 1),
        "one row of logits per box": lambda: core.implicit_box_loss(BOXES, BOXES, LOGITS[:, :2], 1),
    }
    identity_gradient = 1e-8

    def teacher_tensor(self, dtype: torch.dtype, device: torch.device | str = "cpu", columns: int = 4) -> Tensor:
        return dense_predictions(dtype, columns)[3].to(device)

    def terms(self, student: Tensor, teacher: Tensor, columns: int = 4) -> Terms:
        logits = torch.linspace(-2, 2, 18, device=teacher.device).view(1, 6, 3).expand(len(teacher), 6, 3)
        return (core.implicit_box_loss(student, teacher, logits, 3.0),)


class TestRegionClassLoss(LossTests):
    errors: ClassVar = {
        "logits must have one shape": lambda: core.region_class_loss(LOGITS[0], LOGITS[0, :2], 1),
        "temperature must be positive": lambda: core.region_class_loss(LOGITS[0], LOGITS[0], 1, temperature=0),
    }

    def teacher_tensor(self, dtype: torch.dtype, device: torch.device | str = "cpu") -> Tensor:
        return dense_predictions(dtype)[2].flatten(0, 1).to(device)

    def terms(self, student: Tensor, teacher: Tensor) -> Terms:
        return (core.region_class_loss(student, teacher, 6),)


class TestRegionBoxLoss(LossTests):
    errors: ClassVar = {
        "deltas must have one shape": lambda: core.region_box_loss(BOXES, BOXES[:1], BOXES[..., 0]),
        "deltas must be \\(R, K, 4\\)": lambda: core.region_box_loss(BOXES, BOXES, BOXES[:, :2, 0]),
    }

    def teacher_tensor(self, dtype: torch.dtype, device: torch.device | str = "cpu") -> Tensor:
        generator = torch.Generator().manual_seed(0)
        return torch.randn(6, 3, 4, generator=generator, dtype=torch.float64).to(device, dtype)

    def terms(self, student: Tensor, teacher: Tensor) -> Terms:
        scores = torch.linspace(0, 1, 18, device=teacher.device).view(6, 3)[: len(teacher)]
        return (core.region_box_loss(student, teacher, scores),)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("scale", [1.0, 30.0, 1e4])
def test_half_precision(dtype: torch.dtype, scale: float) -> None:
    logits, box, teacher_logits, teacher_box = (x.to(dtype) for x in dense_predictions(torch.float32))
    rotated, teacher_rotated = (dense_predictions(torch.float32, 5)[i].to(dtype) for i in (1, 3))
    spread = min(scale, 100.0)
    assert_half_is_exact(
        lambda s, t: core.implicit_class_loss(s, t, 3), logits * spread + 0 * scale, teacher_logits * spread
    )
    outlier = logits.clone()
    outlier[0, 0, 0], outlier[0, 1, 1] = scale, -scale
    assert_half_is_exact(lambda s, t: core.implicit_class_loss(s, t, 3), outlier, teacher_logits)
    assert_half_is_exact(lambda s, t: core.region_class_loss(s, t, 3), outlier, teacher_logits)
    assert_half_is_exact(lambda s, t: core.implicit_box_loss(s, t, teacher_logits, 3), box, teacher_box)
    assert_half_is_exact(lambda s, t: core.implicit_box_loss(s, t, teacher_logits, 3), rotated, teacher_rotated)


@pytest.mark.parametrize("boxes", [4, 5])
def test_all_losses_together_compile_to_one_graph(boxes: int) -> None:
    def total(logits: Tensor, box: Tensor, teacher_logits: Tensor, teacher_box: Tensor) -> Tensor:
        loss = core.implicit_class_loss(logits, teacher_logits, 3.0)
        loss = loss + core.implicit_box_loss(box, teacher_box, teacher_logits, 3.0)
        regions = core.region_class_loss(logits, teacher_logits, 6)
        return loss + regions + core.region_box_loss(box[..., None, :4], teacher_box[..., None, :4], logits[..., :1])

    arguments = [x.flatten(0, 1) for x in dense_predictions(torch.float32, boxes)]
    for x in arguments[:2]:
        x.requires_grad_()
    results = []
    for function in (total, torch.compile(total, fullgraph=True, backend="aot_eager")):
        loss = function(*arguments)
        results.append((loss, *torch.autograd.grad(loss, arguments[:2])))
    torch.testing.assert_close(results[0], results[1], rtol=1e-5, atol=1e-6)
