"""Distillation of box distributions and angles: against plain implementations, and where they must be zero."""

from __future__ import annotations

import math
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from ds2d2_yolo import core
from tests.helpers.core_inputs import dense_predictions
from tests.helpers.loss_tests import LossTests, Terms, assert_half_is_exact

BINS, BOXES, WEIGHT = torch.zeros(2, 6, 4, 5), torch.zeros(2, 6, 5), torch.zeros(2, 6)


def random_bins(dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    """Logits of 5 bins: (B, N, 4, bins) = (2, 6, 4, 5)."""
    return torch.randn(2, 6, 4, 5, generator=torch.Generator().manual_seed(seed), dtype=dtype) * 2


def weights_like(x: Tensor) -> Tensor:
    """A weight of each anchor, among them 0."""
    return torch.linspace(0, 1, 6, device=x.device).expand(len(x), 6)


class TestBoxDistributionLoss(LossTests):
    cases: ClassVar = {"tau 1": {}, "tau 5": {"temperature": 5.0}}
    errors: ClassVar = {
        "distributions must have one shape": lambda: core.box_distribution_loss(BINS, BINS[..., :4], WEIGHT, 1),
        "distributions must be \\(B, N, 4, bins\\)": lambda: core.box_distribution_loss(BOXES, BOXES, WEIGHT, 1),
        "and weights \\(B, N\\)": lambda: core.box_distribution_loss(BINS, BINS, WEIGHT[:, :5], 1),
        "temperature must be positive": lambda: core.box_distribution_loss(BINS, BINS, WEIGHT, 1, temperature=0),
    }

    def teacher_tensor(self, dtype: torch.dtype, device: torch.device | str = "cpu", **_: float) -> Tensor:
        return random_bins().to(device, dtype)

    def terms(self, student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Terms:
        return (core.box_distribution_loss(student, teacher, weights_like(student), 3.0, temperature),)

    @pytest.mark.parametrize("temperature", [1.0, 2.5])
    def test_equals_a_plain_implementation(self, temperature: float) -> None:
        student, teacher, weight = random_bins(seed=1), random_bins(), weights_like(BINS).double()
        total = 0.0
        for i in range(2):
            for j in range(6):
                for edge in range(4):
                    p = [math.exp(z / temperature) for z in student[i, j, edge].tolist()]
                    q = [math.exp(z / temperature) for z in teacher[i, j, edge].tolist()]
                    divergence = sum(
                        b / sum(q) * math.log(b / sum(q) / (a / sum(p))) for a, b in zip(p, q, strict=True)
                    )
                    total += float(weight[i, j]) * temperature**2 * divergence / 4
        loss = core.box_distribution_loss(student, teacher, weight, weight.sum(), temperature)
        assert loss.item() == pytest.approx(total / float(weight.sum()), rel=1e-6)

    def test_adding_a_number_to_all_logits_changes_nothing(self) -> None:
        student, teacher, weight = random_bins(seed=1), random_bins(), weights_like(BINS)
        moved = core.box_distribution_loss(student + 7, teacher - 3, weight, 1)
        torch.testing.assert_close(moved, core.box_distribution_loss(student, teacher, weight, 1))


class TestBoxAngleLoss(LossTests):
    errors: ClassVar = {
        "boxes must have one shape": lambda: core.box_angle_loss(BOXES, BOXES[:1], WEIGHT, 1),
        "boxes must be \\(B, N, 5\\)": lambda: core.box_angle_loss(BOXES[..., :4], BOXES[..., :4], WEIGHT, 1),
        "and weights \\(B, N\\)": lambda: core.box_angle_loss(BOXES, BOXES, WEIGHT[:, :5], 1),
    }

    def teacher_tensor(self, dtype: torch.dtype, device: torch.device | str = "cpu") -> Tensor:
        return dense_predictions(torch.float64, 5)[3].to(device, dtype)

    def terms(self, student: Tensor, teacher: Tensor) -> Terms:
        return (core.box_angle_loss(student, teacher, weights_like(student), 3.0),)

    def test_equals_a_plain_implementation(self) -> None:
        _, student, _, teacher = dense_predictions(torch.float64, 5)
        weight = weights_like(BOXES).double()
        total = 0.0
        for s, (_, _, w, h, angle), v in zip(
            student.flatten(0, 1).tolist(), teacher.flatten(0, 1).tolist(), weight.flatten().tolist(), strict=True
        ):
            total += v * math.exp(-(math.log(w / h) ** 2) / 9) * math.sin(2 * (s[4] - angle)) ** 2
        loss = core.box_angle_loss(student, teacher, weight, weight.sum())
        assert loss.item() == pytest.approx(total / float(weight.sum()), rel=1e-6)

    def test_only_the_angle_gets_a_gradient(self) -> None:
        student, teacher = self.pair(torch.float64)
        (gradient,) = torch.autograd.grad(self.terms(student, teacher)[0], student)
        assert not gradient[..., :4].any()
        assert gradient[:, 1:, 4].all()

    @pytest.mark.parametrize("turns", [-2, -1, 1, 2, 3])
    def test_a_quarter_turn_is_the_same_and_an_eighth_the_worst(self, turns: int) -> None:
        _, _, _, teacher = dense_predictions(torch.float64, 5)
        weight = torch.ones(2, 6)
        turned, between, near = teacher.clone(), teacher.clone(), teacher.clone()
        turned[..., 4] += turns * math.pi / 2
        between[..., 4] += turns * math.pi / 2 + math.pi / 4
        near[..., 4] += turns * math.pi / 2 + math.pi / 5
        assert core.box_angle_loss(turned, teacher, weight, 12).item() == pytest.approx(0, abs=1e-12)
        worst, less = (core.box_angle_loss(x, teacher, weight, 12) for x in (between, near))
        assert 0 < less < worst

    @pytest.mark.parametrize(("aspect", "expected"), [(1, 1), (2, math.exp(-(math.log(2) ** 2) / 9)), (0.5, None)])
    def test_squares_weigh_most(self, aspect: float, expected: float | None) -> None:
        def loss_at(ratio: float) -> float:
            teacher = torch.tensor([[[0, 0, 8.0 * ratio, 8.0, 0.0]]], dtype=torch.float64)
            student = teacher.clone()
            student[..., 4] += math.pi / 4
            return core.box_angle_loss(student, teacher, torch.ones(1, 1), 1).item()

        assert loss_at(aspect) == pytest.approx(loss_at(1 / aspect) if expected is None else expected, rel=1e-6)

    @pytest.mark.parametrize("sides", [(0.0, 8.0), (8.0, -1.0)])
    def test_a_box_without_area_counts_nothing(self, sides: tuple[float, float]) -> None:
        teacher = torch.tensor([[[0, 0, *sides, 0.0]]])
        student = (teacher + 0.4).requires_grad_()
        loss = core.box_angle_loss(student, teacher, torch.ones(1, 1), 1)
        assert loss.item() == pytest.approx(0, abs=1e-20)
        assert torch.autograd.grad(loss, student)[0].isfinite().all()


def test_confident_scores_are_the_largest_score_above_the_threshold() -> None:
    scores = torch.tensor([[[0.9, 0.2], [0.04, 0.01]], [[0.051, 0.0001], [0.3, 0.6]]], dtype=torch.float64)
    weight = core.confident_scores(scores.logit())
    torch.testing.assert_close(weight, torch.tensor([[0.9, 0], [0.051, 0.6]], dtype=torch.float64))
    assert core.confident_scores(scores.logit(), 0.5).count_nonzero() == 2
    assert not core.confident_scores(scores.logit().requires_grad_()).requires_grad
    assert core.confident_scores(scores.logit().half()).dtype == torch.float32
    for wrong in (-0.1, 1.0):
        with pytest.raises(ValueError, match="threshold must be"):
            core.confident_scores(scores, wrong)


def test_a_batch_without_confident_anchors_gives_exactly_zero() -> None:
    weight = core.confident_scores(torch.full((2, 6, 3), -5.0))
    bins, boxes = random_bins(seed=1).requires_grad_(), dense_predictions(torch.float64, 5)[1].requires_grad_()
    for loss, x in (
        (core.box_distribution_loss(bins, random_bins(), weight, weight.sum()), bins),
        (core.box_angle_loss(boxes, dense_predictions(torch.float64, 5)[3], weight, weight.sum()), boxes),
    ):
        assert loss.item() == 0
        assert not torch.autograd.grad(loss, x)[0].any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype: torch.dtype) -> None:
    student, teacher = (random_bins(torch.float32, seed).to(dtype) for seed in (1, 0))
    boxes, teacher_boxes = (dense_predictions(torch.float32, 5)[i].to(dtype) for i in (1, 3))
    weight = weights_like(BOXES)
    assert_half_is_exact(lambda s, t: core.box_distribution_loss(s, t, weight, 3), student, teacher)
    assert_half_is_exact(lambda s, t: core.box_angle_loss(s, t, weight, 3), boxes, teacher_boxes)
