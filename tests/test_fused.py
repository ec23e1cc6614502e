"""The fused Haar energies: both ways to compute them, on odd sizes, cut in pieces, in half precision."""

from __future__ import annotations

from unittest import mock

import pytest
import torch

from ds2d2_yolo import fused
from ds2d2_yolo.wavelet import band_shape, dwt2

WAYS = {
    "cached": (fused._cached_energy, fused._cached_gradient),
    "sliced": (fused._sliced_energy, fused._sliced_gradient),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("pieces", [1, 10**9], ids=["small pieces", "one piece"])
@pytest.mark.parametrize("shape", [(3, 5, 8, 10), (2, 7, 7, 9), (1, 3, 1, 4), (2, 4, 5, 1)])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_energy_and_gradient(way, pieces, shape, memory_format) -> None:
    energy, gradient = WAYS[way]
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, *shape, generator=generator, dtype=torch.float64)
    student = student.contiguous(memory_format=memory_format).requires_grad_()
    weight = 1 + torch.rand(shape[0], 1, *band_shape(*shape[2:]), generator=generator, dtype=torch.float64)
    low, high = dwt2(student - teacher)
    low, high = (weight * low.square()).sum(), (weight.unsqueeze(2) * high.square()).sum()
    (expected,) = torch.autograd.grad(0.7 * low + 0.2 * high, student)
    with mock.patch.multiple(fused, _CHUNK=pieces, _SLICE=pieces), torch.no_grad():
        torch.testing.assert_close(energy(student, teacher, weight), (low, high), rtol=1e-12, atol=0)
        factors = torch.tensor([0.7, 0.2], dtype=torch.float64)
        actual = 2 * gradient(student, teacher, weight, *factors)
    assert actual.stride() == student.stride()
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_are_subtracted_in_single_precision(way: str, dtype: torch.dtype) -> None:
    energy, gradient = WAYS[way]
    # In half precision 2049 is rounded to 2048, and its square overflows.
    student, teacher = torch.full((1, 1, 2, 2), 1.0).to(dtype), torch.full((1, 1, 2, 2), -2048.0).to(dtype)
    weight = torch.ones(1, 1, 1, 1)
    low, high = energy(student, teacher, weight)
    assert low.item() == (4 * 2049 / 2) ** 2
    assert high.item() == 0
    assert gradient(student, teacher, weight, *torch.ones(2)).dtype == dtype
