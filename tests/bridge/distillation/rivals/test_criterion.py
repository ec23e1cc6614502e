"""The rivals on real models: what their terms reach, see and leave."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from ultralytics.cfg import get_cfg
from ultralytics.nn.tasks import DetectionModel, OBBModel

from ds2d2_yolo.bridge.distillation.rivals.build import _make_needed_adapters, build_rival
from ds2d2_yolo.bridge.distillation.rivals.criterion import RivalCriterion
from ds2d2_yolo.bridge.distillation.rivals.methods import RivalBatch
from ds2d2_yolo.bridge.distillation.targets import capture_assigner_calls
from ds2d2_yolo.bridge.models.heads import dense_head, strides_of
from ds2d2_yolo.bridge.models.teacher import FrozenTeacher, load_teacher
from ds2d2_yolo.config.rivals import RIVALS, rival_settings
from ds2d2_yolo.core.rivals.cwd import channel_wise_loss
from ds2d2_yolo.core.rivals.pkd import pearson_feature_loss
from ds2d2_yolo.errors import BadUseError
from tests.helpers.distillation import batch_of

PAIRS = [
    ("yolov8n-obb.yaml", "yolov8s-obb.yaml"),
    ("yolov8n.yaml", "yolov10s.yaml"),
    ("yolov10n.yaml", "yolov8s.yaml"),  # end-to-end
]


def build(name: str, student: str, teacher: Path, **options: Any) -> tuple[nn.Module, RivalCriterion]:
    """A student in training mode and the criterion of a rival."""
    rotated = "obb" in student
    torch.manual_seed(0)
    model = (OBBModel if rotated else DetectionModel)(student, nc=2, verbose=False).train()
    model.args = get_cfg()
    loaded = load_teacher(str(teacher), "obb" if rotated else "detect")
    rival = build_rival(rival_settings(name, options), dense_head(model, "student"), loaded)
    return model, RivalCriterion(model.init_criterion(), rival, name)


@pytest.mark.parametrize(("student", "teacher"), PAIRS)
@pytest.mark.parametrize("name", RIVALS)
def test_the_term_reaches_what_it_trains(
    name: str, student: str, teacher: str, checkpoint: Callable[..., Path]
) -> None:
    model, criterion = build(name, student, checkpoint(teacher))
    batch = batch_of("obb" in student)
    preds = model(batch["img"])
    plain, _ = criterion.base(preds, batch)
    loss, items = criterion(preds, batch)
    assert torch.equal(loss[:-1], plain)
    assert list(items)[-1] == f"{name}_loss"
    assert loss[-1].detach() / 2 == items[f"{name}_loss"] > 0  # times the batch size, as Ultralytics does
    features = preds.get("one2many", preds)["feats"]
    shared = [features[level] for level, _ in criterion.rival.teacher.pairs]
    adapters = list(criterion.rival.adapters.parameters()) if criterion.rival.adapters else []
    assert len(adapters) == (0 if name == "ld" else 3)
    for gradient in torch.autograd.grad(loss[-1], [*shared, *adapters]):
        assert gradient.isfinite().all()
        assert gradient.any() or name == "ld"  # a level to which the assigner gives no object learns no box


def leaves(preds: dict[str, Any]) -> dict[str, Any]:
    """Raw predictions without what they were computed from: neck features are made from each other."""
    return {k: [x.detach().requires_grad_() for x in v] if k == "feats" else v.detach().requires_grad_()
            for k, v in preds.items()}  # fmt: skip


@pytest.mark.parametrize("name", RIVALS)
def test_a_level_that_the_teacher_lacks_is_left_out(name: str, checkpoint: Callable[..., Path]) -> None:
    model, criterion = build(name, "yolov8n-p2.yaml", checkpoint("yolov8s.yaml"))
    images = batch_of(rotated=False)["img"]
    raw = leaves(model(images))
    mask = torch.ones(2, raw["scores"].shape[2], dtype=torch.bool)
    criterion.rival(RivalBatch(images, raw, mask)).backward()
    if name == "ld":
        cells = raw["feats"][0].shape[2:].numel()
        assert not raw["boxes"].grad[..., :cells].any()
        assert raw["boxes"].grad[..., cells:].any(1).all()
    else:
        assert raw["feats"][0].grad is None
        assert all(x.grad.any() for x in raw["feats"][1:])


@pytest.mark.parametrize(("name", "loss"), [("pkd", pearson_feature_loss), ("cwd", channel_wise_loss)])
def test_features_are_compared_level_by_level(
    name: str, loss: Callable[..., torch.Tensor], checkpoint: Callable[..., Path]
) -> None:
    model, criterion = build(name, "yolov8n-obb.yaml", checkpoint("yolov8s-obb.yaml"), weight=3.0)
    batch = batch_of(rotated=True)
    preds = model(batch["img"])
    teacher = load_teacher(str(checkpoint("yolov8s-obb.yaml")), "obb")
    teacher_features = FrozenTeacher(teacher, strides_of(dense_head(model, "student"))).features(batch["img"])
    assert criterion.rival.adapters is not None
    adapted = [F.conv2d(x, conv.weight) for x, conv in zip(preds["feats"], criterion.rival.adapters, strict=True)]
    expected = 3 * sum(loss(*pair) for pair in zip(adapted, teacher_features, strict=True))
    torch.testing.assert_close(criterion(preds, batch)[1][f"{name}_loss"], expected)


@pytest.mark.parametrize(("task", "temperature", "divisor", "weight"), [("detect", 10, 4, 0.25), ("obb", 5, 1, 10)])
def test_ld_compares_the_edges_of_assigned_cells(
    task: str, temperature: float, divisor: float, weight: float, checkpoint: Callable[..., Path]
) -> None:
    suffix = "-obb" if task == "obb" else ""
    model, criterion = build("ld", f"yolov8n{suffix}.yaml", checkpoint(f"yolov8s{suffix}.yaml"))
    batch = batch_of(task == "obb")
    preds = model(batch["img"])
    with capture_assigner_calls(criterion.base) as calls:
        criterion.base(preds, batch)
    assigned = calls[0].positives
    assert 0 < assigned.sum() < assigned.numel() / 2
    teacher = criterion.rival.teacher(batch["img"])["boxes"]
    total, weights = 0.0, 0.0
    for image, cell in assigned.nonzero().tolist():
        score = preds["scores"][image, :, cell].max().sigmoid().item()
        weights += score
        for edge in range(4):
            rows = slice(16 * edge, 16 * edge + 16)
            p, q = (
                (x[image, rows, cell].detach().double() / temperature).softmax(0) for x in (preds["boxes"], teacher)
            )
            total += score * temperature**2 * (q * (q / p).log()).mean().item()
    loss, items = criterion(preds, batch)
    assert items["ld_loss"].item() == pytest.approx(weight * total / (divisor * weights), rel=1e-4)
    (gradient,) = torch.autograd.grad(loss[-1], preds["boxes"])
    touched = gradient.abs().sum(1) > 0
    assert torch.equal(touched, assigned)


@pytest.mark.parametrize("name", RIVALS)
def test_nothing_to_learn_from_itself(name: str, checkpoint: Callable[..., Path]) -> None:
    teacher = checkpoint("yolov8n-obb.yaml")
    model, criterion = build(name, "yolov8n-obb.yaml", teacher)
    assert criterion.rival.adapters is None  # equal widths need none
    loaded = load_teacher(str(teacher), "obb").model
    model.load_state_dict({k: v for k, v in loaded.state_dict().items() if ".cv3." not in k}, strict=False)
    model.eval()  # the teacher's statistics
    head = dense_head(model, "student")
    head.training = True  # raw predictions
    batch = batch_of(rotated=True)
    assert criterion(model(batch["img"]), batch)[1][f"{name}_loss"].item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("name", RIVALS)
def test_an_image_that_the_teacher_cannot_take_teaches_nothing(name: str, checkpoint: Callable[..., Path]) -> None:
    model, criterion = build(name, "yolov8n-obb.yaml", checkpoint("yolov8s-obb.yaml"))
    images = batch_of(rotated=True)["img"]
    raw = leaves(model(images))
    broken = images.clone()
    broken[1] = torch.nan
    mask = torch.ones(2, raw["scores"].shape[2], dtype=torch.bool)
    value = criterion.rival(RivalBatch(broken, raw, mask))
    assert value.item() > 0
    source = raw["boxes"] if name == "ld" else raw["feats"][0]
    (gradient,) = torch.autograd.grad(value, source)
    assert gradient.isfinite().all()
    assert gradient[0].any()
    assert not gradient[1].any()


def test_only_levels_of_unequal_widths_have_an_adapter() -> None:
    assert _make_needed_adapters([(64, 64), (128, 128)], seed=0) is None
    adapters = _make_needed_adapters([(64, 64), (64, 128)], seed=0)
    assert adapters is not None
    assert [type(a) for a in adapters] == [nn.Identity, nn.Conv2d]
    assert adapters[1].weight.shape == (128, 64, 1, 1)


def test_validation_has_the_usual_loss_and_copies_hold_no_teacher(checkpoint: Callable[..., Path]) -> None:
    model, criterion = build("pkd", "yolov8n-obb.yaml", checkpoint("yolov8s-obb.yaml"))
    batch = batch_of(rotated=True)
    with torch.no_grad():
        preds = model(batch["img"])
        loss, items = criterion(preds, batch)
        plain, parts = criterion.base(preds, batch)
    assert torch.equal(loss, plain)
    assert {k: v for k, v in items.items() if k != "pkd_loss"} == parts
    assert items["pkd_loss"] == 0
    assert copy.deepcopy(criterion) is None
    assert pickle.loads(pickle.dumps(criterion)) is None


def test_an_end_to_end_student_learns_less_of_it_as_its_branch_fades(checkpoint: Callable[..., Path]) -> None:
    model, criterion = build("pkd", "yolov10n.yaml", checkpoint("yolov8s.yaml"))
    batch = batch_of(rotated=False)
    before = criterion(model(batch["img"]), batch)[1]["pkd_loss"].item()
    criterion.base.o2m = criterion.base.o2m_copy / 4
    assert criterion(model(batch["img"]), batch)[1]["pkd_loss"].item() == pytest.approx(before / 4, rel=1e-4)
    criterion.update()
    assert criterion.base.updates == 1


def test_ld_refuses_a_head_without_distributions(checkpoint: Callable[..., Path]) -> None:
    with pytest.raises(BadUseError, match="the student predicts 1 bins an edge, the teacher 16; leave that arm out"):
        build("ld", "yolo26n.yaml", checkpoint("yolov8s.yaml"))
