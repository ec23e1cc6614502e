"""The experimental parts of the box term: DFL bins and angles, in each implicit term."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, kl_divergence

from ds2d2_yolo import DS2D2Trainer
from ds2d2_yolo.bridge.distillation.distiller import Distiller
from ds2d2_yolo.bridge.distillation.targets import Targets
from ds2d2_yolo.bridge.models.heads import logits_and_boxes, raw_predictions
from ds2d2_yolo.bridge.models.teacher import FrozenTeacher
from ds2d2_yolo.config.settings import IMPLICIT
from ds2d2_yolo.errors import BadUseError
from tests.helpers.distillation import batch_of, build, inputs_of
from tests.helpers.terms import ACTIVE

PARTS = {"box_distribution": 4.0, "box_temperature": 2.0, "box_angle": 3.0}
TARGETS = Targets(torch.zeros(2, 1, 5), torch.zeros(2, 1, dtype=torch.bool))


def distiller_of(yaml: str, checkpoint: Callable[..., Path], **keys: Any) -> tuple[Distiller, dict[str, Any], Tensor]:
    """A distiller whose teacher is confident at some anchors, the student's raw outputs, and a batch's images."""
    model, criterion = build(yaml.replace("8s", "8n"), checkpoint(yaml), explicit=False, **keys)
    distiller, images = criterion.distiller, batch_of("obb" in yaml)["img"]
    assert distiller is not None
    scores = distiller.teacher(images)["scores"]
    scale = 2 / scores.std()
    for branch in distiller.teacher.head.cv3:  # half of the scores below sigmoid(-3) = 0.047
        branch[-1].weight.mul_(scale)
        branch[-1].bias.sub_(scores.mean()).mul_(scale).sub_(3)
    raw = {key: x.detach() for key, x in model(images).items() if key != "feats"}
    # leaves: BatchNorm and the neck mix images and levels
    return distiller, {**raw, "feats": [f.detach().requires_grad_() for f in model(images)["feats"]]}, images


def values(distiller: Distiller, raw: dict[str, Any], images: Tensor, **keys: Any) -> dict[str, Tensor]:
    """The terms after a change of settings, which stays."""
    distiller.settings = replace(distiller.settings, **keys)
    return distiller(inputs_of(raw["feats"], TARGETS, raw), distiller.teacher_outputs(images))


def imfu_of(distiller: Distiller, raw: dict[str, Any], images: Tensor, **keys: Any) -> float:
    """The number that `values` gives for `imfu`."""
    return float(values(distiller, raw, images, **keys)["imfu"].detach())


def gradients_of(term: Tensor, raw: dict[str, Any]) -> tuple[Tensor, ...]:
    """The gradients of a term in the student's features."""
    return torch.autograd.grad(term, raw["feats"], retain_graph=True)


@torch.no_grad()
def plain_parts(d: Distiller, term: str, features: list[Tensor], images: Tensor) -> tuple[float, float]:
    """Divergence and difference of angles of a term, from raw outputs, anchor by anchor."""
    raw = d.teacher(images)
    scores = raw["scores"] if d.teacher_columns is None else raw["scores"][:, d.teacher_columns]
    scores = scores.sigmoid().amax(1)
    head, teacher = d.teacher.head, raw
    adapted = [a(x.detach()) for a, x in zip(d.adapters, features, strict=True)]
    if term == "imhi":
        assert d.amplifier is not None
        head, teacher = d.amplifier.head, d.amplifier(raw["feats"])
        adapted = d.amplifier.inputs(adapted)
    student = raw_predictions(head, adapted)
    _, boxes = logits_and_boxes(head, teacher)
    divergence = turned = total = 0.0
    for image, anchor in (scores > 0.05).nonzero().tolist():
        v = float(scores[image, anchor])
        p, q = (Categorical(logits=x["boxes"][image, :, anchor].view(4, 16) / 2) for x in (student, teacher))
        divergence += v * 4 * float(kl_divergence(q, p).mean())
        width, height = boxes[image, anchor, 2:4]
        angles = [x["angle"][image, 0, anchor] for x in (student, teacher)] if "angle" in raw else [torch.zeros(())] * 2
        aspect = torch.exp(-(torch.log(width / height) ** 2) / 9)
        turned += v * float(aspect * torch.sin(2 * (angles[0] - angles[1])) ** 2)
        total += v
    assert 0 < total < 0.9 * scores.numel()
    return divergence / total, turned / total


@pytest.mark.parametrize("columns", [None, [1]])
@pytest.mark.parametrize("yaml", ["yolov8s.yaml", "yolov8s-obb.yaml"])
def test_parts_join_each_term_with_their_weight(
    yaml: str, columns: list[int] | None, checkpoint: Callable[..., Path]
) -> None:
    d, raw, images = distiller_of(yaml, checkpoint)
    d.teacher_columns = columns
    bare = values(d, raw, images)
    bins = values(d, raw, images, box_distribution=4.0, box_temperature=2.0)
    for term in IMPLICIT:
        divergence, turned = plain_parts(d, term, raw["feats"], images)
        assert float((bins[term] - bare[term]).detach()) == pytest.approx(4 * divergence, rel=1e-3)
        if "obb" in yaml:
            both = values(d, raw, images, box_angle=3.0)
            assert float((both[term] - bins[term]).detach()) == pytest.approx(3 * turned, rel=1e-3, abs=1e-5)
            assert all(g.isfinite().all() and g.any() for g in gradients_of(both[term], raw))


@pytest.mark.parametrize("yaml", ["yolov8s.yaml", "yolov8s-obb.yaml"])
def test_off_is_equal_to_the_bit_and_holds_nothing(yaml: str, checkpoint: Callable[..., Path]) -> None:
    d, raw, images = distiller_of(yaml, checkpoint)
    before = values(d, raw, images)
    values(d, raw, images, **{**PARTS, "box_angle": 3.0 * ("obb" in yaml)})
    after = values(d, raw, images, box_distribution=0.0, box_temperature=7.0, box_angle=0.0)
    for term in IMPLICIT:
        assert torch.equal(before[term], after[term])
        pairs = zip(gradients_of(before[term], raw), gradients_of(after[term], raw), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)
    outputs = d.teacher_outputs(images)
    assert outputs.confidence is None
    assert all(p.bins is None for p in outputs.predictions.values())


def test_own_head_is_compared_too(checkpoint: Callable[..., Path]) -> None:
    d, raw, images = distiller_of("yolov8s-obb.yaml", checkpoint, imhi=0, **PARTS)
    found = {way: imfu_of(d, raw, images, imfu_head=way) for way in ("teacher", "own", "both")}
    assert found["both"] == pytest.approx(found["teacher"] + found["own"], rel=1e-5)
    assert found["own"] > imfu_of(d, raw, images, imfu_head="own", box_distribution=0.0)
    same = {**d.teacher(images), "feats": raw["feats"]}  # the teacher's outputs in the place of the student's
    assert imfu_of(d, same, images, **PARTS) == pytest.approx(0, abs=1e-6)


def test_mean_over_all_draws_is_the_whole_batch(
    checkpoint: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    d, raw, images = distiller_of("yolov8s-obb.yaml", checkpoint, **PARTS)
    whole = values(d, raw, images)
    draws = []
    for image in range(2):
        monkeypatch.setattr(d, "_draw_images", lambda *_, i=image: torch.tensor([i]))
        draws.append(values(d, raw, images, implicit_fraction=0.5))
    for term in IMPLICIT:
        first, second = (float(draw[term].detach()) for draw in draws)
        assert first != second
        assert (first + second) / 2 == pytest.approx(float(whole[term].detach()), rel=1e-5)


def test_an_image_without_finite_bins_counts_nothing(
    checkpoint: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One bin of -inf leaves the decoded box finite."""
    d, raw, images = distiller_of("yolov8s-obb.yaml", checkpoint, **PARTS)
    run = FrozenTeacher.__call__

    def spoiled(teacher: FrozenTeacher, batch: Tensor) -> dict[str, Any]:
        predictions = run(teacher, batch)
        predictions["boxes"] = predictions["boxes"].clone()
        predictions["boxes"][1, 3, 5] = -torch.inf
        return predictions

    monkeypatch.setattr(FrozenTeacher, "__call__", spoiled)
    outputs = d.teacher_outputs(images)
    assert outputs.valid.tolist() == [True, False]
    assert outputs.confidence is not None
    assert outputs.confidence[0].any()
    assert not outputs.confidence[1].any()
    terms = values(d, raw, images)
    for term in IMPLICIT:
        assert terms[term].isfinite()
        assert all(g[0].any() and not g[1].any() for g in gradients_of(terms[term], raw))


def test_a_batch_that_the_teacher_finds_empty_is_as_without_parts(checkpoint: Callable[..., Path]) -> None:
    """An untrained teacher, whose scores are all below the threshold."""
    model, criterion = build("yolov8n-obb.yaml", checkpoint("yolov8s-obb.yaml"), explicit=False)
    images, d = batch_of(rotated=True)["img"], criterion.distiller
    assert d is not None
    raw = model(images)
    bare, parts = values(d, raw, images), values(d, raw, images, **PARTS)
    outputs = d.teacher_outputs(images)
    assert outputs.confidence is not None
    assert not outputs.confidence.any()
    for term in IMPLICIT:
        assert torch.equal(bare[term], parts[term])
        torch.testing.assert_close(gradients_of(bare[term], raw), gradients_of(parts[term], raw))


@pytest.mark.parametrize(
    ("student", "teacher", "keys", "said"),
    [
        ("yolov8n.yaml", "yolov8s.yaml", {"box_angle": 2.0}, "box_angle=2 needs oriented boxes: leave it out"),
        ("yolov8n-obb.yaml", "yolo26s-obb.yaml", {"box_distribution": 4.0}, "4 needs a teacher with DFL bins"),
        ("yolo26n-obb.yaml", "yolo11s-obb.yaml", {"box_distribution": 4.0, "imfu_head": "own"},
         "imfu_head=own needs DFL bins of one number: the student has reg_max=1 and the teacher 16, use imfu_head=t"),
    ],
)  # fmt: skip
def test_heads_that_lack_what_is_compared_are_refused(
    student: str, teacher: str, keys: dict[str, Any], said: str, checkpoint: Callable[..., Path]
) -> None:
    with pytest.raises(BadUseError, match=said):
        build(student, checkpoint(teacher), **keys)
    build(student, checkpoint(teacher), **keys, implicit=False)


def test_a_student_without_bins_learns_from_a_teacher_with_them(checkpoint: Callable[..., Path]) -> None:
    _, criterion = build("yolo26n-obb.yaml", checkpoint("yolo11s-obb.yaml"), **PARTS)
    assert criterion.distiller is not None
    _, criterion = build("yolo26n-obb.yaml", checkpoint("yolo11s-obb.yaml"), imfu=0, imfu_head="own", **PARTS)
    assert criterion.distiller is not None


def test_is_refused_before_a_run_folder_is_made(
    tiny_trainer: Callable[..., DS2D2Trainer], tiny_settings: dict[str, Any]
) -> None:
    with pytest.raises(BadUseError, match="box_angle=2 needs oriented boxes"):
        tiny_trainer("detect", box_angle=2.0).train()
    assert not list(Path(str(tiny_settings["project"])).glob("*"))


@pytest.mark.parametrize(("task", "yaml"), [("detect", "yolov8s.yaml"), ("obb", "yolov8s-obb.yaml")])
def test_a_run_with_parts(
    task: str, yaml: str, tiny_trainer: Callable[..., DS2D2Trainer], detecting: Callable[..., Path], tmp_path: Path
) -> None:
    keys = PARTS if task == "obb" else {"box_distribution": 4.0}
    teacher = str(detecting(yaml, tmp_path / "teacher"))
    trainer = tiny_trainer(task, teacher=teacher, epochs=2, amplifier_epochs=1, **keys)
    sums = []

    def watch(run: Any) -> None:
        compute = run.distiller.teacher_outputs

        def recorded(*args: Any, **others: Any) -> Any:
            outputs = compute(*args, **others)
            sums.append(float(outputs.confidence.sum()))
            return outputs

        run.distiller.teacher_outputs = recorded

    trainer.add_callback("on_train_start", watch)
    trainer.train()
    assert any(sums), "the teacher is confident in some batch"
    assert all(0 < float(trainer.tloss[f"{t}_loss"]) < float("inf") for t in ACTIVE)
