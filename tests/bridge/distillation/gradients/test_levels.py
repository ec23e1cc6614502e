"""Where the gradients act: their parts on each level, the weights that balance them, and the lines of the log."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ds2d2_yolo.bridge.distillation.batch import StudentInputs
from ds2d2_yolo.bridge.distillation.gradients.levels import (
    MAX_RATIO,
    balancing_weights,
    describe_levels,
    describe_weights,
    level_fractions,
    weighted_norms,
)
from ds2d2_yolo.bridge.distillation.targets import capture_assigner_calls
from tests.helpers.distillation import batch_of, build

STRIDES = [8.0, 16.0, 32.0]
BATCHES = [
    {"task@8": 3.0, "task@16": 4.0, "task@32": 0.0, "exlo@8": 0.1, "exlo@16": 0.2, "exlo@32": 2.0},
    {"task@8": 30.0, "task@16": 40.0, "task@32": math.nan, "exlo@8": 0.2, "exlo@16": 0.1, "exlo@32": 2.0},
]


def test_parts_of_the_squared_gradient() -> None:
    assert level_fractions(BATCHES, "task", STRIDES) == pytest.approx([0.36, 0.64, 0.0]), "the scale cancels"
    parts = level_fractions(BATCHES, "exlo", STRIDES)
    assert parts == pytest.approx([0.5 * (0.01 + 0.04) / 4.05, 0.5 * (0.04 + 0.01) / 4.05, 4 / 4.05])
    assert sum(parts) == pytest.approx(1)


def test_nothing_measured_has_no_parts() -> None:
    empty = [{}, dict.fromkeys(("exlo@8", "exlo@16", "exlo@32"), math.nan)]
    assert level_fractions(empty, "exlo", STRIDES) == []
    assert describe_levels(empty, ["exlo"], STRIDES) == []
    assert describe_levels([], ["exlo"], STRIDES) == []


def test_a_line_names_the_level_of_a_term() -> None:
    (line,) = describe_levels(BATCHES, ["exlo", "imfu"], STRIDES)
    assert line == "exlo acts on stride 32: 99 % of its squared gradient, 0 % of the task loss's"
    (line,) = describe_levels([{"task@8": 1.0, "task@16": 0.05, "exlo@8": 1.0, "exlo@16": 0.0}], ["exlo"], [8.0, 16.0])
    assert line == "exlo acts on stride 8: 100 % of its squared gradient, 100 % of the task loss's"
    assert describe_levels(BATCHES, ["exlo"], [8.0]) == [], "one level leaves nothing to tell"


def random_batches(count: int) -> list[dict[str, float]]:
    rng = np.random.default_rng(count)
    keys = [f"{name}@{stride:g}" for name in ("task", "exlo") for stride in STRIDES]
    return [
        {"task": 1.0, **dict(zip(keys, rng.uniform(0.01, 5, len(keys)).tolist(), strict=True))} for _ in range(count)
    ]


@pytest.mark.parametrize("count", [1, 2, 7])
def test_weights_are_the_median_ratios_of_mean_1(count: int) -> None:
    batches = random_batches(count)
    ratios = np.array([[batch[f"task@{s:g}"] / batch[f"exlo@{s:g}"] for s in STRIDES] for batch in batches])
    median = np.sort(ratios, 0)[[(count - 1) // 2, count // 2]].mean(0)
    assert balancing_weights(batches, "exlo", STRIDES) == pytest.approx((median / median.mean()).tolist())


def test_a_weighted_term_is_spread_as_the_task_loss() -> None:
    batches = random_batches(1)
    weights = {"exlo": balancing_weights(batches, "exlo", STRIDES)}
    weighted = [weighted_norms(batch, weights, STRIDES) for batch in batches]
    task_fractions = level_fractions(batches, "task", STRIDES)
    assert level_fractions(weighted, "exlo", STRIDES) == pytest.approx(task_fractions)
    assert level_fractions(batches, "exlo", STRIDES) != pytest.approx(task_fractions, rel=0.1)
    assert weighted[0]["exlo"] == pytest.approx(math.hypot(*(weighted[0][f"exlo@{s:g}"] for s in STRIDES)))
    assert {k: v for k, v in weighted[0].items() if "task" in k} == {k: v for k, v in batches[0].items() if "task" in k}


@pytest.mark.parametrize("none", [0.0, math.nan])
def test_a_level_without_a_gradient_weighs_0(none: float) -> None:
    full = {"task": 5.0, "task@8": 3.0, "task@16": 4.0, "exlo": 1.0, "exlo@8": 0.6, "exlo@16": 0.8}
    for missing in ("task@16", "exlo@16"):
        assert balancing_weights([{**full, missing: none}], "exlo", [8.0, 16.0]) == [2, 0], missing
    assert balancing_weights([{**full, "exlo@16": none}, full], "exlo", [8.0, 16.0]) == [1, 1], "another batch has one"
    nothing: list[dict[str, float]] = [
        {}, {**full, "task": none}, {**full, "exlo@8": none, "exlo@16": none}, {**full, "exlo@8": none, "task@16": none}
    ]  # fmt: skip
    for batch in nothing:
        assert balancing_weights([batch], "exlo", [8.0, 16.0]) == []
    assert balancing_weights([], "exlo", [8.0, 16.0]) == []


def test_a_gradient_close_to_0_has_a_bounded_weight() -> None:
    batch = {"task": 1.0, "task@8": 1.0, "task@16": 1e-3, "exlo@8": 1.0, "exlo@16": 1e-300}
    assert balancing_weights([batch], "exlo", [8.0, 16.0]) == pytest.approx([2 / MAX_RATIO, 2])


def test_norms_without_weights_stay() -> None:
    assert [weighted_norms(batch, {}, STRIDES) for batch in BATCHES] == BATCHES
    assert weighted_norms({}, {"exlo": [1.0, 1.0, 1.0]}, STRIDES) == {}, "a batch that could not be measured"
    unreached = weighted_norms(BATCHES[0] | {"exlo@32": math.nan}, {"exlo": [0.0, 0.0, 3.0]}, STRIDES)
    assert unreached["exlo"] == 0


def test_a_line_names_the_weights_of_a_term() -> None:
    (line,) = describe_weights({"exlo": [2.9, 0.0834, 0.0166]}, STRIDES)
    assert line == "measured weights of exlo on strides 8, 16, 32: 2.9, 0.0834, 0.0166"


MEASURED: dict[str, Any] = {"level_balance": "measured", "imhi": 0, "feature_norm": "standard"}


@pytest.mark.parametrize("levels", [None, [8, 32]])
def test_measured_gradients_of_a_pair_are_spread_as_the_task_loss(
    levels: list[int] | None, checkpoint: Callable[..., Path]
) -> None:
    """From the first batch on, with given gains, against autograd."""
    model, criterion = build("yolov8n-obb.yaml", checkpoint("yolov8s-obb.yaml"), levels=levels, **MEASURED)
    gains, distiller, batch = criterion.gains, criterion.distiller, batch_of(rotated=True)
    assert distiller is not None
    gains.start_epoch(0, 10, 1, warm=True)
    outputs = model(batch["img"])
    _, columns = criterion(outputs, batch)
    assert gains.frozen
    assert set(gains.level_weights) == {"exlo", "exhi"}
    with capture_assigner_calls(criterion.base) as calls:
        criterion.base(outputs, batch)
    student = StudentInputs.of(criterion.base, outputs, calls[0].targets)
    leaves = [f.detach().float().requires_grad_() for f in student.features]
    inputs, teacher = replace(student, features=leaves), distiller.teacher_outputs(batch["img"])
    weighted, plain = distiller(inputs, teacher, gains.level_weights), distiller(inputs, teacher)
    task_fractions = level_fractions(gains.measured, "task", distiller.strides)
    distilled = [leaves[i] for i in distiller.levels]
    for term, weights in gains.level_weights.items():
        assert sum(weights) == pytest.approx(len(weights))
        parts = []
        for loss in (weighted[term], plain[term]):
            grads = torch.autograd.grad(loss, distilled, retain_graph=True)
            squares = torch.stack([g.double().square().sum() for g in grads])
            parts.append((squares / squares.sum()).tolist())
        assert parts[0] == pytest.approx(task_fractions, rel=1e-4), term
        assert parts[1] != pytest.approx(task_fractions, rel=0.1), term
        assert float(columns[f"{term}_loss"]) == pytest.approx(float(weighted[term].detach())), (
            "the loss has the weights"
        )


@pytest.mark.parametrize("kind", ["none", "measured"])
def test_without_measured_weights_a_term_is_as_before(kind: str, checkpoint: Callable[..., Path]) -> None:
    keys: dict[str, Any] = {"level_balance": kind, "implicit": False}
    model, criterion = build("yolov8n-obb.yaml", checkpoint("yolov8s-obb.yaml"), **keys)
    _, published = build("yolov8n-obb.yaml", checkpoint("yolov8s-obb.yaml"), implicit=False)
    distiller, batch = criterion.distiller, batch_of(rotated=True)
    assert distiller is not None
    assert published.distiller is not None
    with capture_assigner_calls(criterion.base) as calls:
        criterion.base(outputs := model(batch["img"]), batch)
    student = StudentInputs.of(criterion.base, outputs, calls[0].targets)
    teacher = distiller.teacher_outputs(batch["img"])
    terms = distiller(student, teacher)
    assert terms == published.distiller(student, teacher), "a weight of 1 for each level"
    unmeasured = distiller(student, teacher, criterion.gains.current_weights(distiller.strides))
    assert unmeasured == (dict.fromkeys(terms, torch.tensor(0.0)) if kind == "measured" else terms)
