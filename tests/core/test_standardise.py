"""Standardisation of features: its definition, the mask of images, and the explicit terms of standardised features."""

from __future__ import annotations

from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ds2d2_yolo import core
from ds2d2_yolo.core import standardise as module
from ds2d2_yolo.core.standardise import channel_moments, standardise
from tests.helpers.core_inputs import feature_inputs

COUNTED = torch.tensor([True, False, True])


def feature(dtype: torch.dtype = torch.float64) -> Tensor:
    """Three images; channels with an offset, of unlike deviation."""
    x = feature_inputs((3, 4, 5, 6), dtype)[0]
    return x * torch.tensor([1.0, 0.05, 20.0, 3.0], dtype=dtype).view(-1, 1, 1) + 2


def test_moments_are_those_of_the_counted_images() -> None:
    x = feature()
    for counted in (None, COUNTED):
        values = (x if counted is None else x[counted]).transpose(0, 1).flatten(1)
        mean, variance = channel_moments(x, torch.float64, counted)
        torch.testing.assert_close(mean, values.mean(1))
        torch.testing.assert_close(variance, values.var(1, correction=0))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-5)])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_is_batch_normalisation_without_parameters(
    dtype: torch.dtype, tolerance: float, memory_format: torch.memory_format
) -> None:
    x = feature(dtype).contiguous(memory_format=memory_format).requires_grad_()
    incoming = feature_inputs((3, 4, 5, 6), dtype, seed=1)[0]
    values = standardise(x), F.batch_norm(x.double(), None, None, training=True)
    gradients = [torch.autograd.grad(v, x, incoming.to(v.dtype))[0] for v in values]
    assert values[0].dtype == dtype
    torch.testing.assert_close(values[0].double(), values[1], rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(*gradients, rtol=tolerance, atol=tolerance)


def test_images_that_do_not_count_change_no_statistic() -> None:
    x = feature()
    x[1] *= 1e3
    torch.testing.assert_close(standardise(x, COUNTED)[COUNTED], standardise(x[COUNTED]), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("counted", [None, COUNTED, torch.zeros(3, dtype=torch.bool)], ids=["all", "two", "none"])
def test_gradcheck(counted: Tensor | None) -> None:
    x = feature().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: standardise(x, counted), x)


def test_gradient_in_small_pieces() -> None:
    x, incoming = feature().requires_grad_(), feature_inputs((3, 4, 5, 6))[1]
    gradients = []
    for size in (1, 10**6):
        with mock.patch.object(module, "_CHUNK", size):
            gradients.append(torch.autograd.grad(standardise(x, COUNTED), x, incoming)[0])
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("value", [0.0, 3.0, 1e3])
def test_a_channel_without_variation_becomes_zeros(value: float) -> None:
    x = feature(torch.float32)
    x[:, 1] = value
    x.requires_grad_()
    y = standardise(x)
    assert y[:, 1].abs().max() < 1e-3
    (gradient,) = torch.autograd.grad(y.square().sum(), x)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("wavelet", ["haar", "db4", "bior2.2"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_terms_equal_those_of_features_that_are_standardised_first(
    wavelet: str, dtype: torch.dtype, tolerance: float
) -> None:
    student, teacher, weight = feature_inputs((3, 4, 9, 12), dtype, wavelet)
    scale = torch.tensor([0.1, 1.0, 30.0, 4.0], dtype=dtype).view(-1, 1, 1)
    student, teacher = (student * scale - 0.3).requires_grad_(), teacher / scale + 0.5
    actual = core.explicit_loss(student, teacher, weight, wavelet, "standard")
    normed = (F.batch_norm(x.double(), None, None, training=True) for x in (student, teacher))
    expected = core.explicit_loss(*normed, weight.double(), wavelet, "none")
    for value, reference in zip(actual, expected, strict=True):
        assert value.dtype == dtype
        assert value.item() == pytest.approx(reference.item(), rel=tolerance)
        gradient, reference_gradient = (
            torch.autograd.grad(x, student, retain_graph=True)[0].double() for x in (value, reference)
        )
        assert (gradient - reference_gradient).abs().max() <= tolerance * reference_gradient.abs().max()


def test_standardised_terms_do_not_depend_on_scale_and_offset_of_either_side() -> None:
    student, teacher, weight = feature_inputs((2, 3, 8, 10))
    factor = torch.tensor([1.0, 7.0, 2.0]).double().view(-1, 1, 1)
    plain, other = (
        torch.stack(core.explicit_loss(*pair, weight, norm="standard"))
        for pair in ((student, teacher), (student * factor + 5, teacher / factor - 3))
    )
    torch.testing.assert_close(plain, other, rtol=1e-3, atol=0)  # up to the epsilon of the variance


def test_energy_of_standardised_features_is_their_correlation() -> None:
    """With equal weights half the mean square of the difference is 1 - r; Haar bands have the energy of a block."""
    student, teacher, _ = feature_inputs((2, 3, 8, 10))
    student = student + 0.5 * teacher
    low, high = core.explicit_loss(student, teacher, torch.ones(2, 1, 4, 5).double(), norm="standard")
    pairs = zip(student.transpose(0, 1).flatten(1), teacher.transpose(0, 1).flatten(1), strict=True)
    correlations = torch.stack([torch.corrcoef(torch.stack(pair))[0, 1] for pair in pairs])
    torch.testing.assert_close((low + 3 * high) / 4 / 2, (1 - correlations).mean(), rtol=1e-4, atol=0)


def test_images_that_do_not_count_leave_the_terms_as_they_are() -> None:
    student, teacher, weight = feature_inputs((4, 3, 8, 10))
    counted = torch.tensor([True, False, True, False])
    teacher = teacher.where(counted.view(-1, 1, 1, 1), torch.zeros_like(teacher))
    weight = weight * counted.view(-1, 1, 1, 1)
    separate = core.explicit_loss(*(x[counted] for x in (student, teacher, weight)), norm="standard")
    among = core.explicit_loss(student, teacher, weight, norm="standard", counted=counted)
    torch.testing.assert_close([2 * x for x in among], list(separate))  # the mean is over four images, not two
    none = core.explicit_loss(student, 0 * teacher, 0 * weight, norm="standard", counted=torch.zeros_like(counted))
    assert [float(x) for x in none] == [0, 0]


@pytest.mark.parametrize("value", [0.0, 3.0])
def test_terms_of_a_teacher_without_variation_are_finite(value: float) -> None:
    student, _, weight = feature_inputs((2, 3, 8, 10), torch.float32)
    student.requires_grad_()
    terms = core.explicit_loss(student, torch.full_like(student, value), weight, norm="standard")
    assert all(torch.isfinite(term) for term in terms)
    assert torch.isfinite(torch.autograd.grad(sum(terms), student)[0]).all()
