"""Inputs and expectations shared by the tests of the Haar energies."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ds2d2_yolo.core.wavelet import band_shape, dwt2

EVEN, ODD = [(3, 6, 8, 10), (2, 7, 2, 4), (1, 1, 6, 2)], [(2, 7, 7, 9), (1, 3, 1, 4), (2, 4, 5, 1)]


class Allocations(TorchDispatchMode):
    """Count the uninitialised tensors of one shape."""

    def __init__(self, shape: torch.Size) -> None:
        super().__init__()
        self.shape = shape
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        self.count += function.overloadpacket.__name__ == "empty_like" and result.shape == self.shape
        return result


def haar_inputs(shape: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Student, teacher and weight map in float64."""
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, *shape, generator=generator, dtype=torch.float64)
    weight = 1 + torch.rand(shape[0], 1, *band_shape(*shape[2:]), generator=generator, dtype=torch.float64)
    return student, teacher, weight


def assert_energy_and_gradient(
    energy: Callable[..., tuple[Tensor, Tensor]],
    gradient: Callable[..., Tensor],
    shape: tuple[int, ...],
    memory_format: torch.memory_format,
) -> None:
    """Compare with the transform and autograd; the gradient has the strides of the student."""
    student, teacher, weight = haar_inputs(shape)
    student = student.contiguous(memory_format=memory_format).requires_grad_()
    low, high = dwt2(student - teacher)
    low, high = (weight * low.square()).sum(), (weight.unsqueeze(2) * high.square()).sum()
    (expected,) = torch.autograd.grad(0.7 * low + 0.2 * high, student)
    with torch.no_grad():
        energies = energy(student, teacher, weight)
        actual = gradient(student, teacher, weight, *torch.tensor([0.7, 0.2], dtype=torch.float64))
    torch.testing.assert_close(energies, (low, high), rtol=1e-12, atol=0)
    assert actual.stride() == student.stride()
    torch.testing.assert_close(2 * actual, expected, rtol=1e-12, atol=1e-13)


def assert_subtracts_in_single_precision(
    energy: Callable[..., tuple[Tensor, Tensor]], gradient: Callable[..., Tensor], dtype: torch.dtype
) -> None:
    """Compare the energy of a difference that a half-precision type cannot hold with its exact value."""
    # In half precision 2049 is rounded to 2048, and its square overflows.
    student, teacher = torch.full((1, 1, 2, 2), 1.0).to(dtype), torch.full((1, 1, 2, 2), -2048.0).to(dtype)
    low, high = energy(student, teacher, torch.ones(1, 1, 1, 1))
    assert low.item() == (4 * 2049 / 2) ** 2
    assert high.item() == 0
    assert gradient(student, teacher, torch.ones(1, 1, 1, 1), *torch.ones(2)).dtype == dtype


def assert_second_backward_is_independent(low: Tensor, high: Tensor, student: Tensor) -> None:
    """Compute gradients of one graph one after the other: a later one must not write into an earlier one."""
    (first,) = torch.autograd.grad(low, student, retain_graph=True)
    copy = first.clone()
    (other,) = torch.autograd.grad(high, student, retain_graph=True)
    (again,) = torch.autograd.grad(low, student)
    assert torch.equal(first, copy)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
