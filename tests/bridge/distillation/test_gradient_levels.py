"""Where the gradients act: their parts on each level, and the lines of the log."""

from __future__ import annotations

import math

import pytest

from ds2d2_yolo.bridge.distillation.gradient_levels import describe_levels, level_fractions

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
    assert describe_levels(BATCHES, ["exlo"], [8.0]) == [], "one level leaves nothing to tell"
