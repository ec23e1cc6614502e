"""The loss terms: values, gradients, exact zeros, half precision and compilation."""

from __future__ import annotations

from collections.abc import Callable
from unittest import mock

import pytest
import torch
from torch import Tensor

from ds2d2_yolo import core
from ds2d2_yolo.core import robust as explicit
from ds2d2_yolo.core.wavelet import band_shape, dwt2

SHAPES = [(2, 3, 8, 10), (1, 4, 7, 9), (2, 2, 1, 6), (1, 1, 5, 1)]


def features(shape: tuple[int, ...], dtype=torch.float64, wavelet="haar", seed=0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    student, teacher = torch.randn(2, *shape, generator=generator, dtype=dtype)
    grid = band_shape(*shape[2:], wavelet)
    return student, teacher, 1 + torch.rand(shape[0], 1, *grid, generator=generator, dtype=dtype)


def by_definition(student: Tensor, teacher: Tensor, weight: Tensor, wavelet="haar") -> tuple[Tensor, Tensor]:
    """Two transforms and the formulae as they are written."""
    (low_s, high_s), (low_t, high_t) = dwt2(student, wavelet), dwt2(teacher, wavelet)
    return (weight * (low_s - low_t) ** 2).mean(), (weight.unsqueeze(2) * (high_s - high_t) ** 2).mean()


# The options of the explicit terms, norm and robust.
OPTIONS = [("none", False), ("channel", False), ("none", True), ("channel", True)]
NEW_OPTIONS = OPTIONS[1:]


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


def dense(dtype=torch.float64, boxes=4, seed=0) -> tuple[Tensor, ...]:
    """Student logits and boxes, teacher logits and boxes of a dense head: (B, N, nc), (B, N, boxes)."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 2, 6, 3, generator=generator, dtype=dtype) * 2
    low = torch.rand(2, 2, 6, 2, generator=generator, dtype=dtype) * 4
    side = torch.rand(2, 2, 6, 2, generator=generator, dtype=dtype) * 20 + 10
    box = torch.cat((low, low + side), -1)
    if boxes == 5:
        box = torch.cat((low, side, torch.rand(2, 2, 6, 1, generator=generator, dtype=dtype)), -1)
    return logits[0], box[0], logits[1], box[1]


@pytest.mark.parametrize("shape", [*SHAPES, (2, 300, 40, 36)])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-6)])
def test_explicit_equals_its_definition(shape, memory_format, dtype, tolerance) -> None:
    student, teacher, weight = features(shape, dtype)
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
def test_explicit_takes_any_wavelet(wavelet: str) -> None:
    student, teacher, weight = features((2, 3, 9, 12), wavelet=wavelet)
    actual = core.explicit_loss(student, teacher, weight, wavelet)
    torch.testing.assert_close(actual, by_definition(student, teacher, weight, wavelet), rtol=1e-12, atol=0)


@pytest.mark.parametrize(("norm", "robust"), OPTIONS)
@pytest.mark.parametrize(("shape", "wavelet"), [*((s, "haar") for s in SHAPES), ((1, 2, 5, 4), "db2")])
def test_explicit_gradcheck(shape: tuple[int, ...], wavelet: str, norm: str, robust: bool) -> None:
    student, teacher, weight = features(shape, wavelet=wavelet)
    student.requires_grad_()
    assert torch.autograd.gradcheck(lambda s: core.explicit_loss(s, teacher, weight, wavelet, norm, robust), student)


@pytest.mark.parametrize(("norm", "robust"), NEW_OPTIONS)
@pytest.mark.parametrize("wavelet", ["haar", "db4", "sym5", "coif1", "bior2.2", "rbio1.3", "dmey"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-6)])
def test_explicit_options_equal_their_definition(norm, robust, wavelet, dtype, tolerance) -> None:
    student, teacher, weight = features((3, 4, 9, 12), dtype, wavelet)
    # Channels of unlike size, a nearly dead one among them.
    teacher = teacher * torch.tensor([0.1, 1.0, 30.0, 1e-4]).view(-1, 1, 1) + 2
    student = (teacher + 0.5 * student).requires_grad_()
    expected = by_definition_with_options(student.double(), teacher.double(), weight.double(), wavelet, norm, robust)
    actual = core.explicit_loss(student, teacher, weight, wavelet, norm=norm, robust=robust)
    for value, reference in zip(actual, expected, strict=True):
        assert value.dtype == dtype
        assert value.item() == pytest.approx(reference.item(), rel=tolerance)
        gradient, wanted = (torch.autograd.grad(x, student, retain_graph=True)[0].double() for x in (value, reference))
        assert (gradient - wanted).abs().max() <= tolerance * wanted.abs().max()


@pytest.mark.parametrize(("norm", "robust"), NEW_OPTIONS)
def test_images_that_do_not_count_leave_the_options_as_they_are(norm: str, robust: bool) -> None:
    student, teacher, weight = features((4, 3, 8, 10))
    counted = torch.tensor([True, False, True, False])
    teacher = teacher.where(counted.view(-1, 1, 1, 1), torch.zeros_like(teacher))
    weight = weight * counted.view(-1, 1, 1, 1)
    few = [x[counted] for x in (student, teacher, weight)]
    alone = core.explicit_loss(*few, norm=norm, robust=robust)
    among = core.explicit_loss(student, teacher, weight, norm=norm, robust=robust, counted=counted)
    torch.testing.assert_close([2 * x for x in among], list(alone))  # the mean is over four images, not two
    none = core.explicit_loss(
        student, 0 * teacher, 0 * weight, norm=norm, robust=robust, counted=torch.zeros_like(counted)
    )
    assert [float(x) for x in none] == [0, 0]


@pytest.mark.parametrize(("norm", "robust"), NEW_OPTIONS)
@pytest.mark.parametrize("value", [0.0, 3.0])
def test_a_teacher_without_variation_divides_nothing_by_zero(norm: str, robust: bool, value: float) -> None:
    student, _, weight = features((2, 3, 8, 10), torch.float32)
    student.requires_grad_()
    terms = core.explicit_loss(student, torch.full_like(student, value), weight, norm=norm, robust=robust)
    assert all(torch.isfinite(term) for term in terms)
    assert torch.isfinite(torch.autograd.grad(sum(terms), student)[0]).all()
    if not robust:  # a constant teacher has no scale: the features stay as they are
        torch.testing.assert_close(terms, core.explicit_loss(student, torch.full_like(student, value), weight))


def test_normalised_terms_do_not_depend_on_the_scale_of_a_channel() -> None:
    student, teacher, weight = features((2, 3, 8, 10))
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
    student, teacher, weight = features((8, 16, 20, 20))
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


def test_explicit_gradient_can_be_taken_twice_and_one_sided() -> None:
    student, teacher, weight = features((2, 3, 8, 10))
    student.requires_grad_()
    low, high = core.explicit_loss(student, teacher, weight)
    (first,) = torch.autograd.grad(low, student, retain_graph=True)
    (second,) = torch.autograd.grad(low, student, retain_graph=True)
    (other,) = torch.autograd.grad(high, student)
    assert torch.equal(first, second)
    # Opposite bands: what moves the one energy leaves the other.
    assert dwt2(first)[1].abs().max() <= 1e-15
    assert dwt2(other)[0].abs().max() <= 1e-15


@pytest.mark.parametrize("boxes", [4, 5])
def test_implicit_gradcheck(boxes: int) -> None:
    logits, box, teacher_logits, teacher_box = dense(boxes=boxes)
    logits.requires_grad_()
    box.requires_grad_()
    check, weight = torch.autograd.gradcheck, torch.rand(2, 6)
    assert check(lambda p: core.quality_focal_kd(p, teacher_logits), logits)
    assert check(lambda p: core.quality_focal_kd(p, teacher_logits, beta=2.0), logits)
    assert check(lambda p: core.implicit_class_loss(p, teacher_logits, 3.0, weight=weight), logits)
    assert check(lambda b: core.implicit_box_loss(b, teacher_box, teacher_logits, 3.0), box)
    assert check(lambda p: core.softmax_kd(p, teacher_logits), logits)
    deltas = torch.randn(6, 3, 4, dtype=torch.float64, requires_grad=True)
    other, scores = torch.randn(6, 3, 4, dtype=torch.float64), torch.rand(6, 3, dtype=torch.float64)
    assert check(lambda d: core.region_box_loss(d, other, scores), deltas)
    assert check(lambda p: core.region_class_loss(p, teacher_logits[0], 6), logits[0].detach().requires_grad_())


def every_term(boxes: int = 4, dtype=torch.float32) -> dict[str, tuple[Callable[[Tensor, Tensor], Tensor], Tensor]]:
    """Each term as a scalar function of a student's and a teacher's tensor, with an input of both."""
    _, _, logits, box = dense(dtype, boxes)
    feature, _, weight = features((2, 3, 7, 10), dtype)
    scores = logits[0].sigmoid()
    return {
        "low": (lambda s, t: core.explicit_loss(s, t, weight)[0], feature),
        "high": (lambda s, t: core.explicit_loss(s, t, weight)[1], feature),
        "low db2": (
            lambda s, t: core.explicit_loss(s, t, torch.ones(2, 1, 5, 6, dtype=dtype), "db2")[0],
            feature,
        ),
        "channel": (lambda s, t: sum(core.explicit_loss(s, t, weight, norm="channel")), feature),
        "robust": (lambda s, t: sum(core.explicit_loss(s, t, weight, robust=True)), feature),
        "both": (lambda s, t: sum(core.explicit_loss(s, t, weight, norm="channel", robust=True)), feature),
        "class": (lambda s, t: core.implicit_class_loss(s, t, 3), logits),
        "box": (lambda s, t: core.implicit_box_loss(s, t, logits, 3), box),
        "region class": (lambda s, t: core.region_class_loss(s, t, 6), logits),
        "region box": (lambda s, t: core.region_box_loss(s, t, scores), torch.randn(6, 3, 4, dtype=dtype)),
    }


TERMS = [(name, boxes) for name in every_term() for boxes in ((4, 5) if name == "box" else (4,))]


@pytest.mark.parametrize(("name", "boxes"), TERMS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_identical_inputs_give_exactly_zero(name: str, boxes: int, dtype: torch.dtype) -> None:
    term, x = every_term(boxes)[name]
    x = x.to(dtype).requires_grad_()
    loss = term(x, x.detach().clone())
    assert loss.item() == 0
    (gradient,) = torch.autograd.grad(loss, x)
    assert gradient.dtype == dtype
    # The gradient of an overlap sums terms that cancel: rounding leaves what no training can see.
    assert gradient.abs().max().item() <= (1e-8 if name == "box" else 0)


@pytest.mark.parametrize(("name", "boxes"), TERMS)
def test_gradients_reach_the_student_and_stop_at_the_teacher(name: str, boxes: int) -> None:
    term, x = every_term(boxes)[name]
    student, teacher = (x * 1.1 + 0.1).requires_grad_(), x.clone().requires_grad_()
    loss = term(student, teacher)
    gradient, none = torch.autograd.grad(loss, (student, teacher), allow_unused=True)
    assert loss > 0
    assert gradient.abs().max() > 0
    assert none is None


@pytest.mark.parametrize(("name", "boxes"), TERMS)
def test_autocast_changes_nothing(name: str, boxes: int) -> None:
    term, x = every_term(boxes)[name]
    plain = term(x + 0.1, x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(term(x + 0.1, x), plain)


def test_robust_gradient_ignores_autocast() -> None:
    student, teacher, weight = features((2, 3, 8, 10), torch.float32, "db2")
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
    student, teacher, weight = features(shape)
    student.requires_grad_()
    results = []
    for size in (1, 150, 10**6):
        with mock.patch.object(explicit, "_CHUNK", size):
            terms = core.explicit_loss(student, teacher, weight, norm=norm, robust=True)
            results.append((*terms, *torch.autograd.grad(terms[0] + 2 * terms[1], student)))
    torch.testing.assert_close(results[0], results[1], rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(results[0], results[2], rtol=1e-12, atol=1e-15)


def wide(shape: tuple[int, ...], offset: float, dtype: torch.dtype, seed: int) -> Tensor:
    """Values around an offset with outliers of 10^4, representable in a half-precision dtype."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(*shape, generator=generator) + offset
    outlier = torch.rand(*shape, generator=generator) < 0.01
    return torch.where(outlier, x.sign() * 1e4, x).to(dtype)


def assert_half_is_exact(term: Callable[[Tensor, Tensor], Tensor], student: Tensor, teacher: Tensor) -> None:
    """Value within 1e-3 of float64 on the same inputs; gradient too, before it is rounded to its own dtype."""
    exact_input = student.double().requires_grad_()
    exact = term(exact_input, teacher.double())
    (exact_gradient,) = torch.autograd.grad(exact, exact_input)
    half_input = student.clone().requires_grad_()
    value = term(half_input, teacher)
    (gradient,) = torch.autograd.grad(value, half_input)
    assert value.dtype == torch.float32
    assert gradient.dtype == student.dtype
    assert value.item() == pytest.approx(exact.item(), rel=1e-3)
    assert torch.isfinite(gradient).all()
    rounding = torch.finfo(student.dtype).eps / 2 * exact_gradient.abs()
    error = (gradient.double() - exact_gradient).abs() - rounding
    assert error.max() <= 1e-3 * exact_gradient.abs().max()
    # In single precision, where nothing is rounded away, the bound holds as it stands.
    single_input = student.float().requires_grad_()
    (gradient,) = torch.autograd.grad(term(single_input, teacher), single_input)
    assert (gradient.double() - exact_gradient).abs().max() <= 1e-3 * exact_gradient.abs().max()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("offset", [0.0, 100.0])
@pytest.mark.parametrize("wavelet", ["haar", "db2"])
@pytest.mark.parametrize(("norm", "robust"), OPTIONS)
def test_explicit_in_half_precision(dtype: torch.dtype, offset: float, wavelet: str, norm: str, robust: bool) -> None:
    shape = (2, 16, 20, 24)
    student, teacher = wide(shape, offset, dtype, 0), wide(shape, -offset, dtype, 1)
    weight = 1 + torch.rand(2, 1, *band_shape(20, 24, wavelet))
    for band in (0, 1):
        # Times a loss scale, as mixed precision has it: a mean over many elements has gradients below float16's range.
        term = lambda s, t, band=band: core.explicit_loss(s, t, weight, wavelet, norm, robust)[band] * 64  # noqa: E731
        assert_half_is_exact(term, student, teacher)
        # An offset that both share drowns the differences of half-precision values, not those of their differences.
        assert_half_is_exact(term, wide(shape, 100, dtype, 2), wide(shape, 100, dtype, 3))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("scale", [1.0, 30.0, 1e4])
def test_implicit_in_half_precision(dtype: torch.dtype, scale: float) -> None:
    logits, box, teacher_logits, teacher_box = (x.to(dtype) for x in dense(torch.float32))
    rotated, teacher_rotated = (dense(torch.float32, 5)[i].to(dtype) for i in (1, 3))
    spread = min(scale, 100.0)
    assert_half_is_exact(
        lambda s, t: core.implicit_class_loss(s, t, 3), logits * spread + 0 * scale, teacher_logits * spread
    )
    outlier = logits.clone()
    outlier[0, 0, 0], outlier[0, 1, 1] = scale, -scale
    assert_half_is_exact(lambda s, t: core.implicit_class_loss(s, t, 3), outlier, teacher_logits)
    assert_half_is_exact(lambda s, t: core.region_class_loss(s, t, 3), outlier, teacher_logits)
    assert_half_is_exact(lambda s, t: core.implicit_box_loss(s, t, teacher_logits, 3), box, teacher_box)
    assert_half_is_exact(lambda s, t: core.implicit_box_loss(s, t, teacher_logits, 3), rotated, teacher_rotated)


@pytest.mark.parametrize("wavelet", ["haar", "db2"])
@pytest.mark.parametrize(("norm", "robust"), OPTIONS)
def test_explicit_compiles_to_one_graph(wavelet: str, norm: str, robust: bool) -> None:
    student, teacher, weight = features((2, 3, 7, 10), torch.float32, wavelet)
    student.requires_grad_()
    compiled = torch.compile(core.explicit_loss, fullgraph=True, backend="aot_eager")
    results = []
    for function in (core.explicit_loss, compiled):
        low, high = function(student, teacher, weight, wavelet, norm, robust)
        results.append((low, high, torch.autograd.grad(low + 2 * high, student)[0]))
    torch.testing.assert_close(results[0], results[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("boxes", [4, 5])
def test_implicit_compiles_to_one_graph(boxes: int) -> None:
    def total(logits: Tensor, box: Tensor, teacher_logits: Tensor, teacher_box: Tensor) -> Tensor:
        loss = core.implicit_class_loss(logits, teacher_logits, 3.0)
        loss = loss + core.implicit_box_loss(box, teacher_box, teacher_logits, 3.0)
        regions = core.region_class_loss(logits, teacher_logits, 6)
        return loss + regions + core.region_box_loss(box[..., None, :4], teacher_box[..., None, :4], logits[..., :1])

    def flat(x: Tensor) -> Tensor:
        return x.flatten(0, 1)

    arguments = [flat(x) for x in dense(torch.float32, boxes)]
    for x in arguments[:2]:
        x.requires_grad_()
    results = []
    for function in (total, torch.compile(total, fullgraph=True, backend="aot_eager")):
        loss = function(*arguments)
        results.append((loss, *torch.autograd.grad(loss, arguments[:2])))
    torch.testing.assert_close(results[0], results[1], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("norm", "robust"), OPTIONS)
def test_explicit_compiles_to_native_code(norm: str, robust: bool) -> None:
    student, teacher, weight = features((2, 8, 16, 20), torch.float32)
    student.requires_grad_()
    compiled = torch.compile(core.explicit_loss, fullgraph=True)
    low, high = compiled(student, teacher, weight, norm=norm, robust=robust)
    (gradient,) = torch.autograd.grad(low + high, student)
    expected = core.explicit_loss(student, teacher, weight, norm=norm, robust=robust)
    torch.testing.assert_close((low, high), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradient, torch.autograd.grad(sum(expected), student)[0], rtol=1e-5, atol=1e-6)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("wavelet", ["haar", "db2"])
@pytest.mark.parametrize(("norm", "robust"), OPTIONS)
def test_explicit_on_cuda_equals_cpu(wavelet: str, norm: str, robust: bool) -> None:
    inputs = features((2, 8, 15, 20), torch.float32, wavelet)
    results = []
    for device in ("cpu", "cuda"):
        student, teacher, weight = (x.to(device) for x in inputs)
        student.requires_grad_()
        low, high = core.explicit_loss(student, teacher, weight, wavelet, norm, robust)
        results.append((low, high, torch.autograd.grad(low + 2 * high, student)[0]))
    torch.testing.assert_close(results[0], tuple(x.cpu() for x in results[1]), rtol=1e-4, atol=1e-6)


def test_no_regions_give_zero() -> None:
    empty = torch.zeros(0, 3, 4, requires_grad=True)
    assert core.region_box_loss(empty, empty.detach(), torch.zeros(0, 3)).item() == 0


FEATURE = torch.zeros(2, 3, 8, 10)
LOGITS, BOXES = torch.zeros(2, 6, 3), torch.zeros(2, 6, 4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: core.explicit_loss(FEATURE, FEATURE[:, :2], torch.ones(2, 1, 4, 5)), "features must have one shape"),
        (lambda: core.explicit_loss(FEATURE, FEATURE, torch.ones(2, 4, 5)), "weight must be \\(2, 1, 4, 5\\)"),
        (lambda: core.explicit_loss(FEATURE, FEATURE, torch.ones(2, 1, 4, 5), "db2"), "weight must be .* db2"),
        (
            lambda: core.explicit_loss(FEATURE, FEATURE, torch.ones(2, 1, 4, 5), norm="batch"),
            "norm must be 'none' or",
        ),
        (lambda: core.explicit_loss(FEATURE[0], FEATURE[0], torch.ones(2, 1, 4, 5)), "shape \\(B, C, H, W\\)"),
        (lambda: core.quality_focal_kd(LOGITS, LOGITS[:1]), "logits must have one shape"),
        (lambda: core.quality_focal_kd(LOGITS, LOGITS, beta=0.5), "beta must be at least 1"),
        (lambda: core.softmax_kd(LOGITS, LOGITS, temperature=0), "temperature must be positive"),
        (lambda: core.softmax_kd(LOGITS, LOGITS[:1]), "logits must have one shape"),
        (lambda: core.implicit_box_loss(BOXES, BOXES[:1], LOGITS, 1), "boxes must have one shape"),
        (lambda: core.implicit_box_loss(LOGITS, LOGITS, LOGITS, 1), "boxes must be \\(B, N, 4\\)"),
        (lambda: core.implicit_box_loss(BOXES, BOXES, LOGITS[:, :2], 1), "one row of logits per box"),
        (lambda: core.region_box_loss(BOXES, BOXES[:1], BOXES[..., 0]), "deltas must have one shape"),
        (lambda: core.region_box_loss(BOXES, BOXES, BOXES[:, :2, 0]), "deltas must be \\(R, K, 4\\)"),
    ],
)
def test_errors(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
