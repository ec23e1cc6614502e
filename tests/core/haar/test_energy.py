"""The autograd function of the Haar energies: the form for other devices, repeated backward passes, memory."""

from __future__ import annotations

from unittest import mock

import pytest
import torch

from ds2d2_yolo.core.haar import energy
from ds2d2_yolo.core.haar.energy import HaarEnergy, _device_energy, _device_gradient
from ds2d2_yolo.core.losses.explicit import explicit_loss
from tests.helpers.haar import (
    EVEN,
    ODD,
    Allocations,
    assert_energy_and_gradient,
    assert_second_backward_is_independent,
    assert_subtracts_in_single_precision,
    haar_inputs,
)


@pytest.mark.parametrize("shape", EVEN + ODD)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("elements", [1, 250, 10**9], ids=["small pieces", "pieces", "one piece"])
def test_form_for_other_devices_equals_the_definition(shape, memory_format, elements) -> None:
    with mock.patch.object(energy, "_SLICE", elements):
        assert_energy_and_gradient(_device_energy, _device_gradient, shape, memory_format)


@pytest.mark.parametrize(
    "change", ["none", "odd", "student's order", "teacher's order", "half student", "double weight"]
)
def test_every_layout_gives_the_energies(change: str) -> None:
    student, teacher, weight = (x.float() for x in haar_inputs((2, 4, 8, 10)))
    if change == "odd":
        student, teacher = student[:, :, :7].contiguous(), teacher[:, :, :7].contiguous()
    elif change == "student's order":
        student = student.contiguous(memory_format=torch.channels_last)
    elif change == "teacher's order":
        teacher = teacher.contiguous(memory_format=torch.channels_last)
    elif change == "half student":
        student = student.half()
    elif change == "double weight":
        weight = weight.double()
    expected = _device_energy(student, teacher, weight)
    expected_gradient = _device_gradient(student, teacher, weight, torch.tensor(2 / 160), torch.tensor(2 / 480))
    student.requires_grad_()
    low, high = HaarEnergy.apply(student, teacher, weight)
    (gradient,) = torch.autograd.grad(low + high, student)
    torch.testing.assert_close((low.float() * 160, high.float() * 480), tuple(x.float() for x in expected))
    tolerance = 1e-3 if change == "half student" else 1e-5
    torch.testing.assert_close(gradient, expected_gradient, rtol=tolerance, atol=1e-6)


@pytest.mark.parametrize("enabled", [False, True])
def test_memory_of_the_gradient_is_taken_once_and_only_for_a_gradient(enabled: bool) -> None:
    student, teacher, weight = (x.float() for x in haar_inputs((2, 4, 8, 10)))
    student.requires_grad_()
    with Allocations(student.shape) as allocations, torch.set_grad_enabled(enabled):
        low, high = explicit_loss(student, teacher, weight)
        assert allocations.count == enabled
        if enabled:
            torch.autograd.grad(low + high, student)
    assert allocations.count == enabled


def test_second_backward_leaves_the_first_gradient_unchanged() -> None:
    student, teacher, weight = (x.float() for x in haar_inputs((2, 4, 8, 10)))
    student.requires_grad_()
    low, high = HaarEnergy.apply(student, teacher, weight)
    assert_second_backward_is_independent(low, high, student)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_are_subtracted_in_single_precision(dtype: torch.dtype) -> None:
    assert_subtracts_in_single_precision(_device_energy, _device_gradient, dtype)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_value_that_is_not_finite_spoils_its_block_only(value: float) -> None:
    student, teacher, weight = (x.float() for x in haar_inputs((2, 3, 6, 8)))
    student[1, 2, 3, 4] = value
    student.requires_grad_()
    low, high = HaarEnergy.apply(student, teacher, weight)
    assert not torch.stack((low, high)).isfinite().any()
    wrong = ~torch.autograd.grad(low + high, student)[0].isfinite()
    assert wrong[1, 2, 2:4, 4:6].all()
    assert wrong.sum() == 4
