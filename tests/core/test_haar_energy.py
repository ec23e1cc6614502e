"""The fused Haar energies: both ways to compute them, on odd sizes, cut in pieces, in half precision."""

from __future__ import annotations

import itertools
from unittest import mock

import pytest
import torch
from torch import Tensor

from ds2d2_yolo.core import haar_energy as fused
from ds2d2_yolo.core import native
from ds2d2_yolo.core.losses.explicit import explicit_loss
from ds2d2_yolo.core.wavelet import band_shape, dwt2


def sliced(student: Tensor, teacher: Tensor, weight: Tensor, scale: Tensor | None, gains: Tensor) -> tuple[Tensor, ...]:
    energy = fused._sliced_energy(student, teacher, weight, scale)
    return *energy, fused._sliced_gradient(student, teacher, weight, *gains, scale)


def fitted(student: Tensor, teacher: Tensor, weight: Tensor, scale: Tensor | None, gains: Tensor) -> tuple[Tensor, ...]:
    energy = fused._fitted_energy(student, teacher, weight, scale)
    return *energy, fused._fitted_gradient(student, teacher, weight, *gains, scale)


def cached(student: Tensor, teacher: Tensor, weight: Tensor, scale: Tensor | None, gains: Tensor) -> tuple[Tensor, ...]:
    bands = torch.empty_like(student)
    energy = fused._cached_energy(student, teacher, weight, scale, bands)
    without = fused._cached_energy(student, teacher, weight, scale, None)
    torch.testing.assert_close(energy, without, rtol=1e-12, atol=0)
    assert fused._cached_gradient(bands, weight, scale, *gains) is bands
    return *energy, bands


def example(shape: tuple[int, ...], scaled: bool = False) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, *shape, generator=generator, dtype=torch.float64)
    weight = 1 + torch.rand(shape[0], 1, *band_shape(*shape[2:]), generator=generator, dtype=torch.float64)
    scale = 1 + torch.rand(shape[1], 1, 1, generator=generator, dtype=torch.float64) if scaled else None
    return student, teacher, weight, scale


@pytest.fixture(params=["C", "eager"])
def code(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The code that computes contiguous float32 features on a CPU."""
    if request.param == "eager":
        monkeypatch.setattr(fused, "haar", lambda: None)
    elif native.haar() is None:
        pytest.skip("no C compiler")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    return str(request.param)


EVEN, ODD = [(3, 6, 8, 10), (2, 7, 2, 4), (1, 1, 6, 2)], [(2, 7, 7, 9), (1, 3, 1, 4), (2, 4, 5, 1)]


@pytest.mark.parametrize(
    ("way", "shape", "memory_format"),
    [
        *((cached, shape, torch.contiguous_format) for shape in EVEN),
        *itertools.product((sliced, fitted), EVEN + ODD, (torch.contiguous_format, torch.channels_last)),
    ],
)
@pytest.mark.parametrize("pieces", [1, 250, 10**9], ids=["small pieces", "pieces", "one piece"])
@pytest.mark.parametrize("scaled", [False, True])
def test_energy_and_gradient(way, shape, memory_format, pieces, scaled) -> None:
    student, teacher, weight, scale = example(shape, scaled)
    student = student.contiguous(memory_format=memory_format).requires_grad_()
    low, high = dwt2((student - teacher) * (1 if scale is None else scale))
    low, high = (weight * low.square()).sum(), (weight.unsqueeze(2) * high.square()).sum()
    (expected,) = torch.autograd.grad(0.7 * low + 0.2 * high, student)
    with mock.patch.multiple(fused, _CHUNK=pieces, _SLICE=pieces), torch.no_grad():
        *energy, actual = way(student, teacher, weight, scale, torch.tensor([0.7, 0.2], dtype=torch.float64))
    torch.testing.assert_close(energy, [low, high], rtol=1e-12, atol=0)
    assert actual.stride() == student.stride()
    torch.testing.assert_close(2 * actual, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(
    "change", ["none", "odd", "student's order", "teacher's order", "half student", "double weight"]
)
def test_features_take_the_way_that_suits_them(change: str, code: str) -> None:
    student, teacher, weight, _ = (x.float() if x is not None else None for x in example((2, 4, 8, 10)))
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
    expected = sliced(student, teacher, weight, None, torch.tensor([2 / 160, 2 / 480]))
    student.requires_grad_()
    eager = mock.patch.object(fused, "_cached_energy", wraps=fused._cached_energy)
    with mock.patch.object(fused, "_fitted_energy", wraps=fused._fitted_energy) as way, eager as taken:
        low, high = fused.HaarEnergy.apply(student, teacher, weight)
        (gradient,) = torch.autograd.grad(low + high, student)
    assert way.called == (change != "none")
    assert taken.called == (code == "eager" or change == "double weight")
    torch.testing.assert_close((low.float() * 160, high.float() * 480), tuple(x.float() for x in expected[:2]))
    torch.testing.assert_close(gradient, expected[2], rtol=1e-3 if change == "half student" else 1e-5, atol=1e-6)


@pytest.mark.parametrize("enabled", [False, True])
def test_memory_of_the_gradient_is_taken_only_for_one(enabled: bool, code: str) -> None:
    student, teacher, weight, _ = (x if x is None else x.float() for x in example((2, 4, 8, 10)))
    student.requires_grad_()
    with mock.patch.object(fused, "_empty_like", wraps=fused._empty_like) as taken, torch.set_grad_enabled(enabled):
        low, high = explicit_loss(student, teacher, weight)
        assert taken.called == (enabled and code == "eager")
        if enabled:
            (low + high).backward()
    assert taken.call_count == enabled


@pytest.mark.parametrize(("threads", "eager"), [(1, False), (2, False), (3, True), (16, True)])
def test_many_threads_take_the_way_that_uses_them(threads: int, eager: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if native.haar() is None:
        pytest.skip("no C compiler")
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    student, teacher, weight, _ = (x if x is None else x.float() for x in example((2, 4, 8, 10)))
    with mock.patch.object(fused, "_cached_energy", wraps=fused._cached_energy) as taken:
        explicit_loss(student, teacher, weight)
    assert taken.called == eager


def test_second_backward_leaves_the_first_gradient_alone(code: str) -> None:
    student, teacher, weight, _ = (x if x is None else x.float() for x in example((2, 4, 8, 10)))
    student.requires_grad_()
    low, high = fused.HaarEnergy.apply(student, teacher, weight)
    (first,) = torch.autograd.grad(low, student, retain_graph=True)
    copy = first.clone()
    (other,) = torch.autograd.grad(high, student, retain_graph=True)
    (again,) = torch.autograd.grad(low, student)
    assert torch.equal(first, copy)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("flag", ["as it is", "refused", "unknown"])
def test_large_tensors_come_in_huge_pages_where_there_are_any(flag: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "_LARGE", 1)
    if flag == "unknown":
        monkeypatch.delattr("mmap.MADV_HUGEPAGE", raising=False)
    elif flag == "refused":
        monkeypatch.setattr("mmap.MADV_HUGEPAGE", 10**6, raising=False)
    x = torch.zeros(2, 3, 4, 5, dtype=torch.float64)
    new = fused._empty_like(x)
    assert (new.shape, new.stride(), new.dtype) == (x.shape, x.stride(), x.dtype)
    assert torch.equal(new.fill_(7), x + 7)


@pytest.mark.parametrize("way", [sliced, fitted])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_are_subtracted_in_single_precision(way, dtype: torch.dtype) -> None:
    # In half precision 2049 is rounded to 2048, and its square overflows.
    student, teacher = torch.full((1, 1, 2, 2), 1.0).to(dtype), torch.full((1, 1, 2, 2), -2048.0).to(dtype)
    low, high, gradient = way(student, teacher, torch.ones(1, 1, 1, 1), None, torch.ones(2))
    assert low.item() == (4 * 2049 / 2) ** 2
    assert high.item() == 0
    assert gradient.dtype == dtype
