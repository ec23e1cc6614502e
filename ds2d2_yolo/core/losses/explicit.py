"""Explicit stream of DS2D2 (arXiv 2512.04413): features are compared in the wavelet domain, weighted by DISW."""

from __future__ import annotations

import torch
from torch import Tensor

from ds2d2_yolo.core.checks import check_feature_map, check_same_shape
from ds2d2_yolo.core.haar.energy import HaarEnergy
from ds2d2_yolo.core.haar.fused import FusedHaarEnergy, can_fuse
from ds2d2_yolo.core.standardise import standardise
from ds2d2_yolo.core.wavelet import band_shape, dwt2, is_haar


def explicit_loss(
    student: Tensor,
    teacher: Tensor,
    weight: Tensor,
    wavelet: str = "haar",
    norm: str = "none",
    counted: Tensor | None = None,
    fused: bool = False,
) -> tuple[Tensor, Tensor]:
    """Return the low and the high term of the explicit stream for one level.

    With D = student - teacher, transformed once: ``low = mean(W LL(D)^2)``, and ``high`` is the mean over the three
    high bands of ``W {LH, HL, HH}(D)^2``. The terms of a model are the sums over its levels.

    Source: explicit distillation loss of DS2D2, arXiv 2512.04413, with W the DISW map. One option is not part of
    the published method (`standardise`). ``norm="standard"`` compares N(student) with N(teacher): N gives each channel
    a mean of 0 and a variance of 1 over batch and positions, with the statistics of the feature itself, and the
    gradient passes through those of the student.

    The computation runs in float32 with autocast off, or in float64 if an input is float64. Haar takes little
    memory (`haar.energy.HaarEnergy`) and is differentiable once; ``norm="standard"`` adds a copy of each feature.

    Args:
        student (torch.Tensor): Adapted student feature A S of shape (B, C, H, W).
        teacher (torch.Tensor): Teacher feature T of shape (B, C, H, W); gets no gradient.
        weight (torch.Tensor): Weight map of ``disw_map`` of shape (B, 1, h, w), with the (h, w) of
            ``wavelet.band_shape``.
        wavelet (str): Any name of ``pywt.wavelist(kind="discrete")``. The published code has Haar.
        norm (str): 'none', or 'standard', not part of the published method.
        counted (torch.Tensor, optional): Boolean mask (B,) of the images from which ``norm`` takes its
            statistics; default all. An image that is False must have a weight of 0.
        fused (bool): Whether one kernel computes Haar in each direction, where it can (`haar.fused`): on
            a GPU with Triton. The results are equal but for rounding.

    Returns:
        low (torch.Tensor): Scalar of the low band.
        high (torch.Tensor): Scalar of the three high bands.

    Raises:
        ValueError: If the shapes do not fit together, the batch is empty, or ``norm`` is unknown.
        TypeError: If the features are not floating point.

    Examples:
        >>> student, teacher = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]), torch.zeros(1, 1, 2, 2)
        >>> low, high = explicit_loss(student, teacher, torch.ones(1, 1, 1, 1))
        >>> low.item(), round(high.item(), 4)
        (25.0, 1.6667)
    """
    check_same_shape(student, teacher, "features")
    check_feature_map(student)
    if not student.numel():
        raise ValueError(f"features need at least one image and one channel, got {tuple(student.shape)}")
    expected = (student.shape[0], 1, *band_shape(student.shape[2], student.shape[3], wavelet))
    if weight.shape != expected:
        raise ValueError(f"weight must be {expected} for these features and {wavelet}, got {tuple(weight.shape)}")
    if norm not in ("none", "standard"):
        raise ValueError(f"norm must be 'none' or 'standard', got {norm!r}")
    teacher, weight = teacher.detach(), weight.detach()
    if not torch.is_grad_enabled():  # an autograd function would prepare for the gradient of a leaf even so
        student = student.detach()
    dtype = torch.promote_types(torch.promote_types(student.dtype, teacher.dtype), torch.float32)
    with torch.autocast(student.device.type, enabled=False):
        if norm == "standard":
            student, teacher = (standardise(x.to(dtype), counted) for x in (student, teacher))
        if is_haar(wavelet) and not torch.compiler.is_compiling():
            weight = weight.to(dtype)
            energy = FusedHaarEnergy if fused and can_fuse(student, teacher, weight) else HaarEnergy
            return energy.apply(student, teacher, weight)  # type: ignore[no-any-return]
        low, high = dwt2(student.to(dtype) - teacher.to(dtype), wavelet)
        weight = weight.to(dtype)
        return (weight * low.square()).mean(), (weight.unsqueeze(2) * high.square()).mean()
