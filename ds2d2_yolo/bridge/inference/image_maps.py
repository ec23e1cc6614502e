"""The maps of one image: weights, band energies, and the deviations that the amplifiers make of feature differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ds2d2_yolo.bridge.distillation.distiller import Distiller
from ds2d2_yolo.bridge.distillation.targets import Targets
from ds2d2_yolo.bridge.distillation.weighting import teacher_score_sum, weight_maps
from ds2d2_yolo.bridge.models.heads import logits_and_boxes, raw_predictions
from ds2d2_yolo.core import dwt2, implicit_box_loss, implicit_class_loss
from ds2d2_yolo.core.wavelet import band_origin
from ds2d2_yolo.explanation.facts import AmplifierMaps, BandMaps, LevelMaps, Map


@dataclass(frozen=True)
class FeaturePair:
    """Features of one image, finest level first.

    Attributes:
        adapted (list[Tensor]): A S of each level, 1 x Ct x H x W.
        teacher (list[Tensor]): T of each level, of the same shapes.
    """

    adapted: list[Tensor]
    teacher: list[Tensor]

    @property
    def finite(self) -> bool:
        """(bool): Whether all values are finite."""
        return all(bool(x.isfinite().all()) for x in (*self.adapted, *self.teacher))

    @classmethod
    def of(cls, distiller: Distiller, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> FeaturePair:
        """Adapt the student's features of an image.

        Args:
            distiller (Distiller): With the adapters.
            student (Sequence[Tensor]): S of each level, 1 x Cs x H x W.
            teacher (Sequence[Tensor]): T of each level, 1 x Ct x H x W.

        Returns:
            (FeaturePair): In float32.
        """
        weights = [w.detach() for w in distiller.adapters.parameters()]
        adapted = [F.conv2d(s.float(), weight) for s, weight in zip(student, weights, strict=True)]
        return cls(adapted, [t.float() for t in teacher])


@torch.no_grad()
def level_maps(distiller: Distiller, pair: FeaturePair, targets: Targets) -> tuple[LevelMaps, ...]:
    """Return weights and band energies of each level of an image.

    Args:
        distiller (Distiller): With wavelet and strides.
        pair (FeaturePair): Features of the image.
        targets (Targets): Ground truth of the image.

    Returns:
        (tuple[LevelMaps, ...]): Finest first.
    """
    wavelet, levels = distiller.settings.wavelet, []
    weights = weight_maps(distiller.settings, pair.adapted, distiller.strides, targets, None)
    for adapted, teacher, weight, stride in zip(pair.adapted, pair.teacher, weights, distiller.strides, strict=True):
        energies = [_band_energies(x, wavelet) for x in (teacher, adapted, adapted - teacher)]
        low, high = (
            BandMaps(_array(of_teacher), _array(of_student), _array(weight[0, 0] * error))
            for of_teacher, of_student, error in zip(*energies, strict=True)
        )
        levels.append(LevelMaps(int(stride), band_origin(wavelet, stride), _array(weight[0, 0]), low, high))
    return tuple(levels)


@torch.no_grad()
def amplifier_maps(
    distiller: Distiller, pair: FeaturePair, objects: NDArray[np.float64]
) -> tuple[dict[str, AmplifierMaps], dict[str, tuple[float, ...]]]:
    """Return what the amplifiers make of the feature differences of an image.

    Args:
        distiller (Distiller): With the amplifiers.
        pair (FeaturePair): Features of the image.
        objects (NDArray[np.float64]): Corners of the labelled objects, N x 4 x 2, in pixels of the input.

    Returns:
        maps (dict[str, AmplifierMaps]): By term, of the level with the largest part of the term.
        values (dict[str, tuple[float, ...]]): Parts of each term by level; their sum is the term at gain 1.
    """
    maps, values = {}, {}
    columns = distiller.teacher_columns
    head = distiller.teacher.head
    reference = _predictions(head, pair.teacher, columns)
    score_sum = teacher_score_sum(reference[0])
    inputs: dict[str, tuple[Any, list[Tensor], list[Tensor]]] = {"imfu": (head, pair.adapted, pair.teacher)}
    if distiller.amplifier is not None:
        high = distiller.amplifier.inputs
        inputs["imhi"] = distiller.amplifier.head, high(pair.adapted), high(pair.teacher)
    for term, (amplifier, student, teacher) in inputs.items():
        teacher_predictions = reference if term == "imfu" else _predictions(amplifier, teacher, columns)
        student_predictions = _predictions(amplifier, student, columns)
        values[term] = _level_values(
            student_predictions, teacher_predictions, [t.shape[2] * t.shape[3] for t in teacher], score_sum
        )
        level = int(np.argmax(values[term]))
        stride = int(distiller.strides[level])
        scores = _level_scores(student_predictions[0], teacher_predictions[0], teacher)[level]
        difference = (student[level] - teacher[level]).norm(dim=1)[0] / teacher[level].norm(dim=1).mean()
        centres = _cells_in_boxes(scores.shape, stride, objects)
        maps[term] = AmplifierMaps(stride, _array(difference), _array(scores), centres)
    return maps, values


def explicit_values(levels: Sequence[LevelMaps]) -> dict[str, tuple[float, ...]]:
    """Return the parts of the explicit terms by level.

    Args:
        levels (Sequence[LevelMaps]): Levels of an image.

    Returns:
        (dict[str, tuple[float, ...]]): 'exlo' and 'exhi'; the sum of each is the term at gain 1.
    """
    return {
        "exlo": tuple(float(level.low.weighted_error.mean(dtype=np.float64)) for level in levels),
        "exhi": tuple(float(level.high.weighted_error.mean(dtype=np.float64)) for level in levels),
    }


def _band_energies(x: Tensor, wavelet: str) -> tuple[Tensor, Tensor]:
    """Return the energies of the low band and of the high bands at each cell, h x w, as means over channels."""
    low, high = dwt2(x, wavelet)
    return low.square().mean(1)[0], high.square().mean((1, 2))[0]


def _predictions(head: Any, features: list[Tensor], columns: list[int] | None) -> tuple[Tensor, Tensor]:
    """Return logits of the compared classes and boxes that a head predicts from features."""
    logits, boxes = logits_and_boxes(head, raw_predictions(head, features))
    return (logits if columns is None else logits[..., columns]), boxes


def _level_values(
    student_predictions: tuple[Tensor, Tensor],
    teacher_predictions: tuple[Tensor, Tensor],
    cells: list[int],
    score_sum: Tensor,
) -> tuple[float, ...]:
    """Return the part of an implicit term of each level, class + box; all parts have the normaliser of the image."""
    parts = []
    for logits, boxes, teacher_logits, teacher_boxes in zip(
        *(torch.split(x, cells, 1) for x in (*student_predictions, *teacher_predictions)), strict=True
    ):
        class_loss = implicit_class_loss(logits, teacher_logits, score_sum)
        parts.append(float(class_loss + implicit_box_loss(boxes, teacher_boxes, teacher_logits, score_sum)))
    return tuple(parts)


def _level_scores(logits: Tensor, teacher_logits: Tensor, features: list[Tensor]) -> list[Tensor]:
    """Return the largest difference of a class score at each cell of each level, H x W."""
    difference = (logits.sigmoid() - teacher_logits.sigmoid()).abs().amax(2)[0]
    sizes = [(f.shape[2], f.shape[3]) for f in features]
    parts = torch.split(difference, [h * w for h, w in sizes])
    return [part.reshape(size) for part, size in zip(parts, sizes, strict=True)]


def _cells_in_boxes(size: Sequence[int], stride: int, corners: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return whether the centre of each cell lies in one of some convex boxes with corners in order, H x W."""
    y, x = (stride * (np.arange(n) + 0.5) for n in size)
    inside = np.zeros((len(y), len(x)), dtype=bool)
    for box in corners:
        sides = np.roll(box, -1, 0) - box
        turns = sides[:, 0, None, None] * (y[:, None] - box[:, 1, None, None]) - sides[:, 1, None, None] * (
            x[None, :] - box[:, 0, None, None]
        )
        inside |= (turns >= 0).all(0) | (turns <= 0).all(0)
    return inside


def _array(x: Tensor) -> Map:
    """Return a tensor as a float32 array."""
    array: Map = x.detach().float().cpu().numpy()
    return array
