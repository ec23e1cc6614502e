"""Distil a Faster R-CNN R50 into an R18 by the core of DS2D2 alone, on random weights and data."""

import copy

import torch
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

from ds2d2_yolo.core import disw_map, explicit_loss, high_frequency, region_box_loss, region_class_loss
from ds2d2_yolo.core.wavelet import band_shape


def _detector(resnet, size):
    backbone = resnet_fpn_backbone(backbone_name=resnet, weights=None, trainable_layers=5)
    return FasterRCNN(backbone, 5, min_size=size, max_size=size, box_batch_size_per_image=64)


def _implicit(heads, features, regions, sizes):
    pooled = [heads.box_head(heads.box_roi_pool(levels, regions, sizes)) for levels in features]
    (logits, deltas), (teacher_logits, teacher_deltas) = (heads.box_predictor(x) for x in pooled)
    deltas, teacher_deltas = (x.view(len(x), -1, 4)[:, 1:] for x in (deltas, teacher_deltas))  # 0 is the background
    scores = teacher_logits.softmax(-1)[:, 1:]
    return region_class_loss(logits, teacher_logits, len(logits)) + region_box_loss(deltas, teacher_deltas, scores)


def main(size=256, steps=3):
    """Take a few steps on one batch of two images and return what was trained, the teacher and the last terms."""
    student, teacher = _detector("resnet18", size), _detector("resnet50", size).eval().requires_grad_(False)
    adapters = torch.nn.ModuleDict({level: torch.nn.Conv2d(256, 256, 1, bias=False) for level in "0123"})
    boxes, index = torch.rand(8, 4) * size / 2 + torch.tensor([0, 0, size / 2, size / 2]), torch.arange(8) // 4
    targets = [{"boxes": boxes[index == i], "labels": torch.tensor([1, 2, 3, 4])} for i in range(2)]
    images, targets = student.transform(torch.rand(2, 3, size, size), targets)
    teacher_features = teacher.backbone(images.tensors)
    cells = {k: [2 * size / n for n in f.shape[2:]] for k, f in teacher_features.items()}
    weights = {k: disw_map(boxes, index, 2, band_shape(*teacher_features[k].shape[2:]), cells[k]) for k in adapters}
    # Both are compared on the teacher's proposals, sampled as in training.
    regions, *_ = teacher.roi_heads.select_training_samples(teacher.rpn(images, teacher_features)[0], targets)
    full_head, high_head = teacher.roi_heads, copy.deepcopy(teacher.roi_heads)  # the latter: to be tuned on hf(teacher)
    optimizer = torch.optim.AdamW([*student.parameters(), *adapters.parameters()], lr=1e-4)
    for _ in range(steps):
        student_features = student.backbone(images.tensors)
        proposals, losses = student.rpn(images, student_features, targets)
        losses.update(student.roi_heads(student_features, proposals, images.image_sizes, targets)[1])
        detection, adapted = sum(losses.values()), {k: adapter(student_features[k]) for k, adapter in adapters.items()}
        low, high = sum(torch.stack(explicit_loss(s, teacher_features[k], weights[k])) for k, s in adapted.items())
        full = _implicit(full_head, (adapted, teacher_features), regions, images.image_sizes)
        filtered = [{k: high_frequency(levels[k]) for k in adapted} for levels in (adapted, teacher_features)]
        of_high = _implicit(high_head, filtered, regions, images.image_sizes)
        terms = torch.stack((low, high, full, of_high))  # here a tenth of the detection loss each
        optimizer.zero_grad()
        (detection + (0.1 * (detection / terms).detach() * terms).sum()).backward()
        optimizer.step()
        print(f"detection {detection.item():.4f}, low high full high-frequency {terms.tolist()}")
    return student, adapters, teacher, terms


if __name__ == "__main__":
    main()
