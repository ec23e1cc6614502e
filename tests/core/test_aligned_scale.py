"""Scale alignment: the teacher's statistics, the student's pattern."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ds2d2_yolo.core.aligned_scale import align_scale


def pair() -> tuple[Tensor, Tensor]:
    """A student and a teacher of different scales and offsets, in float64."""
    rng = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(3, 4, 5, 6, generator=rng, dtype=torch.float64) for _ in range(2))
    return 7 * student - 3, torch.arange(1, 5)[:, None, None] * teacher + 5


def test_takes_mean_and_deviation_of_the_teacher_and_correlation_of_the_student() -> None:
    student, teacher = pair()
    aligned = align_scale(student, teacher)
    for channel in range(4):
        x, y, t = (z[:, channel].flatten() for z in (student, aligned, teacher))
        assert y.mean().item() == pytest.approx(t.mean().item(), rel=1e-6)
        assert y.std().item() == pytest.approx(t.std().item(), rel=1e-6)
        assert torch.corrcoef(torch.stack((x, y)))[0, 1].item() == pytest.approx(1)


def test_an_affine_map_of_channels_changes_nothing() -> None:
    student, teacher = pair()
    expected = align_scale(student, teacher)
    torch.testing.assert_close(align_scale(3 * student + 11, teacher), expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(align_scale(2 * teacher - 1, teacher), teacher, rtol=1e-6, atol=1e-6)


def test_gradient_reaches_the_student_through_the_statistics_and_stops_at_the_teacher() -> None:
    student, teacher = (x[:2, :2, :2, :2].clone().requires_grad_() for x in pair())
    valid = torch.tensor([True, False])
    assert torch.autograd.gradcheck(lambda x: align_scale(x, teacher.detach(), valid), student)
    (gradient,) = torch.autograd.grad(align_scale(student, teacher).square().sum(), teacher, allow_unused=True)
    assert gradient is None


def test_only_valid_images_make_the_statistics() -> None:
    student, teacher = pair()
    student[0] *= 100
    teacher[0] = 0
    aligned = align_scale(student, teacher, torch.tensor([False, True, True]))
    torch.testing.assert_close(aligned[1:], align_scale(student[1:], teacher[1:]), rtol=1e-12, atol=1e-12)


def test_a_constant_channel_gets_the_mean() -> None:
    _, teacher = pair()
    student = torch.zeros_like(teacher).requires_grad_()
    aligned = align_scale(student, teacher)
    torch.testing.assert_close(aligned, teacher.mean((0, 2, 3), keepdim=True).expand_as(teacher))
    assert torch.autograd.grad(aligned.sum(), student)[0].isfinite().all()


def test_half_precision_stays_half_and_is_computed_in_float32() -> None:
    student, teacher = (x.half() for x in pair())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        aligned = align_scale(student, teacher)
    assert aligned.dtype == torch.float16
    torch.testing.assert_close(aligned.double(), align_scale(student.double(), teacher.double()), rtol=2e-3, atol=2e-3)


def test_errors() -> None:
    with pytest.raises(ValueError, match="must have one shape"):
        align_scale(torch.zeros(1, 2, 3, 3), torch.zeros(1, 2, 3, 4))
