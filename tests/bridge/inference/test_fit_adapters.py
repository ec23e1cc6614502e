"""Adapters in closed form."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from ds2d2_yolo.bridge.inference.fit_adapters import fit_adapters
from ds2d2_yolo.core.explained_variance import explained_variance
from ds2d2_yolo.errors import DS2D2Error

STUDENT, TEACHER = (3, 5), (4, 6)  # channels of two levels


def features(images: int, seed: int) -> tuple[list[Tensor], list[Tensor]]:
    """Random features of student and teacher on two levels."""
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (
        [torch.randn(images, c, side, side, generator=generator) for c, side in zip(channels, (8, 4), strict=True)]
        for channels in (STUDENT, TEACHER)
    )
    return student, teacher


def test_it_is_the_ridge_regression_of_all_cells() -> None:
    batches, ridge = [features(2, 0), features(3, 1)], 0.05
    for level, weight in enumerate(fit_adapters(batches, ridge)):
        s, t = (
            np.concatenate([b[side][level].numpy().transpose(1, 0, 2, 3).reshape(channels, -1) for b in batches], 1)
            for side, channels in ((0, STUDENT[level]), (1, TEACHER[level]))
        )
        mu = ridge * np.mean(np.diag(s @ s.T))
        # as a least-squares problem with rows of the penalty appended
        rows = np.concatenate([s.T, np.sqrt(mu) * np.eye(len(s))])
        expected = np.linalg.lstsq(rows, np.concatenate([t.T, np.zeros((len(s), len(t)))]), rcond=None)[0].T
        assert weight.shape == (TEACHER[level], STUDENT[level], 1, 1)
        np.testing.assert_allclose(weight[:, :, 0, 0].numpy(), expected, rtol=1e-4, atol=1e-5)


def test_a_teacher_that_is_a_map_of_the_student_is_found() -> None:
    student, _ = features(4, 2)
    maps = [torch.randn(t, s, 1, 1) for t, s in zip(TEACHER, STUDENT, strict=True)]
    teacher = [torch.nn.functional.conv2d(x, w) for x, w in zip(student, maps, strict=True)]
    for x, t, weight, expected in zip(student, teacher, fit_adapters([(student, teacher)], 1e-9), maps, strict=True):
        torch.testing.assert_close(weight, expected, rtol=1e-4, atol=1e-4)
        assert explained_variance(torch.nn.functional.conv2d(x, weight), t).item() == pytest.approx(1, abs=1e-6)


def test_channels_of_zeros_have_a_solution() -> None:
    student, teacher = features(2, 4)
    student[0][:, 1:] = 0
    assert all(w.isfinite().all() for w in fit_adapters([(student, teacher)]))
    assert all(w.abs().max() == 0 for w in fit_adapters([([0 * s for s in student], teacher)]))


def test_what_is_not_finite_is_refused() -> None:
    student, teacher = features(2, 5)
    teacher[1][0, 0, 0, 0] = float("nan")
    with pytest.raises(DS2D2Error, match="not finite"):
        fit_adapters([(student, teacher)])
    with pytest.raises(ValueError, match="no batch"):
        fit_adapters([])
