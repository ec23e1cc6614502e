"""Checks of tensors: what passes, and the message of what does not."""

from __future__ import annotations

import pytest
import torch

from ds2d2_yolo.core.checks import check_feature_map, check_same_shape


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 3, 4, 5), (0, 3, 4, 5)])
def test_feature_maps_pass(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    check_feature_map(torch.zeros(shape, dtype=dtype))


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (torch.zeros(3, 4, 4), ValueError, r"shape \(B, C, H, W\), got \(3, 4, 4\)"),
        (torch.zeros(1, 3, 4, 0), ValueError, "at least one row and one column"),
        (torch.zeros(1, 3, 4, 4, dtype=torch.uint8), TypeError, "floating-point feature map, got torch.uint8"),
    ],
)
def test_other_tensors_are_no_feature_maps(x: torch.Tensor, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        check_feature_map(x)


def test_shapes_that_differ_are_named() -> None:
    check_same_shape(torch.zeros(2, 3), torch.zeros(2, 3), "boxes")
    with pytest.raises(ValueError, match=r"teacher boxes must have one shape, got \(2, 3\) and \(2, 4\)"):
        check_same_shape(torch.zeros(2, 3), torch.zeros(2, 4), "boxes")
