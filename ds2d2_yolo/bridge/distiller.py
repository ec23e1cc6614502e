"""The four terms of DS2D2 for a pair of Ultralytics models: features and predictions in, weighted terms out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ds2d2_yolo.bridge.amplifier import Amplifier
from ds2d2_yolo.bridge.heads import logits_and_boxes, raw_predictions, strides_of
from ds2d2_yolo.bridge.teacher import FrozenTeacher
from ds2d2_yolo.disw import disw_map
from ds2d2_yolo.losses import explicit_loss, implicit_box_loss, implicit_class_loss
from ds2d2_yolo.settings import Settings
from ds2d2_yolo.wavelet import band_origin, band_shape

if TYPE_CHECKING:
    from ultralytics.nn.modules.head import Detect

    from ds2d2_yolo.bridge.criterion import Targets


class Distiller:
    """Computes the active terms of one batch.

    Args:
        settings (Settings): Gains, wavelet and extents; a term with gain 0 is not computed.
        teacher (FrozenTeacher): Bound to the student's levels.
        adapters (nn.ModuleList): One 1 x 1 convolution per pair of levels.
        amplifier (Amplifier | None): High-frequency amplifier, needed while `imhi` is on.
    """

    def __init__(
        self, settings: Settings, teacher: FrozenTeacher, adapters: nn.ModuleList, amplifier: Amplifier | None
    ) -> None:
        self.settings = settings
        self.teacher = teacher
        self.adapters = adapters
        self.amplifier = amplifier
        self.strides = strides_of(teacher.head)

    def __call__(self, images: Tensor, features: list[Tensor], targets: Targets) -> dict[str, Tensor]:
        """Return gain x term of each active term.

        Args:
            images (Tensor): B x C x H x W in [0, 1].
            features (list[Tensor]): The student's neck outputs, all of its levels.
            targets (Targets): What its assigner received and decided.

        Returns:
            (dict[str, Tensor]): Scalars in float32, keys among `settings.TERMS`.
        """
        predictions = self.teacher(images)
        pairs = zip(self.adapters, self.teacher.pairs, strict=True)
        adapted = [adapter(features[s]) for adapter, (s, _) in pairs]
        active = self.settings.active
        terms: dict[str, Tensor] = {}
        if "exlo" in active or "exhi" in active:
            terms["exlo"], terms["exhi"] = self._explicit(adapted, predictions["feats"], targets)
        if "imfu" in active or "imhi" in active:
            answer = logits_and_boxes(self.teacher.head, predictions)
            mass = score_mass(answer[0])
            if "imfu" in active:
                terms["imfu"] = _implicit(self.teacher.head, adapted, answer, mass)
            if "imhi" in active and self.amplifier is not None:
                with torch.no_grad():
                    answer = logits_and_boxes(self.amplifier.head, self.amplifier(predictions["feats"]))
                terms["imhi"] = _implicit(self.amplifier.head, self.amplifier.inputs(adapted), answer, mass)
        return {term: self.settings.gains[term] * terms[term] for term in active}

    def _explicit(self, adapted: list[Tensor], wanted: list[Tensor], targets: Targets) -> tuple[Tensor, Tensor]:
        """Return the low- and high-frequency terms of the explicit stream, summed over the levels."""
        batch, count = targets.mask.shape
        index = torch.arange(batch, device=targets.mask.device).repeat_interleave(count, output_size=batch * count)
        flat = (targets.boxes.flatten(0, 1).float(), index, batch, targets.mask.flatten())
        low, high = zip(
            *(
                explicit_loss(mine, theirs, self._weight(mine, stride, *flat), self.settings.wavelet)
                for mine, theirs, stride in zip(adapted, wanted, self.strides, strict=True)
            ),
            strict=True,
        )
        return torch.stack(low).sum(), torch.stack(high).sum()

    def _weight(
        self, feature: Tensor, stride: float, boxes: Tensor, index: Tensor, batch: int, valid: Tensor
    ) -> Tensor:
        """Return the DISW map of one level, B x 1 x h x w."""
        height, width = feature.shape[2:]
        return disw_map(
            boxes,
            index,
            batch,
            band_shape(height, width, self.settings.wavelet),
            (2 * stride, 2 * stride),
            band_origin(self.settings.wavelet, stride),
            self.settings.extent,
            valid,
        )


def score_mass(logits: Tensor) -> Tensor:
    """Return the normaliser of the implicit terms: the sum over the images of max(sum of the teacher's scores, 1).

    The published code divides by the number of positives, which weighs like a sum of scores there, its targets being
    0 or 1. The task-aligned assigner takes some ten positives an object with soft scores, and none where an image has
    no object: divided by positives, batches without objects sent 25 times the gradient of others into the neck
    (HIT-UAV, 320 px, a YOLOv8s teacher); divided by this sum the ratio of the terms was 1.2.

    Args:
        logits (Tensor): The teacher's class logits, B x anchors x classes.

    Returns:
        (Tensor): Scalar, at least B.
    """
    return logits.sigmoid().sum((1, 2)).clamp(min=1).sum()


def _implicit(head: Detect, inputs: list[Tensor], answer: tuple[Tensor, Tensor], mass: Tensor) -> Tensor:
    """Return class + box distillation of an amplifier's predictions on the student's features against its answer."""
    logits, boxes = logits_and_boxes(head, raw_predictions(head, inputs))
    wanted_logits, wanted_boxes = answer
    return implicit_class_loss(logits, wanted_logits, mass) + implicit_box_loss(
        boxes, wanted_boxes, wanted_logits, mass
    )
