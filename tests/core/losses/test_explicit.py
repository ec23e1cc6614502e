"""The explicit loss: its definition, half precision, compilation, and the properties that every loss has."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from ds2d2_yolo import core
from ds2d2_yolo.core.wavelet import band_shape, dwt2
from tests.helpers.core_inputs import feature_inputs, wide_values
from tests.helpers.loss_tests import LossTests, Terms, assert_half_is_exact

SHAPES = [(2, 3, 8, 10), (1, 4, 7, 9), (2, 2, 1, 6), (1, 1, 5, 1)]
NORMS = ("none", "standard")
FEATURE, WEIGHT = torch.zeros(2, 3, 8, 10), torch.ones(2, 1, 4, 5)


class TestExplicitLoss(LossTests):
    cases: ClassVar = {
        f"{wavelet} {norm}": {"wavelet": wavelet, "norm": norm} for wavelet in ("haar", "db2") for norm in NORMS
    }
    errors: ClassVar = {
        "features must have one shape": lambda: core.explicit_loss(FEATURE, FEATURE[:, :2], WEIGHT),
        "weight must be \\(2, 1, 4, 5\\)": lambda: core.explicit_loss(FEATURE, FEATURE, WEIGHT[:, 0]),
        "weight must be .* db2": lambda: core.explicit_loss(FEATURE, FEATURE, WEIGHT, "db2"),
        "norm must be 'none' or": lambda: core.explicit_loss(FEATURE, FEATURE, WEIGHT, norm="batch"),
        "shape \\(B, C, H, W\\)": lambda: core.explicit_loss(FEATURE[0], FEATURE[0], WEIGHT),
        "at least one image": lambda: core.explicit_loss(FEATURE[:0], FEATURE[:0], WEIGHT[:0]),
    }

    def teacher_tensor(self, dtype: torch.dtype, device: torch.device | str = "cpu", **_: Any) -> Tensor:
        return feature_inputs((2, 3, 7, 10))[1].to(device, dtype)

    def terms(self, student: Tensor, teacher: Tensor, wavelet: str, norm: str) -> Terms:
        count, _, height, width = student.shape
        h, w = band_shape(height, width, wavelet)
        weight = torch.linspace(1, 2, h * w, device=teacher.device).view(1, 1, h, w).expand(count, 1, h, w)
        return core.explicit_loss(student, teacher, weight, wavelet, norm)

    def other_layout(self, x: Tensor) -> Tensor:
        return x.contiguous(memory_format=torch.channels_last)

    def pair(self, dtype: torch.dtype, device: torch.device | str = "cpu", **case: Any) -> tuple[Tensor, Tensor]:
        teacher = self.teacher_tensor(dtype, device)
        student = teacher * 1.1 + 0.1 + feature_inputs((2, 3, 7, 10))[0].to(device, dtype) / 8
        return student.detach().requires_grad_(), teacher

    def gradcheck_pair(self, **case: Any) -> tuple[Tensor, Tensor]:
        student, teacher, _ = feature_inputs((1, 2, 5, 4))
        return student.requires_grad_(), teacher

    def test_empty_batch_gives_zero(self, case: dict[str, Any], device: torch.device) -> None:
        # A mean over nothing: an error in the place of zero.
        student, teacher = self.pair(torch.float32, device, **case)
        with pytest.raises(ValueError, match="at least one image"):
            self.terms(student[:0], teacher[:0], **case)

    def test_is_linear_in_the_weight_map(self, case: dict[str, Any]) -> None:
        student, teacher, first = feature_inputs((2, 3, 8, 10), wavelet=case["wavelet"])
        second = feature_inputs((2, 3, 8, 10), wavelet=case["wavelet"], seed=1)[2]
        mixed, one, two = (
            torch.stack(core.explicit_loss(student, teacher, weight, **case))
            for weight in (0.3 * first + 1.7 * second, first, second)
        )
        torch.testing.assert_close(mixed, 0.3 * one + 1.7 * two, rtol=1e-12, atol=0)


def by_definition(student: Tensor, teacher: Tensor, weight: Tensor, wavelet="haar") -> tuple[Tensor, Tensor]:
    """Two transforms and the formulae as they are written."""
    (low_s, high_s), (low_t, high_t) = dwt2(student, wavelet), dwt2(teacher, wavelet)
    return (weight * (low_s - low_t) ** 2).mean(), (weight.unsqueeze(2) * (high_s - high_t) ** 2).mean()


@pytest.mark.parametrize("shape", [*SHAPES, (2, 300, 40, 36)])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-6)])
def test_equals_its_definition(shape, memory_format, dtype, tolerance) -> None:
    student, teacher, weight = feature_inputs(shape, dtype)
    student = student.contiguous(memory_format=memory_format).requires_grad_()
    expected = by_definition(student.double(), teacher.double(), weight.double())
    actual = core.explicit_loss(student, teacher, weight)
    for value, reference in zip(actual, expected, strict=True):
        assert value.dtype == dtype
        assert value.item() == pytest.approx(reference.item(), rel=tolerance)
    mixed = [0.7 * low + 0.3 * high for low, high in (actual, expected)]
    gradient, reference = (torch.autograd.grad(loss, student)[0].double() for loss in mixed)
    assert (gradient - reference).abs().max() <= max(tolerance, 1e-7) * reference.abs().max()


@pytest.mark.parametrize("wavelet", ["db2", "bior2.2"])
def test_takes_any_wavelet(wavelet: str) -> None:
    student, teacher, weight = feature_inputs((2, 3, 9, 12), wavelet=wavelet)
    actual = core.explicit_loss(student, teacher, weight, wavelet)
    torch.testing.assert_close(actual, by_definition(student, teacher, weight, wavelet), rtol=1e-12, atol=0)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("shape", [(2, 2, 4, 6), (1, 3, 5, 3), (2, 2, 1, 6), (1, 1, 5, 1)])
def test_gradcheck_of_even_odd_and_thin_shapes(shape: tuple[int, ...], norm: str) -> None:
    student, teacher, weight = feature_inputs(shape)
    student.requires_grad_()
    assert torch.autograd.gradcheck(lambda s: core.explicit_loss(s, teacher, weight, "haar", norm), student)


def test_gradient_can_be_taken_twice_and_one_sided() -> None:
    student, teacher, weight = feature_inputs((2, 3, 8, 10))
    student.requires_grad_()
    low, high = core.explicit_loss(student, teacher, weight)
    (first,) = torch.autograd.grad(low, student, retain_graph=True)
    (second,) = torch.autograd.grad(low, student, retain_graph=True)
    (other,) = torch.autograd.grad(high, student)
    assert torch.equal(first, second)
    # Opposite bands: what moves the one energy leaves the other.
    assert dwt2(first)[1].abs().max() <= 1e-15
    assert dwt2(other)[0].abs().max() <= 1e-15


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("offset", [0.0, 100.0])
@pytest.mark.parametrize("wavelet", ["haar", "db2"])
@pytest.mark.parametrize("norm", NORMS)
def test_in_half_precision(dtype: torch.dtype, offset: float, wavelet: str, norm: str) -> None:
    shape = (2, 16, 20, 24)
    student, teacher = wide_values(shape, offset, dtype, 0), wide_values(shape, -offset, dtype, 1)
    weight = 1 + torch.rand(2, 1, *band_shape(20, 24, wavelet))
    for band in (0, 1):
        # Times a loss scale, as mixed precision has it: a mean over many elements has gradients below float16's range.
        term = lambda s, t, band=band: core.explicit_loss(s, t, weight, wavelet, norm)[band] * 64  # noqa: E731
        assert_half_is_exact(term, student, teacher)
        # An offset that both share drowns the differences of half-precision values, not those of their differences.
        assert_half_is_exact(term, wide_values(shape, 100, dtype, 2), wide_values(shape, 100, dtype, 3))


@pytest.mark.slow
@pytest.mark.parametrize("norm", NORMS)
def test_compiles_to_native_code(norm: str) -> None:
    student, teacher, weight = feature_inputs((2, 8, 16, 20), torch.float32)
    student.requires_grad_()
    compiled = torch.compile(core.explicit_loss, fullgraph=True)
    low, high = compiled(student, teacher, weight, norm=norm)
    (gradient,) = torch.autograd.grad(low + high, student)
    expected = core.explicit_loss(student, teacher, weight, norm=norm)
    torch.testing.assert_close((low, high), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradient, torch.autograd.grad(sum(expected), student)[0], rtol=1e-5, atol=1e-6)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("wavelet", ["haar", "db2"])
@pytest.mark.parametrize("norm", NORMS)
def test_on_cuda_equals_cpu(wavelet: str, norm: str) -> None:
    inputs = feature_inputs((2, 8, 15, 20), torch.float32, wavelet)
    results = []
    for device in ("cpu", "cuda"):
        student, teacher, weight = (x.to(device) for x in inputs)
        student.requires_grad_()
        low, high = core.explicit_loss(student, teacher, weight, wavelet, norm)
        results.append((low, high, torch.autograd.grad(low + 2 * high, student)[0]))
    torch.testing.assert_close(results[0], tuple(x.cpu() for x in results[1]), rtol=1e-4, atol=1e-6)
