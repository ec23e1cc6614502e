"""Haar energies on a CPU: even sides in place, other layouts through copies, in chunks of any size."""

from __future__ import annotations

from unittest import mock

import pytest
import torch
from torch import Tensor

from ds2d2_yolo.core.haar import cpu
from ds2d2_yolo.core.haar.cpu import bands_energy, bands_to_gradient, can_hold_bands, cpu_energy, cpu_gradient
from tests.helpers.haar import EVEN, ODD, assert_energy_and_gradient, assert_subtracts_in_single_precision, haar_inputs


def in_place_gradient(student: Tensor, teacher: Tensor, weight: Tensor, of_low: Tensor, of_high: Tensor) -> Tensor:
    """Gradient of features that can hold the bands; the energies do not depend on the tensor for the bands."""
    bands = torch.empty_like(student)
    energy = bands_energy(student, teacher, weight, bands)
    torch.testing.assert_close(energy, bands_energy(student, teacher, weight), rtol=1e-12, atol=0)
    assert bands_to_gradient(bands, weight, of_low, of_high) is bands
    return bands


@pytest.mark.parametrize("shape", EVEN)
@pytest.mark.parametrize("elements", [1, 250, 10**9], ids=["small chunks", "chunks", "one chunk"])
def test_bands_in_place_equal_the_definition(shape, elements) -> None:
    with mock.patch.object(cpu, "_CHUNK", elements):
        assert_energy_and_gradient(bands_energy, in_place_gradient, shape, torch.contiguous_format)


@pytest.mark.parametrize("shape", EVEN + ODD)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("elements", [1, 250, 10**9], ids=["small chunks", "chunks", "one chunk"])
def test_features_of_any_layout_equal_the_definition(shape, memory_format, elements) -> None:
    with mock.patch.object(cpu, "_CHUNK", elements):
        assert_energy_and_gradient(cpu_energy, cpu_gradient, shape, memory_format)


def test_layouts_that_can_hold_the_bands() -> None:
    student, teacher, weight = (x.float() for x in haar_inputs((2, 4, 8, 10)))
    assert can_hold_bands(student, teacher, weight)
    odd = student[:, :, :7].contiguous()
    assert not can_hold_bands(odd, odd, weight)
    assert not can_hold_bands(student.contiguous(memory_format=torch.channels_last), teacher, weight)
    assert not can_hold_bands(student, teacher.contiguous(memory_format=torch.channels_last), weight)
    assert not can_hold_bands(student.half(), teacher, weight)
    assert not can_hold_bands(student, teacher, weight.double())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_are_subtracted_in_single_precision(dtype: torch.dtype) -> None:
    assert_subtracts_in_single_precision(cpu_energy, cpu_gradient, dtype)
