"""Formulas of the rivals against plain NumPy, on top of what every loss must satisfy."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from ds2d2_yolo.core.rivals.cwd import channel_wise_loss
from ds2d2_yolo.core.rivals.ld import localization_loss
from ds2d2_yolo.core.rivals.pkd import pearson_feature_loss
from tests.helpers.core_inputs import feature_inputs
from tests.helpers.loss_tests import LossTests, Terms

SHAPE = (2, 3, 4, 5)
FEATURES = torch.zeros(2, 3, 4, 4)
LOGITS = torch.zeros(2, 6, 4, 5)


def softmax(x: np.ndarray) -> np.ndarray:
    return np.exp(x) / np.exp(x).sum()


def unlike(dtype: torch.dtype, device: torch.device | str, shape: tuple[int, ...] = SHAPE) -> tuple[Tensor, Tensor]:
    """Features of a student, which requires a gradient, and of a teacher."""
    student, teacher, _ = feature_inputs(shape, torch.float64)
    return student.to(device, dtype).requires_grad_(), teacher.to(device, dtype)


class TestPearsonFeatureLoss(LossTests):
    errors: ClassVar = {"features must have one shape": lambda: pearson_feature_loss(FEATURES, FEATURES[:1])}

    def teacher_tensor(self, dtype: torch.dtype, device: torch.device | str = "cpu") -> Tensor:
        return feature_inputs(SHAPE, torch.float64)[1].to(device, dtype)

    def pair(self, dtype: torch.dtype, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
        return unlike(dtype, device)  # the default pair, a linear function of each other, is the minimum

    def terms(self, student: Tensor, teacher: Tensor) -> Terms:
        return (pearson_feature_loss(student, teacher),)

    def test_is_one_minus_the_correlation_of_each_channel(self) -> None:
        student, teacher = (x.detach().transpose(0, 1).flatten(1).numpy() for x in unlike(torch.float64, "cpu"))
        correlations = [np.corrcoef(a, b)[0, 1] for a, b in zip(student, teacher, strict=True)]
        count = student.shape[1]
        expected = (1 - np.mean(correlations)) * (count - 1) / count
        assert pearson_feature_loss(*unlike(torch.float64, "cpu")).item() == pytest.approx(expected, rel=1e-5)

    def test_sees_neither_scale_nor_offset_of_a_channel(self) -> None:
        student, teacher = (x.detach() for x in unlike(torch.float64, "cpu"))
        scale, offset = torch.tensor([0.1, 3.0, 50.0]).view(1, 3, 1, 1), torch.tensor([4.0, -1, 0]).view(1, 3, 1, 1)
        expected = pearson_feature_loss(student, teacher)
        torch.testing.assert_close(pearson_feature_loss(student * scale + offset, teacher), expected, rtol=1e-4, atol=0)

    def test_constant_channels_have_a_finite_gradient(self) -> None:
        student = torch.ones(2, 3, 4, 5, requires_grad=True)
        (gradient,) = torch.autograd.grad(pearson_feature_loss(student, unlike(torch.float32, "cpu")[1]), student)
        assert gradient.isfinite().all()


class TestChannelWiseLoss(LossTests):
    cases: ClassVar = {"tau 1": {}, "tau 4": {"tau": 4.0}}
    errors: ClassVar = {
        "features must have one shape": lambda: channel_wise_loss(FEATURES, FEATURES[:1]),
        "temperature must be positive": lambda: channel_wise_loss(FEATURES, FEATURES, 0),
    }

    def teacher_tensor(self, dtype: torch.dtype, device: torch.device | str = "cpu", **_: float) -> Tensor:
        return feature_inputs(SHAPE, torch.float64)[1].to(device, dtype)

    def terms(self, student: Tensor, teacher: Tensor, tau: float = 1.0) -> Terms:
        return (channel_wise_loss(student, teacher, tau),)

    def test_equals_plain_loops(self, case: dict[str, float]) -> None:
        student, teacher = unlike(torch.float64, "cpu")
        tau, divergences = case.get("tau", 1.0), []
        for image in range(SHAPE[0]):
            for channel in range(SHAPE[1]):
                p, q = (softmax(x.detach()[image, channel].numpy().ravel() / tau) for x in (student, teacher))
                divergences.append(tau**2 * np.sum(q * np.log(q / p)))
        assert channel_wise_loss(student, teacher, tau).item() == pytest.approx(np.mean(divergences), rel=1e-10)

    def test_does_not_see_an_offset_of_a_channel(self) -> None:
        student, teacher = unlike(torch.float64, "cpu")
        offset = torch.tensor([4.0, -1, 0]).view(1, 3, 1, 1)
        torch.testing.assert_close(channel_wise_loss(student + offset, teacher), channel_wise_loss(student, teacher))


class TestLocalizationLoss(LossTests):
    cases: ClassVar = {"upright": {}, "oriented": {"temperature": 5.0, "divisor": 1.0}}
    errors: ClassVar = {
        "logits must have one shape": lambda: localization_loss(LOGITS, LOGITS[:1], LOGITS[..., 0, 0]),
        "one weight per cell": lambda: localization_loss(LOGITS, LOGITS, LOGITS[:, :2, 0, 0]),
        "temperature must be positive": lambda: localization_loss(LOGITS, LOGITS, LOGITS[..., 0, 0], 0),
    }

    def teacher_tensor(self, dtype: torch.dtype, device: torch.device | str = "cpu", **_: float) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        return (3 * torch.randn(2, 6, 4, 5, generator=generator, dtype=torch.float64)).to(device, dtype)

    def weight(self, student: Tensor) -> Tensor:
        """Weights of the cells, one of them 0."""
        return torch.linspace(0, 1, 6, device=student.device, dtype=torch.float64).expand(len(student), 6)

    def terms(self, student: Tensor, teacher: Tensor, temperature: float = 10.0, divisor: float = 4.0) -> Terms:
        weight = self.weight(student).to(torch.promote_types(student.dtype, torch.float32))
        return (localization_loss(student, teacher, weight, temperature, divisor),)

    def test_equals_plain_loops(self, case: dict[str, float]) -> None:
        teacher = self.teacher_tensor(torch.float64)
        student, weight = teacher.flip(1) + 0.5, self.weight(teacher)
        temperature, total = case.get("temperature", 10.0), 0.0
        for image in range(2):
            for cell in range(6):
                for edge in range(4):
                    p, q = (softmax(x[image, cell, edge].numpy() / temperature) for x in (student, teacher))
                    total += weight[image, cell].item() * temperature**2 * np.mean(q * np.log(q / p))
        expected = total / (case.get("divisor", 4.0) * weight.sum().item())
        assert localization_loss(student, teacher, weight, **case).item() == pytest.approx(expected, rel=1e-6)

    def test_a_cell_without_weight_is_left_out(self) -> None:
        teacher = self.teacher_tensor(torch.float64)
        student = (teacher + 1.0 * torch.arange(5)).requires_grad_()
        (gradient,) = torch.autograd.grad(localization_loss(student, teacher, self.weight(teacher)), student)
        assert not gradient[:, 0].any()
        assert gradient[:, 1:].abs().min() > 0

    def test_no_weight_at_all_is_zero(self) -> None:
        teacher = self.teacher_tensor(torch.float32)
        student = (teacher * 2).requires_grad_()
        loss = localization_loss(student, teacher, torch.zeros(2, 6))
        assert loss.item() == 0
        assert not torch.autograd.grad(loss, student)[0].any()
