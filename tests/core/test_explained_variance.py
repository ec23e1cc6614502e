"""R^2 of a feature for another, against a plain computation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from ds2d2_yolo.core.explained_variance import explained_variance


def pair() -> tuple[Tensor, Tensor]:
    """A teacher with offsets, and a student near it, in float64."""
    rng = torch.Generator().manual_seed(0)
    teacher = torch.randn(3, 4, 5, 6, generator=rng, dtype=torch.float64) + torch.arange(4)[:, None, None]
    return teacher + 0.5 * torch.randn(3, 4, 5, 6, generator=rng, dtype=torch.float64), teacher


def test_equals_the_definition() -> None:
    student, teacher = pair()
    s, t = student.numpy(), teacher.numpy()
    expected = 1 - np.sum((t - s) ** 2) / np.sum((t - t.mean((0, 2, 3), keepdims=True)) ** 2)
    assert explained_variance(student, teacher).item() == pytest.approx(expected, rel=1e-12)


def test_the_teacher_explains_all_and_its_mean_nothing() -> None:
    _, teacher = pair()
    assert explained_variance(teacher, teacher).item() == 1
    mean = teacher.mean((0, 2, 3), keepdim=True).expand_as(teacher)
    assert explained_variance(mean, teacher).item() == pytest.approx(0, abs=1e-12)
    assert explained_variance(-teacher, teacher).item() < 0


def test_only_valid_images_count() -> None:
    student, teacher = pair()
    expected = explained_variance(student[1:], teacher[1:])
    student[0] = torch.nan
    teacher[0] = torch.inf
    actual = explained_variance(student, teacher, torch.tensor([False, True, True]))
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("valid", [None, torch.zeros(2, dtype=torch.bool)])
def test_zero_where_nothing_varies(valid: Tensor | None) -> None:
    assert explained_variance(torch.ones(2, 3, 4, 4), torch.zeros(2, 3, 4, 4), valid).item() == 0


def test_half_precision_and_no_gradient() -> None:
    student, teacher = (x.half() for x in pair())
    value = explained_variance(student.requires_grad_(), teacher)
    assert value.dtype == torch.float32
    assert not value.requires_grad
    assert value.item() == pytest.approx(explained_variance(student.double(), teacher.double()).item(), rel=1e-5)


def test_errors() -> None:
    with pytest.raises(ValueError, match="must have one shape"):
        explained_variance(torch.zeros(1, 2, 3, 3), torch.zeros(1, 2, 3, 4))
    with pytest.raises(TypeError, match="floating-point"):
        explained_variance(*[torch.zeros(1, 2, 3, 3, dtype=torch.int64)] * 2)
