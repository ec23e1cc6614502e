"""Overlap of paired boxes: known values, exactness on identical boxes, finite gradients on degenerate ones."""

from __future__ import annotations

import math

import pytest
import torch

from ds2d2_yolo.core.iou import giou, probiou


def random_boxes(count: int, columns: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(count, 2, generator=generator, dtype=dtype) * 100
    side = torch.rand(count, 2, generator=generator, dtype=dtype) * 50 + 1
    if columns == 4:
        return torch.cat((low, low + side), 1)
    return torch.cat((low, side, torch.rand(count, 1, generator=generator, dtype=dtype) * 6 - 3), 1)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([0, 0, 10, 10], [0, 0, 10, 10], 1.0),
        ([0, 0, 10, 10], [5, 0, 15, 10], 1 / 3),
        ([0, 0, 10, 10], [20, 0, 30, 10], -1 / 3),
        ([0, 0, 10, 10], [2, 2, 4, 4], 0.04),
        ([10, 10, 5, 5], [0, 0, 20, 20], 0.0),  # inverted: of zero size
        ([10, 10, -90, 5], [0, 0, 20, 20], 0.0),
    ],
)
def test_giou_by_hand(a: list[float], b: list[float], expected: float) -> None:
    boxes = torch.tensor([a, b], dtype=torch.float64)
    assert giou(boxes[0], boxes[1]).item() == pytest.approx(expected, abs=1e-9)
    assert giou(boxes[1], boxes[0]).item() == pytest.approx(expected, abs=1e-9)


def gaussian_probiou(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """The definition by covariance matrices."""

    def covariance(box: torch.Tensor) -> torch.Tensor:
        cos, sin = box[:, 4].cos(), box[:, 4].sin()
        turn = torch.stack((torch.stack((cos, -sin), -1), torch.stack((sin, cos), -1)), -2)
        return turn @ torch.diag_embed(box[:, 2:4].square() / 12) @ turn.mT

    first, second = covariance(a), covariance(b)
    mean = (first + second) / 2
    shift = (a[:, :2] - b[:, :2]).unsqueeze(-1)
    distance = (shift.mT @ torch.linalg.inv(mean) @ shift).flatten() / 8
    distance = distance + 0.5 * torch.log(mean.det() / (first.det() * second.det()).sqrt())
    return 1 - (1 - (-distance).exp()).sqrt()


def test_probiou_equals_its_definition() -> None:
    a, b = random_boxes(200, 5), random_boxes(200, 5, seed=1)
    b[:, :2] = a[:, :2] + (b[:, :2] - 50) * 0.3
    torch.testing.assert_close(probiou(a, b), gaussian_probiou(a, b), rtol=1e-9, atol=1e-9)
    # Single precision keeps what the determinants of the definition would lose.
    near = a + 1e-3 * torch.randn(a.shape, dtype=a.dtype, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(probiou(a.float(), near.float()).double(), probiou(a, near), rtol=0, atol=2e-5)


def test_probiou_knows_what_turns_leave_alone() -> None:
    box = torch.tensor([[10.0, 20.0, 8.0, 3.0, 0.4]], dtype=torch.float64)
    turned = torch.tensor([[10.0, 20.0, 3.0, 8.0, 0.4 + math.pi / 2]], dtype=torch.float64)
    assert probiou(box, turned).item() == pytest.approx(1, abs=1e-7)
    square = torch.tensor([[10.0, 20.0, 8.0, 8.0, 0.4]], dtype=torch.float64)
    assert probiou(square, square + torch.tensor([0, 0, 0, 0, 0.7])).item() == pytest.approx(1, abs=1e-7)


@pytest.mark.parametrize(("overlap", "columns"), [(giou, 4), (probiou, 5)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e-2, 1.0, 1e4])
def test_identical_boxes_give_exactly_one_without_gradient(overlap, columns, dtype, scale) -> None:
    boxes = random_boxes(500, columns, dtype=dtype)
    boxes[:, :4] *= scale
    student = boxes.clone().requires_grad_()
    value = overlap(student, boxes)
    assert (value == 1).all()
    (gradient,) = torch.autograd.grad(value.sum(), student)
    assert gradient.abs().max().item() <= 1e-6 / scale * (dtype == torch.float32)


DEGENERATE_UPRIGHT = [[5, 5, 5, 5], [5, 5, 5, 25], [9, 9, 2, 2], [-1e6, -1e6, 1e6, 1e6], [0, 0, 10, 10]]
DEGENERATE_ROTATED = [[5, 5, 0, 0, 0], [5, 5, 0, 20, 1], [5, 5, -3, 4, 1], [0, 0, 1e6, 1e-6, 0.3], [5, 5, 10, 10, 9]]


@pytest.mark.parametrize(
    ("overlap", "boxes", "lowest"), [(giou, DEGENERATE_UPRIGHT, -1), (probiou, DEGENERATE_ROTATED, 0)]
)
def test_degenerate_boxes_stay_finite(overlap, boxes: list[list[float]], lowest: float) -> None:
    table = torch.tensor(boxes, dtype=torch.float32)
    a = table.repeat_interleave(len(table), 0).requires_grad_()
    b = table.repeat(len(table), 1)
    value = overlap(a, b)
    assert ((value >= lowest) & (value <= 1)).all()
    assert (value.view(len(table), -1).diagonal() == 1).all()
    (gradient,) = torch.autograd.grad(value.sum(), a)
    assert torch.isfinite(gradient).all()


def test_value_of_identical_empty_boxes_can_be_chosen() -> None:
    empty = torch.tensor([[5.0, 5.0, 5.0, 5.0]])
    assert giou(empty, empty, empty=0.0).item() == 0
    assert giou(empty, empty + 10, empty=1.0).item() == pytest.approx(-1, abs=1e-6)


@pytest.mark.parametrize(("overlap", "columns"), [(giou, 4), (probiou, 5)])
def test_gradcheck(overlap, columns: int) -> None:
    a, b = random_boxes(12, columns), random_boxes(12, columns, seed=1)
    b[:6] = a[:6] + 0.7 * torch.randn(6, columns, dtype=a.dtype, generator=torch.Generator().manual_seed(3)).abs()
    a.requires_grad_()
    b.requires_grad_()
    assert torch.autograd.gradcheck(overlap, (a, b))


@pytest.mark.parametrize(("overlap", "columns"), [(giou, 4), (probiou, 5)])
def test_device_and_dtype(overlap, columns: int, device: torch.device, dtype: torch.dtype) -> None:
    a, b = (random_boxes(20, columns, seed).to(device, dtype) for seed in (0, 1))
    value = overlap(a, b)
    assert (value.dtype, value.device.type, value.shape) == (dtype, device.type, (20,))
    assert (overlap(a, a) == 1).all()


@pytest.mark.parametrize(("overlap", "columns"), [(giou, 4), (probiou, 5)])
def test_is_symmetric(overlap, columns: int) -> None:
    a, b = random_boxes(50, columns), random_boxes(50, columns, seed=1)
    torch.testing.assert_close(overlap(a, b), overlap(b, a), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("overlap", "columns"), [(giou, 4), (probiou, 5)])
def test_errors(overlap, columns: int) -> None:
    with pytest.raises(ValueError, match=f"expected boxes \\(..., {columns}\\)"):
        overlap(torch.zeros(3, columns), torch.zeros(3, 9 - columns))
