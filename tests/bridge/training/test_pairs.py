"""Any pair of dense heads: the terms are finite, reach all that is to learn from them, and learning lowers them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from ultralytics.cfg import get_cfg
from ultralytics.nn.tasks import DetectionModel, OBBModel

from ds2d2_yolo.bridge.distillation.build import build_distiller
from ds2d2_yolo.bridge.distillation.criterion import LOSS_NAMES, DistillationCriterion
from ds2d2_yolo.bridge.distillation.gains import Gains
from ds2d2_yolo.bridge.models.heads import dense_head, level_channels
from ds2d2_yolo.bridge.models.teacher import load_teacher
from ds2d2_yolo.config.settings import TERMS, Settings
from tests.helpers.terms import ACTIVE

P2, P6 = [4, 8, 16, 32], [8, 16, 32, 64]
P5 = P6[:3]
# student, teacher, the strides that are distilled
PAIRS = [
    # every family as a student, then as a teacher
    ("yolov3-tiny", "yolov8s", [16, 32]),
    ("yolov5n", "yolov8s", P5),
    ("yolov6n", "yolo11s", P5),
    ("yolov8n", "yolov5s", P5),
    ("yolov9t", "yolov9c", P5),
    ("yolov10n", "yolov8s", P5),
    ("yolo11n", "yolov9s", P5),
    ("yolo12n", "yolo11s", P5),
    ("yolo26n", "yolov8s", P5),
    ("yolov8n", "yolo12s", P5),
    ("yolov8n", "yolov6s", P5),
    ("yolov8n", "yolov3-tiny", [16, 32]),
    # end to end on the teacher's side, on both sides
    ("yolov8n", "yolov10s", P5),
    ("yolov5n", "yolo26s", P5),
    ("yolo26n", "yolov10s", P5),
    ("yolov10n", "yolo26s", P5),
    # P2 and P6, on either side and against each other
    ("yolov8n-ghost-p2", "yolo11s", P5),
    ("yolo11n", "yolov8s-p2", P5),
    ("yolov8n-p2", "yolo26s-p2", P2),
    ("yolov8n-p6", "yolo26s", P5),
    ("yolo26n", "yolov5s-p6", P5),
    ("yolov5n-p6", "yolov8s-p6", P6),
    ("yolo26n-p6", "yolo26n-p6", P6),
    ("yolo26n-p2", "yolov5n-p6", P5),
    ("yolo26n-p6", "yolov8n-p2", P5),
    # oriented boxes
    ("yolov8n-obb", "yolo11s-obb", P5),
    ("yolo11n-obb", "yolo12s-obb", P5),
    ("yolo12n-obb", "yolov8s-obb", P5),
    ("yolo26n-obb", "yolo26s-obb", P5),
    ("yolo26n-obb", "yolov8s-obb", P5),
    ("yolov8n-obb", "yolo26s-obb", P5),
]
# each kind of head on either side; the other pairs are slow tests
FAST = {
    ("yolov3-tiny", "yolov8s"),
    ("yolov6n", "yolo11s"),
    ("yolo11n", "yolov9s"),
    ("yolov10n", "yolov8s"),
    ("yolo12n", "yolo11s"),
    ("yolo26n", "yolov8s"),
    ("yolov8n", "yolov10s"),
    ("yolo26n-p2", "yolov5n-p6"),
    ("yolov5n-p6", "yolov8s-p6"),
    ("yolov8n-obb", "yolo11s-obb"),
    ("yolo26n-obb", "yolo26s-obb"),
    ("yolov8n-obb", "yolo26s-obb"),
}
assert {pair[:2] for pair in PAIRS} >= FAST, "a fast pair is none of the pairs"
SIZE, SIZE_P6 = 64, 128
LEARNING_RATE = 1e-3  # of Adam


def build(student: str, teacher: Path, levels: list[int] | None = None) -> tuple[Any, DistillationCriterion]:
    """A student in training mode and its criterion, the amplifier being the teacher's own head, untuned."""
    rotated = "obb" in student
    torch.manual_seed(0)
    model: Any = (OBBModel if rotated else DetectionModel)(f"{student}.yaml", nc=2, verbose=False).train()
    model.args = get_cfg()
    loaded = load_teacher(str(teacher), "obb" if rotated else "detect")
    head = dense_head(model, "student")
    for branch in dense_head(loaded.model, "teacher").cv3:
        # an untrained head is sure of nothing, and the implicit terms would weigh nothing
        nn.init.constant_(branch[-1].bias, -2.0)
    settings = Settings(teacher=str(teacher), gains=1.0, levels=levels)
    distiller = build_distiller(head, loaded, settings)
    return model, DistillationCriterion(model.init_criterion(), head, distiller, Gains(settings))


def batch_of(rotated: bool, size: int) -> dict[str, Tensor]:
    """Two images with three boxes each."""
    rng = torch.Generator().manual_seed(1)
    boxes = torch.rand(6, 4, generator=rng) * 0.3 + 0.3
    if rotated:
        boxes = torch.cat((boxes, torch.rand(6, 1, generator=rng)), 1)
    return {
        "img": torch.rand(2, 3, size, size, generator=rng),
        "batch_idx": torch.arange(6) // 3,
        "cls": torch.zeros(6, 1),
        "bboxes": boxes,
    }


def terms_of(model: Any, criterion: DistillationCriterion, batch: dict[str, Tensor]) -> Tensor:
    """The terms that are on by default, without the student's own loss."""
    loss, items = criterion(model(batch["img"]), batch)
    assert list(items)[-len(TERMS) :] == list(LOSS_NAMES.values())
    return torch.stack([loss[TERMS.index(term) - len(TERMS)] for term in ACTIVE])


def learners(model: Any, criterion: DistillationCriterion) -> dict[str, Tensor]:
    """Weights that must learn from the terms: the adapters, and the convolutions of the layers that feed the head."""
    assert criterion.distiller is not None
    weights = {f"adapter {i}": a.weight for i, a in enumerate(criterion.distiller.adapters)}
    for level, _ in criterion.distiller.teacher.pairs:
        layer = model.model[model.model[-1].f[level]]
        convolutions = [(n, m) for n, m in layer.named_modules() if isinstance(m, nn.Conv2d)]
        assert convolutions
        weights |= {f"neck {level} {name}": m.weight for name, m in convolutions}
    return weights


def check_gradients(terms: Tensor, weights: dict[str, Tensor]) -> None:
    """Each term alone reaches each of the weights."""
    for term, value in zip(ACTIVE, terms, strict=True):
        gradients = torch.autograd.grad(value, list(weights.values()), retain_graph=True, allow_unused=True)
        for name, gradient in zip(weights, gradients, strict=True):
            assert gradient is not None, f"{term} does not reach {name}"
            assert torch.isfinite(gradient).all(), f"{term} in {name}"
            assert gradient.abs().max() > 0, f"{term} in {name}"


@pytest.mark.parametrize(
    ("student", "teacher", "strides"),
    [pytest.param(*pair, marks=[] if pair[:2] in FAST else pytest.mark.slow) for pair in PAIRS],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_pair(student: str, teacher: str, strides: list[int], checkpoint: Callable[..., Path]) -> None:
    model, criterion = build(student, checkpoint(f"{teacher}.yaml"))
    assert criterion.distiller is not None
    assert [model.stride.tolist()[s] for s, _ in criterion.distiller.teacher.pairs] == strides
    batch = batch_of("obb" in student, SIZE_P6 if "p6" in student + teacher else SIZE)
    optimizer = torch.optim.Adam([*model.parameters(), *criterion.distiller.adapters.parameters()], LEARNING_RATE)
    sums = []
    for _ in range(3):
        terms = terms_of(model, criterion, batch)
        assert torch.isfinite(terms).all()
        assert (terms > 0).all()
        if not sums:
            check_gradients(terms, learners(model, criterion))
        sums.append(float(terms.detach().sum()))
        optimizer.zero_grad()
        terms.sum().backward()
        optimizer.step()
    assert float(terms_of(model, criterion, batch).detach().sum()) < sums[0]


def test_only_the_named_levels_are_distilled(checkpoint: Callable[..., Path]) -> None:
    model, criterion = build("yolov8n-p2", checkpoint("yolov8s-p6.yaml"), [32, 8])
    assert criterion.distiller is not None
    assert criterion.distiller.teacher.pairs == [(1, 0), (3, 2)]
    assert [a.in_channels for a in criterion.distiller.adapters] == [level_channels(model.model[-1])[i] for i in (1, 3)]
    assert (terms_of(model, criterion, batch_of(rotated=False, size=SIZE_P6)) > 0).all()
