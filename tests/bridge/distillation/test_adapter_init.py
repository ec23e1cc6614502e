"""Adapters that the first batches of a run set by ridge regression."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ds2d2_yolo.bridge.distillation.adapter_init import BATCHES, RidgeInit
from ds2d2_yolo.bridge.models.adapters import make_adapters
from ds2d2_yolo.core.ridge import PENALTY
from tests.helpers.distillation import batch_of, build

SIZES = [(6, 8), (3, 4)]
STUDENT, TEACHER = [3, 5], [4, 6]


def features(channels: list[int], dtype: torch.dtype = torch.float32) -> list[Tensor]:
    return [torch.randn(2, n, *size, dtype=dtype) + 1 for n, size in zip(channels, SIZES, strict=True)]


def started(epoch: int = 0) -> tuple[nn.ModuleList, RidgeInit]:
    adapters = make_adapters(STUDENT, TEACHER, 0)
    init = RidgeInit(adapters)
    init.start_epoch(epoch)
    return adapters, init


def weights(adapters: nn.ModuleList) -> list[Tensor]:
    return [a.weight.detach().clone() for a in adapters]


def regression(students: list[Tensor], teachers: list[Tensor]) -> Tensor:
    """The ridge regression of all cells of one level by least squares, with a row for each penalty."""
    x = np.concatenate([s.double().movedim(1, -1).reshape(-1, s.shape[1]).numpy() for s in students])
    y = np.concatenate([t.double().movedim(1, -1).reshape(-1, t.shape[1]).numpy() for t in teachers])
    penalty = np.sqrt(PENALTY * (x**2).sum() / x.shape[1]) * np.eye(x.shape[1])
    solution = np.linalg.lstsq(np.vstack([x, penalty]), np.vstack([y, np.zeros((x.shape[1], y.shape[1]))]), rcond=None)
    return torch.from_numpy(solution[0].T)[:, :, None, None]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_adapters_are_the_regression_of_all_batches_so_far(dtype: torch.dtype) -> None:
    adapters, init = started()
    batches = [(features(STUDENT, dtype), features(TEACHER, dtype)) for _ in range(3)]
    for count, (student, teacher) in enumerate(batches, 1):
        init.update(student, teacher, torch.ones(2, dtype=torch.bool))
        for level, weight in enumerate(weights(adapters)):
            expected = regression([s[level] for s, _ in batches[:count]], [t[level] for _, t in batches[:count]])
            torch.testing.assert_close(weight, expected.float(), rtol=1e-4, atol=1e-5)


def test_a_linear_teacher_is_met_exactly_but_for_the_penalty() -> None:
    adapters, init = started()
    student = features(STUDENT)
    teacher = [nn.functional.conv2d(s, torch.randn(n, s.shape[1], 1, 1)) for s, n in zip(student, TEACHER, strict=True)]
    init.update(student, teacher, torch.ones(2, dtype=torch.bool))
    for adapter, s, t in zip(adapters, student, teacher, strict=True):
        assert float((adapter(s) - t).detach().norm() / t.norm()) < 0.01


def test_only_the_first_batches_of_the_first_epoch_set_them() -> None:
    adapters, init = started()
    valid = torch.ones(2, dtype=torch.bool)
    for _ in range(BATCHES):
        before = weights(adapters)
        init.update(features(STUDENT), features(TEACHER), valid)
        assert not any(map(torch.equal, before, weights(adapters)))
    last = weights(adapters)
    init.update(features(STUDENT), features(TEACHER), valid)
    init.start_epoch(1)
    init.update(features(STUDENT), features(TEACHER), valid)
    assert all(map(torch.equal, last, weights(adapters)))


def test_a_first_epoch_that_is_repeated_begins_anew() -> None:
    adapters, init = started()
    inputs = features(STUDENT), features(TEACHER), torch.ones(2, dtype=torch.bool)
    init.update(*inputs)
    once = weights(adapters)
    init.update(features(STUDENT), features(TEACHER), inputs[2])
    init.start_epoch(0)
    init.update(*inputs)
    assert all(map(torch.equal, once, weights(adapters)))


@pytest.mark.parametrize("broken", ["teacher", "student", "declared"])
def test_images_that_are_not_valid_do_not_count(broken: str) -> None:
    adapters, init = started()
    student, teacher, valid = features(STUDENT), features(TEACHER), torch.ones(2, dtype=torch.bool)
    first = [s[:1].clone() for s in student], [t[:1].clone() for t in teacher]
    if broken == "student":
        student[0][1, 0, 0, 0] = torch.nan
    else:  # `Distiller.teacher_outputs` has found out
        valid[1] = False
        if broken == "teacher":
            teacher[1][1] = 0
    init.update(student, teacher, valid)
    for level, weight in enumerate(weights(adapters)):
        torch.testing.assert_close(
            weight, regression([first[0][level]], [first[1][level]]).float(), rtol=1e-4, atol=1e-5
        )


def test_without_a_valid_image_or_a_feature_they_stay() -> None:
    adapters, init = started()
    before = weights(adapters)
    init.update(features(STUDENT), features(TEACHER), torch.zeros(2, dtype=torch.bool))
    init.update([torch.zeros_like(s) for s in features(STUDENT)], features(TEACHER), torch.ones(2, dtype=torch.bool))
    assert all(map(torch.equal, before, weights(adapters)))


def test_the_terms_of_a_batch_use_the_adapters_that_it_sets(checkpoint: Callable[..., Path]) -> None:
    """exlo at the fitted adapters is far below that at random ones, and the features keep their gradient."""
    values = []
    for kind in ("random", "ridge"):
        torch.manual_seed(0)
        model, criterion = build("yolov8n-obb.yaml", checkpoint("yolov8s-obb.yaml"), imhi=0, adapter_init=kind)
        assert criterion.distiller is not None
        before = weights(criterion.distiller.adapters)
        criterion.distiller.start_epoch(0)
        batch = batch_of(rotated=True)
        loss, columns = criterion(model(batch["img"]), batch)
        loss.sum().backward()
        assert all(a.weight.grad is not None for a in criterion.distiller.adapters)
        assert all(map(torch.equal, before, weights(criterion.distiller.adapters))) == (kind == "random")
        values.append(float(columns["exlo_loss"] / criterion.gains.current(1)["exlo"]))
    assert values[1] < 0.5 * values[0]
