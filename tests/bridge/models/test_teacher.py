"""The teacher: models of other kinds are refused, and the levels asked for are the ones that answer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from ultralytics.nn import tasks

from ds2d2_yolo.bridge.models.heads import dense_head
from ds2d2_yolo.bridge.models.loading import load_student
from ds2d2_yolo.bridge.models.teacher import FrozenTeacher, load_teacher
from ds2d2_yolo.errors import BadUseError

KINDS = {
    "yolov8n-rtdetr.yaml": ("RTDETRDetectionModel", "an RT-DETR model"),
    "yolov8n-world.yaml": ("WorldModel", "a YOLO-World model"),
    "yoloe-11n.yaml": ("YOLOEModel", "a YOLOE model"),
    "yoloe-11n-seg.yaml": ("YOLOESegModel", "a YOLOE segmentation model"),
    "yolo26n-seg.yaml": ("SegmentationModel", "a segmentation model"),
    "yolov8n-pose.yaml": ("PoseModel", "a pose model"),
    "yolov8n-cls.yaml": ("ClassificationModel", "a classification model"),
}


@pytest.mark.parametrize("yaml", list(KINDS))
@pytest.mark.parametrize("untrained", [True, False])
def test_a_model_of_another_kind_is_refused_by_name(yaml: str, untrained: bool, tmp_path: Path) -> None:
    kind, description = KINDS[yaml]
    file = tmp_path / Path(yaml).with_suffix(".pt").name
    if untrained:
        name = yaml
    else:
        torch.save({"model": getattr(tasks, kind)(yaml, nc=2, verbose=False)}, file)
        name = str(file)
        with pytest.raises(BadUseError, match=f"student={file} is {description}, .* use YOLOv3u"):
            load_student(name)
    with pytest.raises(BadUseError, match=f"teacher={name} is {description}, .* use YOLOv3u"):
        load_teacher(name, "detect")


def test_a_file_that_holds_no_model_of_ultralytics_is_refused(tmp_path: Path) -> None:
    torch.save({"model": nn.Linear(1, 1)}, tmp_path / "linear.pt")
    with pytest.raises(BadUseError, match=r"teacher=.*linear\.pt is a model that ends in Linear"):
        load_teacher(str(tmp_path / "linear.pt"), "detect")


@pytest.mark.parametrize(("levels", "sizes"), [(None, [8, 4, 2]), ([32, 8], [8, 2]), ([16], [4])])
def test_answers_on_the_levels_asked_for(
    levels: list[int] | None, sizes: list[int], checkpoint: Callable[..., Path]
) -> None:
    teacher = load_teacher(str(checkpoint("yolov8n-p6.yaml")), "detect")
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        all_features = teacher.model(images)[1]["feats"]
    frozen = FrozenTeacher(teacher, (4.0, 8.0, 16.0, 32.0), levels)
    answer = frozen(images)
    assert [f.shape[-1] for f in answer["feats"]] == sizes
    assert answer["scores"].shape[-1] == sum(n * n for n in sizes)
    expected = {f.shape[-1]: f for f in all_features}
    for feature in answer["feats"]:
        torch.testing.assert_close(feature, expected[feature.shape[-1]], rtol=1e-4, atol=1e-4)
    assert not any(p.requires_grad for p in dense_head(frozen.model, "teacher").parameters())


@pytest.mark.parametrize("model", ["yolov8s-obb.yaml", "yolo26n.yaml"])
def test_bfloat16_changes_the_precision_of_the_answers_alone(model: str, checkpoint: Callable[..., Path]) -> None:
    task = "obb" if "obb" in model else "detect"
    full_precision, half_precision = (
        FrozenTeacher(load_teacher(str(checkpoint(model)), task), (8.0, 16.0, 32.0), bf16=bf16)
        for bf16 in (False, True)
    )
    assert {p.dtype for p in half_precision.model.parameters()} == {torch.float32}
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    expected, predictions = full_precision(images), half_precision(images)
    assert predictions.keys() == expected.keys()
    for key, value in expected.items():
        for one, other in zip(*((x if isinstance(x, list) else [x]) for x in (value, predictions[key])), strict=True):
            assert (other.dtype, other.shape) == (torch.float32, one.shape)
            assert other.is_contiguous()
            relative_error = torch.linalg.vector_norm(one - other) / torch.linalg.vector_norm(one)
            assert 0 < relative_error < 0.05, key
    for one, other in zip(predictions["feats"], half_precision.features(images), strict=True):
        assert torch.equal(one, other)
