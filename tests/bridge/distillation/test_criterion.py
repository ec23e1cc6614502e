"""The criterion: plain where nothing is distilled, gradients into every level of the neck where something is."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ds2d2_yolo.bridge.distillation.criterion import LOSS_NAMES
from ds2d2_yolo.bridge.distillation.targets import capture_assigner_calls
from ds2d2_yolo.bridge.distillation.weighting import teacher_score_sum, weight_maps
from ds2d2_yolo.bridge.models.teacher import load_teacher
from ds2d2_yolo.config.settings import EXPLICIT, TERMS
from tests.helpers.distillation import PAIRS, batch_of, build
from tests.helpers.terms import ACTIVE


@pytest.mark.parametrize(("student", "teacher"), PAIRS)
def test_each_term_reaches_adapters_and_neck(student: str, teacher: str, checkpoint: Callable[..., Path]) -> None:
    model, criterion = build(student, checkpoint(teacher))
    batch = batch_of("obb" in student)
    preds = model(batch["img"])
    features = preds.get("one2many", preds)["feats"]
    plain, _ = criterion.base(preds, batch)
    loss, items = criterion(preds, batch)
    assert torch.equal(loss[: plain.numel()], plain)
    assert list(items)[-len(TERMS) :] == list(LOSS_NAMES.values())
    assert criterion.distiller is not None
    shared = [features[s] for s, _ in criterion.distiller.teacher.pairs]
    for term in ACTIVE:
        value = loss[plain.numel() + TERMS.index(term)]
        assert torch.isfinite(value)
        assert value > 0
        assert torch.allclose(value.detach() / 2, items[f"{term}_loss"])  # times the batch size, as Ultralytics does
        inputs = [*shared, *criterion.distiller.adapters.parameters()]
        gradients = torch.autograd.grad(value, inputs, retain_graph=True, allow_unused=True)
        for gradient in gradients:
            assert gradient is not None, f"{term} does not reach a level"
            assert torch.isfinite(gradient).all()
            assert gradient.abs().sum() > 0


def test_unpaired_levels_are_left_out(checkpoint: Callable[..., Path]) -> None:
    _, criterion = build("yolov8n-p2.yaml", checkpoint("yolov8s.yaml"))
    assert criterion.distiller is not None
    assert criterion.distiller.teacher.pairs == [(1, 0), (2, 1), (3, 2)]


@pytest.mark.parametrize("weight_map", ["disw", "score", "both"])
def test_zero_on_identity(weight_map: str, checkpoint: Callable[..., Path]) -> None:
    """A student that is its teacher, with adapters that change nothing, has nothing to learn."""
    model, criterion = build("yolov8n-obb.yaml", checkpoint("yolov8n-obb.yaml"), weight_map=weight_map)
    model.load_state_dict(load_teacher(str(checkpoint("yolov8n-obb.yaml")), "obb").model.state_dict(), strict=False)
    model.eval()  # the teacher's BatchNorm statistics, not the batch's
    for adapter in criterion.distiller.adapters:  # type: ignore[union-attr]
        nn.init.dirac_(adapter.weight)
    batch = batch_of(rotated=True)
    _, items = criterion(model(batch["img"]), batch)
    for term in ACTIVE:
        assert float(items[f"{term}_loss"].detach()) < 1e-6, term


def test_batch_without_objects_does_not_spike(checkpoint: Callable[..., Path]) -> None:
    """On the same images, what the implicit terms are does not hang on whether they are labelled."""
    model, criterion = build("yolov8n-obb.yaml", checkpoint("yolov8s-obb.yaml"))
    full, empty = batch_of(rotated=True), batch_of(rotated=True, boxes=0)
    empty["img"] = full["img"]
    preds = model(full["img"])
    with_objects, without = criterion(preds, full)[1], criterion(preds, empty)[1]
    for term in ("imfu", "imhi"):
        assert torch.equal(without[f"{term}_loss"], with_objects[f"{term}_loss"])
    # a box adds weight: the explicit terms of the same features are smaller without
    for term in ("exlo", "exhi"):
        assert 0 < without[f"{term}_loss"] < with_objects[f"{term}_loss"]


def test_normaliser_counts_each_image_at_least_once() -> None:
    logits = torch.full((3, 4, 2), -20.0)
    logits[0, :3, 0] = 20.0
    assert float(teacher_score_sum(logits)) == pytest.approx(3 + 1 + 1)


def test_plain_where_gradients_are_off(checkpoint: Callable[..., Path]) -> None:
    model, criterion = build("yolov8n-obb.yaml", checkpoint("yolov8s-obb.yaml"))
    batch = batch_of(rotated=True)
    with torch.no_grad():
        preds = model(batch["img"])
        loss, items = criterion(preds, batch)
        assert torch.equal(loss, criterion.base(preds, batch)[0])
    assert [float(items[name]) for name in LOSS_NAMES.values()] == [0] * len(TERMS)


def test_copies_and_pickles_are_none(checkpoint: Callable[..., Path]) -> None:
    model, criterion = build("yolov8n-obb.yaml", checkpoint("yolov8s-obb.yaml"))
    model.criterion = criterion
    assert copy.deepcopy(model).criterion is None
    assert pickle.loads(pickle.dumps(criterion)) is None


def test_tap_records_and_leaves_nothing_behind() -> None:
    class Assigner(nn.Module):
        def forward(self, scores: Any, boxes: Any, points: Any, labels: Any, gt: Tensor, mask: Tensor) -> Any:
            return None

    assigner = Assigner()
    boxes, mask = torch.rand(2, 4, 5), torch.tensor([[1.0, 1, 0, 0], [1, 0, 0, 0]]).unsqueeze(-1)
    with capture_assigner_calls(SimpleNamespace(assigner=assigner)) as calls:
        assigner(None, None, None, None, boxes, mask)
    assert not assigner._forward_hooks
    assert calls[0].targets.mask.tolist() == [[True, True, False, False], [True, False, False, False]]
    assert torch.equal(calls[0].targets.boxes, boxes)


@pytest.mark.parametrize(("student", "teacher"), PAIRS)
def test_imfu_reaches_the_backbone_and_every_adapter(
    student: str, teacher: str, checkpoint: Callable[..., Path]
) -> None:
    """The student's head is not reached, and every adapter has a gradient, which DDP wants."""
    model, criterion = build(student, checkpoint(teacher), exlo=0, exhi=0, imhi=0)
    batch = batch_of("obb" in student)
    loss, _ = criterion(model(batch["img"]), batch)
    imfu = loss[TERMS.index("imfu") - len(TERMS)]
    weights = [b[0].conv.weight for b in criterion.head.cv2 if isinstance(b[0].conv, nn.Conv2d)]
    assert not any(g.any() for g in torch.autograd.grad(imfu, weights, retain_graph=True))
    (backbone,) = torch.autograd.grad(imfu, [model.model[0].conv.weight], retain_graph=True)
    assert backbone.isfinite().all()
    assert backbone.abs().sum() > 0
    loss.sum().backward()
    assert all(p.grad is not None for p in criterion.distiller.adapters.parameters())  # type: ignore[union-attr]


def test_explicit_stream_alone_does_not_run_the_head(checkpoint: Callable[..., Path]) -> None:
    images = batch_of(rotated=False)["img"]
    (_, full_criterion), (_, explicit_criterion) = (
        build("yolov8n.yaml", checkpoint("yolov8s.yaml"), implicit=implicit) for implicit in (True, False)
    )
    expected = full_criterion.distiller.teacher_outputs(images).features  # type: ignore[union-attr]
    explicit_criterion.distiller.teacher.head.forward = None  # type: ignore[union-attr,method-assign,assignment]
    outputs = explicit_criterion.distiller.teacher_outputs(images)  # type: ignore[union-attr]
    assert not outputs.predictions
    assert all(torch.equal(a, b) for a, b in zip(outputs.features, expected, strict=True))


def test_strength_of_the_weight_map(checkpoint: Callable[..., Path]) -> None:
    """disw is what an object adds to the map of a level; it changes the explicit terms alone."""
    maps, terms = {}, {}
    for strength in (0, 1, 30):
        model, criterion = build("yolov8n-obb.yaml", checkpoint("yolov8s-obb.yaml"), disw=strength)
        d, batch = criterion.distiller, batch_of(rotated=True)
        assert d is not None
        with capture_assigner_calls(criterion.base) as calls:
            _, terms[strength] = criterion(model(batch["img"]), batch)
        (maps[strength],) = weight_maps(d.settings, [torch.zeros(2, 1, 16, 16)], [8], calls[0].targets, None)
        assert float(maps[strength].sum() - maps[strength].numel()) == pytest.approx(6 * strength, rel=1e-5)
    assert torch.equal(maps[0], torch.ones(2, 1, 8, 8))
    torch.testing.assert_close(maps[30] - 1, 30 * (maps[1] - 1))
    for term in ACTIVE:
        values = [float(terms[strength][f"{term}_loss"]) for strength in (0, 1, 30)]
        assert (values == sorted(set(values))) if term in EXPLICIT else (len(set(values)) == 1), term
