"""Extensions of the explicit loss: channel normalisation, standardisation and pseudo-Huber values."""

from __future__ import annotations

from unittest import mock

import pytest
import torch
from torch import Tensor

from ds2d2_yolo import core
from ds2d2_yolo.core import robust as robust_module
from ds2d2_yolo.core.robust import channel_scale, robust_energies
from ds2d2_yolo.core.wavelet import dwt2
from tests.helpers.core_inputs import feature_inputs

# Norm and robust.
NEW_OPTIONS = [("channel", False), ("none", True), ("channel", True)]
STANDARD = [("standard", False), ("standard", True)]  # its definition: test_standardise.py


def by_definition_with_options(
    student: Tensor, teacher: Tensor, weight: Tensor, wavelet: str, norm: str, robust: bool
) -> tuple[Tensor, Tensor]:
    """The formulae as they are written."""
    if norm == "channel":
        deviation = torch.stack([channel.std(correction=0) for channel in teacher.unbind(1)])
        deviation = deviation.clamp(min=0.01 * deviation.max().item()).view(-1, 1, 1)
        student, teacher = student / deviation, teacher / deviation
    terms = []
    for s, t in zip(dwt2(student, wavelet), dwt2(teacher, wavelet), strict=True):
        x, d = s - t, t.pow(2).flatten(1).mean(1).sqrt().quantile(0.5)
        value = 2 * d**2 * ((1 + (x / d) ** 2).sqrt() - 1) if robust else x**2
        terms.append((value * weight.view(weight.shape[0], 1, *[1] * (value.ndim - 4), *weight.shape[2:])).mean())
    return terms[0], terms[1]


@pytest.mark.parametrize(("norm", "robust"), NEW_OPTIONS)
@pytest.mark.parametrize("wavelet", ["haar", "db4", "sym5", "coif1", "bior2.2", "rbio1.3", "dmey"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-6)])
def test_options_equal_their_definition(norm, robust, wavelet, dtype, tolerance) -> None:
    student, teacher, weight = feature_inputs((3, 4, 9, 12), dtype, wavelet)
    # Channels of unlike size, a nearly dead one among them.
    teacher = teacher * torch.tensor([0.1, 1.0, 30.0, 1e-4]).view(-1, 1, 1) + 2
    student = (teacher + 0.5 * student).requires_grad_()
    expected = by_definition_with_options(student.double(), teacher.double(), weight.double(), wavelet, norm, robust)
    actual = core.explicit_loss(student, teacher, weight, wavelet, norm=norm, robust=robust)
    for value, reference in zip(actual, expected, strict=True):
        assert value.dtype == dtype
        assert value.item() == pytest.approx(reference.item(), rel=tolerance)
        gradient, reference_gradient = (
            torch.autograd.grad(x, student, retain_graph=True)[0].double() for x in (value, reference)
        )
        assert (gradient - reference_gradient).abs().max() <= tolerance * reference_gradient.abs().max()


@pytest.mark.parametrize(("norm", "robust"), NEW_OPTIONS + STANDARD)
def test_images_that_do_not_count_leave_the_options_as_they_are(norm: str, robust: bool) -> None:
    student, teacher, weight = feature_inputs((4, 3, 8, 10))
    counted = torch.tensor([True, False, True, False])
    teacher = teacher.where(counted.view(-1, 1, 1, 1), torch.zeros_like(teacher))
    weight = weight * counted.view(-1, 1, 1, 1)
    few = [x[counted] for x in (student, teacher, weight)]
    separate = core.explicit_loss(*few, norm=norm, robust=robust)
    among = core.explicit_loss(student, teacher, weight, norm=norm, robust=robust, counted=counted)
    torch.testing.assert_close([2 * x for x in among], list(separate))  # the mean is over four images, not two
    none = core.explicit_loss(
        student, 0 * teacher, 0 * weight, norm=norm, robust=robust, counted=torch.zeros_like(counted)
    )
    assert [float(x) for x in none] == [0, 0]


@pytest.mark.parametrize(("norm", "robust"), NEW_OPTIONS + STANDARD)
@pytest.mark.parametrize("value", [0.0, 3.0])
def test_a_teacher_without_variation_divides_nothing_by_zero(norm: str, robust: bool, value: float) -> None:
    student, _, weight = feature_inputs((2, 3, 8, 10), torch.float32)
    student.requires_grad_()
    terms = core.explicit_loss(student, torch.full_like(student, value), weight, norm=norm, robust=robust)
    assert all(torch.isfinite(term) for term in terms)
    assert torch.isfinite(torch.autograd.grad(sum(terms), student)[0]).all()
    if (norm, robust) == ("channel", False):  # a constant teacher has no scale: the features stay as they are
        torch.testing.assert_close(terms, core.explicit_loss(student, torch.full_like(student, value), weight))


def test_normalised_terms_do_not_depend_on_the_scale_of_a_channel() -> None:
    student, teacher, weight = feature_inputs((2, 3, 8, 10))
    factor = torch.tensor([1.0, 7.0, 0.2]).double().view(-1, 1, 1)
    for robust in (False, True):
        plain, scaled = (
            core.explicit_loss(student * k, teacher * k, weight, norm="channel", robust=robust) for k in (1, factor)
        )
        torch.testing.assert_close(plain, scaled, rtol=1e-12, atol=0)


@pytest.mark.parametrize("norm", ["none", "channel"])
@pytest.mark.parametrize(("both", "fold"), [(False, 15), (True, 20)])
def test_an_outlying_image_swings_the_robust_form_less(norm: str, both: bool, fold: float) -> None:
    """One image of eight times 50: the student's alone, or the teacher's too, whose median image gives d."""
    student, teacher, weight = feature_inputs((8, 16, 20, 20))
    factor = torch.ones(8, 1, 1, 1, dtype=torch.float64)
    factor[3] = 50
    swings = {}
    for robust in (False, True):
        usual = core.explicit_loss(student, teacher, weight, norm=norm, robust=robust)
        outlying = core.explicit_loss(
            student * factor, teacher * factor if both else teacher, weight, norm=norm, robust=robust
        )
        swings[robust] = [b.item() / a.item() for a, b in zip(usual, outlying, strict=True)]
    for squares, huber in zip(swings[False], swings[True], strict=True):
        assert squares > fold * huber


def test_robust_gradient_ignores_autocast() -> None:
    student, teacher, weight = feature_inputs((2, 3, 8, 10), torch.float32, "db2")
    student.requires_grad_()
    gradients = []
    for enabled in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            loss = sum(core.explicit_loss(student, teacher, weight, "db2", robust=True))
            gradients.append(torch.autograd.grad(loss, student)[0])
    assert torch.equal(*gradients)


@pytest.mark.parametrize("shape", [(3, 5, 8, 10), (2, 7, 7, 9)])
@pytest.mark.parametrize("norm", ["none", "channel"])
def test_robust_form_in_small_pieces(shape: tuple[int, ...], norm: str) -> None:
    student, teacher, weight = feature_inputs(shape)
    student.requires_grad_()
    results = []
    for size in (1, 150, 10**6):
        with mock.patch.object(robust_module, "_CHUNK", size):
            terms = core.explicit_loss(student, teacher, weight, norm=norm, robust=True)
            results.append((*terms, *torch.autograd.grad(terms[0] + 2 * terms[1], student)))
    torch.testing.assert_close(results[0], results[1], rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(results[0], results[2], rtol=1e-12, atol=1e-15)


def test_channel_scale_is_one_over_the_deviation() -> None:
    teacher = torch.randn(3, 5, 6, 7, dtype=torch.float64) * torch.tensor([1.0, 3.0, 1e-9, 0.5, 2.0]).view(-1, 1, 1)
    deviation = teacher.transpose(0, 1).flatten(1).std(1, correction=0)
    expected = 1 / deviation.clamp(min=0.01 * deviation.max().item())
    torch.testing.assert_close(channel_scale(teacher, torch.float64).flatten(), expected)
    counted = torch.tensor([True, False, True])
    torch.testing.assert_close(
        channel_scale(teacher, torch.float64, counted), channel_scale(teacher[counted], torch.float64)
    )


def test_robust_energies_near_and_far() -> None:
    """Small differences count as their squares, large ones as 2 d |x|."""
    _, teacher, weight = feature_inputs((1, 2, 8, 8))
    low, high = dwt2(teacher)
    d = low.square().mean().sqrt()
    near = robust_energies(teacher * (1 + 1e-5), teacher, weight, None, "haar")
    squares = (weight * low.square()).mean() * 1e-10, (weight.unsqueeze(2) * high.square()).mean() * 1e-10
    torch.testing.assert_close(near, squares, rtol=1e-5, atol=0)
    far, _ = robust_energies(teacher * (1 + 1e9), teacher, weight, None, "haar")
    torch.testing.assert_close(far, (weight * 2 * d * low.abs()).mean() * 1e9, rtol=1e-5, atol=0)
