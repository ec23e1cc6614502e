"""A teacher whose numbers are not finite leaves the student alone, and a term that is not finite leaves the loss."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from ultralytics.utils.torch_utils import unwrap_model

from ds2d2_yolo import DS2D2Trainer
from ds2d2_yolo.bridge.distillation.batch import StudentInputs, TeacherOutputs
from ds2d2_yolo.bridge.distillation.criterion import LOSS_NAMES, DistillationCriterion
from ds2d2_yolo.bridge.distillation.distiller import Distiller
from ds2d2_yolo.bridge.distillation.finite_guard import FiniteGuard, valid_images
from ds2d2_yolo.bridge.distillation.targets import Targets, capture_assigner_calls
from ds2d2_yolo.bridge.distillation.weighting import teacher_score_sum, weight_maps
from ds2d2_yolo.bridge.models.composed_head import AdaptedHead
from ds2d2_yolo.bridge.models.heads import logits_and_boxes
from ds2d2_yolo.config.settings import TERMS
from ds2d2_yolo.core.losses.explicit import explicit_loss
from ds2d2_yolo.core.losses.implicit import implicit_box_loss, implicit_class_loss
from tests.helpers.distillation import batch_of, build
from tests.helpers.terms import ACTIVE

BAD = [math.nan, math.inf, -math.inf, 1e30]


def test_finds_the_images_that_are_not_sound() -> None:
    a, b = torch.ones(6, 2, 3, 3), torch.ones(6, 4)
    a[1, 1, 2, 0], a[2, 0, 0, 0], b[3, 0], b[4, 3] = math.nan, math.inf, -math.inf, 1e30
    assert valid_images([a, b]).tolist() == [True, False, False, False, False, True]
    # beyond what float16 holds, as a sum
    assert valid_images([torch.full((2, 500), 6e4, dtype=torch.float16)]).tolist() == [True, True]


@pytest.mark.parametrize("x", [0.0, 2.0])
def test_gate_passes_the_gradient_of_a_finite_term_alone(x: float) -> None:
    value = torch.tensor([x, 3.0], requires_grad=True)
    guard = FiniteGuard()
    (inside,) = guard.inputs([value])
    first, second = guard.outputs((1 / inside).sum(), inside.sum())
    (first + second + value.sum()).backward()
    assert value.grad is not None
    if x:
        assert value.grad.tolist() == pytest.approx([2 - 1 / 4, 2 - 1 / 9])
        assert (float(first.detach()), float(second.detach())) == pytest.approx((1 / 2 + 1 / 3, 5.0))
    else:
        assert value.grad.tolist() == [1, 1]
        assert first.detach() == second.detach() == 0


def spoil(criterion: DistillationCriterion, value: float, level: int | None, image: int | None) -> Any:
    """Put a value into one place of the teacher's neck outputs, by a hook on the layer before the head."""
    assert criterion.distiller is not None
    model = criterion.distiller.teacher.model
    layers = model.model[-1].f
    handles = []
    for i, index in enumerate(layers):
        if level is not None and i != level:
            continue

        def put(_: nn.Module, __: Any, out: Tensor) -> Tensor:
            out = out.clone()
            out[slice(None) if image is None else image, 3, 1, 2] = value
            return out

        handles.append(model.model[index].register_forward_hook(put))
    return handles


def losses_and_gradients(
    model: nn.Module, criterion: DistillationCriterion, batch: dict[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    assert criterion.distiller is not None
    parameters = {k: p for k, p in model.named_parameters() if p.requires_grad}
    loss, items = criterion(model(batch["img"]), batch)
    grads = torch.autograd.grad(loss[-len(TERMS) :].sum(), list(parameters.values()), allow_unused=True)
    return items, {k: g for k, g in zip(parameters, grads, strict=True) if g is not None}


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize("yaml", ["yolov8n-obb.yaml", "yolov8n.yaml"])
def test_an_image_without_answer_counts_nothing(yaml: str, value: float, checkpoint: Callable[..., Path]) -> None:
    model, criterion = build(yaml, checkpoint(yaml, seed=1))
    spoil(criterion, value, 1, 1)
    d, batch = criterion.distiller, batch_of("obb" in yaml)
    assert d is not None
    with capture_assigner_calls(criterion.base) as calls:
        preds = model(batch["img"])
        criterion.base(preds, batch)
    # apart from the student, whose BatchNorm mixes the images of a batch
    leaves = [f.detach().requires_grad_() for f in preds["feats"]]
    teacher = d.teacher_outputs(batch["img"])
    assert teacher.valid.tolist() == [True, False]
    for term, loss in d(StudentInputs(leaves, calls[0].targets), teacher).items():
        assert 0 < loss < math.inf
        *grads, adapter = torch.autograd.grad(loss, [*leaves, d.adapters[0].weight], retain_graph=True)
        assert adapter.isfinite().all(), term
        assert all(g[0].isfinite().all() and g[0].any() for g in grads), term
        assert not any(g[1].any() for g in grads), term


def test_the_other_images_count_as_they_would_alone(checkpoint: Callable[..., Path]) -> None:
    """The mean over two images of which one is 0, times a batch of two, is the mean over one image."""
    model, criterion = build("yolov8n.yaml", checkpoint("yolov8n.yaml", seed=1), imfu=0, imhi=0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    batch = batch_of(rotated=False)
    single_image = {k: v[:1] if k == "img" else v[batch["batch_idx"] == 0] for k, v in batch.items()}
    _, expected = losses_and_gradients(model, criterion, single_image)
    spoil(criterion, math.nan, 1, 1)
    _, gradients = losses_and_gradients(model, criterion, batch)
    assert expected.keys() == gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-3, atol=1e-4 * float(expected[name].abs().max()))


@pytest.mark.parametrize("value", BAD)
def test_a_batch_without_answers_sends_no_gradient(value: float, checkpoint: Callable[..., Path]) -> None:
    model, criterion = build("yolov8n-obb.yaml", checkpoint("yolov8n-obb.yaml", seed=1))
    spoil(criterion, value, 0, None)
    items, gradients = losses_and_gradients(model, criterion, batch_of(rotated=True))
    assert [float(items[n]) for n in LOSS_NAMES.values()] == [0] * len(TERMS)
    assert any(name.startswith("ds2d2_adapters") for name in gradients), "the edge that a static graph needs stays"
    assert not any(g.any() for g in gradients.values())
    assert criterion.gains.columns()["left_out/images"] == 2


def test_a_term_that_is_not_finite_leaves_the_others(
    checkpoint: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Features that the frozen head cannot take: the answers of the teacher are sound, those to the student are not."""
    model, criterion = build("yolov8n-obb.yaml", checkpoint("yolov8n-obb.yaml", seed=1))
    assert criterion.distiller is not None
    original_call = AdaptedHead.__call__

    def overflowing(head: AdaptedHead, features: list[Tensor], *others: Any) -> dict[str, Any]:
        predictions = original_call(head, features, *others)
        assert criterion.distiller is not None
        if head is criterion.distiller.heads["imfu"] and features[0].requires_grad:
            predictions["scores"] = predictions["scores"] * 1e30 * 1e30
        return predictions

    _, usual = losses_and_gradients(model, criterion, batch_of(rotated=True))
    monkeypatch.setattr(AdaptedHead, "__call__", overflowing)
    items, gradients = losses_and_gradients(model, criterion, batch_of(rotated=True))
    assert float(items["imfu_loss"]) == 0
    assert all(float(items[f"{t}_loss"]) > 0 for t in ACTIVE if t != "imfu")
    assert gradients.keys() == usual.keys()
    assert all(torch.isfinite(g).all() for g in gradients.values())
    assert criterion.gains.columns()["left_out/batches"] == 1
    assert "imfu in 1" in criterion.gains.warnings()["batches 0"]


def unguarded(d: Distiller, features: list[Tensor], teacher: TeacherOutputs, targets: Targets) -> dict[str, Tensor]:
    """The four terms without a look at what is finite."""
    student_features, weights = [features[level] for level in d.levels], list(d.adapters.parameters())
    adapted = [a(x) for a, x in zip(d.adapters, student_features, strict=True)]
    maps = weight_maps(d.settings, adapted, d.strides, targets, None)
    pairs = [explicit_loss(*each) for each in zip(adapted, teacher.features, maps, strict=True)]
    losses = {"exlo": torch.stack([x for x, _ in pairs]).sum(), "exhi": torch.stack([x for _, x in pairs]).sum()}
    assert teacher.score_sum is not None
    assert d.amplifier is not None
    for term, inputs in (
        ("imfu", (student_features, weights, adapted)),
        ("imhi", (d.amplifier.inputs(student_features), weights)),
    ):
        logits, boxes = logits_and_boxes(d.heads[term].head, d.heads[term](*inputs))
        answer = teacher.predictions[term]
        losses[term] = implicit_class_loss(logits, answer.logits, teacher.score_sum)
        losses[term] = losses[term] + implicit_box_loss(boxes, answer.boxes, answer.logits, teacher.score_sum)
    return losses


@pytest.mark.parametrize("yaml", ["yolov8s-obb.yaml", "yolov8s.yaml"])
def test_nothing_changes_where_all_is_finite(yaml: str, checkpoint: Callable[..., Path]) -> None:
    """To the bit."""
    model, criterion = build(yaml.replace("8s", "8n"), checkpoint(yaml))
    d, batch = criterion.distiller, batch_of("obb" in yaml)
    assert d is not None
    with capture_assigner_calls(criterion.base) as calls:
        preds = model(batch["img"])
        criterion.base(preds, batch)
    teacher = d.teacher_outputs(batch["img"])
    assert teacher.score_sum is not None
    assert torch.equal(teacher.score_sum, teacher_score_sum(teacher.predictions["imfu"].logits))
    leaves = [*preds["feats"], *d.adapters.parameters()]
    for term in ACTIVE:
        guarded_loss = d(StudentInputs(preds["feats"], calls[0].targets), teacher)[term]
        unguarded_loss = unguarded(d, preds["feats"], teacher, calls[0].targets)[term]
        assert torch.equal(guarded_loss, unguarded_loss), term
        grads = [torch.autograd.grad(x, leaves, retain_graph=True) for x in (guarded_loss, unguarded_loss)]
        assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True)), term


def test_a_run_goes_on(
    tiny_trainer: Callable[..., DS2D2Trainer], checkpoint: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    """One image of the first batch, all of the second: gains are measured, weights stay finite, the epoch says so."""
    trainer = tiny_trainer("obb", teacher=str(checkpoint("yolov8n-obb.yaml", seed=1)), epochs=2, amplifier_epochs=1)
    calls = []

    def spoil_two(run: Any) -> None:
        assert run.distiller is not None
        layer = run.distiller.teacher.model.model[15]

        def put(_: nn.Module, __: Any, out: Tensor) -> Tensor:
            calls.append(len(out))
            bad = {1: slice(0, 1), 2: slice(None)}.get(len(calls), slice(0, 0))
            out = out.clone()
            out[bad, :, 0] = math.nan
            return out

        layer.register_forward_hook(put)

    trainer.add_callback("on_train_start", spoil_two)
    with caplog.at_level("WARNING"):
        trainer.train()
    assert all(torch.isfinite(v).all() for v in unwrap_model(trainer.model).state_dict().values())
    first, second = csv.DictReader((trainer.save_dir / "results.csv").open())
    assert float(first["left_out/images"]) == 1 + 4
    assert float(second["left_out/images"]) == 0
    assert "epoch 1: 5 images had no finite answer" in caplog.text
    for row in (first, second):
        assert all(0 < float(row[f"train/{t}_loss"]) < math.inf for t in ACTIVE)
        assert all(0 < float(row[f"gain/{t}"]) < math.inf for t in ACTIVE)
