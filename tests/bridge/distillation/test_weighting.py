"""Weights of the explicit terms: maps from the teacher's scores and the ground truth, and the balance of the levels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ds2d2_yolo.bridge.distillation.targets import Targets
from ds2d2_yolo.bridge.distillation.weighting import level_scores, sum_levels, weight_maps
from ds2d2_yolo.config.settings import EXPLICIT, IMPLICIT, TERMS, Settings
from ds2d2_yolo.core.score_map import score_map
from tests.helpers.distillation import PAIRS, batch_of, build
from tests.helpers.terms import ACTIVE

SIZES = (4, 6), (2, 3)


def maps_of(scores: list[Tensor], **keys: Any) -> list[Tensor]:
    """Maps of two levels for one object on the first of two images."""
    targets = Targets(torch.tensor([[[1.0, 1, 30, 14]], [[0, 0, 0, 0]]]), torch.tensor([[True], [False]]))
    features = [torch.zeros(2, 3, *size) for size in SIZES]
    return list(weight_maps(Settings(**keys), features, [8.0, 16.0], targets, scores))


def test_level_scores_are_the_best_class_of_each_cell_of_each_level() -> None:
    logits = torch.randn(2, 30, 3)
    features = [torch.zeros(2, 5, *size) for size in SIZES]
    scores = level_scores(logits, features, torch.tensor([True, False]))
    assert [tuple(s.shape) for s in scores] == [(2, 4, 6), (2, 2, 3)]
    for y, x in ((0, 0), (1, 2)):
        torch.testing.assert_close(scores[0][0, y, x], logits[0, 6 * y + x].sigmoid().max())
        torch.testing.assert_close(scores[1][0, y, x], logits[0, 24 + 3 * y + x].sigmoid().max())
    assert not any(s[1].any() for s in scores)
    odd = logits.clone()
    odd[1] = torch.nan  # what an image that is not sound may hold
    again = level_scores(odd, features, torch.tensor([True, False]))
    assert all(torch.equal(a, b) for a, b in zip(again, scores, strict=True))


def test_score_leaves_the_boxes_out_and_both_is_the_product() -> None:
    scores = [torch.rand(2, *size) for size in SIZES]
    box_maps, score_maps, product_maps = (maps_of(scores, weight_map=kind) for kind in ("disw", "score", "both"))
    for level in range(2):
        assert torch.equal(score_maps[level], score_map(scores[level]))
        unnormalised = box_maps[level] * score_maps[level]
        torch.testing.assert_close(product_maps[level], unnormalised / unnormalised.mean())
        assert (box_maps[level][0] > 1).any()
        assert torch.equal(box_maps[level][1], torch.ones_like(box_maps[level][1]))
    assert all(torch.equal(a, b) for a, b in zip(maps_of(scores, weight_map="both", disw=0), score_maps, strict=True))


@pytest.mark.parametrize(("student", "teacher"), PAIRS)
def test_the_map_changes_the_explicit_terms_alone(student: str, teacher: str, checkpoint: Callable[..., Path]) -> None:
    """By the loss's own definition, over levels that both models have; predictions are distilled as before."""
    values: dict[str, dict[str, float]] = {}
    for kind in ("disw", "score", "both"):
        model, criterion = build(student, checkpoint(teacher), weight_map=kind)
        batch, d = batch_of("obb" in student), criterion.distiller
        assert d is not None
        loss, items = criterion(model(batch["img"]), batch)
        values[kind] = {term: float(items[f"{term}_loss"]) for term in ACTIVE}
        (gradient,) = torch.autograd.grad(loss[-len(TERMS) :][: len(EXPLICIT)].sum(), [model.model[0].conv.weight])
        assert gradient.isfinite().all()
        assert gradient.abs().sum() > 0
    for term in set(EXPLICIT) & set(ACTIVE):
        assert len({v[term] for v in values.values()}) == 3, term
    for term in set(IMPLICIT) & set(ACTIVE):
        assert len({v[term] for v in values.values()}) == 1, term


def test_explicit_alone_asks_the_teachers_head(checkpoint: Callable[..., Path]) -> None:
    """Scores are there without the implicit stream, and only where the map asks for them."""
    terms = {}
    for keys in ({"imfu": 0, "imhi": 0}, {}):
        model, criterion = build("yolov8n-obb.yaml", checkpoint("yolov8s-obb.yaml"), weight_map="score", **keys)
        batch = batch_of(rotated=True)
        terms[len(keys)] = criterion(model(batch["img"]), batch)[1]
    for term in set(EXPLICIT) & set(ACTIVE):
        assert torch.equal(terms[0][f"{term}_loss"], terms[2][f"{term}_loss"])
    for keys in ({"weight_map": "disw"}, {"weight_map": "score", "exlo": 0, "exhi": 0}):
        _, criterion = build("yolov8n-obb.yaml", checkpoint("yolov8s-obb.yaml"), **keys)
        assert criterion.distiller.teacher_outputs(batch["img"]).scores is None  # type: ignore[union-attr]


def test_weighs_where_the_teacher_sees_something(checkpoint: Callable[..., Path]) -> None:
    """A difference in a cell costs what the teacher's score there is worth, whatever the labels say."""
    _, criterion = build("yolov8n-obb.yaml", checkpoint("yolov8s-obb.yaml"), weight_map="score", imfu=0, imhi=0)
    d, batch = criterion.distiller, batch_of(rotated=True)
    assert d is not None
    teacher = d.teacher_outputs(batch["img"])
    assert teacher.scores is not None
    teacher.scores[0][:] = 0
    teacher.scores[0][0, 4, 6] = 0.7
    adapted = [f.clone() for f in teacher.features]
    targets = Targets(torch.zeros(2, 1, 5), torch.zeros(2, 1, dtype=torch.bool))
    for y, x, counts in ((4, 7, True), (5, 6, True), (3, 6, False), (4, 8, False)):
        adapted[0] = teacher.features[0].clone()
        adapted[0][0, :, y, x] += 1
        terms = d._explicit(adapted, teacher, targets)
        assert [float(terms[t]) > 0 for t in ("exlo", "exhi")] == [counts] * 2


def test_classes_that_are_not_distilled_do_not_weigh(checkpoint: Callable[..., Path]) -> None:
    _, criterion = build("yolov8n-obb.yaml", checkpoint("yolov8s-obb.yaml"), weight_map="score")
    d, batch = criterion.distiller, batch_of(rotated=True)
    assert d is not None
    for branch in d.teacher.head.cv3:  # untaught, it holds both classes for equally likely
        branch[-1].bias.data[0] += 2
    scores = []
    for columns in (None, [0], [1]):
        d.teacher_columns = columns
        scores.append(d.teacher_outputs(batch["img"]).scores or pytest.fail("asked for and not there"))
    for both, first, second in zip(*scores, strict=True):
        assert bool((first > second).all())
        assert torch.equal(both, first)


def test_levels_are_summed_by_weight() -> None:
    values = [torch.tensor(2.0, requires_grad=True), torch.tensor(3.0, requires_grad=True)]
    assert torch.equal(sum_levels(values, None), torch.stack(values).sum())
    total = sum_levels(values, [0.5, 4.0])
    assert total.item() == 13
    assert [float(g) for g in torch.autograd.grad(total, values)] == [0.5, 4]
