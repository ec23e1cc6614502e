"""KFIoU and its distance: the paper's properties, a plain definition by matrices, and gradients."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import pytest
import shapely
import torch
from shapely import affinity
from torch import Tensor

from ds2d2_yolo import core
from ds2d2_yolo.core.losses.kfiou import BOUND, kfiou, kfiou_distance
from tests.core.test_iou import random_boxes
from tests.helpers.core_inputs import dense_predictions
from tests.helpers.loss_tests import LossTests, Terms, assert_half_is_exact


def pairs(count: int = 200, spread: float = 0.3) -> tuple[Tensor, Tensor]:
    """Boxes in double precision, each beside another one near it."""
    a, b = random_boxes(count, 5), random_boxes(count, 5, seed=1)
    b[:, :2] = a[:, :2] + (b[:, :2] - 50) * spread
    return a, b


def by_matrices(a: np.ndarray, b: np.ndarray) -> float:
    """KFIoU of a pair as the paper defines it: covariances, their Kalman update, areas from determinants."""

    def covariance(box: np.ndarray) -> np.ndarray:
        cos, sin = math.cos(box[4]), math.sin(box[4])
        turn = np.array([[cos, -sin], [sin, cos]])
        return turn @ np.diag((box[2] ** 2 / 4, box[3] ** 2 / 4)) @ turn.T

    first, second = covariance(a), covariance(b)
    gain = first @ np.linalg.inv(first + second)
    areas = [4 * math.sqrt(np.linalg.det(s)) for s in (first, second, first - gain @ first)]
    return areas[2] / (areas[0] + areas[1] - areas[2])


def rotated_iou(a: np.ndarray, b: np.ndarray) -> float:
    """Exact overlap of a pair."""
    first, second = (
        affinity.rotate(shapely.box(x - w / 2, y - h / 2, x + w / 2, y + h / 2), r, use_radians=True)
        for x, y, w, h, r in (a, b)
    )
    return float(first.intersection(second).area / first.union(second).area)


def ranks(values: np.ndarray) -> np.ndarray:
    return values.argsort().argsort().astype(float)


def test_equals_its_definition_by_matrices() -> None:
    a, b = pairs()
    expected = [by_matrices(*pair) for pair in zip(a.numpy(), b.numpy(), strict=True)]
    torch.testing.assert_close(kfiou(a, b), torch.tensor(expected, dtype=a.dtype), rtol=1e-9, atol=0)


def test_is_at_most_a_third_and_reaches_it_for_equal_sizes_and_angles_only() -> None:
    a, b = pairs()
    values = kfiou(a, b)
    assert values.min() > 0
    assert values.max() < BOUND
    moved = a + torch.tensor([7.0, -3.0, 0.0, 0.0, 0.0], dtype=a.dtype)  # it does not see the centres
    torch.testing.assert_close(kfiou(a, moved), torch.full_like(values, BOUND), rtol=1e-12, atol=0)


@pytest.mark.parametrize("scale", [1e-2, 37.0])
def test_neither_scale_nor_rotation_of_both_boxes_changes_the_distance(scale: float) -> None:
    a, b = pairs()
    expected = kfiou_distance(a, b)
    scaled = [torch.cat((x[:, :4] * scale, x[:, 4:]), 1) for x in (a, b)]
    torch.testing.assert_close(kfiou_distance(*scaled), expected, rtol=1e-9, atol=1e-12)
    cos, sin = math.cos(0.7), math.sin(0.7)
    turned = [
        torch.stack((x[:, 0] * cos - x[:, 1] * sin, x[:, 0] * sin + x[:, 1] * cos, x[:, 2], x[:, 3], x[:, 4] + 0.7), 1)
        for x in (a, b)
    ]
    torch.testing.assert_close(kfiou_distance(*turned), expected, rtol=1e-9, atol=1e-12)


def test_half_a_turn_and_swapped_sides_are_the_same_box() -> None:
    a, b = pairs()
    for other in (
        b + torch.tensor([0, 0, 0, 0, math.pi], dtype=b.dtype),
        b[:, [0, 1, 3, 2, 4]] + torch.tensor([0, 0, 0, 0, math.pi / 2], dtype=b.dtype),
    ):
        torch.testing.assert_close(kfiou(a, other), kfiou(a, b), rtol=1e-9, atol=0)


def test_follows_the_trend_of_the_exact_overlap() -> None:
    """Boxes of one centre, as the paper compares them: the ranks agree although the values do not."""
    a, b = pairs()
    b[:, :2] = a[:, :2]
    exact = np.array([rotated_iou(*pair) for pair in zip(a.numpy(), b.numpy(), strict=True)])
    correlation = np.corrcoef(ranks(exact), ranks(kfiou(a, b).numpy()))[0, 1]
    assert correlation > 0.95
    apart, near = pairs()[1], pairs()
    exact = np.array([rotated_iou(*pair) for pair in zip(near[0].numpy(), apart.numpy(), strict=True)])
    correlation = np.corrcoef(ranks(-exact), ranks(kfiou_distance(near[0], apart).numpy()))[0, 1]
    assert correlation > 0.8


def test_distance_is_the_stretched_overlap_and_the_centres() -> None:
    a, b = pairs()
    offset = a[:, :2] - b[:, :2]
    cos, sin = b[:, 4].cos(), b[:, 4].sin()
    u = (offset[:, 0] * cos + offset[:, 1] * sin).abs() / b[:, 2]
    v = (offset[:, 1] * cos - offset[:, 0] * sin).abs() / b[:, 3]
    centre = sum(torch.where(x < 1 / 9, 4.5 * x * x, x - 1 / 18) for x in (u, v))
    torch.testing.assert_close(kfiou_distance(a, b), 1 - 3 * kfiou(a, b) + centre, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_identical_boxes_have_no_distance_and_no_gradient(dtype: torch.dtype) -> None:
    student = random_boxes(50, 5, dtype=dtype).requires_grad_()
    distance = kfiou_distance(student, student.detach().clone())
    assert not distance.any()
    (gradient,) = torch.autograd.grad(distance.sum(), student)
    assert not gradient.any()


def test_gradcheck() -> None:
    a, b = pairs(8)
    assert torch.autograd.gradcheck(lambda x: kfiou_distance(x, b), a.requires_grad_())


def test_angle_of_a_square_has_no_gradient() -> None:
    square = torch.tensor([[5.0, 5.0, 8.0, 8.0, 0.3]], dtype=torch.float64)
    student = torch.tensor([[5.0, 5.0, 12.0, 4.0, 0.9]], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(kfiou_distance(student, square).sum(), student)
    assert abs(gradient[0, 4]) < 1e-12
    assert gradient[0, 2:4].abs().min() > 1e-3
    (gradient,) = torch.autograd.grad(kfiou_distance(student, square * torch.tensor([1, 1, 2, 1, 1])).sum(), student)
    assert abs(gradient[0, 4]) > 1e-3  # a longer box has one


def test_boxes_without_area_have_finite_gradients() -> None:
    student = torch.tensor([[0.0, 0, 0, 0, 0], [0, 0, 1e-6, 5, 1], [0, 0, 1e4, 1e4, 1]], requires_grad=True)
    teacher = torch.tensor([[3.0, 4, 10, 2, 1], [3, 4, 0, 0, 1], [0, 0, 0, 1e4, 0]])
    (gradient,) = torch.autograd.grad(kfiou_distance(student, teacher).sum(), student)
    assert gradient.isfinite().all()


def test_wants_five_columns() -> None:
    with pytest.raises(ValueError, match=r"\(\.\.\., 5\) as xywhr"):
        kfiou(torch.zeros(3, 4), torch.zeros(3, 4))


class TestImplicitBoxLoss(LossTests):
    """The implicit stream's box term with this distance."""

    errors: ClassVar = {
        "distance must be 'iou', or 'kfiou' for xywhr boxes": lambda: core.implicit_box_loss(
            torch.zeros(2, 6, 4), torch.zeros(2, 6, 4), torch.zeros(2, 6, 3), 1, "kfiou"
        )
    }

    def teacher_tensor(self, dtype: torch.dtype, device: torch.device | str = "cpu") -> Tensor:
        return dense_predictions(dtype, 5)[3].to(device)

    def terms(self, student: Tensor, teacher: Tensor) -> Terms:
        logits = torch.linspace(-2, 2, 18, device=teacher.device).view(1, 6, 3).expand(len(teacher), 6, 3)
        return (core.implicit_box_loss(student, teacher, logits, 3.0, "kfiou"),)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision(self, dtype: torch.dtype) -> None:
        _, box, logits, teacher = (x.to(dtype) for x in dense_predictions(torch.float32, 5))
        assert_half_is_exact(lambda s, t: core.implicit_box_loss(s, t, logits, 3, "kfiou"), box, teacher)
