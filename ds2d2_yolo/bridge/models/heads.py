"""Dense Ultralytics heads: raw predictions from features, decoded boxes, selection and pairing of levels."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from ultralytics.nn.modules.head import OBB, Detect
from ultralytics.nn.tasks import yaml_model_load

from ds2d2_yolo.errors import BadUseError

WORKS = "YOLOv3u, v5u, v6, v8, v9, v10, 11, 12 and 26 for detect, YOLOv8, 11, 12 and 26 for obb"
DENSE = ("Detect", "v10Detect", "OBB", "OBB26")
OTHERS = {
    "Classify": "a classification model",
    "Depth": "a depth model",
    "Pose": "a pose model",
    "Pose26": "a pose model",
    "RTDETRDecoder": "an RT-DETR model",
    "Segment": "a segmentation model",
    "Segment26": "a segmentation model",
    "SemanticSegment": "a semantic segmentation model",
    "WorldDetect": "a YOLO-World model",
    "YOLOEDetect": "a YOLOE model",
    "YOLOESegment": "a YOLOE segmentation model",
    "YOLOESegment26": "a YOLOE segmentation model",
}


def refuse_other_heads(head: str, who: str) -> None:
    """Refuse a model by the class of its last layer.

    Args:
        head (str): Name of the class, such as 'RTDETRDecoder'.
        who (str): The model as messages name it, such as 'student=rtdetr-l.yaml'.

    Raises:
        BadUseError: If the head is not distilled; names the kind of the model and the kinds that are.
    """
    if head not in DENSE:
        kind = OTHERS.get(head, f"a model that ends in {head}")
        raise BadUseError(f"{who} is {kind}, which DS2D2 does not distil: use {WORKS}")


def refuse_yaml(model: Any, who: str) -> None:
    """Refuse a model by the last layer of its YAML, without building it, which may not be possible.

    Args:
        model (Any): Path or name of the YAML, as Ultralytics resolves it, or its content; anything else passes.
        who (str): The model as messages name it.

    Raises:
        BadUseError: See `refuse_other_heads`.
    """
    try:
        layers = model if isinstance(model, dict) else yaml_model_load(model)
        head = str(layers["head"][-1][-2])
    except Exception:  # building the model reports what is wrong with it
        return
    refuse_other_heads(head, who)


def dense_head(model: Any, who: str) -> Detect:
    """Return the detection head of a model, which predicts at every cell of its levels.

    Args:
        model (Any): Ultralytics detection model.
        who (str): The model as messages name it, such as 'the student'.

    Returns:
        (Detect): Its last layer.

    Raises:
        BadUseError: If the last layer is of another kind, such as RT-DETR's.
    """
    layers = getattr(model, "model", None)
    head: Any = layers[-1] if isinstance(layers, (nn.Sequential, nn.ModuleList)) else model
    refuse_other_heads(type(head).__name__, who)
    return head


def is_rotated(head: Detect) -> bool:
    """Return whether a head predicts oriented boxes.

    Args:
        head (Detect): Dense head.

    Returns:
        (bool): True for the heads of obb models.
    """
    return isinstance(head, OBB)


def strides_of(head: Detect) -> tuple[float, ...]:
    """Return the strides of the levels of a head.

    Args:
        head (Detect): Dense head.

    Returns:
        (tuple[float, ...]): In pixels, by level.
    """
    return tuple(float(s) for s in head.stride)


def level_channels(head: Detect) -> tuple[int, ...]:
    """Return the channels of the neck outputs that a head takes.

    Args:
        head (Detect): Dense head, not fused for inference.

    Returns:
        (tuple[int, ...]): By level.
    """
    return tuple(next(m for m in box.modules() if isinstance(m, nn.Conv2d)).in_channels for box in head.cv2)


def pair_levels(
    student: tuple[float, ...], teacher: tuple[float, ...], levels: list[int] | None = None, ratio: int = 1
) -> list[tuple[int, int]]:
    """Match the levels of two heads by grid: by stride, where both models see images of one size.

    Args:
        student (tuple[float, ...]): Strides of the student's levels.
        teacher (tuple[float, ...]): Strides of the teacher's levels.
        levels (list[int] | None): The student's strides to keep; None keeps all that are shared.
        ratio (int): Side of the teacher's images over that of the student's. A level of the teacher then has the grid
            of the student's stride that is smaller by this ratio.

    Returns:
        (list[tuple[int, int]]): Student index and teacher index of each grid, finest first.

    Raises:
        BadUseError: If no grid is in both, or one of `levels` is not.
    """
    in_student_frame = [s / ratio for s in teacher]
    shared = sorted(set(student) & set(in_student_frame))
    if not shared:
        at = "" if ratio == 1 else f" at {ratio} times the image size"
        raise BadUseError(
            f"student strides {_join_strides(student)} and teacher strides {_join_strides(teacher)}{at} share no level"
        )
    lacking = [s for s in levels or () if s not in shared]
    if lacking:
        raise BadUseError(
            f"levels={levels}: student and teacher share the strides {_join_strides(shared)}, choose among them"
        )
    return [(student.index(s), in_student_frame.index(s)) for s in shared if levels is None or s in levels]


def unpaired_levels(
    student: tuple[float, ...], teacher: tuple[float, ...], ratio: int = 1
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the levels whose grid only one of two heads has; they are not distilled.

    Args:
        student (tuple[float, ...]): Strides of the student's levels.
        teacher (tuple[float, ...]): Strides of the teacher's levels.
        ratio (int): As in `pair_levels`.

    Returns:
        student_only (tuple[float, ...]): Strides of the student's levels that have no partner, finest first.
        teacher_only (tuple[float, ...]): Likewise of the teacher's, in pixels of its own images.
    """
    student_only = set(student) - {s / ratio for s in teacher}
    teacher_only = set(teacher) - {s * ratio for s in student}
    return tuple(sorted(student_only)), tuple(sorted(teacher_only))


def _join_strides(strides: Iterable[float]) -> str:
    """Join strides for a message, such as '8, 16, 32'."""
    return ", ".join(f"{s:g}" for s in strides)


def take_levels(head: Detect, levels: list[int]) -> Detect:
    """Return a one-to-many view of a head on some of its levels; modules are shared, not copied.

    The view returns raw predictions: its `training` flag is set, that of its BatchNorm layers is not. Neither decoding
    nor the one-to-one branch, which is not used, is computed.

    Args:
        head (Detect): Head to view.
        levels (list[int]): Levels to keep.

    Returns:
        (Detect): Head whose inputs, strides and branches are those of `levels`.
    """
    view = copy.copy(head)
    # copy.copy of a module shares the dictionary of its children: the view gets another one
    view._modules = {
        name: nn.ModuleList(module[i] for i in levels) if isinstance(module, nn.ModuleList) else module
        for name, module in head._modules.items()
        if not name.startswith("one2one_")
    }
    view._buffers = dict(head._buffers)
    view.one2one_cv2 = None
    view.nl = len(levels)
    view.stride = head.stride[levels]
    view.f = [head.f[i] for i in levels]
    view.xyxy = True
    view.end2end = False
    view.training = True
    return view


def raw_predictions(head: Detect, features: list[Tensor]) -> dict[str, Any]:
    """Return the one-to-many outputs of a head for given features.

    Args:
        head (Detect): Head from `take_levels`.
        features (list[Tensor]): Feature of each level, B x C x H x W.

    Returns:
        (dict[str, Any]): 'scores' (B x classes x anchors), 'boxes' (B x 4 reg_max x anchors), 'feats' and, for
            oriented heads, 'angle' (B x 1 x anchors, radians).
    """
    predictions: dict[str, Any] = head.forward_head(features, **head.one2many)
    return predictions


def logits_and_boxes(head: Detect, predictions: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Decode the raw predictions of a head with its methods (distribution or distance, angle mapping).

    The anchors are made here: a head caches its anchors, and one call under inference mode would leave tensors in that
    cache that autograd cannot use.

    Args:
        head (Detect): Head that made the predictions.
        predictions (dict[str, Any]): Its raw outputs.

    Returns:
        logits (Tensor): B x anchors x classes, float32.
        boxes (Tensor): B x anchors x 4 (xyxy), or x 5 (xywhr, radians) for oriented heads, in pixels, float32.
    """
    with torch.autocast(predictions["scores"].device.type, enabled=False):
        anchors, strides = _anchors(predictions["feats"], strides_of(head))
        angle = predictions["angle"].float() if is_rotated(head) else None
        distances = head.dfl(predictions["boxes"].float())
        boxes = head.decode_bboxes(distances, anchors.T.unsqueeze(0), angle) * strides.T
        if angle is not None:
            boxes = torch.cat((boxes, angle), 1)
        return predictions["scores"].float().transpose(1, 2), boxes.transpose(1, 2)


def _anchors(features: list[Tensor], strides: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    """Return the centres of all cells (anchors x 2, xy in cells) and their strides (anchors x 1), float32.

    They equal those of Ultralytics' `make_anchors` to the bit. That function (8.4.190) makes each axis of each level on
    the host and copies it, so that the host waits for a GPU six times for three levels.
    """
    centres, steps = [], []
    for feature, stride in zip(features, strides, strict=True):
        sizes = feature.shape[2:]
        y, x = (torch.arange(n, dtype=torch.float32, device=feature.device) + 0.5 for n in sizes)
        grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
        centres.append(torch.stack((grid_x, grid_y), -1).view(-1, 2))
        steps.append(feature.new_full((sizes.numel(), 1), stride, dtype=torch.float32))
    return torch.cat(centres), torch.cat(steps)
