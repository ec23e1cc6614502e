"""The probe: known answers where a model is its own teacher, and where the map is known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ds2d2_yolo.bridge.distillation.gradients.levels import TASK
from ds2d2_yolo.bridge.distillation.probing.assignment import Assignment, assignment_of
from ds2d2_yolo.bridge.distillation.probing.probe import STUDENT, TEACHER, Prober
from ds2d2_yolo.bridge.distillation.targets import AssignerCall
from ds2d2_yolo.core.wavelet import band_shape
from tests.helpers.distillation import batch_of, build
from tests.helpers.terms import ACTIVE


def prober_of(student: str, teacher: Path, **settings: Any) -> Prober:
    model, criterion = build(student, teacher, **settings)
    assert criterion.distiller is not None
    return Prober(model, criterion.distiller)


@pytest.mark.parametrize("pair", [("yolov8n-obb.yaml", "yolov8s-obb.yaml"), ("yolo26n.yaml", "yolov8s.yaml")])
def test_a_pair(pair: tuple[str, str], checkpoint: Callable[..., Path]) -> None:
    prober = prober_of(pair[0], checkpoint(pair[1]))
    before = {k: v.clone() for k, v in prober.model.state_dict().items()}
    batches = [batch_of("obb" in pair[0]), batch_of("obb" in pair[0], boxes=2)]
    result = prober.measure(batches)
    assert all(torch.equal(v, before[k]) for k, v in prober.model.state_dict().items()), "BatchNorm too"
    assert result.strides == (8.0, 16.0, 32.0)
    assert result.images == 4
    assert set(result.gradient) == set(result.cosine) == {TASK, *ACTIVE}
    assert all(sum(parts) == pytest.approx(1) for parts in (*result.gradient.values(), result.teacher_scores))
    assert result.cosine[TASK] == pytest.approx([1, 1, 1])
    assert all(abs(c) <= 1 + 1e-9 for levels in result.cosine.values() for c in levels)
    assert all(r < 1 for r in result.explained)
    for sums in result.assignment.values():
        assert sums.objects == 8
        assert sums.best_targets <= sums.objects - sums.without
    assert result.weights == {}
    assert result.rows() == prober.measure(batches).rows(), "it draws nothing at random"


def test_measured_level_weights(checkpoint: Callable[..., Path]) -> None:
    options = {"implicit": False, "feature_norm": "standard"}
    prober = prober_of("yolov8n-obb.yaml", checkpoint("yolov8s-obb.yaml"), level_balance="measured", **options)
    batch = batch_of(True)
    result = prober.measure([batch])
    assert set(result.weights) == {"exlo", "exhi"}
    for term, weights in result.weights.items():
        assert sum(weights) == pytest.approx(3)
        assert result.gradient[term] == pytest.approx(result.gradient[TASK], rel=1e-4), "one batch is met exactly"
    unweighted = prober_of("yolov8n-obb.yaml", checkpoint("yolov8s-obb.yaml"), **options).measure([batch])
    assert unweighted.gradient["exlo"] != pytest.approx(unweighted.gradient[TASK], rel=0.1)


def test_disw_adds_one_for_each_object(checkpoint: Callable[..., Path]) -> None:
    batch, objects = batch_of(True), 6
    result = prober_of("yolov8n-obb.yaml", checkpoint("yolov8s-obb.yaml"), imhi=0.0).measure([batch])
    for stride, cells, weight in zip(result.strides, result.object_cells, result.object_weight, strict=True):
        side = band_shape(int(128 / stride), int(128 / stride), "haar")
        total = 2 * side[0] * side[1]
        assert 0 < cells <= 1
        assert weight == pytest.approx((cells * total + objects) / (total + objects), rel=1e-5)
    off = prober_of("yolov8n-obb.yaml", checkpoint("yolov8s-obb.yaml"), imhi=0.0, disw=0.0).measure([batch])
    assert off.object_weight == pytest.approx(off.object_cells)
    assert off.object_cells == result.object_cells


def test_a_model_that_is_its_own_teacher(checkpoint: Callable[..., Path]) -> None:
    prober = prober_of("yolov8n-obb.yaml", checkpoint("yolov8n-obb.yaml"), imhi=0.0)
    for module in prober.model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()  # as the teacher's
    with torch.no_grad():
        for adapter in prober.distiller.adapters:
            adapter.weight.copy_(torch.eye(len(adapter.weight))[..., None, None])
    result = prober.measure([batch_of(True)])
    assert result.explained == pytest.approx([1, 1, 1], abs=1e-4)
    student, teacher = result.assignment[STUDENT], result.assignment[TEACHER]
    assert (teacher.objects, teacher.without, teacher.positives) == (6, student.without, student.positives)
    assert teacher.best_targets == pytest.approx(student.best_targets, rel=1e-3)


def test_no_assignment_by_a_teacher_that_lacks_a_level_or_a_class(checkpoint: Callable[..., Path]) -> None:
    prober = prober_of("yolov8n-obb.yaml", checkpoint("yolov8s-obb.yaml"), imhi=0.0, levels=[8, 16])
    result = prober.measure([batch_of(True)])
    assert result.strides == (8.0, 16.0)
    assert set(result.assignment) == {STUDENT}
    prober = prober_of("yolov8n-obb.yaml", checkpoint("yolov8s-obb.yaml"), imhi=0.0)
    logits = torch.tensor([[[0.0, 1.0]]])
    for teacher, student, expected in (([1], [0], None), ([0, 1], [1, 0], [1.0, 0.0]), (None, None, [0.0, 1.0])):
        prober.distiller.teacher_columns, prober.distiller.student_columns = teacher, student
        scores = prober._scores_of_student_classes(logits)
        assert expected is None if scores is None else torch.equal(scores[0, 0], torch.tensor(expected).sigmoid())


def test_sums_of_an_assignment() -> None:
    mask = torch.tensor([[[1], [1], [1]], [[1], [0], [0]]])
    positive = torch.tensor([[True, True, True, False], [False, False, False, False]])
    index = torch.tensor([[0, 2, 2, 1], [0, 0, 0, 0]])
    scores = torch.tensor([[[0.5, 0.0], [0.0, 0.2], [0.0, 0.3], [0.9, 0.9]], [[0.0, 0.0]] * 4])
    outputs = (torch.zeros(2, 4), torch.zeros(2, 4, 4), scores, positive, index)
    call = AssignerCall((None, None, None, None, torch.zeros(2, 3, 4), mask), {}, outputs)
    sums = assignment_of(call)
    assert (sums.objects, sums.without, sums.positives) == (4, 2, 3)
    assert sums.best_targets == pytest.approx(0.5 + 0.3)
    assert sums + Assignment() == sums
    empty = AssignerCall((None, None, None, None, torch.zeros(2, 0, 4), torch.zeros(2, 0, 1)), {}, outputs)
    assert assignment_of(empty) == Assignment()
