"""Parity with the authors' published implementation, by its recorded inputs and outputs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ds2d2_yolo import core
from ds2d2_yolo.core.disw import disw_map
from ds2d2_yolo.core.iou import giou
from ds2d2_yolo.core.wavelet import band_shape, dwt2, high_frequency

SIZES = ["even", "odd", "mixed", "oddw"]
SETS = ["normal", "dense", "overlap", "border", "aligned", "none", "half"]
GRADIENT_SETS = ["normal", "dense", "none"]
LEVELS = ["P3", "P4", "P5"]
SINGLE, DOUBLE = 2e-6, 1e-12

Golden = Callable[[str], Tensor]


@pytest.fixture(scope="module")
def golden(shared: Path) -> Golden:
    """Give an array of the golden vectors as a tensor."""
    file = shared / "golden" / "golden_s0.npz"
    if not file.is_file():
        pytest.skip(f"needs the golden vectors {file}, which are no part of the project")
    arrays = np.load(file)
    return lambda key: torch.from_numpy(np.array(arrays[key]))


def assert_equal(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    """Largest absolute error over the largest absolute value."""
    assert actual.shape == expected.shape
    if expected.numel():
        error = (actual.detach().double() - expected.double()).abs().max().item()
        assert error <= tolerance * expected.double().abs().max().item()


def weight_map(golden: Golden, size: str, boxes: str, level: str, dtype: torch.dtype) -> Tensor:
    """Weights by the reference's extents and cells: input over grid."""
    height, width = golden(f"{size}/src_size")[2:].tolist()
    grid = band_shape(*golden(f"{size}/{level}/stu").shape[2:])
    cell = (height / grid[0], width / grid[1])
    arguments = golden(f"{size}/{boxes}/boxes"), golden(f"{size}/{boxes}/batch_idx"), 2, grid, cell
    return disw_map(*arguments, extent="reference", dtype=dtype)


def adapted_pair(golden: Golden, size: str, level: str, adapter: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Student feature (a leaf), adapted student feature and teacher feature."""
    student = golden(f"{size}/{level}/stu").to(adapter.dtype).requires_grad_()
    return student, F.conv2d(student, adapter), golden(f"{size}/{level}/tea").to(adapter.dtype)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("size", SIZES)
def test_transform(golden: Golden, size: str, level: str) -> None:
    for name, source in (("tea", "tea"), ("adapted", "adapted")):
        low, high = dwt2(golden(f"{size}/{level}/{source}"))
        assert_equal(torch.cat((low.unsqueeze(2), high), 2), golden(f"{size}/{level}/bands_{name}"), SINGLE)
    student = golden(f"{size}/{level}/stu")
    assert_equal(dwt2(student)[1].sum(2), golden(f"{size}/{level}/high_sum_stu"), SINGLE)
    assert_equal(high_frequency(student), golden(f"{size}/{level}/high_freq_stu"), SINGLE)
    assert_equal(high_frequency(student), golden(f"{size}/{level}/high_freq_stu_f64"), SINGLE)
    assert_equal(high_frequency(student.double()), golden(f"{size}/{level}/high_freq_stu_f64"), DOUBLE)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("boxes", SETS)
@pytest.mark.parametrize("size", SIZES)
def test_weight_map(golden: Golden, size: str, boxes: str, level: str) -> None:
    key = f"{size}/{boxes}/{level}"
    weight = weight_map(golden, size, boxes, level, torch.float64)[:, 0]
    assert_equal(weight, golden(f"{key}/disw_f64"), DOUBLE)
    single = weight_map(golden, size, boxes, level, torch.float32)[:, 0]
    assert_equal(single, golden(f"{key}/disw_f64"), SINGLE)
    assert_equal(single, golden(f"{key}/disw_f32"), SINGLE)
    # Published maps are kept in float16, whose rounding adds up over boxes.
    assert_equal(weight, golden(f"{key}/disw_f16"), 2e-3)
    assert torch.equal(weight > 1, golden(f"{key}/fg_mask") > 0)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("boxes", SETS)
@pytest.mark.parametrize("size", SIZES)
def test_cells_of_each_box(golden: Golden, size: str, boxes: str, level: str) -> None:
    coordinates, cells = golden(f"{size}/{boxes}/boxes"), golden(f"{size}/{boxes}/{level}/cells")
    height, width = golden(f"{size}/src_size")[2:].tolist()
    h, w = band_shape(*golden(f"{size}/{level}/stu").shape[2:])
    count = len(coordinates)
    weight = disw_map(
        coordinates, torch.arange(count), max(count, 1), (h, w), (height / h, width / w), extent="reference"
    )
    x, y = torch.arange(w), torch.arange(h).unsqueeze(1)
    for inside, (x0, y0, x1, y1) in zip(weight[:count, 0] > 1, cells.tolist(), strict=True):
        assert torch.equal(inside, (x >= x0) & (x <= x1) & (y >= y0) & (y <= y1))


@pytest.mark.parametrize("boxes", SETS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("dtype", "recorded", "tolerance"),
    [
        (torch.float64, "f64", DOUBLE),
        (torch.float32, "f64", SINGLE),
        (torch.float32, "f32", SINGLE),
        (torch.float64, "f16", 1e-3),
    ],
)
def test_explicit_losses_and_gradients(
    golden: Golden, size: str, boxes: str, dtype: torch.dtype, recorded: str, tolerance: float
) -> None:
    key = f"{size}/{boxes}"
    adapter = golden("adapter_weight").to(dtype).requires_grad_()
    students, total = [], torch.zeros(2, dtype=dtype)
    for level in LEVELS:
        student, adapted, teacher = adapted_pair(golden, size, level, adapter)
        terms = torch.stack(core.explicit_loss(adapted, teacher, weight_map(golden, size, boxes, level, dtype)))
        assert_equal(terms, golden(f"{key}/{level}/loss_{recorded}"), tolerance)
        total = total + terms
        students.append(student)
    assert_equal(total, golden(f"{key}/loss_{recorded}"), tolerance)
    mixed = (total * golden("grad_weights_LH").to(dtype)).sum()
    of_adapter, *of_students = torch.autograd.grad(mixed, (adapter, *students))
    # A gradient at a cell carries that cell's weight, a published one in float16.
    gradient_tolerance = 2e-3 if recorded == "f16" else tolerance
    assert_equal(of_adapter, golden(f"{key}/grad_adapter_{recorded}"), gradient_tolerance)
    if boxes in GRADIENT_SETS and recorded != "f32":
        for level, gradient in zip(LEVELS, of_students, strict=True):
            # Recorded in float32, whichever precision it was computed in.
            assert_equal(gradient, golden(f"{key}/{level}/grad_stu_{recorded}"), max(gradient_tolerance, 1e-7))


def assert_value_and_gradient(loss: Tensor, leaf: Tensor, golden: Golden, key: str) -> None:
    """Compare a scalar and its gradient with ``key``/value and ``key``/grad."""
    assert_equal(loss, golden(f"{key}/value"), SINGLE)
    (gradient,) = torch.autograd.grad(loss, leaf)
    assert_equal(gradient, golden(f"{key}/grad"), SINGLE)


@pytest.mark.parametrize(
    ("case", "weighted", "normalizer", "beta"),
    [
        ("w_avg", "weight", 7, 1.0),
        ("w_avg_beta2", "weight", 7, 2.0),
        ("nw_avg", None, 7, 1.0),
        ("w_noavg", "weight", 320, 1.0),  # a mean over the 64 x 5 elements
        ("nw_noavg", None, 320, 1.0),
        ("w0_avg", "zero", 7, 1.0),
        ("w_avg0", "weight", 0, 1.0),
    ],
)
def test_class_distillation(golden: Golden, case: str, weighted: str | None, normalizer: float, beta: float) -> None:
    student, teacher = golden("qfl/pred").requires_grad_(), golden("qfl/target")
    weights = {"weight": golden("qfl/weight"), "zero": torch.zeros(64)}
    weight = weights[weighted] if weighted else None
    loss = core.implicit_class_loss(student, teacher, normalizer, beta, weight)
    assert_value_and_gradient(loss, student, golden, f"qfl/{case}")
    if beta == 1:
        assert_equal(core.quality_focal_kd(student, teacher), golden("qfl/elementwise_beta1"), SINGLE)


@pytest.mark.parametrize("case", ["w_avg", "nw_avg", "w_noavg", "w0"])
def test_box_distillation(golden: Golden, case: str) -> None:
    student = golden("giou/stu_boxes").requires_grad_()
    # The reference gives two identical boxes of zero area an overlap of 0.
    distance = 1 - giou(student, golden("giou/tea_boxes"), empty=0.0)
    assert_equal(distance, golden("giou/elementwise"), SINGLE)
    confidence = golden("giou/tea_logits").amax(-1).sigmoid()
    assert_equal(confidence, golden("giou/reg_weight"), SINGLE)
    loss = {
        "w_avg": (confidence * distance).sum() / 11,
        "nw_avg": distance.sum() / 11,
        "w_noavg": (confidence * distance).mean(),
        "w0": (0 * distance).sum() / 11,
    }[case]
    assert_value_and_gradient(loss, student, golden, f"giou/{case}")


def test_box_term(golden: Golden) -> None:
    # All rows but the identical boxes of zero area, to which this package gives an overlap of 1.
    rows = torch.arange(48) != 5
    student, teacher = golden("giou/stu_boxes").requires_grad_(), golden("giou/tea_boxes")
    logits = golden("giou/tea_logits")
    loss = core.implicit_box_loss(student[rows], teacher[rows], logits[rows], 11)
    expected = golden("giou/w_avg/value") - (golden("giou/reg_weight") * golden("giou/elementwise"))[5] / 11
    assert_equal(loss, expected, SINGLE)
    (gradient,) = torch.autograd.grad(loss, student)
    assert_equal(gradient, golden("giou/w_avg/grad"), SINGLE)
    identical = core.implicit_box_loss(student[5:6], teacher[5:6], logits[5:6], 11)
    assert identical.item() == 0


def test_rows_of_kl(golden: Golden) -> None:
    assert_equal(core.softmax_kd(golden("kl/pred"), golden("kl/target")), golden("kl/rowwise_sum_T3"), SINGLE)


@pytest.mark.parametrize("case", ["plain", "as_called", "avg_in_avg_slot", "row_weight", "row_weight_avg"])
@pytest.mark.parametrize(("over_classes", "scale"), [("sum", 1), ("mean", 6)])
def test_kl(golden: Golden, case: str, over_classes: str, scale: int) -> None:
    student, teacher, average = golden("kl/pred").requires_grad_(), golden("kl/target"), golden("kl/avg_factor")
    rows, count = core.softmax_kd(student, teacher), len(student)
    weight = golden("kl/row_weight")
    loss = {
        "plain": core.region_class_loss(student, teacher, count),
        # The published call puts its average factor where the weight belongs: a mean, multiplied by it.
        "as_called": core.region_class_loss(student, teacher, count / average),
        "avg_in_avg_slot": core.region_class_loss(student, teacher, average),
        "row_weight": (rows * weight).mean(),
        "row_weight_avg": (rows * weight).sum() / average,
    }[case]
    # Recorded with the published loss weight of one half.
    assert_value_and_gradient(0.5 * loss / scale, student, golden, f"kl/{over_classes}/{case}")


def decode(deltas: Tensor, anchors: Tensor) -> Tensor:
    """Boxes xyxy from RetinaNet's deltas of anchors xyxy, of unit deviation."""
    side = anchors[:, 2:] - anchors[:, :2]
    center = (anchors[:, :2] + anchors[:, 2:]) / 2 + deltas[..., :2] * side
    side = deltas[..., 2:].clamp(max=4.135166556742356).exp() * side
    return torch.cat((center - side / 2, center + side / 2), -1)


def test_one_stage_terms(golden: Golden) -> None:
    def per_anchor(x: Tensor, columns: int) -> Tensor:
        return x.permute(0, 2, 3, 1).reshape(2, -1, columns)

    normalizer, total, leaves = golden("implicit_retina/avg_factor"), torch.zeros(()), {}
    for level in ("L0", "L1"):
        key = f"implicit_retina/{level}"
        leaves[level] = [golden(f"{key}/stu_{part}").requires_grad_() for part in ("cls", "reg")]
        classes, deltas = (per_anchor(x, n) for x, n in zip(leaves[level], (5, 4), strict=True))
        teacher, teacher_deltas = per_anchor(golden(f"{key}/tea_cls"), 5), per_anchor(golden(f"{key}/tea_reg"), 4)
        of_class = core.implicit_class_loss(classes, teacher, normalizer, weight=golden(f"{key}/label_weights"))
        anchors = golden(f"{key}/anchors")
        of_box = core.implicit_box_loss(decode(deltas, anchors), decode(teacher_deltas, anchors), teacher, normalizer)
        assert_equal(torch.stack((of_box, of_class)), golden(f"{key}/parts_reg_cls"), SINGLE)
        total = total + of_class + of_box
    assert_equal(total, golden("implicit_retina/value"), SINGLE)
    for level, (classes, deltas) in leaves.items():
        of_class, of_box = torch.autograd.grad(total, (classes, deltas), retain_graph=True)
        assert_equal(of_class, golden(f"implicit_retina/{level}/grad_stu_cls"), SINGLE)
        assert_equal(of_box, golden(f"implicit_retina/{level}/grad_stu_reg"), SINGLE)


def test_two_stage_terms(golden: Golden) -> None:
    key = "implicit_frcnn"
    classes, deltas = golden(f"{key}/stu_cls_score").requires_grad_(), golden(f"{key}/stu_bbox_pred").requires_grad_()
    teacher, teacher_deltas = golden(f"{key}/tea_cls_score"), golden(f"{key}/tea_bbox_pred")
    # The published loss weight of one half, its average factor in the weight's slot: 24 regions, so a mean times 24.
    of_class = 0.5 * core.region_class_loss(classes, teacher, 24 / golden(f"{key}/avg_factor"))
    scores = teacher.softmax(-1)[:, :-1]
    of_box = core.region_box_loss(deltas.view(24, 5, 4), teacher_deltas.view(24, 5, 4), scores)
    loss = of_class + of_box
    assert_equal(loss, golden(f"{key}/value"), SINGLE)
    gradients = torch.autograd.grad(loss, (classes, deltas))
    for gradient, name in zip(gradients, ("cls_score", "bbox_pred"), strict=True):
        assert_equal(gradient, golden(f"{key}/grad_stu_{name}"), SINGLE)
