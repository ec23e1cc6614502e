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
from ds2d2_yolo.bridge.distillation.targets import Targets, capture_targets
from ds2d2_yolo.bridge.distillation.weighting import teacher_score_sum, weight_maps
from ds2d2_yolo.bridge.models.heads import strides_of
from ds2d2_yolo.bridge.models.teacher import load_teacher
from ds2d2_yolo.config.settings import EXPLICIT, TERMS
from tests.helpers.distillation import batch_of, build, inputs_of
from tests.helpers.terms import ACTIVE

PAIRS = [
    ("yolov8n-obb.yaml", "yolov8s-obb.yaml"),
    ("yolov8n.yaml", "yolov8s.yaml"),
    ("yolo26n-obb.yaml", "yolo11s-obb.yaml"),
    ("yolov8n-obb.yaml", "yolo26s-obb.yaml"),
    ("yolov8n.yaml", "yolov10s.yaml"),
    ("yolov8n-p2.yaml", "yolov8s.yaml"),
]


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
        wanted = [*shared, *criterion.distiller.adapters.parameters()]
        gradients = torch.autograd.grad(value, wanted, retain_graph=True, allow_unused=True)
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
    with capture_targets(SimpleNamespace(assigner=assigner)) as seen:
        assigner(None, None, None, None, boxes, mask)
    assert not assigner._forward_hooks
    assert seen[0].mask.tolist() == [[True, True, False, False], [True, False, False, False]]
    assert torch.equal(seen[0].boxes, boxes)


@pytest.mark.parametrize(("student", "teacher"), PAIRS)
def test_imfu_through_the_students_own_head(student: str, teacher: str, checkpoint: Callable[..., Path]) -> None:
    """The sum of both ways is both; the own way reaches the student's head, the teacher's way does not."""
    values, reached = {}, {}
    for way in ("teacher", "own", "both"):
        model, criterion = build(student, checkpoint(teacher), exlo=0, exhi=0, imhi=0, imfu_head=way)
        batch, head = batch_of("obb" in student), criterion.head
        loss, items = criterion(model(batch["img"]), batch)
        values[way] = float(items["imfu_loss"])
        imfu = TERMS.index("imfu") - len(TERMS)
        weights = [branch[0].conv.weight for branch in head.cv2 if isinstance(branch[0].conv, nn.Conv2d)]
        found = torch.autograd.grad(loss[imfu], weights, retain_graph=True, allow_unused=True)
        pairs = [s for s, _ in criterion.distiller.teacher.pairs]  # type: ignore[union-attr]
        reached[way] = [i for i, g in enumerate(found) if g is not None and bool(g.abs().sum() > 0)]
        (backbone,) = torch.autograd.grad(loss[imfu], [model.model[0].conv.weight], retain_graph=True)
        assert backbone.isfinite().all()
        assert backbone.abs().sum() > 0
        loss.sum().backward()  # what DDP wants: every adapter has a gradient, of zero perhaps
        assert all(p.grad is not None for p in criterion.distiller.adapters.parameters())  # type: ignore[union-attr]
    assert values["both"] == pytest.approx(values["teacher"] + values["own"], rel=1e-5)
    assert reached == {"teacher": [], "own": pairs, "both": pairs}


def test_own_head_is_compared_class_by_class_and_level_by_level(
    checkpoint: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Zero for a student that says what the teacher says: its levels and classes in an order of its own."""
    _, criterion = build("yolov8n-p2.yaml", checkpoint("yolov8s.yaml"), exlo=0, exhi=0, imhi=0, imfu_head="own")
    d, images = criterion.distiller, batch_of(rotated=False)["img"]
    assert d is not None
    teacher, answer = d.teacher_outputs(images), d.teacher_outputs(images).predictions["imfu"]
    assert torch.equal(answer.logits, teacher.predictions["imfu"].logits)
    targets = Targets(torch.zeros(2, 1, 4), torch.zeros(2, 1, dtype=torch.bool))
    features = [torch.zeros(2, c, 128 // s, 128 // s) for c, s in ((32, 4), (64, 8), (128, 16), (256, 32))]
    d.student_columns = [1, 0]
    raw = {"feats": features, "scores": torch.zeros(2, 2, 1360), "boxes": torch.randn(2, 64, 1360)}
    raw["scores"][..., 1024:] = answer.logits.transpose(1, 2)[:, [1, 0]]
    logits, boxes = d.student_predictions(raw)
    assert torch.equal(logits, answer.logits)
    assert boxes.shape == answer.boxes.shape
    monkeypatch.setattr(d, "student_predictions", lambda _: (logits.requires_grad_(), answer.boxes))
    same = d(inputs_of(features, targets), teacher)
    assert float(same["imfu"]) == 0
    (gradient,) = torch.autograd.grad(same["imfu"], logits)
    assert not gradient.any()
    monkeypatch.setattr(d, "student_predictions", lambda _: (logits.flip(1), answer.boxes))
    assert float(d(inputs_of(features, targets), teacher)["imfu"]) > 0


def test_strength_of_the_weight_map(checkpoint: Callable[..., Path]) -> None:
    """disw is what an object adds to the map of a level; it changes the explicit terms alone."""
    maps, terms = {}, {}
    for strength in (0, 1, 30):
        model, criterion = build("yolov8n-obb.yaml", checkpoint("yolov8s-obb.yaml"), disw=strength)
        d, batch = criterion.distiller, batch_of(rotated=True)
        assert d is not None
        with capture_targets(criterion.base) as seen:
            _, terms[strength] = criterion(model(batch["img"]), batch)
        (maps[strength],) = weight_maps(d.settings, [torch.zeros(2, 1, 16, 16)], [8], seen[0], None)
        assert float(maps[strength].sum() - maps[strength].numel()) == pytest.approx(6 * strength, rel=1e-5)
    assert torch.equal(maps[0], torch.ones(2, 1, 8, 8))
    torch.testing.assert_close(maps[30] - 1, 30 * (maps[1] - 1))
    for term in ACTIVE:
        values = [float(terms[strength][f"{term}_loss"]) for strength in (0, 1, 30)]
        assert (values == sorted(set(values))) if term in EXPLICIT else (len(set(values)) == 1), term


@pytest.mark.parametrize(("student", "teacher"), [p for p in PAIRS if p[0][:6] == p[1][:6]])
def test_own_boxes_are_decoded_as_the_teachers(student: str, teacher: str, checkpoint: Callable[..., Path]) -> None:
    """The teacher's raw outputs in the student's mouth: equal boxes, and nothing to learn."""
    _, criterion = build(student, checkpoint(teacher), exlo=0, exhi=0, imhi=0, imfu_head="own")
    d, batch = criterion.distiller, batch_of("obb" in student)
    assert d is not None
    teacher, raw = d.teacher_outputs(batch["img"]), d.teacher(batch["img"])
    if len(strides_of(criterion.head)) > len(raw["feats"]):  # levels that the teacher lacks come first
        extra = torch.zeros(2, 1, 32, 32)
        raw = {
            k: torch.cat((torch.randn(*v.shape[:2], 1024), v), 2) if k != "feats" else [extra, *v]
            for k, v in raw.items()
        }
    logits, boxes = d.student_predictions(raw)
    torch.testing.assert_close(boxes, teacher.predictions["imfu"].boxes)
    targets = Targets(torch.zeros(2, 1, boxes.shape[2]), torch.zeros(2, 1, dtype=torch.bool))
    features = [torch.zeros(2, 8, 4, 4)] * 4
    assert logits.shape == teacher.predictions["imfu"].logits.shape
    assert float(d(inputs_of(features, targets, raw), teacher)["imfu"]) == pytest.approx(0, abs=1e-6)
