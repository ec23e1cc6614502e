"""Heads: raw predictions and boxes equal Ultralytics' own, levels pair by stride."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from ultralytics.nn.tasks import DetectionModel, OBBModel
from ultralytics.utils.ops import xywh2xyxy

from ds2d2_yolo.bridge.heads import (
    dense_head,
    is_rotated,
    level_channels,
    logits_and_boxes,
    pair_levels,
    raw_predictions,
    take_levels,
)
from ds2d2_yolo.errors import BadUseError

MODELS = ["yolov8n.yaml", "yolov8n-obb.yaml", "yolo11n-obb.yaml", "yolov10n.yaml", "yolo26n.yaml", "yolo26n-obb.yaml"]


def model_of(yaml: str) -> nn.Module:
    torch.manual_seed(0)
    model = (OBBModel if "obb" in yaml else DetectionModel)(yaml, nc=3, verbose=False).eval()
    for module in model.modules():  # fresh BatchNorm layers would hide a mistake in the order of levels
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
    return model


@pytest.mark.parametrize("yaml", MODELS)
def test_boxes_equal_the_heads_own(yaml: str) -> None:
    model = model_of(yaml)
    head = dense_head(model, "student")
    head.end2end = False  # its one-to-many answer, decoded
    images = torch.rand(2, 3, 96, 128)
    with torch.no_grad():
        decoded, raw = model(images)
        ours = raw.get("one2many", raw)
        view = take_levels(head, [0, 1, 2])
        logits, boxes = logits_and_boxes(view, raw_predictions(view, ours["feats"]))
    wanted = decoded.transpose(1, 2)
    torch.testing.assert_close(logits.sigmoid(), wanted[..., 4:7])
    if is_rotated(head):
        torch.testing.assert_close(boxes[..., :4], wanted[..., :4])
        torch.testing.assert_close(boxes[..., 4], wanted[..., 7])
    else:
        torch.testing.assert_close(boxes, xywh2xyxy(wanted[..., :4]), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("yaml", ["yolov8n.yaml", "yolo26n-obb.yaml"])
def test_a_view_of_some_levels(yaml: str) -> None:
    model = model_of(yaml)
    head = dense_head(model, "student")
    names = set(head.state_dict())
    features = [torch.rand(1, c, n, n) for c, n in zip(level_channels(head), (16, 8, 4), strict=True)]
    with torch.no_grad():
        whole = raw_predictions(take_levels(head, [0, 1, 2]), features)
        part = raw_predictions(take_levels(head, [1, 2]), features[1:])
    assert torch.equal(part["scores"], whole["scores"][..., 256:])
    assert set(head.state_dict()) == names, "the view must leave the head as it was"
    assert not head.training


def test_levels_pair_by_stride() -> None:
    assert pair_levels((8, 16, 32), (8, 16, 32)) == [(0, 0), (1, 1), (2, 2)]
    assert pair_levels((4, 8, 16, 32), (8, 16, 32, 64)) == [(1, 0), (2, 1), (3, 2)]
    with pytest.raises(BadUseError, match="share no level"):
        pair_levels((4,), (8, 16))


def test_refuses_a_head_without_dense_outputs() -> None:
    model = nn.Module()
    model.model = nn.ModuleList([nn.Linear(1, 1)])
    with pytest.raises(BadUseError, match="the teacher ends in Linear"):
        dense_head(model, "teacher")
