"""Distil a RetinaNet R50 into an R18 by the core of DS2D2 alone, on random weights and data."""

import copy

import torch
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import box_iou
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from ds2d2_yolo.core import disw_map, explicit_loss, high_frequency, implicit_box_loss, implicit_class_loss
from ds2d2_yolo.core.wavelet import band_shape


def _detector(resnet, size):
    levels = {"returned_layers": [2, 3, 4], "extra_blocks": LastLevelP6P7(256, 256), "trainable_layers": 5}
    return RetinaNet(resnet_fpn_backbone(backbone_name=resnet, weights=None, **levels), 5, min_size=size, max_size=size)


def _implicit(head, features, anchors, coder, normalizer):
    outputs = [head(list(levels)) for levels in features]  # of the student, of the teacher
    boxes = [coder.decode_single(out["bbox_regression"].flatten(0, 1), anchors) for out in outputs]
    scores = [out["cls_logits"].flatten(0, 1) for out in outputs]
    return implicit_class_loss(*scores, normalizer) + implicit_box_loss(*boxes, scores[1], normalizer)


def main(size=256, steps=3):
    """Take a few steps on one batch of two images and return what was trained, the teacher and the last terms."""
    student, teacher = _detector("resnet18", size), _detector("resnet50", size).eval().requires_grad_(False)
    adapters = torch.nn.ModuleList(torch.nn.Conv2d(256, 256, 1, bias=False) for _ in range(5))
    boxes, index = torch.rand(8, 4) * size / 2 + torch.tensor([0, 0, size / 2, size / 2]), torch.arange(8) // 4
    targets = [{"boxes": boxes[index == i], "labels": torch.tensor([1, 2, 3, 4])} for i in range(2)]
    images, targets = student.transform(torch.rand(2, 3, size, size), targets)
    teacher_features = list(teacher.backbone(images.tensors).values())
    shapes = [f.shape[2:] for f in teacher_features]
    weights = [disw_map(boxes, index, 2, band_shape(*s), [2 * size / n for n in s]) for s in shapes]
    anchors = teacher.anchor_generator(images, teacher_features)
    matches = [teacher.proposal_matcher(box_iou(t["boxes"], a)) for t, a in zip(targets, anchors, strict=True)]
    positives = sum(max(int((m >= 0).sum()), 1) for m in matches)
    implicit = {"anchors": torch.cat(anchors), "coder": teacher.box_coder, "normalizer": positives}
    full_head, high_head = teacher.head, copy.deepcopy(teacher.head)  # the latter: to be tuned on hf(teacher)
    optimizer = torch.optim.AdamW([*student.parameters(), *adapters.parameters()], lr=1e-4)
    for _ in range(steps):
        student_features = list(student.backbone(images.tensors).values())
        detection = sum(student.compute_loss(targets, student.head(student_features), anchors).values())
        adapted = [adapter(f) for adapter, f in zip(adapters, student_features, strict=True)]
        low, high = sum(torch.stack(explicit_loss(*x)) for x in zip(adapted, teacher_features, weights, strict=True))
        full = _implicit(full_head, (adapted, teacher_features), **implicit)
        of_high = _implicit(high_head, [map(high_frequency, f) for f in (adapted, teacher_features)], **implicit)
        terms = torch.stack((low, high, full, of_high))  # here a tenth of the detection loss each
        optimizer.zero_grad()
        (detection + (0.1 * (detection / terms).detach() * terms).sum()).backward()
        optimizer.step()
        print(f"detection {detection.item():.4f}, low high full high-frequency {terms.tolist()}")
    return student, adapters, teacher, terms


if __name__ == "__main__":
    main()
