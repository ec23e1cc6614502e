"""Clipping: counted, and named where the terms make it cost the task's gradient."""

from __future__ import annotations

import math

import pytest

from ds2d2_yolo.bridge.training.hooks.adapter_optimizer import CLIP_NORM, clipped_share, clipping_warning


def test_share_of_clipped_steps() -> None:
    assert clipped_share([]) == 0
    assert clipped_share([CLIP_NORM, CLIP_NORM + 1, 1, 30]) == 0.5
    assert clipped_share([math.inf, math.nan, 1, 30]) == 0.25, "steps that the scaler skips"


@pytest.mark.parametrize(
    ("norms", "shares"),
    [
        ([1.0, 9.0], {"exlo": 5.0}),  # nothing is clipped
        ([100.0], {"exlo": 0.1}),  # clipped, as the task alone would be
        ([math.nan, math.inf], {"exlo": 5.0}),  # steps that the scaler skips
        ([100.0], {"exlo": math.nan}),
    ],
)
def test_nothing_to_remark(norms: list[float], shares: dict[str, float]) -> None:
    assert clipping_warning(norms, shares) is None


def test_the_worst_step_is_named() -> None:
    """Terms three times the task's gradient at right angles: the task's norm is n / sqrt(10)."""
    warning = clipping_warning([5.0, 20.0, 40.0, 12.0], {"exlo": 3.0, "imfu": math.nan})
    assert warning is not None
    # step 3: the task alone has 12.6 and would keep 79 %; it keeps 25 %
    assert f"to {(10 / 40) / (10 / (40 / math.sqrt(10))):.0%} of" in warning
    assert "in step 3" in warning
    assert "in 2 of 4 steps" in warning
