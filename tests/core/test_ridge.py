"""Ridge regression from sums over cells, against least squares with rows for the penalty."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from ds2d2_yolo.core.ridge import ridge_map, second_moments


def features(student: int = 5, teacher: int = 7, images: int = 3, size: int = 4) -> tuple[Tensor, Tensor]:
    """Features with an offset and with correlated channels, in float64."""
    rng = torch.Generator().manual_seed(0)
    mixing = torch.randn(student, student, generator=rng, dtype=torch.float64)
    s = torch.randn(images, student, size, size + 1, generator=rng, dtype=torch.float64)
    t = torch.randn(images, teacher, size, size + 1, generator=rng, dtype=torch.float64)
    return torch.einsum("cd,bdhw->bchw", mixing, s) + 2, t - 1


def rows(x: Tensor) -> np.ndarray:
    """One row per cell."""
    return x.movedim(1, -1).flatten(0, -2).numpy()


@pytest.mark.parametrize("penalty", [1e-3, 0.1, 10.0])
def test_equals_least_squares_with_rows_for_the_penalty(penalty: float) -> None:
    student, teacher = features()
    cross, gram = second_moments(student, teacher)
    s, t = rows(student), rows(teacher)
    mu = penalty * np.mean(np.sum(s * s, 0))
    augmented = np.concatenate([s, np.sqrt(mu) * np.eye(s.shape[1])])
    expected, *_ = np.linalg.lstsq(augmented, np.concatenate([t, np.zeros((s.shape[1], t.shape[1]))]), rcond=None)
    np.testing.assert_allclose(ridge_map(cross, gram, penalty).numpy(), expected.T, rtol=1e-9, atol=1e-12)


def test_recovers_a_known_map() -> None:
    student, _ = features()
    known = torch.randn(7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    teacher = torch.einsum("ts,bshw->bthw", known, student)
    solution = ridge_map(*second_moments(student, teacher), penalty=1e-12)
    torch.testing.assert_close(solution, known, rtol=1e-6, atol=1e-6)


def test_one_factor_on_both_sums_changes_nothing() -> None:
    cross, gram = second_moments(*features())
    expected = ridge_map(cross, gram, 0.1)
    torch.testing.assert_close(ridge_map(0.25 * cross, 0.25 * gram, 0.1), expected, rtol=1e-12, atol=0)


def test_half_precision_is_summed_in_float32() -> None:
    student, teacher = (x.half() for x in features())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        sums = second_moments(student, teacher)
    for actual, expected in zip(sums, second_moments(student.double(), teacher.double()), strict=True):
        assert actual.dtype == torch.float32
        torch.testing.assert_close(actual.double(), expected, rtol=1e-5, atol=1e-5)


def test_fewer_cells_than_channels_have_a_solution() -> None:
    student, teacher = features(student=50, images=1, size=2)
    assert ridge_map(*second_moments(student, teacher), penalty=0.1).isfinite().all()


def test_features_of_zeros_have_no_solution() -> None:
    student, teacher = features()
    assert ridge_map(*second_moments(0 * student, teacher), penalty=0.1).isnan().all()


def test_errors() -> None:
    with pytest.raises(ValueError, match="do not fit together"):
        second_moments(torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 5))
    with pytest.raises(TypeError, match="floating-point"):
        second_moments(torch.zeros(2, 3, 4, 4, dtype=torch.int64), torch.zeros(2, 3, 4, 4))
